"""What a measure of similarity between two representations declares about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from isogon import registry
from isogon.errors import OptionError
from isogon.specs import Spec, parse

Kind = Literal["moments", "samples", "hsic", "outputs"]
Maps = Literal["flatten", "positions", "mean"]


@dataclass(frozen=True)
class Inner:
    """How a metric follows from inner products of n x n matrices, one of each side.

    Attributes:
        matrix: ``matrix(state) -> [n, n]``; where ``ones``, matrices of zeros and ones, of which
            ``matrix(state) -> [n, k]`` says where the ones of each row lie.
        value: ``value(products, state_x, state_y)``, for an array of inner products.
        symmetric: Whether the matrices are.
        ones: Whether they are given by the columns of their ones.
    """

    matrix: Callable[[Any], Any]
    value: Callable[[Any, Any, Any], Any]
    symmetric: bool = True
    ones: bool = False


@dataclass(frozen=True, eq=False)
class Metric:
    """A number for two representations x and y of the same samples.

    Attributes:
        name: The canonical spec.
        kind: What it is computed from: second ``moments`` (any number of samples, in one pass),
            all pairs of ``samples``, ``hsic`` (all representations at once, see `hsic`), or the
            ``outputs`` of two models.
        site: ``site(view) -> state``: what concerns one representation alone, once.
        pair: ``pair(state_x, state_y, cross) -> float``; ``cross`` is `moments.CrossView` for
            moments, None otherwise.
        closer: Which way is closer.
        bounds: Least and greatest value.
        identical: The value of a representation with itself.
        invariant: What may be done to either representation without changing the value:
            ``permutation`` and ``orthogonal`` maps of channels (``G_relu``: permutation and
            positive scales, ``invertible``: all), a common ``scale``, ``translation``.
        maps: How an activation becomes a matrix where nothing is said.
        centred: Whether a constant representation leaves it undefined (NaN).
        inner: Inner products that it follows from, if it does: then permutations are cheap.
        moved: ``moved(state, order)``: the state of samples in another order, sample ``order[i]``
            in place of i; none of those of moments.
    """

    name: str
    kind: Kind
    site: Callable[[Any], Any]
    pair: Callable[[Any, Any, Any], float]
    closer: Literal["higher", "lower"] = "higher"
    bounds: tuple[float, float] = (0.0, 1.0)
    identical: float = 1.0
    invariant: tuple[str, ...] = ("permutation", "orthogonal", "scale", "translation")
    maps: Maps = "positions"
    centred: bool = True
    inner: Inner | None = None
    moved: Callable[[Any, Any], Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def better(self, a: float, b: float) -> bool:
        """Whether value ``a`` says closer than ``b``."""
        return a > b if self.closer == "higher" else a < b


def metric(spec: str | Spec | Metric, *, modulo: str | None = None) -> Metric:
    """The metric that a spec names.

    Args:
        spec: ``cka``, ``cka(kernel=rbf)``, ``procrustes(modulo=G_relu)``, ...
        modulo: Group of ``procrustes``, where its spec does not say.

    Raises:
        SpecError: No such metric, or wrong arguments.
        OptionError: A group given to a metric that takes none.
    """
    if isinstance(spec, Metric):
        return spec
    spec = parse(spec)
    if modulo is not None:
        if spec.name != "procrustes":
            raise OptionError(
                f"{spec.name} is not taken modulo a group",
                got=f"modulo={modulo}",
                expected="metric=procrustes, or no modulo",
                fix="`isogon list metrics` says what each is invariant to.",
            )
        if "modulo" not in spec.kwargs and not spec.args:
            spec = Spec(spec.name, spec.args, {**spec.kwargs, "modulo": modulo})
    found = registry.build("metric", spec)
    object.__setattr__(found, "name", str(spec))
    return found


def metrics(given: str | tuple[str, ...], *, modulo: str | None = None) -> list[Metric]:
    """One or several metrics; ``modulo`` goes to those that take it."""
    many = (given,) if isinstance(given, str | Spec | Metric) else tuple(given)
    if not many:
        raise OptionError("no metric", got="()", expected="e.g. metric=cka")
    takes = [m for m in many if not isinstance(m, Metric) and parse(m).name == "procrustes"]
    if modulo is not None and not takes:
        return [metric(many[0], modulo=modulo)]  # says what is wrong
    return [metric(m, modulo=modulo if m in takes else None) for m in many]


def bounded(value: int | float, name: str, low: float, high: float) -> None:
    """Refuse an option outside its domain.

    Raises:
        OptionError: It is.
    """
    if not low <= value <= high:
        raise OptionError(f"{name} out of range", got=value, expected=f"{low:g} to {high:g}")

"""Sensible specs for the inputs that a survey was not given.

A noun of another package brings its own with ``register("noun", name, default=...)``: a spec,
or a function of the `Subject` that returns one (or None, where there is none).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from isogon import registry
from isogon.errors import IsogonError
from isogon.specs import Spec, parse
from isogon.survey.declare import Declaration, Input


@dataclass(frozen=True)
class Subject:
    """What is surveyed.

    Attributes:
        model: Canonical spec of the model.
        batches: Canonical spec of the data.
        module: The model itself.
        data: The batches themselves.
    """

    model: str
    batches: str
    module: Any
    data: Any

    @property
    def images(self) -> bool:
        """Whether a sample is a picture [C, H, W]."""
        shape = getattr(self.data.samples, "shape", ())
        return len(shape) == 3

    def sample(self, index: int) -> str:
        """The spec of one sample."""
        spec = parse(self.batches)
        return str(Spec(spec.name, spec.args, spec.kwargs, spec.module, spec.path, index))

    def limited(self, count: int) -> str:
        """The spec of the first samples."""
        spec = parse(self.batches)
        if spec.name is None or spec.module or len(spec.args) > 1 or "limit" in spec.kwargs:
            return self.batches
        split = spec.args[:1] or ((spec.kwargs["split"],) if "split" in spec.kwargs else ("test",))
        rest = {k: v for k, v in spec.kwargs.items() if k != "split"}
        return str(Spec(spec.name, (*split, count), rest))


class NotSupplied(Exception):
    """An input for which a survey has nothing; the message says why."""


def supply(declaration: Declaration, subject: Subject) -> dict[str, str]:
    """Specs for the inputs that a measure requires, and for those it has a good default for.

    Raises:
        NotSupplied: A required input can't be supplied.
    """
    found: dict[str, str] = {}
    overrides = declaration.extra.get("survey")
    overrides = overrides if isinstance(overrides, dict) else {}
    for wanted in declaration.inputs:
        if wanted.name in overrides:
            found[wanted.name] = overrides[wanted.name]
            continue
        if not wanted.required:
            continue
        spec = _spec(wanted, subject)
        if spec is None:
            raise NotSupplied(f"needs --{wanted.name.replace('_', '-')} (a {wanted.noun})")
        found[wanted.name] = spec
    return found


def options(declaration: Declaration) -> dict[str, Any]:
    """Options that the measure wants in surveys instead of its defaults."""
    overrides = declaration.extra.get("survey")
    if not isinstance(overrides, dict):
        return {}
    return {k: v for k, v in overrides.items() if declaration.option(k)}


def _spec(wanted: Input, subject: Subject) -> str | None:
    default = registry.get("noun", wanted.noun).extra.get("default")
    if isinstance(default, str):
        return default
    provider = default or DEFAULTS.get(wanted.noun)
    if provider is None:
        return None
    if wanted.noun == "Batches" and wanted.name == "train":
        return _train(subject)
    return provider(subject)


def _train(subject: Subject) -> str:
    """The data's training split, where it has one."""
    spec = parse(subject.batches)
    kwargs = {k: "train" if k == "split" and v == "test" else v for k, v in spec.kwargs.items()}
    args = tuple("train" if a == "test" else a for a in spec.args)
    return str(Spec(spec.name, args, kwargs, spec.module, spec.path, spec.index))


def _family(subject: Subject) -> str:
    if not subject.images:
        raise NotSupplied("needs images [C, H, W] to transform")
    return "rotations(16)"


def _slice(subject: Subject) -> str:
    """The plane through the first samples of three different classes."""
    seen: dict[Any, int] = {}
    index = 0
    for _, labels in subject.data:
        for label in labels.tolist():
            seen.setdefault(label, index)
            index += 1
            if len(seen) == 3:
                return f"through({', '.join(subject.sample(i) for i in seen.values())})"
    if index < 3:
        raise NotSupplied("needs three samples for a plane through them")
    chosen = list(seen.values())
    chosen += [i for i in range(index) if i not in chosen][: 3 - len(chosen)]
    return f"through({', '.join(subject.sample(i) for i in chosen)})"


DEFAULTS: dict[str, Callable[[Subject], str | None]] = {
    "Module": lambda subject: subject.model,
    "Batches": lambda subject: subject.batches,
    "Points": lambda subject: subject.limited(16),
    "Family": _family,
    "Slice": _slice,
}


def reason(error: IsogonError) -> str:
    """Why a measure does not apply, for a table."""
    return str(error)

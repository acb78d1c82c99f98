"""The registry: what has a name in isogon, who builds it, and how it is found.

Kinds: ``arch``, ``model`` (heads that give a trained model), ``dataset``, ``family``,
``group``, ``slice``, ``metric``, ``stitch``, ``concepts`` (labelled images), ``measure``,
``lowers`` (op rules), ``draws`` (figures), ``finds`` (findings), ``embeds`` (what notebooks
show), ``noun`` (what a measure may ask for), ``reading`` (result types), ``experiment``.
A separate package adds to any of them through the entry-point group ``isogon.KIND`` (name =
registered name, value = ``module:object``); the module's decorator does the registration.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from isogon import context as surroundings
from isogon import hints
from isogon.errors import DependencyError, IsogonError, SpecError, nearest, unknown
from isogon.specs import Spec

F = TypeVar("F", bound=Callable[..., Any])

# Where the built-in entries of each kind live; imported on the first look-up of that kind.
HOMES: dict[str, tuple[str, ...]] = {
    "arch": ("isogon.nets.arch",),
    "model": ("isogon.training.trained", "isogon.nets.wrapped"),
    "dataset": ("isogon.data", "isogon.training.data_of"),
    "family": ("isogon.actions",),
    "group": ("isogon.actions",),
    "slice": ("isogon.measures.partition.specs",),
    "metric": ("isogon.measures.alignment.metrics",),
    "stitch": ("isogon.measures.stitching.methods",),
    "concepts": ("isogon.measures.dissection.sets", "isogon.measures.dissection.broden"),
    "measure": ("isogon.measures",),
    "lowers": ("isogon.cpwl.rules",),
    "draws": ("isogon.show",),
    "page": ("isogon.show",),
    "finds": ("isogon.findings",),
    "embeds": ("isogon.show.notebook", "isogon.survey.pages.notebook"),
    "noun": ("isogon.nets.load", "isogon.data", "isogon.actions", "isogon.measures"),
    "reading": ("isogon.readings", "isogon.measures"),
    "experiment": ("isogon.survey.experiments.walks", "isogon.survey.experiments.evolution"),
}


@dataclass(frozen=True)
class Entry:
    """A registered name: its builder, the first line of its docstring and its extras."""

    kind: str
    name: str
    build: Callable[..., Any]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """First line of the builder's docstring."""
        return (inspect.getdoc(self.build) or "").split("\n")[0]


_entries: dict[str, dict[str, Entry]] = {kind: {} for kind in HOMES}


def register(kind: str, name: str | None = None, **extra: Any) -> Callable[[F], F]:
    """Decorator: make a callable known as ``name`` (default: its own) among ``kind``."""

    def decorate(build: F) -> F:
        key = name or getattr(build, "__name__", str(build))
        held = _entries[kind].get(key)
        if held is not None and _origin(held.build) != _origin(build):
            raise SpecError(
                f"{kind} {key!r} is registered twice",
                got=_origin(build),
                expected=f"the one from {_origin(held.build)}",
                fix="Give the new one another name.",
            )
        _entries[kind][key] = Entry(kind, key, build, extra)
        return build

    return decorate


def arch(name: str | None = None, **extra: Any) -> Callable[[F], F]:
    """Register an architecture: a function of literals that returns a fresh module."""
    return register("arch", name, **extra)


def dataset(name: str | None = None, **extra: Any) -> Callable[[F], F]:
    """Register a data set: a function of a split and literals that returns `Samples`."""
    return register("dataset", name, **extra)


def family(name: str | None = None, **extra: Any) -> Callable[[F], F]:
    """Register a family of transformations."""
    return register("family", name, **extra)


def group(name: str | None = None, **extra: Any) -> Callable[[F], F]:
    """Register a group acting on channels."""
    return register("group", name, **extra)


def lowers(*targets: str) -> Callable[[F], F]:
    """Register the lowering rule of one or more ATen ops (``"aten.relu.default"``)."""

    def decorate(rule: F) -> F:
        for target in targets:
            register("lowers", target)(rule)
        return rule

    return decorate


def draws(measure_name: str, **extra: Any) -> Callable[[F], F]:
    """Register the figure of a measure's reading (``draw(reading, **options) -> Figure``).

    ``together=function`` draws several readings in one figure, from a sequence of
    `isogon.show.panel.Panel`; without it the kind of reading says how, see `isogon.show.runs`.
    """
    return register("draws", measure_name, **extra)


def finds(measure_name: str, **extra: Any) -> Callable[[F], F]:
    """Register what a measure's reading says (``finds(reading, names) -> list[Finding]``).

    ``numbers=function`` gives the headline numbers of a reading (`isogon.findings.Number`), which
    tables over seeds show; ``differs=function`` what tells two networks apart, from a reading of
    each (``differs(a, b, names)``), where the differences of these numbers don't say it all.
    """
    return register("finds", measure_name, **extra)


def measure(
    *, cite: str | tuple[str, ...] = (), name: str | None = None, **extra: Any
) -> Callable[[F], F]:
    """Register a measure; its signature is its declaration.

    Args:
        cite: Keys of the bibliography (``docs/references.bib``) that define the measure.
        name: Registered name; the function's own by default.
        **extra: Further facts, e.g. ``survey=False`` (not run by `isogon survey`), or
            ``cost=3.0`` (order in which the survey tries measures; lower runs first), or
            ``shards=True``: all that it reads of its data are passes of mergeable watchers, so that
            a sweep may share one measurement out over jobs (not with the options in ``whole``);
            ``joins=True``: its first pass may be run with those of others, in a survey;
            ``typed={"radius": 0.05}``: what the example in its help types besides its required
            inputs, or instead of what their nouns type.
    """
    keys = (cite,) if isinstance(cite, str) else tuple(cite)
    return register("measure", name, cite=keys, **extra)


# --------------------------------------------------------------------------- look-up


def known(kind: str) -> dict[str, Entry]:
    """The entries of a kind that are registered so far; imports nothing."""
    return dict(_entries[kind])


def points(kind: str) -> dict[str, EntryPoint]:
    """The entry points of other packages for a kind; imports none of them."""
    return dict(_entry_points(kind))


def names(kind: str) -> list[str]:
    """All names of a kind, sorted; entry points are listed without being imported."""
    _discover(kind)
    return sorted(set(_entries[kind]) | set(_entry_points(kind)))


def get(kind: str, name: str) -> Entry:
    """The entry called ``name``.

    Raises:
        SpecError: No such name (the message lists what exists and the nearest match).
    """
    if name not in _entries[kind]:
        points = _entry_points(kind)
        if name in points:
            _load_point(kind, points[name])
        else:
            _discover(kind)
    if name not in _entries[kind]:
        raise unknown(kind, name, names(kind))
    return _entries[kind][name]


def entries(kind: str) -> Iterator[Entry]:
    """All entries of a kind, in the order of their names."""
    for name in names(kind):
        yield get(kind, name)


def has(kind: str, name: str) -> bool:
    """Whether ``name`` is registered among ``kind``."""
    return name in _entries[kind] or name in names(kind)


def is_own(kind: str, name: str) -> bool:
    """Whether isogon itself brings ``name``; no other package is imported to find out."""
    if name not in _entries[kind]:
        _discover(kind)
    held = _entries[kind].get(name)
    return held is not None and (held.build.__module__ or "").startswith("isogon.")


def build(kind: str, spec: str | Spec, **context: Any) -> Any:
    """Call the builder that a spec names, after checking the arguments against its signature.

    Args:
        kind: The kind that the spec's name is looked up in.
        spec: Text or parsed spec.
        **context: Arguments that the caller supplies (not part of the spec); passed on where
            the builder has a parameter of that name.

    Raises:
        SpecError: Unknown name or argument, or a value of the wrong type.
    """
    from isogon.specs import parse

    spec = parse(spec)
    if spec.name is None:
        raise SpecError(f"a file can't name a {kind}", got=str(spec), expected=f"a {kind}'s name")
    if spec.module is not None:
        return call(import_object(spec), spec, what=f"{spec.module}:{spec.name}", **context)
    if not surroundings.may_name(kind):
        surroundings.typed_only(f"build a {kind}", spec)
    if surroundings.brought_by() is not None and not is_own(kind, spec.name):
        surroundings.typed_only("run code of another package", spec)
    entry = get(kind, spec.name)
    return call(entry.build, spec, what=f"{kind} {spec.name}", **context)


def call(builder: Callable[..., Any], spec: Spec, *, what: str, **context: Any) -> Any:
    """Call ``builder`` with a spec's arguments; wrong ones are refused by name."""
    signature = inspect.signature(builder)
    parameters = signature.parameters
    kwargs = dict(spec.kwargs)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in kwargs:
        if key not in parameters and not open_ended:
            close = nearest(key, parameters)
            raise SpecError(
                f"{what} has no argument {key!r}",
                got=str(spec),
                expected=f"{what}{_shown(signature)}",
                fix=f"Did you mean {close[0]!r}?" if close else None,
            )
    extra = {k: v for k, v in context.items() if k in parameters and k not in kwargs}
    try:
        bound = signature.bind(*spec.args, **kwargs, **extra)
    except TypeError as error:
        raise SpecError(
            f"{what}: {error}", got=str(spec), expected=f"{what}{_shown(signature)}"
        ) from None
    wanted = hints.of(builder)
    for key, value in bound.arguments.items():
        if isinstance(value, dict):
            for inner, held in value.items():
                surroundings.check_numbers(inner, held, spec)
        else:
            surroundings.check_numbers(key, value, spec)
        if (
            key in wanted
            and key not in extra
            and parameters[key].kind is not inspect.Parameter.VAR_KEYWORD
        ):
            values = value if parameters[key].kind is inspect.Parameter.VAR_POSITIONAL else (value,)
            for v in values:
                if not hints.fits(v, wanted[key]):
                    raise SpecError(
                        f"{what}: wrong value for {key!r}",
                        got=repr(v) if not isinstance(v, Spec) else str(v),
                        expected=hints.shown(wanted[key]),
                        fix=f"Usage: {what}{_shown(signature)}.",
                    )
    return builder(*bound.args, **bound.kwargs)


@contextmanager
def importable_cwd() -> Iterator[None]:
    """The working directory on the import path, last: it can't hide an installed package."""
    cwd = os.getcwd()
    added = cwd not in sys.path and "" not in sys.path
    if added:
        sys.path.append(cwd)
    try:
        yield
    finally:
        if added and cwd in sys.path:
            sys.path.remove(cwd)


def import_object(spec: Spec) -> Callable[..., Any]:
    """The callable behind ``module:name``; importing runs the user's code.

    The working directory counts as importable; what has changed on disk is imported again.
    """
    from isogon.storage import modules

    assert spec.module is not None
    assert spec.name is not None
    surroundings.typed_only("import code", spec)
    try:
        with importable_cwd():
            module = modules.imported(spec.module)
    except ModuleNotFoundError as error:
        raise SpecError(
            f"no module {error.name!r}",
            got=str(spec),
            expected="an importable module",
            fix="Run from the folder that holds it, or set PYTHONPATH.",
        ) from None
    found = getattr(module, spec.name, None)
    if not callable(found):
        raise SpecError(
            f"module {spec.module!r} has no callable {spec.name!r}",
            got=str(spec),
            expected=", ".join(nearest(spec.name, [n for n in dir(module) if n[0] != "_"]))
            or "a function that returns the object",
        )
    return found


def signature(entry: Entry) -> str:
    """How an entry is written as a spec: its name and arguments with their defaults."""
    return entry.name + _shown(inspect.signature(entry.build))


def clear_discovery() -> None:
    """Forget which entry points and homes were read (after a package was installed)."""
    _entry_points.cache_clear()
    _discover.cache_clear()


# --------------------------------------------------------------------------- internals


@cache
def _discover(kind: str) -> None:
    for home in HOMES[kind]:
        try:
            package = importlib.import_module(home)
        except ModuleNotFoundError as error:
            if error.name and (home == error.name or home.startswith(error.name + ".")):
                continue
            raise
        for info in pkgutil.walk_packages(getattr(package, "__path__", []), f"{home}."):
            importlib.import_module(info.name)


@cache
def _entry_points(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"isogon.{kind}")}


def _load_point(kind: str, point: EntryPoint) -> None:
    try:
        found = point.load()
    except IsogonError:
        raise
    except Exception as error:
        raise DependencyError(
            f"{kind} {point.name!r} of another package can't be imported ({error})",
            got=point.value,
            expected="an importable module:object",
            fix="Update or uninstall that package.",
        ) from error
    if point.name not in _entries[kind]:
        register(kind, point.name)(found)


def _origin(build: Callable[..., Any]) -> str:
    return f"{getattr(build, '__module__', '?')}.{getattr(build, '__qualname__', build)}"


def _shown(signature: inspect.Signature) -> str:
    """A signature as a spec would be typed: no annotations, no `*`."""
    parts = []
    for p in signature.parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            parts.append("...")
        else:
            default = p.default if isinstance(p.default, Spec) else repr(p.default)
            parts.append(p.name if p.default is p.empty else f"{p.name}={default}")
    return f"({', '.join(parts)})"

"""Sensible specs for the inputs that a survey was not given.

A measure overrides them with ``@measure(survey={"start": "@class:0", "steps": 300})``, where
``@class:0`` is the first sample of the first class that appears, ``@initial`` the model before
training, ``@twin`` the same training from the next seed, ``@snapshots`` its states during training,
``@around`` a plane around a sample, ``@batches`` and ``@train`` the first samples of the data
surveyed and of the data trained on, ``@norms`` the latter for networks with batch-norm. A noun
brings its own with ``register("noun", name, default=...)``: a spec, one of these names, or a
function of the `Subject` that returns a spec (or None, where there is none).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from isogon import registry
from isogon.data import derived
from isogon.errors import IsogonError
from isogon.measures.partition.crossings import first_crossing
from isogon.specs import Spec, parse
from isogon.survey.declaring.declare import Declaration, Input
from isogon.training.data_of import data_spec

if TYPE_CHECKING:
    from isogon.data.batches import Batches


SAMPLES = 2000  # what accuracy is read from, where a measure needs it many times
REGIONS = 12_000  # linear regions in the picture of a survey: seconds to find and to draw


@dataclass(frozen=True)
class Subject:
    """What is surveyed.

    Attributes:
        model: Canonical spec of the model.
        batches: Canonical spec of the data.
        module: The model itself.
        data: The batches themselves.
        train: Spec of the data to fit on, where it was given.
    """

    model: str
    batches: str
    module: nn.Module
    data: Batches
    train: str | None = None

    @property
    def images(self) -> bool:
        """Whether a sample is a picture [C, H, W]."""
        shape = getattr(self.data.samples, "shape", ())
        return len(shape) == 3

    def sample(self, index: int) -> Spec:
        """The spec of one sample."""
        spec = parse(self.batches)
        return spec if spec.index is not None else replace(spec, index=index)

    def limited(self, count: int, of: str | Spec | None = None) -> str:
        """The spec of the first samples, of these data or of others."""
        return str(derived.limited(of or self.batches, count))


class NotSupplied(Exception):
    """An input for which a survey has nothing; the message says why."""


def supply(
    declaration: Declaration, subject: Subject, given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Specs for the inputs that a measure requires, and for those it has a good default for.

    Args:
        declaration: Of the measure.
        subject: What is surveyed.
        given: Inputs that are known.

    Raises:
        NotSupplied: A required input can't be supplied.
    """
    found: dict[str, str] = {}
    overrides = declaration.extra.get("survey")
    overrides = overrides if isinstance(overrides, dict) else {}
    for wanted in declaration.inputs:
        if given and wanted.name in given:
            found[wanted.name] = given[wanted.name]
            continue
        if wanted.name in overrides:
            spec = _named(overrides[wanted.name], subject)
            if spec is not None or wanted.required:
                found[wanted.name] = spec or _missing(wanted)
            continue
        if not wanted.required:
            continue
        spec = _spec(wanted, subject)
        found[wanted.name] = spec or _missing(wanted)
    return found


def options(declaration: Declaration) -> dict[str, Any]:
    """Options that the measure wants in surveys instead of its defaults."""
    overrides = declaration.extra.get("survey")
    if not isinstance(overrides, dict):
        return {}
    return {k: v for k, v in overrides.items() if declaration.option(k)}


def _missing(wanted: Input) -> str:
    if wanted.noun == "Batches":
        why = "the data have no split to train on, and none was given"
        raise NotSupplied(f"needs --{wanted.name.replace('_', '-')}: {why}")
    if "model" in registry.get("noun", wanted.noun).extra.get("kinds", ()):
        why = "the model's spec does not tell its training"
        raise NotSupplied(f"needs --{wanted.name.replace('_', '-')} (a {wanted.noun}): {why}")
    raise NotSupplied(f"needs --{wanted.name.replace('_', '-')} (a {wanted.noun})")


def _initial(subject: Subject) -> str | None:
    """The weights that training started from, where the model's spec tells them."""
    spec = parse(subject.model)
    if spec.name != "trained" or spec.module is not None:
        return None
    return str(Spec(spec.name, spec.args, {**spec.kwargs, "epochs": 0}))


def _twin(subject: Subject) -> str | None:
    """The same training from the next seed, where the model's spec tells it."""
    spec = parse(subject.model)
    if spec.name != "trained" or spec.module is not None:
        return None
    seed = spec.kwargs.get("seed", 0)
    if not isinstance(seed, int):
        return None
    return str(Spec(spec.name, spec.args, {**spec.kwargs, "seed": seed + 1}))


def _named(text: str, subject: Subject) -> str | None:
    """A spec, or what an ``@name`` stands for (see the module)."""
    if text in NAMED:
        return NAMED[text](subject)
    if not text.startswith("@class:"):
        return text
    index, chosen = int(text.removeprefix("@class:")), _classes(subject)
    if index >= len(chosen):
        raise NotSupplied(f"needs samples of {index + 1} different classes")
    return str(subject.sample(chosen[index]))


def _classes(subject: Subject, enough: int = 3) -> list[int]:
    """The index of the first sample of each class, in the order in which they appear."""
    seen: dict[Any, int] = {}
    index = 0
    for _, labels in subject.data:
        for label in labels.tolist():
            seen.setdefault(label, index)
            index += 1
            if len(seen) == enough:
                return list(seen.values())
    return list(seen.values())


def _spec(wanted: Input, subject: Subject) -> str | None:
    default = registry.get("noun", wanted.noun).extra.get("default")
    if wanted.noun == "Batches" and wanted.name == "train":
        return _train(subject)
    if default is None or isinstance(default, str):
        return default and _named(default, subject)
    return default(subject)


def _snapshots(subject: Subject) -> str | None:
    """The states that a training run left on its way; else where it started from."""
    spec = parse(subject.model)
    if spec.name == "trained" and "snapshot_" in " ".join(spec.kwargs):
        return subject.model
    if spec.path is not None and (Path(spec.path).parent / "snapshots").is_dir():
        return str(Path(spec.path).parent)
    return _initial(subject)


def _learned(subject: Subject) -> str | None:
    """The first samples that the model was trained on, as far as its spec or the data tell."""
    if subject.train is not None:
        return subject.limited(SAMPLES, subject.train)
    spec = parse(subject.model)
    if spec.name == "trained" and spec.module is None:
        return subject.limited(SAMPLES, data_spec(spec, "train"))
    given = parse(_train(subject))
    known = given.module is None and given != parse(subject.batches)
    return subject.limited(SAMPLES, given) if known else None


def _norms(subject: Subject) -> str | None:
    """`_learned`, where there are statistics of batch-norm to take anew."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return (
        _learned(subject) if any(isinstance(m, kinds) for m in subject.module.modules()) else None
    )


def _train(subject: Subject) -> str:
    """The data's training split, where it has one."""
    if subject.train is not None:
        return subject.train
    if derived.split_of(subject.batches) not in ("test", "val"):
        return subject.batches
    return str(derived.with_split(subject.batches, "train"))


def _family(subject: Subject) -> str:
    if not subject.images:
        raise NotSupplied("needs images [C, H, W] to transform")
    return "rotations(16)"


def _slice(subject: Subject) -> str:
    """A plane through the first samples of three different classes.

    All of it where it holds few regions, else a square where the class changes between two of them.
    """
    chosen = _classes(subject)
    if subject.data.count < 3:
        raise NotSupplied("needs three samples for a plane through them")
    chosen += [i for i in range(6) if i not in chosen][: 3 - len(chosen)]
    anchors = tuple(subject.sample(i) for i in chosen)
    place = _crossing(subject, chosen)
    name, facts = ("anchors", {}) if place is None else ("between", {"at": place})
    radius = _radius(subject, chosen, anchors, name, facts)
    if radius is None:
        return str(Spec("through", anchors))
    return str(Spec(name, anchors, {**facts, "radius": float(f"{radius:.2g}")}))


def _crossing(subject: Subject, chosen: list[int]) -> float | None:
    """Where the class changes on the way from the first sample to the second, if it does."""
    if not registry.has("slice", "between"):
        return None
    a, b = (subject.data.samples[i][0] for i in chosen[:2])
    try:
        return first_crossing(subject.module, a, b)[0]
    except IsogonError:
        return None


def _around(subject: Subject) -> str | None:
    """A plane of random directions around one sample, so that there is a middle near the data."""
    chosen = _classes(subject)
    chosen += [i for i in range(6) if i not in chosen][: 3 - len(chosen)]
    if subject.data.count < 3:
        return _slice(subject)
    center = (subject.sample(chosen[0]),)
    radius = _radius(subject, chosen, center)
    if radius is None:
        return _slice(subject)
    return str(Spec("anchors", center, {"radius": float(f"{radius:.2g}")}))


def _radius(
    subject: Subject,
    chosen: list[int],
    anchors: tuple[Spec, ...],
    name: str = "anchors",
    facts: Mapping[str, Any] | None = None,
) -> float | None:
    """Half side of a square with about `REGIONS` regions, by a slice's name; None: all of it.

    A pilot on a square of a fiftieth of the size gives the density of regions, which is taken
    to be the same everywhere.
    """
    if not registry.has("measure", "partition") or not registry.has("slice", "anchors"):
        return None
    x = torch.stack([subject.data.samples[i][0] for i in chosen]).flatten(1).double()
    half = 0.65 * float(torch.cdist(x, x).max())
    if not half > 0:
        return None
    small = half / 50
    spec = Spec(name, anchors, {**(facts or {}), "radius": small})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the pilot is smaller than what it is asked for
            plane = registry.get("noun", "Slice").build(spec)
            measure = registry.get("measure", "partition").build
            pilot = measure(subject.module, plane, max_regions=4000)
    except IsogonError:
        return None  # the measure itself will say why
    whole = pilot.finished
    share = float(pilot.area[whole].sum()) / pilot.plane.area
    count = whole.sum() / share if share > 0 else len(pilot)
    wanted = small * (REGIONS / count) ** 0.5
    return None if wanted >= half else wanted


NAMED: dict[str, Callable[[Subject], str | None]] = {
    "@model": lambda subject: subject.model,
    "@data": lambda subject: subject.batches,
    "@points": lambda subject: subject.limited(16),
    "@family": _family,
    "@slice": _slice,
    "@initial": _initial,
    "@twin": _twin,
    "@snapshots": _snapshots,
    "@around": _around,
    "@batches": lambda subject: subject.limited(SAMPLES),
    "@train": _learned,
    "@norms": _norms,
}

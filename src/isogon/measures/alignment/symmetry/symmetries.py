"""The group of weight symmetries of a model: interchangeable units, and what may be scaled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import isogon.measures.alignment.symmetry.moving
import isogon.measures.alignment.symmetry.rules  # noqa: F401 - these two register
from isogon.measures.alignment.symmetry.element import Element
from isogon.measures.alignment.symmetry.labelling import Labelling
from isogon.measures.alignment.symmetry.units import FIXED, NORMED, POSITIVE, UNIT, ZERO
from isogon.nets.graph import place
from isogon.nets.trace import trace
from isogon.nets.unwrap import unwrap

ACTIVATIONS = (
    *("relu", "leaky_relu", "gelu", "tanh", "sigmoid", "silu", "elu", "prelu", "hardtanh", "relu6"),
    *("softplus", "hardswish", "sin", "mish", "selu", "celu", "abs", "clamp"),
)


@dataclass(frozen=True)
class Side:
    """One axis of a weight.

    Attributes:
        slots: Group -> places of its units on this axis, ``[n, m]``: m of each unit.
        size: Length of the axis.
        scales: Pairs of scale numbers ``[d]`` (-1: none) and the power with which they enter.
    """

    slots: dict[int, np.ndarray]
    size: int
    scales: list[tuple[np.ndarray, int]]

    def index(self, order: list[np.ndarray]) -> np.ndarray:
        """Where each place takes its number from."""
        found = np.arange(self.size)
        for group, slots in self.slots.items():
            found[slots] = slots[order[group]]
        return found


@dataclass(frozen=True)
class Weight:
    """A weight, or a range of its rows, and its axes.

    Attributes:
        name: Its path in the model.
        rows: First row and the one behind the last.
        shape: The shape that the axes belong to.
        sides: One per axis.
    """

    name: str
    rows: tuple[int, int]
    shape: tuple[int, ...]
    sides: tuple[Side, ...]

    def of(self, state: Mapping[str, Tensor]) -> np.ndarray:
        """Its numbers in a state, float64."""
        tensor = state[self.name].detach()
        part = tensor[self.rows[0] : self.rows[1]] if tensor.dim() else tensor
        return part.double().cpu().numpy().reshape(self.shape)


@dataclass(frozen=True)
class SitePlace:
    """An activation whose channels the symmetries move.

    Attributes:
        name: Name of the site.
        axis: Its channel axis in ``[N, ...]``.
        slots: Group -> places of its units along the axis, ``[n, m]``.
        scales: Scale number of each channel, -1 where there is none.
        active: Whether it is the output of an activation.
    """

    name: str
    axis: int
    slots: dict[int, np.ndarray]
    scales: np.ndarray
    active: bool = False

    @property
    def size(self) -> int:
        """Number of channels."""
        return len(self.scales)


@dataclass(frozen=True)
class Symmetries:
    """Which weights of a model can be permuted and scaled without a change of its function.

    Attributes:
        groups: Number of interchangeable units of each group.
        facts: What each scale has to be (`POSITIVE`, `UNIT`, `NORMED`), ``[scales]``.
        weights: All weights with something to move or scale.
        places: Activations whose channels move, in the order of computation.
        signed: Which groups may change signs.
    """

    groups: tuple[int, ...]
    facts: np.ndarray
    weights: tuple[Weight, ...]
    places: tuple[SitePlace, ...]
    signed: tuple[bool, ...] = ()

    @property
    def sizable(self) -> np.ndarray:
        """Which scales may be any positive number."""
        return (self.facts & (UNIT | NORMED)) == 0

    @property
    def sites(self) -> tuple[SitePlace, ...]:
        """One activation for each set of groups: that of its first nonlinearity, else its last."""
        best: dict[frozenset[int], SitePlace] = {}
        for p in self.places:
            held = best.get(frozenset(p.slots))
            if held is None or (not held.active and (p.active or p.size <= held.size)):
                best[frozenset(p.slots)] = p
        return tuple(best.values())

    @property
    def free(self) -> np.ndarray:
        """Which scales cost nothing: those, and the ones that a batch-norm undoes."""
        return (self.facts & UNIT) == 0

    def identity(self) -> Element:
        """The element that changes nothing."""
        return Element([np.arange(n) for n in self.groups], np.ones(len(self.facts)))

    def sample(self, generator: torch.Generator, *, scales: float = 0.0) -> Element:
        """A random element.

        Args:
            generator: Where random numbers come from.
            scales: Scales are drawn from ``10 ** uniform(-scales, scales)`` where they may be.
        """
        order = [torch.randperm(n, generator=generator).numpy() for n in self.groups]
        count = len(self.facts)
        power = torch.rand(count, generator=generator, dtype=torch.float64).numpy() * 2 - 1
        scale = np.where(self.sizable, 10.0 ** (scales * power), 1.0)
        flip = torch.randint(2, (count,), generator=generator).numpy() * 2 - 1
        return Element(order, np.where((self.facts & (POSITIVE | NORMED)) == 0, flip, 1) * scale)

    def applied(self, element: Element, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of the image, by name: those that the symmetries reach."""
        found: dict[str, Tensor] = {}
        for weight in self.weights:
            old = state[weight.name].detach()
            new = found.setdefault(weight.name, old.clone())
            values = torch.from_numpy(transformed(weight, weight.of(state), element))
            values = values.to(old.device, old.dtype)
            if old.dim():
                new[weight.rows[0] : weight.rows[1]] = values.reshape(
                    new[weight.rows[0] : weight.rows[1]].shape
                )
        return found


def transformed(weight: Weight, values: np.ndarray, element: Element) -> np.ndarray:
    """A weight permuted and scaled."""
    for k, side in enumerate(weight.sides):
        if side.slots:
            values = reordered(values, side.index(element.order), k)
    return scaled(weight, values, element.scale)


def reordered(values: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
    """The numbers of an axis in another order; the same array where it is theirs already."""
    if np.array_equal(index, np.arange(values.shape[axis])):
        return values
    return np.take(values, index, axis)


def scaled(weight: Weight, values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """A weight times its scales."""
    for k, side in enumerate(weight.sides):
        for numbers, exponent in side.scales:
            factor = np.append(scale, 1.0)[numbers] ** exponent  # -1 is the last: no scale
            if (factor == 1).all():
                continue
            values = values * factor.reshape(-1, *[1] * (values.ndim - k - 1))
    return values


def symmetries(model: nn.Module, example: Tensor) -> Symmetries:
    """The weight symmetries of a model, read off its traced graph.

    Args:
        model: Any module of one tensor that can be traced.
        example: An input ``[N, ...]``.

    Raises:
        ModelError: The graph does not tell; names the node.
    """
    model = unwrap(model)
    graph = trace(model, example)
    walk = Labelling(graph, model)
    units, _ = walk.units.all()
    scale_roots, facts = walk.scales.all()
    groups, home = _groups(walk, units)
    numbers, kept = _scales(walk, units, scale_roots, facts)
    weights = tuple(_weights(walk, units, scale_roots, home, numbers))
    weights = tuple(w for w in weights if any(s.slots or _any(s.scales) for s in w.sides))
    places = _places(walk, home, numbers)
    signed = _signed(groups, weights, kept)
    return Symmetries(tuple(len(g) for g in groups), kept, weights, places, signed)


def _any(scales: list[tuple[np.ndarray, int]]) -> bool:
    return any((n >= 0).any() for n, _ in scales)


def _groups(
    walk: Labelling, roots: np.ndarray
) -> tuple[list[list[int]], dict[int, tuple[int, int]]]:
    """Units that everything treats alike, and for each unit its group and number in it."""
    signature: dict[int, list[tuple[int, int]]] = defaultdict(list)
    containers: list[Any] = [value.units for value in walk.values.values()]
    for blocks in walk.blocks.values():
        containers += [axis.units for block in blocks for axis in block.axes]
    containers += walk.marks
    for k, labels in enumerate(containers):
        flat = np.asarray(labels).reshape(-1)
        found, counts = np.unique(roots[flat[flat != ZERO]], return_counts=True)
        for unit, count in zip(found.tolist(), counts.tolist(), strict=True):
            signature[unit].append((k, count))
    alike: dict[tuple, list[int]] = defaultdict(list)
    for unit, places in signature.items():
        if unit != FIXED:
            alike[tuple(places)].append(unit)
    groups = [sorted(g) for g in alike.values() if len(g) > 1]
    groups.sort(key=lambda g: g[0])
    home = {u: (k, i) for k, group in enumerate(groups) for i, u in enumerate(group)}
    return groups, home


def _scales(
    walk: Labelling, units: np.ndarray, roots: np.ndarray, facts: np.ndarray
) -> tuple[dict[int, int], np.ndarray]:
    """Number of each scale that may differ from 1 or costs nothing; what they have to be."""
    owners: dict[int, set[int]] = defaultdict(set)
    for blocks in walk.blocks.values():
        for block in blocks:
            for axis in block.axes:
                for labels, _ in axis.scales:
                    pairs = np.stack([roots[labels.numpy()], units[axis.units.numpy()]], 1)
                    for scale, unit in np.unique(pairs, axis=0).tolist():
                        owners[scale].add(unit)
    fixed = POSITIVE | UNIT
    kept = [
        s for s, own in owners.items() if s != FIXED and len(own) == 1 and facts[s] & fixed != fixed
    ]
    kept.sort()
    return {s: i for i, s in enumerate(kept)}, facts[kept] if kept else np.zeros(0, dtype=int)


def _slots(labels: np.ndarray, home: Mapping[int, tuple[int, int]]) -> dict[int, np.ndarray]:
    """Group -> places of its units among labels, ``[n, m]``."""
    places: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for at, unit in enumerate(labels.tolist()):
        if unit in home:
            group, number = home[unit]
            places[group][number].append(at)
    return {
        group: np.array([found[i] for i in range(len(found))])
        for group, found in sorted(places.items())
    }


def _weights(
    walk: Labelling,
    units: np.ndarray,
    roots: np.ndarray,
    home: Mapping[int, tuple[int, int]],
    numbers: Mapping[int, int],
) -> list[Weight]:
    number = np.array([numbers.get(r, -1) for r in roots.tolist()])
    found = []
    for name, blocks in walk.blocks.items():
        for block in blocks:
            sides = tuple(
                Side(
                    _slots(units[axis.units.numpy()], home),
                    len(axis.units),
                    [(number[labels.numpy()], e) for labels, e in axis.scales],
                )
                for axis in block.axes
            )
            found.append(Weight(name, block.rows, block.shape, sides))
    return found


def _places(
    walk: Labelling, home: Mapping[int, tuple[int, int]], numbers: Mapping[int, int]
) -> tuple[SitePlace, ...]:
    """Activations that the symmetries move, the last operation of each site."""
    found: dict[str, SitePlace] = {}
    for node, raw in walk.values.items():
        if node.op == "placeholder":
            continue
        value = walk.current(raw)
        axis = _channel_axis(value.units)
        if axis is None:
            continue
        line = tuple(slice(None) if d == axis else 0 for d in range(value.units.dim()))
        slots = _slots(value.units[line].numpy(), home)
        if slots:
            numbered = np.array([numbers.get(s, -1) for s in value.scales[line].tolist()])
            name, active = place(node).name, place(node).op.lower() in ACTIVATIONS
            found[name] = SitePlace(name, axis, slots, numbered, active)
    return tuple(found.values())


def _channel_axis(units: Tensor) -> int | None:
    """The one axis along which units differ."""
    axes = [d for d in range(1, units.dim()) if bool((units != units.narrow(d, 0, 1)).any())]
    return axes[0] if len(axes) == 1 else None


def _signed(
    groups: list[list[int]], weights: tuple[Weight, ...], facts: np.ndarray
) -> tuple[bool, ...]:
    """Which groups may change signs: every place of a unit bears its one sign."""
    found = [True] * len(groups)
    for weight in weights:
        for side in weight.sides:
            for group, slots in side.slots.items():
                odd = [n for n, e in side.scales if e % 2]
                ok = len(odd) == 1 and len(side.scales) == 1
                if ok:
                    n = odd[0][slots]
                    ok = bool((n >= 0).all() and (facts[n] & (POSITIVE | NORMED) == 0).all())
                found[group] &= ok
    return tuple(found)

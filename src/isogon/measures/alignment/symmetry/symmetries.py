"""The group of weight symmetries of a model: interchangeable units, and what may be scaled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import isogon.measures.alignment.symmetry.activations
import isogon.measures.alignment.symmetry.moving
import isogon.measures.alignment.symmetry.rules  # noqa: F401 - these three register
from isogon.measures.alignment.symmetry.element import Element
from isogon.measures.alignment.symmetry.labelling import Labelling
from isogon.measures.alignment.symmetry.numbering import Numbers
from isogon.measures.alignment.symmetry.units import FIXED, NORMED, UNIT, ZERO
from isogon.nets.graph import place
from isogon.nets.trace import trace
from isogon.nets.unwrap import unwrap

ACTIVATIONS = (
    *("relu", "leaky_relu", "gelu", "tanh", "sigmoid", "silu", "elu", "prelu", "hardtanh", "relu6"),
    *("softplus", "hardswish", "sin", "mish", "selu", "celu", "abs", "clamp", "cos", "square"),
    *("pow", "erf", "softshrink", "hardshrink", "softsign", "exp", "sqrt", "reciprocal"),
)


@dataclass(frozen=True)
class Side:
    """One axis of a weight.

    Attributes:
        slots: Group -> places of its units on this axis, ``[n, m]``: m of each unit.
        size: Length of the axis.
        scales: Pairs of scale numbers ``[d]`` (-1: none) and the power with which they enter; a
            place may have several, e.g. a size and a sign.
    """

    slots: dict[int, np.ndarray]
    size: int
    scales: list[tuple[np.ndarray, float]]

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
        variance: Whether it holds variances, in which scales enter by their squares.
    """

    name: str
    rows: tuple[int, int]
    shape: tuple[int, ...]
    sides: tuple[Side, ...]
    variance: bool = False

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
        size: Number of channels.
        scales: Pairs of scale numbers of the channels (-1: none) and the power with which they
            enter.
        active: Whether it is the output of an activation.
    """

    name: str
    axis: int
    slots: dict[int, np.ndarray]
    size: int
    scales: list[tuple[np.ndarray, float]]
    active: bool = False

    def factor(self, scale: np.ndarray) -> np.ndarray:
        """What each channel is multiplied with."""
        return factor(self.scales, scale, self.size)


@dataclass(frozen=True)
class Symmetries:
    """Which weights of a model can be permuted and scaled without a change of its function.

    Attributes:
        groups: Number of interchangeable units of each group.
        facts: What each scale is, ``[scales]``: a size (`POSITIVE`, perhaps `NORMED`), or a sign
            (`UNIT`). A scale of both is two of these.
        weights: All weights with something to move or scale.
        places: Activations whose channels move, in the order of computation.
        signs: Of each group the number of each unit's sign, ``[n]``; None where units have none.
    """

    groups: tuple[int, ...]
    facts: np.ndarray
    weights: tuple[Weight, ...]
    places: tuple[SitePlace, ...]
    signs: tuple[np.ndarray | None, ...] = ()

    @property
    def signed(self) -> tuple[bool, ...]:
        """Which groups may change signs."""
        return tuple(s is not None for s in self.signs)

    def odd(self, side: Side | SitePlace, group: int) -> np.ndarray:
        """Which of the places of a unit along an axis change sign with it, ``[m]``."""
        slots = side.slots[group]
        if self.signs[group] is None:
            return np.zeros(slots.shape[1], dtype=bool)
        return _signs(side, self.facts)[slots[0]] % 2 == 1

    @property
    def sizable(self) -> np.ndarray:
        """Which scales may be any positive number and show in the weights of the image."""
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
        return Element(order, np.where(self.facts & UNIT, flip, 1) * scale)

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
        line = factor(side.scales, scale, side.size)
        if (line != 1).any():
            values = values * line.reshape(-1, *[1] * (values.ndim - k - 1))
    return values


def factor(scales: Sequence[tuple[np.ndarray, float]], scale: np.ndarray, size: int) -> np.ndarray:
    """What each place of an axis is multiplied with, ``[size]``."""
    found, padded = np.ones(size), np.append(scale, 1.0)  # -1 is the last: no scale
    for numbers, power in scales:
        found = found * padded[numbers] ** power
    return found


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
    units = walk.units.roots()
    groups, home = _groups(walk, units)
    numbers = Numbers.of(walk, units)
    weights = tuple(_weights(walk, units, home, numbers))
    weights = tuple(w for w in weights if any(s.slots or s.scales for s in w.sides))
    places = _places(walk, home, numbers)
    signs = _signs_of(groups, weights, numbers.facts)
    return Symmetries(tuple(len(g) for g in groups), numbers.facts, weights, places, signs)


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
    home: Mapping[int, tuple[int, int]],
    numbers: Numbers,
) -> list[Weight]:
    found = []
    for name, blocks in walk.blocks.items():
        for block in blocks:
            sides = tuple(
                Side(
                    _slots(units[axis.units.numpy()], home),
                    len(axis.units),
                    [pair for labels, e in axis.scales for pair in numbers.at(labels.numpy(), e)],
                )
                for axis in block.axes
            )
            variance = any(e == 2 for axis in block.axes for _, e in axis.scales)
            found.append(Weight(name, block.rows, block.shape, sides, variance))
    return found


def _places(
    walk: Labelling, home: Mapping[int, tuple[int, int]], numbers: Numbers
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
            labels = value.scales[line].numpy()
            name, active = place(node).name, place(node).op.lower() in ACTIVATIONS
            scales = numbers.at(labels)
            found[name] = SitePlace(name, axis, slots, len(labels), scales, active)
    return tuple(found.values())


def _channel_axis(units: Tensor) -> int | None:
    """The one axis along which units differ."""
    axes = [d for d in range(1, units.dim()) if bool((units != units.narrow(d, 0, 1)).any())]
    return axes[0] if len(axes) == 1 else None


def _signs_of(
    groups: list[list[int]], weights: tuple[Weight, ...], facts: np.ndarray
) -> tuple[np.ndarray | None, ...]:
    """The number of the sign of each unit of each group; None unless every unit has just one."""
    found: list[np.ndarray | None] = []
    for group, members in enumerate(groups):
        sign, ok = np.full(len(members), -1), True
        for side in (s for w in weights for s in w.sides if group in s.slots):
            slots = side.slots[group]
            odd = _signs(side, facts)[slots]
            ok &= bool((odd == odd[:1]).all())
            for numbers, _ in side.scales:
                mine = np.where((numbers >= 0) & (facts[numbers] & UNIT > 0), numbers, -1)[slots]
                for column in mine.T:
                    ok &= bool(((sign < 0) | (column < 0) | (sign == column)).all())
                    sign = np.maximum(sign, column)
        found.append(sign if ok and (sign >= 0).all() else None)
    return tuple(found)


def _signs(side: Side | SitePlace, facts: np.ndarray) -> np.ndarray:
    """How many signs each place of an axis bears."""
    found = np.zeros(side.size, dtype=int)
    for numbers, _ in side.scales:
        found += (numbers >= 0) & (facts[numbers] & UNIT > 0)
    return found

"""The image of one model under its weight symmetries that lies closest to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from isogon.measures.alignment.symmetry.assignment import Assignment, Gain
from isogon.measures.alignment.symmetry.element import Element
from isogon.measures.alignment.symmetry.scales import distance, fitted, products
from isogon.measures.alignment.symmetry.symmetries import Symmetries
from isogon.measures.alignment.symmetry.terms import Term, balance, balanced, terms

RANDOM = 8  # starts from random orders at most
SMALL = (
    10_000  # weights up to which there are any: where units have few weights, profiles say little
)
CLEAR = 0.5  # share of a's squares in the inner product at which two networks are images, nearly


@dataclass(frozen=True)
class Closest:
    """What was found.

    Attributes:
        element: The symmetry, applied to b.
        objective: Mean squared difference of a's weights and the image's, in units of the mean
            square of each of a's tensors, over all that the symmetries reach; in front of a
            batch-norm at the best scale of each unit.
        before: The same for b as it is.
        by_site: The objective of the weights that touch the units of each site.
    """

    element: Element
    objective: float
    before: float
    by_site: tuple[float, ...]


def closest(
    found: Symmetries,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    *,
    gains: Sequence[Gain] | None = None,
    report: Callable[[], None] = lambda: None,
) -> Closest:
    """Search the group of b's weight symmetries.

    Args:
        found: The group.
        a: Weights of a, by name.
        b: Weights of b.
        gains: For each group what unit i of a shares with unit j of b; found from the weights
            where it is None. Signs that they don't tell come from the weights.
        report: Called now and then.
    """
    pairs = terms(found, a, b)
    scales = [
        balance([p.weight for p in pairs], [getattr(p, k) for p in pairs], found)
        for k in ("a", "b")
    ]
    task = Assignment(found, balanced(pairs, *scales), np.random.default_rng(0))
    if gains is None:
        _search(task, report)
    else:
        for group, gain in enumerate(gains):
            task.settle(group, gain)
        task.turn_all()
    start = task.sign * _start(found, pairs, task, scales)
    sums = products(pairs, found, Element(task.order, start))
    scale = fitted(sums, found, start)
    element = Element(task.order, np.where(found.sizable, scale, np.sign(scale)))
    plain = found.identity()
    before = products(pairs, found, plain)
    return Closest(
        element,
        distance(sums, scale),
        distance(before, np.where(found.sizable, 1.0, fitted(before, found, plain.scale))),
        tuple(_touched(found, pairs, sums, scale)),
    )


def _search(task: Assignment, report: Callable[[], None]) -> None:
    """Ascents from profiles, from b as it is, and of small models from random orders: the best.

    The first alone where it leaves little to find.
    """
    best: tuple[float, list[np.ndarray], np.ndarray] | None = None
    size = sum(t.a.size for t in task.terms)
    for start in (task.start, lambda: None, *[task.shuffle] * min(RANDOM, SMALL // size)):
        task.reset()
        start()
        total = task.ascend(report)
        if best is None or total > best[0] * (1 + 1e-9):
            best = total, [o.copy() for o in task.order], task.sign.copy()
        if best[0] > CLEAR * sum(float(np.vdot(t.a, t.a)) for t in task.terms):
            break
    assert best is not None
    _, task.order, task.sign = best


def _start(
    found: Symmetries, pairs: Sequence[Term], task: Assignment, scales: Sequence[np.ndarray]
) -> np.ndarray:
    """Scales at which the image is as balanced as a."""
    source = np.arange(len(found.facts))
    for pair in pairs:
        for side in pair.weight.sides:
            index = side.index(task.order)
            for numbers, _ in side.scales:
                ok = numbers >= 0
                source[numbers[ok]] = numbers[index][ok]
    return np.where(found.free, scales[1][source] / scales[0], 1.0)


def _touched(
    found: Symmetries, pairs: Sequence[Term], sums: Sequence, scale: np.ndarray
) -> list[float]:
    values = []
    for site in found.sites:
        mine = [
            s
            for p, s in zip(pairs, sums, strict=True)
            if any(site.slots.keys() & side.slots.keys() for side in p.weight.sides)
        ]
        values.append(distance(mine, scale))
    return values

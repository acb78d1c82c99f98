"""Scales that bring b's weights closest to a's, for given places of the units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isogon.measures.alignment.symmetry.element import Element
from isogon.measures.alignment.symmetry.sums import Lines, ScaledSums, bearing, sums_of
from isogon.measures.alignment.symmetry.symmetries import Symmetries, Weight, scaled, transformed
from isogon.measures.alignment.symmetry.terms import Term

STEPS = 60
CLOSE = 1e-7  # of the distance: improvements below it end the search
REACH = 12.0  # most that a log-scale moves from where it starts


@dataclass(frozen=True)
class Products:
    """What a pair of weights says about scales: its sums over all other axes.

    Attributes:
        weight: Its axes, of those that bear scales alone.
        share: What a squared difference counts: one over a's mean square.
        own: ``sum a^2``.
        ab: ``sum a b``, over all axes but those.
        bb: ``sum b^2``, over all axes but those.
        numel: Number of weights.
    """

    weight: Weight
    share: float
    own: float
    ab: np.ndarray
    bb: np.ndarray
    numel: int

    def distance(self, scale: np.ndarray) -> float:
        """``sum (a - b')^2`` for b' at these scales."""
        cross = scaled(self.weight, self.ab, scale).sum()
        return float(self.own - 2 * cross + scaled(self.weight, self.bb, scale**2).sum())


def products(pairs: Sequence[Term], found: Symmetries, element: Element) -> list[Products]:
    """The sums of all pairs, with b's units where an element puts them."""
    plain = Element(element.order, np.ones(len(found.facts)))
    made = []
    for pair in pairs:
        weight, a = pair.weight, pair.a
        b = transformed(weight, pair.b, plain)
        kept = bearing(weight)
        sides = tuple(weight.sides[k] for k in kept)
        square = float(np.vdot(a, a) or np.vdot(b, b)) / max(a.size, 1)
        made.append(
            Products(
                Weight(weight.name, weight.rows, tuple(s.size for s in sides), sides),
                1.0 / square if square else 0.0,
                float(np.vdot(a, a)),
                sums_of(a, b, kept),
                sums_of(b, b, kept),
                a.size,
            )
        )
    return made


def distance(sums: Sequence[Products], scale: np.ndarray) -> float:
    """Mean over all weights of the squared difference, in units of the weight's mean square."""
    count = sum(p.numel for p in sums)
    return max(sum(p.share * p.distance(scale) for p in sums), 0.0) / max(count, 1)


def fitted(sums: Sequence[Products], found: Symmetries, scale: np.ndarray) -> np.ndarray:
    """Scales of the least distance, from a start, by damped Newton steps of all their logarithms.

    Args:
        sums: What the pairs of weights say.
        found: Which scales are free.
        scale: The start; signs stay as they are.
    """
    free, count = found.free, len(found.facts)
    if not free.any():
        return scale
    crosses = ScaledSums((p.weight, p.ab * p.share) for p in sums)
    squares = ScaledSums((p.weight, p.bb * p.share) for p in sums)
    own = sum(p.share * p.own for p in sums)

    def at(s: np.ndarray) -> tuple[float, Lines, Lines]:
        cross, square = crosses.at(s), squares.at(s**2)
        return own - 2 * cross.total + square.total, cross, square

    (best, *lines), start = at(scale), np.log(np.abs(scale))
    damping = 1.0
    for _ in range(STEPS):
        step = np.where(free, _step(lines[0], lines[1], count), 0.0)
        if not step.any():
            break
        while damping > 1e-3:
            log = np.clip(np.log(np.abs(scale)) + damping * step, start - REACH, start + REACH)
            trial = np.sign(scale) * np.exp(log)
            now, *there = at(trial)
            if now < best:
                break
            damping /= 2
        else:
            break
        gained, best, scale, lines = best - now, now, trial, there
        damping = min(1.0, damping * 1.5)
        if gained < CLOSE * best or best < 1e-28:
            break
    return scale


def _step(cross: Lines, square: Lines, count: int) -> np.ndarray:
    """Newton steps of log-scales, each as if it moved alone."""
    (up, down), (up2, down2) = cross.by_scale(count), square.by_scale(count)
    slope = 2 * ((up2 - up) - (down2 - down))
    curve = np.maximum(4 * (up2 + down2) - 2 * (up + down), up2 + down2)
    return np.where(curve > 0, np.clip(-slope / np.where(curve > 0, curve, 1), -1, 1), 0)

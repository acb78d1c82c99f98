"""The element that brings one model's weights closest to another's: assignments of units.

Coordinate ascent on the linear assignment of each group, in coordinates in which scales don't
matter. It starts from profiles that no permutation changes: a unit's weights as they are along
axes whose order is known, and sorted along those whose order is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from isogon.measures.alignment.symmetry.symmetries import Symmetries, factor, reordered
from isogon.measures.alignment.symmetry.terms import Term

PASSES = 100  # rounds over all groups
SLACK = 1e-9  # of the total: what counts as better


@dataclass(frozen=True)
class Gain:
    """What unit i of a shares with unit j of b, ``[n, n]`` each.

    Attributes:
        even: At places where a sign of the unit changes nothing.
        odd: At places that change sign with it.
    """

    even: np.ndarray
    odd: np.ndarray


class Assignment:
    """Orders and signs of the units of b, for weights of a and b whose scales are balanced.

    Args:
        found: Which units there are.
        terms: Pairs of weights.
        generator: Order of the groups in further starts.
    """

    def __init__(
        self, found: Symmetries, terms: list[Term], generator: np.random.Generator
    ) -> None:
        self.found, self.terms, self.generator = found, terms, generator
        self.reset()
        self.touched = [
            [(t, k) for t in terms for k, s in enumerate(t.weight.sides) if g in s.slots]
            for g in range(len(found.groups))
        ]
        slots = [{g for s in t.weight.sides for g in s.slots} for t in terms]
        self.beside: list[set[int]] = [set() for _ in found.groups]
        for own in slots:
            for g in own:
                self.beside[g] |= own

    def reset(self) -> None:
        """Every unit at its own place."""
        self.order = [np.arange(n) for n in self.found.groups]
        self.sign = np.ones(len(self.found.facts))

    # ------------------------------------------------------------------ what it is worth

    def total(self) -> float:
        """Inner product of a's weights with b's as they are placed now."""
        return sum(float(np.vdot(t.a, self.placed(t))) for t in self.terms)

    def placed(self, term: Term, leave: int = -1) -> np.ndarray:
        """A weight of b, its axes in the order of now and with the signs of now.

        Args:
            term: Which.
            leave: An axis that stays as it is.
        """
        values = term.b
        for k, side in enumerate(term.weight.sides):
            if k == leave:
                continue
            if side.slots:
                values = reordered(values, side.index(self.order), k)
            if side.scales and (self.sign < 0).any():
                line = factor(side.scales, self.sign, side.size)
                values = values * line.reshape(-1, *[1] * (values.ndim - k - 1))
        return values

    def gain(self, group: int) -> Gain:
        """What unit i of a shares with unit j of b in its place."""
        n = self.found.groups[group]
        found = Gain(np.zeros((n, n)), np.zeros((n, n)))
        for term, k in self.touched[group]:
            side = term.weight.sides[k]
            slots, odd = side.slots[group], self.found.odd(side, group)
            a, b = (_rows(x, slots, k) for x in (term.a, self.placed(term, leave=k)))
            for total, mine in ((found.even, ~odd), (found.odd, odd)):
                if mine.all():
                    total += a.reshape(n, -1) @ b.reshape(n, -1).T
                elif mine.any():
                    total += a[:, mine].reshape(n, -1) @ b[:, mine].reshape(n, -1).T
        return found

    def settle(self, group: int, gain: Gain) -> bool:
        """Take the best assignment; whether it differs from the one before."""
        worth = gain.even + np.abs(gain.odd)
        rows, best = linear_sum_assignment(worth, maximize=True)
        now = worth[rows, self.order[group]].sum()
        if worth[rows, best].sum() <= now + SLACK * np.abs(worth).max() * len(rows):
            return self.turn(group, gain.odd)
        self.order[group] = best
        self.turn(group, gain.odd)
        return True

    def turn(self, group: int, odd: np.ndarray) -> bool:
        """Take the best signs of units where they are; whether any differs from before."""
        number = self.found.signs[group]
        if number is None:
            return False
        mine = odd[np.arange(len(odd)), self.order[group]]
        flips = np.where(mine == 0, self.sign[number], np.sign(mine))
        changed = not np.array_equal(flips, self.sign[number])
        self.sign[number] = flips
        return changed

    def turn_all(self) -> None:
        """The best signs of all groups, where orders are known."""
        for _ in range(PASSES):
            changed = [self.turn(g, self.gain(g).odd) for g in range(len(self.order))]
            if not any(changed):
                break

    # ------------------------------------------------------------------ ascent

    def ascend(self, report: Callable[[], None]) -> float:
        """Assign group after group until nothing gets better."""
        coupled = [self._coupled(g) for g in range(len(self.order))]
        moved = set(range(len(self.order)))  # whose gain may be another than when it was settled
        for _ in range(PASSES):
            changed = False
            for g in self.generator.permutation(len(self.order)):
                if g not in moved:
                    continue
                report()
                moved.discard(g)
                before = self.total() if coupled[g] else 0.0
                held, sign = self.order[g].copy(), self.sign.copy()
                if not self.settle(g, self.gain(g)):
                    continue
                if coupled[g] and self.total() <= before * (1 + SLACK):
                    self.order[g], self.sign = held, sign
                    continue
                changed = True
                moved |= self.beside[g]
            if not changed:
                break
        return self.total()

    def _coupled(self, group: int) -> bool:
        """Whether a weight has the group on two of its axes: its own place moves its gain."""
        return any(
            sum(group in s.slots for s in t.weight.sides) > 1 for t, _ in self.touched[group]
        )

    # ------------------------------------------------------------------ starts

    def start(self) -> None:
        """Assign all groups from profiles, those first whose weights are known along most axes."""
        known: set[int] = set()
        sure = {g: self.anchors(g, known) for g in range(len(self.order))}
        while sure:
            best = max(sure, key=sure.__getitem__)
            cost = self.profiles(best, known)
            if cost is None:
                self.settle(best, self.gain(best))
            else:
                self.order[best] = linear_sum_assignment(cost)[1]
                self.turn(best, self.gain(best).odd)
            known.add(best)
            del sure[best]
            sure |= {g: self.anchors(g, known) for g in self.beside[best] if g in sure}

    def shuffle(self) -> None:
        """A random order of every group."""
        self.order = [self.generator.permutation(n) for n in self.found.groups]

    def anchors(self, group: int, known: set[int]) -> tuple[float, int]:
        """How many of a unit's weights have known places, as a share and in all."""
        sure = all_ = 0
        for term, k in self.touched[group]:
            share, size = 1.0, 1
            for j, side in enumerate(term.weight.sides):
                if j == k:
                    continue
                loose = sum(s.size for g, s in side.slots.items() if g not in known)
                share *= 1 - loose / side.size
                size *= side.size
            size *= term.weight.sides[k].slots[group].shape[1]
            sure += share * size
            all_ += size
        return min(sure, 64.0) + sure / max(all_, 1), all_

    def profiles(self, group: int, known: set[int]) -> np.ndarray | None:
        """Squared distances of profiles, ``[n, n]``; None where all places are known."""
        n = self.found.groups[group]
        parts, loose = [], False
        for term, k in self.touched[group]:
            sorted_, rows = self._profile(term, k, group, known)
            loose |= sorted_
            parts.append(rows)
        if not loose:
            return None
        cost = np.zeros((n, n))
        for a, b in parts:
            cost += (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
        return cost

    def _profile(
        self, term: Term, k: int, group: int, known: set[int]
    ) -> tuple[bool, tuple[np.ndarray, np.ndarray]]:
        """Rows of a and b along an axis, sorted along the other axes where order is unknown.

        Without signs that are not known.
        """
        mine = term.weight.sides[k]
        slots, odd = mine.slots[group], self.found.odd(mine, group)
        a, b = _rows(term.a, slots, k), _rows(self.placed(term, leave=k), slots, k)
        if odd.any():
            a, b = a.copy(), b.copy()
            a[:, odd], b[:, odd] = np.abs(a[:, odd]), np.abs(b[:, odd])
        found = False
        for j, side in enumerate(term.weight.sides):
            if j == k:
                continue
            axis = 2 + j - (j > k)
            for g, places in side.slots.items():
                if g in known:
                    continue
                found = True
                a, b = (_sorted(x, places, axis, self.found.odd(side, g)) for x in (a, b))
        n = len(slots)
        return found, (a.reshape(n, -1), b.reshape(n, -1))


def _rows(values: np.ndarray, slots: np.ndarray, axis: int) -> np.ndarray:
    """The places of each unit along an axis, first: ``[n, m, ...]``."""
    taken = np.moveaxis(reordered(values, slots.reshape(-1), axis), axis, 0)
    return taken.reshape(*slots.shape, *taken.shape[1:])


def _sorted(values: np.ndarray, places: np.ndarray, axis: int, odd: np.ndarray) -> np.ndarray:
    """Values in the order of their size over the units that have places on an axis.

    Absolute ones at the places that change sign with their unit.
    """
    part = np.take(values, places.reshape(-1), axis)
    shape = (*part.shape[:axis], *places.shape, *part.shape[axis + 1 :])
    mask = np.broadcast_to(odd, places.shape).reshape(-1, *[1] * (part.ndim - axis - 1))
    part = np.where(mask, np.abs(part), part) if odd.any() else part
    part = np.sort(part.reshape(shape), axis).reshape(part.shape)
    values = values.copy()
    index: list = [slice(None)] * values.ndim
    index[axis] = places.reshape(-1)
    values[tuple(index)] = part
    return values

"""Labels of scales: powers of positive sizes times signs, of which some are one and the same.

An activation hands on another scale than it gets: ``x^3`` of ``s x`` is ``s^3 x^3``, ``|x|`` loses
the sign, ``x^2`` does both. So a label stands for a size to some power and for a sign, and what has
to be the same is settled for the two apart: sizes by a union-find with powers, signs by a plain
one.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isogon.measures.alignment.symmetry.units import (
    FIXED,
    NORMED,
    POSITIVE,
    UNIT,
    ZERO,
    Classes,
    different,
    distinct,
)

CLOSE = 1e-9  # powers that differ by less are the same


class Sizes:
    """Positive numbers 1, a, b, ..., of which some are powers of others (union-find)."""

    def __init__(self) -> None:
        self.parents, self.powers = array("q", [FIXED]), array("d", [1.0])
        self.normed = array("b", [0])

    def fresh(self, count: int) -> list[int]:
        """So many sizes of their own."""
        start = len(self.parents)
        self.parents.extend(range(start, start + count))
        self.powers.extend([1.0] * count)
        self.normed.extend([0] * count)
        return list(range(start, start + count))

    def root(self, size: int) -> tuple[int, float]:
        """The size that stands for it, and the power of that one that it is."""
        power = 1.0
        while self.parents[size] != size:
            power *= self.powers[size]
            size = self.parents[size]
        return size, 1.0 if size == FIXED else power

    def fix(self, size: int) -> None:
        """A size is 1."""
        self.parents[self.root(size)[0]] = FIXED

    def join(self, one: int, first: float, other: int, second: float) -> None:
        """``one ** first`` and ``other ** second`` are the same."""
        (a, p), (b, q) = self.root(one), self.root(other)
        p, q = p * first, q * second
        if a == b:
            if a != FIXED and abs(p - q) > CLOSE * abs(p):
                self.fix(a)
            return
        if b < a:
            a, b, p, q = b, a, q, p
        self.parents[b], self.powers[b] = a, p / q
        self.normed[a] |= self.normed[b]

    def roots(self) -> tuple[np.ndarray, np.ndarray]:
        """Root and power of every size."""
        found, powers = np.array(self.parents), np.array(self.powers)
        while not np.array_equal(above := found[found], found):
            found, powers = above, powers * powers[found]
        return found, np.where(found == FIXED, 1.0, powers)


@dataclass(frozen=True)
class Resolved:
    """What every label stands for.

    Attributes:
        size: Root of its size.
        power: The power of that.
        sign: Root of its sign.
        facts: What a root of a size has to be, by root.
    """

    size: np.ndarray
    power: np.ndarray
    sign: np.ndarray
    facts: np.ndarray


class Scales:
    """Labels 0 (the scale 1), 1, ...: each a size to some power, times a sign."""

    def __init__(self) -> None:
        self.sizes, self.signs = Sizes(), Classes()
        self._size, self._sign = array("q", [FIXED]), array("q", [FIXED])
        self._power = array("d", [1.0])
        self._known: dict[tuple[int, float, int], int] = {}
        self._table: Tensor | None = None

    def fresh(self, count: int) -> Tensor:
        """So many labels of their own, ``[count]``."""
        start = len(self._size)
        self._size.extend(self.sizes.fresh(count))
        self._power.extend([1.0] * count)
        self._sign.extend(self.signs.fresh(count).tolist())
        self._table = None
        return torch.arange(start, start + count)

    def join(self, a: Tensor, b: Tensor) -> None:
        """Make scales the same, pair by pair; those of what is 0 join nothing."""
        pairs = different(a, b)
        if not len(pairs):
            return
        self._table = None
        for i, j in pairs.tolist():
            self.sizes.join(self._size[i], self._power[i], self._size[j], self._power[j])
        signs = torch.from_numpy(np.array(self._sign))
        self.signs.join(signs[pairs[:, 0]], signs[pairs[:, 1]])

    def say(self, labels: Tensor, fact: int) -> None:
        """Note what scales have to be."""
        self._table = None
        known = [i for i in labels.unique().tolist() if i != ZERO]
        if fact & POSITIVE:
            self.signs.join(torch.tensor([self._sign[i] for i in known]), torch.tensor(FIXED))
        for i in known:
            if fact & UNIT:
                self.sizes.fix(self._size[i])
            if fact & NORMED:
                self.sizes.normed[self.sizes.root(self._size[i])[0]] = 1

    def now(self, labels: Tensor) -> Tensor:
        """Of labels of the same scale the first."""
        if self._table is None:
            found = self.resolved()
            _, kinds = np.unique(found.power, return_inverse=True)
            key = (found.size * len(self.signs.parents) + found.sign) * (kinds.max() + 1) + kinds
            _, first, where = np.unique(key, return_index=True, return_inverse=True)
            self._table = torch.from_numpy(np.append(first[where.reshape(-1)], ZERO))
        return self._table[labels]

    def power(self, labels: Tensor, degree: float, *, even: bool) -> Tensor:
        """Labels of these scales to a power: their signs are lost (``even``) or stay."""
        unique, where = labels.unique(return_inverse=True)
        made = [
            ZERO
            if i == ZERO
            else self._label(
                self._size[i], self._power[i] * degree, FIXED if even else self._sign[i]
            )
            for i in unique.tolist()
        ]
        return torch.tensor(made, dtype=torch.long)[where]

    def product(self, a: Tensor, b: Tensor, *, divided: bool = False) -> Tensor | None:
        """Labels of products of scales (or quotients).

        None where one is of two scales that have nothing to do with each other.
        """
        a, b = self.now(a), self.now(b)
        pairs, where = distinct(a.flatten(), b.flatten())
        found = []
        for i, j in pairs.tolist():
            if ZERO in (i, j):
                found.append(ZERO)
                continue
            (x, p), (y, q) = (self.sizes.root(self._size[k]) for k in (i, j))
            p, q = p * self._power[i], q * self._power[j] * (-1 if divided else 1)
            u, v = (self.signs.root(self._sign[k]) for k in (i, j))
            if (FIXED not in (x, y) and x != y) or (FIXED not in (u, v) and u != v):
                return None
            x, p = (x, p + q) if x == y else (x, p) if y == FIXED else (y, q)
            sign = FIXED if u == v else u or v
            found.append(self._label(*(x, p) if abs(p) > CLOSE else (FIXED, 1.0), sign))
        return torch.tensor(found, dtype=torch.long)[where].view(a.shape)

    def resolved(self) -> Resolved:
        """What every label stands for now."""
        roots, powers = self.sizes.roots()
        size = np.array(self._size)
        return Resolved(
            roots[size],
            np.where(roots[size] == FIXED, 1.0, (powers[size] * np.array(self._power)).round(9)),
            self.signs.roots()[np.array(self._sign)],
            np.where(np.array(self.sizes.normed), POSITIVE | NORMED, POSITIVE),
        )

    def _label(self, size: int, power: float, sign: int) -> int:
        """The label of a size to some power, times a sign."""
        size, of = self.sizes.root(size)
        power, sign = round(power * of, 9), self.signs.root(sign)
        if size == FIXED:
            power = 1.0
            if sign == FIXED:
                return FIXED
        key = (size, power, sign)
        if key not in self._known:
            self._known[key] = len(self._size)
            self._size.append(size)
            self._power.append(power)
            self._sign.append(sign)
            self._table = None
        return self._known[key]

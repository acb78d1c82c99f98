"""Where the network's values contradict the patterns of regions.

Whole words of sign bits are compared: at a vertex nearly every function has the sign that its
regions say, so that single values are looked at only where a bit differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch

from isogon.cpwl.program import Program
from isogon.cpwl.stages import Kink, Max
from isogon.measures.partition.kernels import edges as ek
from isogon.measures.partition.patterns import Patterns, SitePattern

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


WORD = 64


@dataclass(eq=False)
class Found:
    """Values on the wrong side.

    Attributes:
        row: `[n]` number of the (point, region) pair.
        off: `[n]` how far off the value is.
        unit: `[n]` the unit.
        entry: `[n]` of a maximum: the entry that is said to be the largest ...
        top: ... and the one that is; -1 for a kink.
    """

    row: np.ndarray
    off: np.ndarray
    unit: np.ndarray
    entry: np.ndarray
    top: np.ndarray

    @classmethod
    def of(
        cls,
        row: np.ndarray,
        off: ArrayLike,
        unit: ArrayLike = 0,
        entry: ArrayLike = -1,
        top: ArrayLike = -1,
    ) -> Found:
        """From columns, or one number for all rows."""
        n = len(row)
        rest = (np.broadcast_to(np.asarray(v, np.int64), n) for v in (unit, entry, top))
        return cls(row, np.broadcast_to(np.asarray(off, float), n), *rest)

    @classmethod
    def joined(cls, parts: list[Found]) -> Found:
        """All of several."""
        names = [f.name for f in fields(cls)]
        return cls(*(np.concatenate([getattr(f, name) for f in parts]) for name in names))

    def __len__(self) -> int:
        return len(self.row)

    def only(self, which: np.ndarray) -> Found:
        """Some of the rows."""
        return Found(*(getattr(self, f.name)[which] for f in fields(self)))

    def error(self, errors: np.ndarray, at: np.ndarray) -> np.ndarray:
        """`[n]` carried errors, from those `[N, units]` or `[N, units, K]` of points `at [n]`."""
        if errors.ndim == 2:
            return errors[at, self.unit]
        entry, top = np.maximum(self.entry, 0), np.maximum(self.top, 0)
        return errors[at, self.unit, entry] + errors[at, self.unit, top]


def entries_of(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and bit number of every set bit of `words [n, w]`."""
    row, word = np.nonzero(words)
    raw = np.ascontiguousarray(words[row, word])[:, None].view(np.uint8)
    which, bit = np.nonzero(np.unpackbits(raw, axis=1, bitorder="little"))
    return row[which], WORD * word[which] + bit


def packed(flags: np.ndarray) -> np.ndarray:
    """Booleans `[f]` as a row of words, bit f of the row set where `flags[f]`."""
    words = np.zeros(WORD * max(1, -(-len(flags) // WORD)), np.uint8)
    words[: len(flags)] = flags
    return np.packbits(words, bitorder="little").view(np.uint64)


def first_of(at: np.ndarray, count: int) -> np.ndarray:
    """Position in `at` where each of `0..count - 1` comes first; -1 where it does not."""
    first = np.full(count, -1)
    first[at[::-1]] = np.arange(len(at))[::-1]
    return first


def counted_once(found: Found, at: np.ndarray, count: int) -> Found:
    """Rows that are points, as the first (point, region) pair of each point; without: none."""
    found.row = first_of(at, count)[found.row]
    return found.only(found.row >= 0)


class KinkCheck:
    """The signs that a site's pattern says, of every unit at every knot.

    Functions that vary over the slice have a bit per region; of the others, the knots below
    `base` are passed everywhere and those above nowhere.
    """

    def __init__(self, stage: Kink, pattern: SitePattern, shape: tuple[int, ...]) -> None:
        knots = np.stack([k.expand(shape).reshape(-1).numpy() for k in stage.knots])
        self.bits = pattern.bits
        # a unit's varying knots are the ones next to those that it passes everywhere
        order = np.argsort(pattern.unit, kind="stable")
        ordered = pattern.unit[order]
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
        knot = pattern.base[pattern.unit] + rank
        self.sane = bool((knot < len(knots)).all())
        knot = np.minimum(knot, len(knots) - 1)
        self.column, self.offset = pattern.unit.astype(np.int64), knots[knot, pattern.unit]
        fixed = np.ones(knots.shape, bool)
        fixed[knot, pattern.unit] = False
        at, self.fixed_column = np.nonzero(fixed)
        self.fixed_offset = knots[fixed]
        self.fixed_bits = packed(at < pattern.base[self.fixed_column])

    def contradictions(self, z: np.ndarray, at: np.ndarray, faces: np.ndarray) -> Found:
        """Of values `z [N, units]` at points, and regions `faces [n]` at point `at [n]`."""
        found = [self._off(z, self.column, self.offset, at, self.bits[faces])]
        rows = np.arange(len(z))
        found.append(self._off(z, self.fixed_column, self.fixed_offset, rows, self.fixed_bits))
        # a fixed function is wrong in every region at the point: count it once
        found[1] = counted_once(found[1], at, len(z))
        if not self.sane:
            found.append(Found.of(np.zeros(1, np.int64), np.inf))
        return Found.joined(found)

    def _off(self, z, column, offset, at, bits) -> Found:
        if len(column) == 0:
            return Found.of(np.zeros(0, np.int64), 0.0)
        up, down = (np.empty((len(z), -(-len(column) // WORD)), np.uint64) for _ in range(2))
        ek.sign_masks(z, column, offset, 0.0, up, down)
        row, f = entries_of((up[at] & ~bits) | (down[at] & bits))
        return Found.of(row, np.abs(z[at[row], column[f]] - offset[f]), column[f])


class MaxCheck:
    """The largest entries that a maximum's pattern says, of every group."""

    def __init__(self, pattern: SitePattern) -> None:
        self.bits, self.group = pattern.bits, pattern.unit.astype(np.int64)
        fixed = np.ones(len(pattern.base), bool)
        fixed[self.group] = False
        self.fixed = np.flatnonzero(fixed)
        self.fixed_bits = pattern.base[self.fixed].astype(np.uint64)[None]

    def contradictions(self, values: np.ndarray, at: np.ndarray, faces: np.ndarray) -> Found:
        """Of candidates `[N, groups, K]` at points, and regions `faces [n]` at point `at [n]`."""
        held = self._off(values, self.group, at, self.bits[faces])
        rows = np.arange(len(values))
        fixed = self._off(values, self.fixed, rows, np.repeat(self.fixed_bits, len(values), 0))
        return Found.joined([held, counted_once(fixed, at, len(values))])

    def _off(self, values, group, at, bits) -> Found:
        none = np.nonzero(bits == 0)[0]  # no entry is said to be the largest
        found = [Found.of(none, np.inf)]
        if len(group) == 0:
            return found[0]
        own = values[:, group]
        top = own.max(2)
        largest = np.zeros(top.shape, np.uint64)
        for k in range(min(own.shape[2], WORD)):
            largest |= (own[:, :, k] == top).astype(np.uint64) << np.uint64(k)
        row, entry = entries_of(bits & ~largest[at])
        g, k = entry // WORD, entry % WORD
        k, outside = np.minimum(k, own.shape[2] - 1), k >= own.shape[2]
        off = top[at[row], g] - own[at[row], g, k]
        best = own[at[row], g].argmax(-1)
        found.append(Found.of(row, np.where(outside, np.inf, off), group[g], k, best))
        return Found.joined(found)


class NoCheck:
    """A site that cut no region: its pattern says nothing."""

    def contradictions(self, values: np.ndarray, at: np.ndarray, faces: np.ndarray) -> Found:
        """None."""
        return Found.of(np.zeros(0, np.int64), 0.0)


def checks_of(program: Program, patterns: Patterns) -> list[KinkCheck | MaxCheck | NoCheck]:
    """One per cut of the program, in order."""
    found: list[KinkCheck | MaxCheck | NoCheck] = []
    for stage, pattern in zip(program.cuts, patterns.sites, strict=True):
        if not len(pattern.base):
            found.append(NoCheck())
        elif isinstance(stage, Max):
            found.append(MaxCheck(pattern))
        else:
            found.append(KinkCheck(stage, pattern, program.shapes[stage.output]))
    return found


def seen_by(program: Program, x: torch.Tensor) -> Iterator[np.ndarray]:
    """Runs the network: yields what each cut sees, then the output `[N, C]`.

    A kink sees pre-activations `[N, units]`, a maximum its candidates `[N, units, K]`.
    """
    output = x
    for stage, arguments, result in program.steps(x):
        if isinstance(stage, Kink):
            yield arguments[0].reshape(len(x), -1).numpy()
        elif isinstance(stage, Max):
            yield stage.candidates(*arguments).numpy()
        if stage.output == program.output:
            output = result
    yield output.reshape(len(x), -1).numpy()

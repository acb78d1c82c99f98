"""States that are carried from region to region: a flip changes them by a rank-1 update."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from isogon.measures.boundary import kernels
from isogon.measures.boundary.exits import Regions
from isogon.measures.boundary.frozen import Frozen, Pieces, Seen
from isogon.measures.boundary.slack import Outputs
from isogon.measures.boundary.suffix import MOST, Suffix, suffix_of

ROOM = 64  # pieces until a state is computed afresh
LONGER = 1.2  # units are listed that lie within so many times the length of these pieces


@dataclass(eq=False)
class Carried:
    """What the cuts see and what competes at a point, and their two derivatives.

    Attributes:
        state: `[arguments + outputs, 3]`.
        p: `[2]` the point, in slice coordinates.
    """

    state: np.ndarray
    p: np.ndarray


@dataclass(eq=False)
class Passed:
    """How far a trace was taken.

    Attributes:
        p: `[2]` where it enters the next region.
        banned: Cut, unit and piece that it comes from.
        still: Flips in that point, without a piece between them.
        ends: `[pieces, 4]` what it passed.
        keys: `[pieces, 2]` keys of their regions.
        steps: Regions that were entered.
        drift: Largest distance from the line behind a unit, in parts of the slice's extent.
    """

    p: np.ndarray
    banned: tuple[int, int, int]
    still: int
    ends: np.ndarray
    keys: np.ndarray
    steps: int
    drift: float


class Carrier:
    """Takes traces through many regions with one pass over what a flip reaches in each.

    Args:
        frozen: The network on its slice.
        regions: The borders of its regions and of the slice.
        extent: Of the slice.
        suffix: The network behind each unit.
        place: Per cut the number of each of its arguments.
    """

    def __init__(
        self,
        frozen: Frozen,
        regions: Regions,
        extent: float,
        suffix: Suffix,
        place: list[np.ndarray],
    ) -> None:
        self.frozen, self.extent, self.suffix, self.place = frozen, extent, suffix, place
        self.inward, self.offset, self.zero = regions.inward, regions.offset, regions.zero
        self.odd = np.concatenate([o.numpy() for o in regions.odd], 1)
        arguments, units = len(suffix.unit_of), len(suffix.cut_of)
        self.rows = arguments + len(frozen.names)
        cuts = len(place) + 1
        self.record, self.record_key = np.empty((ROOM, 4)), np.empty((ROOM, 2), np.int64)
        self.room = (
            np.zeros(self.rows),
            np.full(cuts, self.rows),
            np.zeros(cuts, np.int64),
            np.empty(arguments, np.int64),
            np.empty(units, np.int64),
            np.zeros(units, np.int8),
            np.empty((3, 7)),
            np.empty(2, np.int64),
        )
        self.length, self.pieces = 0.0, 0

    @classmethod
    def of(cls, frozen: Frozen, regions: Regions, extent: float) -> Carrier | None:
        """The carrier of a network; None where its matrices would be too large, or it has none."""
        if frozen.noisy:  # what it lists is told by bounds
            return None
        found = suffix_of(frozen, MOST) if frozen.cuts else None
        return None if found is None else cls(frozen, regions, extent, *found)

    def states(self, p: np.ndarray, values: Outputs, seen: list[Seen]) -> list[Carried]:
        """The states of rows at points `p [n, 2]`: outputs and derivatives, what the cuts see."""
        outputs = len(self.suffix.unit_of)
        state = np.zeros((len(p), self.rows, 3))
        state[:, outputs:, 0] = values.value
        state[:, outputs:, 1:] = values.slope.transpose(1, 2, 0)
        for cut, place, own in zip(self.frozen.cuts, self.place, seen, strict=True):
            z, d = own.z.numpy(), own.d.numpy()
            if z.ndim == 3:
                entry = cut.index.numpy()  # type: ignore[union-attr]
                place, (unit, column) = place[entry[entry >= 0]], np.nonzero(entry >= 0)
                z, d = z[:, unit, column], d[:, :, unit, column]
            state[:, place, 0] = z
            state[:, place, 1], state[:, place, 2] = d[0], d[1]
        return [Carried(s, at.copy()) for s, at in zip(state, p, strict=True)]

    def apart(self, carried: Carried, fresh: Carried) -> float:
        """Largest difference of a carried state from one computed afresh.

        In parts of the largest value, and of the largest derivative, that the cut sees at some
        points of the slice.
        """
        x, y = fresh.p - carried.p
        with np.errstate(invalid="ignore"):
            value = carried.state[:, 0] + x * carried.state[:, 1] + y * carried.state[:, 2]
            off = np.stack([value, carried.state[:, 1], carried.state[:, 2]], 1) - fresh.state
        off = np.nan_to_num(np.abs(off), nan=0.0)  # of padding: -inf on both sides
        off = np.maximum.reduceat(off, self.suffix.argument_start)
        off = np.stack([off[:, 0], off[:, 1:].max(1)], 1)
        size = self.frozen.sizes
        return float((off / np.where(size > 0, size, np.inf)).max())

    def follow(
        self,
        own: Carried,
        p: np.ndarray,
        pair: np.ndarray,
        pieces: Pieces,
        row: int,
        banned: np.ndarray,
        still: int,
        key: list[int],
    ) -> Passed:
        """Take a trace on, from a unit that it has just changed.

        Args:
            own: The state before the change; becomes that behind.
            p: `[2]` where it enters the region.
            pair: `[2]` class on its left, on its right.
            pieces: Of all rows, behind the change; those of the row are changed.
            row: Which row it is.
            banned: `[3]` cut and unit that changed, and the piece that it was on.
            still: Changes in this point so far.
            key: Of the region that it left.
        """
        s = self.suffix
        unit = int(s.unit_start[banned[0]] + banned[1])
        piece = np.concatenate([x[row].numpy() for x in pieces])
        to = int(piece[unit])
        piece[unit] = banned[2]
        reach = LONGER * ROOM * self.length / max(self.pieces, 1)
        number = np.array([*p, reach, 0.0])
        count = np.array([unit, banned[2], *pair, still, 0, 0], np.int64)
        kernels.advance(
            s,
            own.state,
            piece,
            to,
            self.odd,
            self.zero,
            self.inward,
            self.offset,
            own.p,
            self.extent,
            number,
            count,
            np.array(key, np.int64),
            self.record,
            self.record_key,
            *self.room,
        )
        for x, low in zip(pieces, s.unit_start, strict=False):
            x[row] = torch.from_numpy(piece[low : low + x.shape[1]])
        size = int(count[kernels.PIECES])
        ends = self.record[:size].copy()
        self.length += float(np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1]).sum())
        self.pieces += size
        cut = int(s.cut_of[count[kernels.UNIT]])
        back = cut, int(count[kernels.UNIT] - s.unit_start[cut]), int(count[kernels.BACK])
        return Passed(
            number[:2].copy(),
            back,
            int(count[kernels.STILL]),
            ends,
            self.record_key[:size].copy(),
            int(count[kernels.STEPS]),
            float(number[kernels.DRIFT]),
        )

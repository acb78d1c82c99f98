"""The rays of the boundary that leave a point in which many units vanish, or many classes tie.

Around such a point the network is affine on sectors. Directions between two known borders of
sectors are looked at together: what vanishes at the point and changes its sign between them is a
border, too, until there is none left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from isogon.cpwl.stages import Kink
from isogon.measures.boundary.frozen import (
    MARGIN,
    Beside,
    Frozen,
    Pieces,
    first_of,
    knots_of,
    top_of,
)

FIRST = 8  # sectors to begin with
OFFSET = 0.2718  # of their borders, which should be none in earnest
ROUNDS = 40
STRAIGHT = 1e-6  # radians
NARROW = 1e-9  # a sector that is not looked at


@dataclass(eq=False)
class Fan:
    """The rays that leave a point, counter-clockwise.

    Attributes:
        angle: `[k]` of each ray.
        left: `[k]` class on its left, counter-clockwise from it.
        right: `[k]` class on its right.
        pieces: Per cut `[k, units]`: of a region along the ray, in which the classes differ.
    """

    angle: np.ndarray
    left: np.ndarray
    right: np.ndarray
    pieces: Pieces

    def __len__(self) -> int:
        return len(self.angle)

    def straight(self) -> np.ndarray | None:
        """`[2]` the direction of a line that the rays are the two halves of; None: they are not."""
        way = np.stack([np.cos(self.angle), np.sin(self.angle)], 1)
        return way[0] if len(way) == 2 and np.abs(way.sum(0)).max() < STRAIGHT else None


def fan(frozen: Frozen, p: np.ndarray) -> Fan | None:
    """The rays that leave a point `[2]`; None: its sectors are too many."""
    edges = OFFSET + 2 * np.pi * np.arange(FIRST + 1) / FIRST
    todo = np.stack([edges[:-1], edges[1:]], 1)
    low: list[np.ndarray] = []
    label: list[np.ndarray] = []
    slopes: list[np.ndarray] = []
    rates: list[np.ndarray] = []
    pieces: list[Pieces] = []
    for _ in range(ROUNDS):
        middle = todo.mean(1)
        way = np.stack([np.cos(middle), np.sin(middle)], 1)
        found = frozen.beside(np.repeat(p[None], len(todo), 0), way)
        row, angle = _borders(frozen, found, todo[:, 0])
        inside = (angle > todo[row, 0] + NARROW) & (angle < todo[row, 1] - NARROW)
        row, angle = row[inside], angle[inside]
        whole = np.setdiff1d(np.arange(len(todo)), row)
        low.append(todo[whole, 0])
        label.append(first_of(found.outputs, way)[whole])
        slopes.append(found.outputs.slope[:, whole])
        rates.append(found.outputs.rate[whole])
        pieces.append([x[torch.from_numpy(whole)] for x in found.pieces])
        if not len(row):
            break
        todo = np.concatenate([_split(*todo[k], angle[row == k]) for k in np.unique(row)])
    else:
        return None
    start, classes, slope = np.concatenate(low), np.concatenate(label), np.concatenate(slopes, 1)
    own = [torch.cat(parts) for parts in zip(*pieces, strict=True)]
    order = np.argsort(start)
    left, right = classes[order], classes[np.roll(order, 1)]
    rays = np.flatnonzero(left != right)
    after, before = order[rays], np.roll(order, 1)[rays]
    left, right, least = left[rays], right[rays], np.concatenate(rates)
    steep = np.linalg.norm(slope[:, after, left] - slope[:, after, right], axis=0)
    clear = steep > least[after, left] + least[after, right]
    side = torch.from_numpy(np.where(clear, after, before))
    return Fan(start[after], left, right, [x[side] for x in own])


def _split(low: float, high: float, inside: np.ndarray) -> np.ndarray:
    """`[n, 2]` the parts of a sector."""
    inside = np.sort(inside)
    edges = np.concatenate([[low], inside, [high]])
    kept = np.concatenate([[True], np.diff(inside, prepend=low) > NARROW, [True]])
    edges = edges[kept]
    return np.stack([edges[:-1], edges[1:]], 1)


def _borders(frozen: Frozen, at: Beside, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions in which something that vanishes at the point changes its sign.

    Returns the row of each and its angle, not below `low` of the row.
    """
    rows, ways = [np.zeros(0, np.int64)], [np.zeros((0, 2))]
    for row, d, _ in vanishing(frozen, at):
        rows.append(row)
        ways.append(d)
    slopes, least = at.outputs.slope, at.outputs.rate
    near = top_of(at.outputs.value, MARGIN * at.outputs.slack)
    row, i = near.nonzero()
    for a in np.flatnonzero(near.any(0)):  # every pair of classes that tie
        both = near[row, a] & (i < a)
        slope = (slopes[:, row, i] - slopes[:, row, a]).T
        both &= np.abs(slope).max(1) > least[row, i] + least[row, a]
        rows.append(row[both])
        ways.append(slope[both])
    row, d = np.concatenate(rows), np.concatenate(ways)
    angle = np.arctan2(d[:, 0], -d[:, 1])
    row, angle = np.tile(row, 2), np.concatenate([angle, angle + np.pi])
    return row, low[row] + (angle - low[row]) % (2 * np.pi)


def vanishing(frozen: Frozen, at: Beside):
    """What is zero at points within rounding, but not around them.

    Yields:
        Per cut the rows, `[m, 2]` derivatives, and those of `[m]` what counts as zero of them.
    """
    for cut, (stage, seen) in enumerate(zip(frozen.cuts, at.seen, strict=True)):
        zero = seen.zero
        if isinstance(stage, Kink):
            near = torch.zeros(seen.z.shape, dtype=torch.bool)
            shape = frozen.program.shapes[stage.inputs[0]]
            for knot in knots_of(stage, seen.z.shape[1], shape):
                near |= (seen.z - knot).abs() <= MARGIN * zero.value
            row, unit = near.nonzero(as_tuple=True)
            slope, give = seen.d[:, row, unit], zero.of(row, unit)[1]
        else:
            won = at.pieces[cut][..., None].long()
            slack = zero.value + zero.value.expand_as(seen.z).gather(2, won)
            near = seen.z.gather(2, won) - seen.z <= MARGIN * slack
            row, unit, k = near.nonzero(as_tuple=True)
            best = won[row, unit, 0]
            slope = seen.d[:, row, unit, k] - seen.d[:, row, unit, best]
            give = zero.of(row, unit, k)[1] + zero.of(row, unit, best)[1]
        steep = (slope.abs() > give).any(0)
        yield row[steep].numpy(), slope[:, steep].T.numpy(), give[steep].numpy()

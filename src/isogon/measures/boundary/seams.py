"""Pieces of the boundary along the border of two regions, or on which a third class is tied.

What lies on either side of such a line is looked at by itself: the first of the largest classes
there. The piece ends where either side's region does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isogon.measures.boundary.exits import NOTHING, Regions, moved
from isogon.measures.boundary.frozen import Pieces, first_of
from isogon.measures.boundary.slack import Outputs


@dataclass(eq=False)
class Seam:
    """A line from a point of it on, and what lies beside it.

    Attributes:
        pair: Class on its left and on its right.
        tied: Whether the two are tied on all of one side.
        pieces: Of the regions on its left and right, per cut `[2, units]`.
        length: Until either region is left.
    """

    pair: tuple[int, int]
    tied: bool
    pieces: Pieces
    length: float


def seam(regions: Regions, p: np.ndarray, t: np.ndarray) -> Seam:
    """What lies beside the line from a point `[2]` along a direction `[2]`.

    Args:
        regions: The borders of regions.
        p: A point of the line.
        t: Its direction, of unit length.
    """
    frozen, normal = regions.frozen, np.array([-t[1], t[0]])
    at, ahead, across = np.stack([p, p]), np.stack([t, t]), np.stack([normal, -normal])
    found = frozen.beside(at, ahead, across)
    left, right = first_of(found.outputs, ahead, across).tolist()
    none = np.zeros((2, 2))
    rays = [moved(own, ahead, none) for own in found.seen]
    if rays:
        regions.settle(found.seen, found.pieces, rays)
    out = regions.first(
        rays,
        found.pieces,
        found.outputs,
        (at, none, ahead),
        np.array([[left, left], [right, right]]),  # each side is left by any other class
        np.stack([NOTHING, NOTHING]),
    )
    tied = _flat(found.outputs, left, right, across)
    return Seam((left, right), tied, found.pieces, float(out.s.min()))


def _flat(found: Outputs, i: int, j: int, across: np.ndarray) -> bool:
    """Whether two classes are equal on all of one side."""
    slope, least = found.slope[:, :, i] - found.slope[:, :, j], found.rate[:, i] + found.rate[:, j]
    return bool((np.abs((slope.T * across).sum(1)) <= least).any())

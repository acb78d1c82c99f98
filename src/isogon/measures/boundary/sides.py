"""Whether two classes change across a line on which they are equal, that no region crosses."""

from __future__ import annotations

import numpy as np

from isogon.measures.boundary.frozen import Frozen, Pieces
from isogon.measures.boundary.strokes import OPEN, TIED, TOUCH


def sides(
    frozen: Frozen, middle: np.ndarray, normal: np.ndarray, pair: np.ndarray
) -> tuple[int, Pieces, np.ndarray]:
    """Look at both sides of a line along the border of two regions.

    The line is part of the boundary if the first class is the largest on its left, and the
    second on its right; where they are tied on a side, the first of all counts there.

    Args:
        frozen: The network.
        middle: `[2]` a point of the line.
        normal: `[2]` to its left, of unit length.
        pair: `[2]` classes on its left and right.

    Returns:
        `OPEN` if it is; `TIED` or `TOUCH` if not, by whether classes are tied beside it; the
        pieces on the left and on the right; `[2]` whether the classes differ on each side.
    """
    at = np.stack([middle, middle])
    pieces, slope = frozen.beside(at, np.stack([normal, -normal]))
    rates = np.stack([normal @ slope[:, 0].numpy(), normal @ slope[:, 1].numpy()])
    least, slack = frozen.zero.rate.numpy(), frozen.slack
    i, j = pair
    rise = rates[:, i] - rates[:, j]
    whole = rise > least[i] + least[j]
    tied = np.abs(rise) <= least[i] + least[j]
    real = whole.any() and (whole | (tied & np.array([i < j, j < i]))).all()
    value = frozen.values(middle[None])[0]
    near = np.abs(value - value[i]) <= slack + slack[i]  # a third class that counts beside it
    over = near & _first(rates[0], i, least)
    under = near & _first(-rates[1], j, least)
    if real and not over.any() and not under.any():
        return OPEN, pieces, whole
    return (TIED if tied.any() else TOUCH), pieces, whole


def _first(rates: np.ndarray, own: int, least: np.ndarray) -> np.ndarray:
    """`[C]` which classes count before one: they grow faster, or alike and come first."""
    ahead, give = rates - rates[own], least + least[own]
    return (ahead > give) | ((np.abs(ahead) <= give) & (np.arange(len(rates)) < own))

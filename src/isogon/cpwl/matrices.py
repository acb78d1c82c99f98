"""The sparse matrix of an affine stage, found by probing it.

A stage is a function: it may be a convolution, a sum, a view, a pooling. Its matrix has a column
per entry of the input. Entries whose effects can't overlap are probed together: the rows of an
image that reach disjoint outputs, and likewise its columns. A convolution of 3 x 3 takes nine
probes per channel, however large the image.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from isogon.cpwl.stages import Affine

BLOCK = 1 << 22  # numbers per batch of probes


class TooManyEntries(Exception):
    """A matrix has more entries than there is room for."""


@torch.no_grad()
def matrix(
    stage: Affine, position: int, shapes: list[tuple[int, ...]], most: int
) -> sparse.csr_matrix:
    """The linear part of a stage, with regard to one of its inputs: `[outputs, entries]`.

    Args:
        stage: The stage.
        position: Which of its inputs; the others are zero.
        shapes: Of one sample of each input.
        most: Entries that there is room for.

    Raises:
        TooManyEntries: There are more.
    """
    shape = shapes[position]
    channels, height, width = axes(shape)
    zero = [torch.zeros(1, *s, dtype=torch.float64) for s in shapes]
    count = math.prod(shape)

    def act(x: Tensor, linear=stage.linear) -> np.ndarray:
        values = [z.expand(len(x), *z.shape[1:]) for z in zero]
        values[position] = x.reshape(len(x), *shape)
        return linear(*values).reshape(len(x), -1).numpy()

    outputs = act(torch.zeros(1, count, dtype=torch.float64)).shape[1]
    some = _reach(act, stage, (channels, height, width))
    rows, columns = _apart(some[0]), _apart(some[1])
    step = max(1, BLOCK // max(count, outputs))
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    total = 0
    for own_row, of_row in rows:
        for own_column, of_column in columns:
            known = (of_row >= 0) & (of_column >= 0)
            place = of_row * width + of_column
            for low in range(0, channels, step):
                own = np.arange(low, min(low + step, channels))
                probe = torch.zeros(len(own), channels, height, width, dtype=torch.float64)
                grid = np.ix_(own_row, own_column)
                for n, channel in enumerate(own):
                    probe[n, channel][grid] = 1.0
                effect = act(probe)
                n, out = np.nonzero((effect != 0) & known)
                total += len(n)
                if total > most:
                    raise TooManyEntries
                entry = own[n] * (height * width) + place[out]
                found.append((effect[n, out], out, entry))
    values, out, entry = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return sparse.csr_matrix((values, (out, entry)), shape=(outputs, count))


def axes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of a sample; what is no image is all channels."""
    if len(shape) == 3:
        return shape
    if len(shape) == 2:
        return shape[0], 1, shape[1]
    return math.prod(shape), 1, 1


def _reach(act, stage: Affine, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Which outputs depend on each row, and on each column of the input: `[rows, outputs]` each.

    From one probe of all of it: with coefficients and entries that are not negative nothing
    cancels; else entries are drawn at random.
    """
    generator = torch.Generator().manual_seed(0)
    fill = 1 + torch.rand(shape, generator=generator, dtype=torch.float64)
    linear = stage.linear if stage.weights is None else stage.weights(torch.abs)
    found = []
    for axis in (1, 2):
        probe = torch.zeros(shape[axis], *shape, dtype=torch.float64)
        for k in range(shape[axis]):
            probe[k].select(axis, k).copy_(fill.select(axis, k))
        found.append(act(probe, linear) != 0)
    return found[0], found[1]


def _apart(reach: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Groups of rows that reach disjoint outputs, and for each output the row that reaches it."""
    groups: list[tuple[list[int], np.ndarray]] = []
    for k, own in enumerate(reach):
        free = next((g for g in groups if not (own & (g[1] >= 0)).any()), None)
        if free is None:
            free = [], np.full(reach.shape[1], -1)
            groups.append(free)
        free[0].append(k)
        free[1][own] = k
    return [(np.array(rows), of) for rows, of in groups]

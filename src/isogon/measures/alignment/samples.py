"""One representation as metrics of all pairs of samples see it: what they share is made once."""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from isogon.errors import DataError
from isogon.measures.alignment.products import TILE, gram, mirrored

CLOSE = 1e-6  # of the samples' squared lengths: smaller squared distances come from differences
ROWS = 2**22  # numbers in differences of samples at once


class Near(NamedTuple):
    """The k nearest samples of each, nearest first, by the cosine of uncentred rows.

    Attributes:
        order: Which they are, ``[n, k]``.
        cosines: How near they are, ``[n, k]``.
        unit: All rows, of length 1 (or 0), ``[n, p]``.
    """

    order: Tensor
    cosines: Tensor
    unit: Tensor

    def moved(self, order: Tensor) -> Near:
        """The same with sample ``order[i]`` in place of sample i."""
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        return Near(place[self.order[order]], self.cosines[order], self.unit[order])


class SampleView:
    """One representation.

    Args:
        x: ``[n, p]``, float64.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._near: dict[int, Near] = {}

    @cached_property
    def unit(self) -> Tensor:
        """Rows of length 1; 0 where they are 0."""
        size = self.x.norm(dim=1, keepdim=True)
        return self.x / torch.where(size > 0, size, 1.0)

    @cached_property
    def cosines(self) -> Tensor:
        """Of all pairs of samples, ``[n, n]``; -inf on the diagonal: nobody is near itself."""
        return gram(self.unit).fill_diagonal_(-math.inf)

    @cached_property
    def distances(self) -> Tensor:
        """Euclidean distances of all pairs of samples, ``[n, n]``."""
        return squared_distances(self.x).sqrt_()

    def near(self, k: int) -> Near:
        """The k nearest samples of each.

        Raises:
            DataError: Not more than k samples.
        """
        if len(self.x) <= k:
            raise DataError(
                "not enough samples for the neighbours asked for",
                got=f"{len(self.x)} samples",
                expected=f"more than k = {k}",
                fix="Use more samples, or a smaller k.",
            )
        if k not in self._near:
            found = self.cosines.topk(k, dim=1)
            self._near[k] = Near(found.indices, found.values, self.unit)
        return self._near[k]


def squared_distances(x: Tensor) -> Tensor:
    """Squared Euclidean distances of all pairs of rows ``[n, p]``, ``[n, n]``.

    By products of the centred rows; where two lie so close that digits were lost, by differences.
    """
    found = gram(x - x.mean(0))
    squares = found.diagonal().clone()
    close = []
    for r in range(0, len(x), TILE):
        part = found[r : r + TILE]  # stays in the cache
        sizes = squares[r : r + TILE, None] + squares
        part.mul_(-2).add_(sizes)
        near = (part < sizes.mul_(CLOSE)).nonzero()
        near[:, 0] += r
        close.append(near[near[:, 0] > near[:, 1]])
    found.fill_diagonal_(0)
    step = max(1, ROWS // max(1, x.shape[1]))
    for pairs in torch.cat(close).split(step):
        i, j = pairs.T
        found[i, j] = found[j, i] = (x[i] - x[j]).square().sum(1)
    return found


def off_diagonal(matrix: Tensor) -> Tensor:
    """What lies below the diagonal, row by row, ``[n (n - 1) / 2]``."""
    n = len(matrix)
    found = matrix.new_empty(n * (n - 1) // 2)
    for i, row in enumerate(matrix):
        found[i * (i - 1) // 2 : i * (i + 1) // 2] = row[:i]
    return found


def from_off_diagonal(values: Tensor) -> Tensor:
    """The symmetric matrix with a zero diagonal that they lie in, ``[n, n]``."""
    n = (1 + math.isqrt(1 + 8 * len(values))) // 2
    found = values.new_zeros(n, n)
    for i, row in enumerate(found):
        row[:i] = values[i * (i - 1) // 2 : i * (i + 1) // 2]
    return mirrored(found)


def ranks(values: Tensor) -> Tensor:
    """Ranks of a list from 1, equal ones share their mean rank."""
    v = values.cpu().numpy()
    order = np.argsort(v)
    ordered = v[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    found = np.empty(len(v))
    if len(first) == len(v):
        found[order] = np.arange(1.0, len(v) + 1)
    else:
        ends = np.concatenate((first[1:], [len(v)]))
        found[order] = np.repeat((first + ends + 1) / 2, ends - first)
    return torch.from_numpy(found).to(values)

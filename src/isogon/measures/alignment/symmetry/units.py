"""Labels of numbers: which unit a number belongs to, and by what it may be scaled."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

FIXED = 0  # the unit that stays where it is, the scale that is 1
ZERO = -1  # a number that is 0 whatever the input: any unit's, at any scale

POSITIVE, UNIT, NORMED = 1, 2, 4  # what a scale has to be: > 0, +-1; NORMED: a batch-norm undoes it


class Classes:
    """Labels 0, 1, ..., of which some are one and the same (union-find)."""

    def __init__(self) -> None:
        self.parents = array("q", [0])  # numpy copies it at once, a list number by number
        self._table: Tensor | None = None

    def fresh(self, count: int) -> Tensor:
        """So many labels of their own, ``[count]``."""
        start = len(self.parents)
        self.parents.extend(range(start, start + count))
        self._table = None
        return torch.arange(start, start + count)

    def root(self, label: int) -> int:
        """The label that stands for all that are the same."""
        while self.parents[label] != label:
            self.parents[label] = self.parents[self.parents[label]]
            label = self.parents[label]
        return label

    def join(self, a: Tensor, b: Tensor) -> None:
        """Make labels the same, pair by pair; what is 0 joins nothing."""
        pairs = different(a, b)
        if not len(pairs):
            return
        self._table = None
        for i, j in pairs.tolist():
            i, j = sorted((self.root(i), self.root(j)))
            self.parents[j] = i

    def now(self, labels: Tensor) -> Tensor:
        """The labels by their roots."""
        if self._table is None:
            self._table = torch.from_numpy(np.append(self.roots(), ZERO))  # ZERO is -1: the last
        return self._table[labels]

    def roots(self) -> np.ndarray:
        """The root of every label: ways to them are halved until they end."""
        found = np.array(self.parents)
        while not np.array_equal(above := found[found], found):
            found = above
        return found


def different(a: Tensor, b: Tensor) -> Tensor:
    """The distinct pairs of labels that differ, neither of them of what is 0, ``[pairs, 2]``."""
    a, b = torch.broadcast_tensors(a, b)
    differ = (a != b) & (a != ZERO) & (b != ZERO)
    return distinct(a[differ], b[differ])[0]


def distinct(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct pairs of labels, ``[pairs, 2]``, and which of them each pair is.

    Each pair as one number: rows would be sorted by a comparison of rows, ten times slower.
    """
    width = int(b.max()) + 2 if b.numel() else 1
    key, where = ((a + 1) * width + b + 1).unique(return_inverse=True)
    return torch.stack([key // width - 1, key % width - 1], 1), where


@dataclass(frozen=True)
class Data:
    """Labels of the numbers of an activation, for one sample: ``[1, ...]``, int64."""

    units: Tensor
    scales: Tensor

    @property
    def fixed(self) -> bool:
        """Whether nothing in it can move."""
        return bool((self.units <= FIXED).all() and (self.scales <= FIXED).all())


@dataclass(frozen=True)
class Held:
    """A parameter, a buffer or a constant in the graph, perhaps with its axes in another order.

    Attributes:
        name: Its path in the model.
        axes: Which of its axes stand where; None for an axis of length 1 that was added.
    """

    name: str
    axes: tuple[int | None, ...]


Labels = Data | Held


@dataclass
class Axis:
    """Labels along an axis of a weight.

    Attributes:
        units: ``[d]``.
        scales: Pairs of labels ``[d]`` and the power with which these scales enter.
    """

    units: Tensor
    scales: list[tuple[Tensor, int]]


@dataclass
class Block:
    """A weight, or a range of its rows with labels of its own (a group of a convolution).

    Attributes:
        rows: First row and the one behind the last.
        shape: Shape that the block is seen in; its sizes are those of the axes.
        axes: One per axis.
    """

    rows: tuple[int, int]
    shape: tuple[int, ...]
    axes: list[Axis]

"""Statistics made of statistics: several at once, by class, in blocks, pooled, of pairs.

Each is a `Stat` itself, so that they nest: ``ByClass(lambda: Blocks(Moments, 32))``. Samples are
the first axis of whatever is taken in; labels and the samples' places in the data come beside
them and are handed down to whoever needs them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from isogon.errors import DataError

if TYPE_CHECKING:
    from isogon.stats.base import Stat


Make = Callable[[], Any]
How = Literal["mean", "max", "sum"]
Maps = Literal["flatten", "positions", "mean"]


class Wrapper:
    """What wrappers have in common: they pass labels and rows on."""

    def update(self, *x: Tensor, labels: Tensor | None = None, rows: Tensor | None = None) -> Self:
        """Take in values ``[n, ...]`` of samples with labels ``[n]`` and places ``[n]``."""
        raise NotImplementedError

    def merge(self, other: Self) -> Self:
        """Take in what another one has seen."""
        raise NotImplementedError

    def compute(self) -> Any:
        """The result so far."""
        raise NotImplementedError


def feed(stat: Stat, *x: Tensor, labels: Tensor | None, rows: Tensor | None) -> None:
    """Update a statistic; labels and rows go to wrappers only."""
    if isinstance(stat, Wrapper):
        stat.update(*x, labels=labels, rows=rows)
    else:
        stat.update(*x)


class Together(Wrapper):
    """Several statistics of the same values, by name.

    Args:
        stats: The statistics.
    """

    def __init__(self, stats: Mapping[str, Stat]) -> None:
        self.stats = dict(stats)

    def __getitem__(self, name: str) -> Stat:
        return self.stats[name]

    def update(self, *x: Tensor, labels: Tensor | None = None, rows: Tensor | None = None) -> Self:
        """Update each."""
        for stat in self.stats.values():
            feed(stat, *x, labels=labels, rows=rows)
        return self

    def merge(self, other: Self) -> Self:
        """Merge each with its namesake."""
        for name, stat in self.stats.items():
            stat.merge(other.stats[name])
        return self

    def compute(self) -> dict[str, Any]:
        """The result of each."""
        return {name: stat.compute() for name, stat in self.stats.items()}


class ByClass(Wrapper):
    """A statistic within each class of labels.

    Args:
        make: Makes the statistic of a class, when its first sample is seen.

    Attributes:
        parts: The statistics by label: an int, or a float where it is not whole.
    """

    def __init__(self, make: Make) -> None:
        self.make = make
        self.parts: dict[int | float, Stat] = {}

    def update(self, *x: Tensor, labels: Tensor | None = None, rows: Tensor | None = None) -> Self:
        """Take in values ``[n, ...]`` of samples with labels ``[n]``.

        Raises:
            DataError: Not one label per sample.
        """
        if labels is None or labels.numel() != len(x[0]):
            raise DataError(
                "statistics by class need one label per sample",
                got="none" if labels is None else f"{list(labels.shape)} for {len(x[0])} samples",
                expected=f"[{len(x[0])}]",
            )
        labels = labels.reshape(-1)
        for value in labels.unique():
            index = (labels == value).nonzero()[:, 0]
            mine = [_taken(a, index) for a in x]
            label = int(value) if float(value).is_integer() else float(value)
            if label not in self.parts:
                self.parts[label] = self.make()
            places = None if rows is None else rows[index.to(rows.device)]
            feed(self.parts[label], *mine, labels=labels[index], rows=places)
        return self

    def merge(self, other: Self) -> Self:
        """Merge class by class."""
        for label, part in other.parts.items():
            if label in self.parts:
                self.parts[label].merge(part)
            else:
                self.parts[label] = copy.deepcopy(part)
        return self

    def compute(self) -> dict[int | float, Any]:
        """The result of each class, in the order of labels."""
        return {label: self.parts[label].compute() for label in sorted(self.parts)}


class Blocks(Wrapper):
    """A statistic, whole and in blocks of samples for the bootstrap.

    Sample i belongs to block ``i mod count``, so that blocks depend neither on batches nor on
    shares of the data.

    Args:
        make: Makes the statistic of a block.
        count: Number of blocks.
    """

    def __init__(self, make: Make, count: int) -> None:
        self.make = make
        self.blocks = [make() for _ in range(count)]
        self.seen = [0] * count

    def update(self, *x: Tensor, labels: Tensor | None = None, rows: Tensor | None = None) -> Self:
        """Take in values of samples; ``rows`` tells which samples they are (else the next)."""
        if rows is None:
            rows = torch.arange(len(x[0])) + sum(self.seen)
        block = rows % len(self.blocks)
        for k in block.unique().tolist():
            index = (block == k).nonzero()[:, 0]
            mine = [_taken(a, index) for a in x]
            part = None if labels is None else labels[index.to(labels.device)]
            feed(self.blocks[k], *mine, labels=part, rows=rows[index])
            self.seen[k] += len(index)
        return self

    def merge(self, other: Self) -> Self:
        """Merge block by block."""
        for mine, theirs in zip(self.blocks, other.blocks, strict=True):
            mine.merge(theirs)
        self.seen = [a + b for a, b in zip(self.seen, other.seen, strict=True)]
        return self

    def compute(self) -> Any:
        """The result of all blocks together."""
        return self._of(self.filled)

    @property
    def filled(self) -> list[int]:
        """The blocks that have samples."""
        return [k for k, n in enumerate(self.seen) if n]

    def replicates(self, count: int, generator: torch.Generator) -> Iterator[Any]:
        """Results of resamples of the blocks, drawn with replacement."""
        filled = self.filled
        for _ in range(count):
            drawn = torch.randint(len(filled), (len(filled),), generator=generator).tolist()
            yield self._of([filled[k] for k in drawn])

    def _of(self, blocks: list[int]) -> Any:
        whole = self.make()
        for k in blocks:
            whole.merge(self.blocks[k])
        return whole.compute()


class Pooled(Wrapper):
    """A statistic of values that are first reduced over axes, e.g. maps over space.

    Args:
        stat: The statistic.
        how: ``mean``, ``max`` or ``sum``; means and sums in float64.
        start: First axis that is reduced.
        stop: Axis behind the last one; None for all.
    """

    def __init__(self, stat: Stat, how: How, start: int = 2, stop: int | None = None) -> None:
        self.stat, self.start, self.stop = stat, start, stop
        self.how: How = how

    def update(self, *x: Tensor, labels: Tensor | None = None, rows: Tensor | None = None) -> Self:
        """Take in values; those that have no such axes go through as they are."""
        pooled = (pool(a, self.how, self.start, self.stop) for a in x)
        feed(self.stat, *pooled, labels=labels, rows=rows)
        return self

    def merge(self, other: Self) -> Self:
        """Take in what another one has seen."""
        self.stat.merge(other.stat)
        return self

    def compute(self) -> Any:
        """The result so far."""
        return self.stat.compute()


def pool(x: Tensor, how: How, start: int = 2, stop: int | None = None) -> Tensor:
    """Mean, maximum or sum over axes ``start .. stop - 1`` (all from ``start`` on)."""
    axes = tuple(range(x.dim()))[start:stop]
    if not axes:
        return x
    if how == "max":
        return x.amax(axes)
    x = x.double()
    return x.mean(axes) if how == "mean" else x.sum(axes)


class Pair(Wrapper):
    """A statistic of two activations of the same samples, each as a matrix.

    Args:
        stat: With ``update(x [m, p], y [m, q])``, e.g. `CrossMoments`.
        maps: How an activation becomes a matrix, see `matrix`; maps of different sizes are
            brought to the larger height and width for ``positions``.
        axes: The channel axis of each.
    """

    def __init__(
        self, stat: Stat, maps: Maps = "positions", axes: tuple[int, int] = (1, 1)
    ) -> None:
        self.stat, self.axes = stat, axes
        self.maps: Maps = maps

    def update(self, *x: Tensor, labels: Tensor | None = None, rows: Tensor | None = None) -> Self:
        """Take in two activations ``[n, ...]``.

        Raises:
            DataError: Positions that can't be paired.
        """
        first, second = x
        a, b = first.movedim(self.axes[0], 1), second.movedim(self.axes[1], 1)
        if self.maps == "positions":
            a, b = same_positions(a, b)
        a, b = matrix(a, self.maps), matrix(b, self.maps)
        places = len(a) // max(1, len(first))
        if places > 1:  # a row per position: labels and places of its sample
            labels = None if labels is None else labels.repeat_interleave(places, 0)
            rows = None if rows is None else rows.repeat_interleave(places)
        feed(self.stat, a, b, labels=labels, rows=rows)
        return self

    def merge(self, other: Self) -> Self:
        """Take in what another one has seen."""
        self.stat.merge(other.stat)
        return self

    def compute(self) -> Any:
        """The result so far."""
        return self.stat.compute()


def matrix(x: Tensor, maps: Maps, axis: int = 1) -> Tensor:
    """An activation ``[n, C, ...]`` as a matrix.

    ``flatten``: ``[n, C * positions]``; ``positions``: a row per position, ``[n * positions, C]``;
    ``mean``: the mean over positions, ``[n, C]``.
    """
    x = x.movedim(axis, 1)
    if maps == "flatten" or x.dim() < 3:
        return x.flatten(1)
    if maps == "mean":
        return x.flatten(2).double().mean(2)
    return x.movedim(1, -1).flatten(0, -2)


def same_positions(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two activations ``[n, C, ...]`` at the same positions: the more along each axis.

    The value at index i of H is the nearest of h, that at ``floor(i h / H)``: nothing is left out.

    Raises:
        DataError: Different numbers of axes.
    """
    if a.dim() != b.dim():
        raise DataError(
            "positions can't be paired",
            got=f"{list(a.shape)} and {list(b.shape)}",
            expected="equally many axes",
            fix="Compare flattened activations or their means over positions.",
        )
    for axis in range(2, a.dim()):
        size = max(a.shape[axis], b.shape[axis])
        a, b = (_nearest(t, axis, size) for t in (a, b))
    return a, b


def _nearest(x: Tensor, axis: int, size: int) -> Tensor:
    if x.shape[axis] == size:
        return x
    index = torch.arange(size, device=x.device) * x.shape[axis] // size
    return x.index_select(axis, index)


def _taken(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x; a slice where they are evenly spaced, so that nothing is copied."""
    if len(index) == len(x):
        return x
    steps = index.diff()
    if len(index) == 1 or bool((steps == steps[0]).all()):
        step = int(steps[0]) if len(index) > 1 else 1
        return x[int(index[0]) : int(index[-1]) + 1 : step]
    index = index.to(x.device)
    if x.dim() > 2 and x.stride(1) > x.stride(0):  # transformations outermost in memory: as it came
        return x.transpose(0, 1)[:, index].transpose(0, 1)
    return x[index]

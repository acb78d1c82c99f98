"""Batches: a re-iterable of ``(x [n, ...], y [n])`` that answers the same on every pass."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isogon.data.finite import check_inputs
from isogon.data.labels import as_inputs, as_labels, unlabelled
from isogon.data.samples import Samples
from isogon.errors import DataError, OptionError
from isogon.specs import Spec
from isogon.storage import digests

# a spec, samples, a map-style data set, a pair of tensors, or a re-iterable of (x, y)
DataLike = str | Spec | Samples | torch.utils.data.Dataset | Iterable


class Batches:
    """The samples of a data set in order, batch by batch, as often as asked.

    Args:
        samples: The data set.
        batch_size: Samples per batch; the last batch may be smaller.
        workers: Processes that read ahead (0: none).

    Attributes:
        samples: The data set.
        count: Number of samples.
        name: What the data set is called in reports.
        classes: Names of its classes, or None.
    """

    _digest: str | None = None

    def __init__(self, samples: Samples, batch_size: int = 256, *, workers: int = 0) -> None:
        if batch_size < 1:
            raise OptionError("batch size too small", got=batch_size, expected="at least 1")
        if workers < 0:
            raise OptionError("negative number of workers", got=workers, expected="0 or more")
        self.samples, self.batch_size, self.workers = samples, batch_size, workers
        self.count, self.name, self.classes = len(samples), samples.name, samples.classes
        # Samples made of arrays can't change; those that run a user's code are watched.
        self._watch = None if type(samples) is Samples else Watch(self.name)
        if self._watch is not None:
            for _ in range(2):  # one that augments at random shows it before anything is computed
                next(iter(self), None)

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __repr__(self) -> str:
        return f"Batches({self.name}, {self.count} in batches of {self.batch_size})"

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        found = self._read(0, 1)
        return self._finite(found if self._watch is None else self._watch(found))

    def _finite(
        self, found: Iterator[tuple[Tensor, Tensor]], first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in found:
            check_inputs(x, first=first, what=f"inputs of {self.name}")
            first += len(x)
            yield x, y

    def share(self, k: int, n: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Batches k, k + n, k + 2n, ... alone: index of the first sample, inputs, labels."""
        starts = range(k * self.batch_size, self.count, n * self.batch_size)
        found = self._read(k, n)
        found = found if self._watch is None else self._watch(found, k, n)
        for start, (x, y) in zip(starts, found, strict=True):
            yield start, check_inputs(x, first=start, what=f"inputs of {self.name}"), y

    def _read(self, k: int, n: int) -> Iterator[tuple[Tensor, Tensor]]:
        starts = range(k * self.batch_size, self.count, n * self.batch_size)
        if self.workers == 0:
            for start in starts:
                yield self.samples.take(slice(start, start + self.batch_size))
            return
        parts = [list(range(s, min(s + self.batch_size, self.count))) for s in starts]
        yield from torch.utils.data.DataLoader(
            _Parts(self.samples), batch_size=None, sampler=parts, num_workers=self.workers
        )

    def first(self, n: int) -> tuple[Tensor, Tensor]:
        """The first ``n`` samples (all, where there are fewer) as one ``(x, y)``."""
        return self.samples.take(slice(0, n))

    def digest(self) -> str:
        """Digest of all samples, in order; the same in batches of any size."""
        if self._watch is None:
            return self.samples.digest()
        if self._digest is None:
            self._digest = digests.batches(self, self.classes)
        return self._digest


class SourceBatches(Batches):
    """Batches over a user's own re-iterable of ``(x, y)``, e.g. a DataLoader.

    Every pass is compared with the first by checksum. Number of samples and ``samples`` are
    found by a pass when first asked for; ``samples`` holds the whole source in memory.
    """

    def __init__(self, source: Iterable, *, name: str = "user data") -> None:
        iterator = iter(source)
        if iterator is source:
            raise DataError(
                "batches can be read only once",
                got=type(source).__name__,
                expected="something that can be iterated again",
                fix="Pass list(...) of it, or a DataLoader.",
            )
        self._source, self._count, self._samples = source, None, None
        dataset = getattr(source, "dataset", None)
        self.name, self.workers = name, 0
        self.classes = getattr(dataset, "classes", None)
        self._watch = Watch(name)
        first = next(self._finite(self._watch(self._pairs(iterator))), None)
        if first is None:
            raise DataError(
                f"{name}: no samples",
                got="0 batches",
                expected="at least one",
                fix="Check the data.",
            )
        self.batch_size = len(first[0])
        # A source that shuffles or augments shows it here, before anything was computed.
        next(iter(self), None)

    def __len__(self) -> int:
        if self._count is None and isinstance(self._source, torch.utils.data.DataLoader):
            return len(self._source)  # `list(batches)` asks: don't read everything for it
        return self.count and self._length

    def share(self, k: int, n: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Batches k, k + n, k + 2n, ...; a source can only be read as a whole."""
        start = 0
        for i, (x, y) in enumerate(self):
            if i % n == k:
                yield start, x, y
            start += len(x)

    def _read(self, k: int, n: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self._pairs(iter(self._source))

    def _pairs(self, iterator: Iterator) -> Iterator[tuple[Tensor, Tensor]]:
        for found in iterator:
            x, y = _batch(found, self.name)
            if len(x):
                yield x, y

    @property
    def count(self) -> int:
        """Number of samples, by a pass over the source when first asked."""
        if self._count is None:
            sizes = [len(x) for x, _ in self]
            self._count, self._length = sum(sizes), len(sizes)
        return self._count

    @property
    def samples(self) -> Samples:
        """The whole source as `Samples`, held in memory from the first call on."""
        if self._samples is None:
            xs, ys = zip(*((x.clone(), y.clone()) for x, y in self))
            self._samples = Samples(torch.cat(xs), torch.cat(ys), name=self.name)
            self._samples.classes = self.classes
        return self._samples

    def first(self, n: int) -> tuple[Tensor, Tensor]:
        """The first ``n`` samples (all, where there are fewer) as one ``(x, y)``."""
        xs, ys, missing = [], [], n
        for x, y in self:
            xs.append(x[:missing].clone())
            ys.append(y[:missing].clone())
            missing -= len(xs[-1])
            if missing <= 0:
                break
        return torch.cat(xs), torch.cat(ys)


class Watch:
    """Compares every pass over a source with its first, by one checksum per batch."""

    def __init__(self, name: str) -> None:
        self.name, self.total = name, None
        self.seen: dict[int, tuple] = {}

    def __call__(
        self, found: Iterator[tuple[Tensor, Tensor]], k: int = 0, n: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same pairs, each compared with what that place (k, k + n, ...) held before."""
        i = -1
        for i, (x, y) in zip(count(k, n), found):
            mark = (tuple(x.shape), str(x.dtype), tuple(y.shape), _checksum(x), _checksum(y))
            if i not in self.seen and (self.total is None or i < self.total):
                self.seen[i] = mark
            elif self.seen.get(i) != mark:
                self._refuse(f"another batch {i}")
            yield x, y
        if n > 1:
            return
        if self.total is None:
            self.total = i + 1
            if self.total < len(self.seen):
                self._refuse(f"{self.total} batches, at least {len(self.seen)} before")
        elif i + 1 != self.total:
            self._refuse(f"{i + 1} batches, {self.total} before")

    def _refuse(self, got: str) -> None:
        raise DataError(
            f"{self.name} changes between passes",
            got=got,
            expected="the same samples in the same order every time",
            fix="Turn shuffling and random augmentation off.",
        )


class _Parts(torch.utils.data.Dataset):
    """Samples asked for by lists of indices: one item is one batch."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.samples.take(indices)


def _batch(found: Any, name: str) -> tuple[Tensor, Tensor]:
    if isinstance(found, Tensor) and found.ndim > 1:
        found = (found, None)
    elif isinstance(found, tuple | list) and len(found) == 1:
        found = (found[0], None)
    if isinstance(found, tuple | list) and len(found) == 2 and found[1] is None:
        found = (found[0], unlabelled(found[0]))
    if not isinstance(found, tuple | list) or len(found) != 2:
        kind = f"{type(found).__name__} of {len(found)}" if hasattr(found, "__len__") else found
        raise DataError(
            f"{name}: a batch is not a pair",
            got=kind,
            expected="(x, y)",
            fix="Yield inputs and labels; all of them as one pair are a tuple (x, y).",
        )
    x, y = found
    if not isinstance(x, Tensor | np.ndarray):
        raise DataError(
            f"{name}: a batch does not hold tensors",
            got=f"({type(x).__name__}, {type(y).__name__})",
            expected="(x [n, ...], y [n]) tensors",
            fix="Put a DataLoader around the data set.",
        )
    x, y = as_inputs(x, what=f"inputs of {name}"), as_labels(y, what=f"labels of {name}")
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise DataError(
            f"{name}: inputs and labels differ in number",
            got=f"{list(x.shape)} and {list(y.shape)}",
            expected="the sample axis first in both",
            fix="Put a DataLoader around the data set.",
        )
    return x, y


def _checksum(t: Tensor) -> int:
    if t.numel() == 0:
        return 0
    flat = t.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    array: Any = flat.numpy()
    return zlib.crc32(array)

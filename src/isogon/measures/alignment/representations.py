"""Representations: activations at sites of a model, or features that somebody brings."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isogon import context, storage
from isogon.data.batches import Batches
from isogon.data.samples import Samples
from isogon.errors import DataError, FileError, OptionError
from isogon.nets.channel_axis import channel_axis
from isogon.nets.load import parse_module
from isogon.nets.sites import ExampleInputs, Site, called, choose
from isogon.nets.unwrap import unwrap
from isogon.registry import register
from isogon.specs import Spec
from isogon.storage.files import damaged, first_line, memory_limit

Representation = nn.Module  # a noun: a model, or a file of features


@dataclass(frozen=True)
class RowPlace:
    """One representation of one side.

    Attributes:
        side: ``a`` or ``b``.
        site: Where it is read.
        name: What tables call it.
        axis: The channel axis of an activation ``[n, ...]``.
    """

    side: str
    site: Site
    name: str
    axis: int

    @property
    def key(self) -> tuple[str, Site]:
        """What a pass over both sides calls it."""
        return self.side, self.site

    @property
    def space(self) -> tuple[int, ...]:
        """Axes of positions."""
        shape = list(self.site.shape)
        del shape[self.axis - 1 : self.axis]
        return tuple(shape)

    @property
    def size(self) -> int:
        """Numbers per sample."""
        return math.prod(self.site.shape)

    def width(self, maps: str) -> int:
        """Columns of the matrix that an activation becomes."""
        return self.size if maps == "flatten" else self.size // max(1, math.prod(self.space))


class Features(nn.Module):
    """Arrays of features that are read like a model: its inputs are numbers of rows.

    Args:
        arrays: ``[n, ...]`` by name, or one array.

    Raises:
        DataError: Not the same number of samples in all, or numbers that are not finite.
    """

    def __init__(self, arrays: Tensor | np.ndarray | Mapping) -> None:
        super().__init__()
        named = dict(arrays) if isinstance(arrays, Mapping) else {"features": arrays}
        self.arrays = {str(k): _array(str(k), v) for k, v in named.items()}
        counts = {k: len(v) for k, v in self.arrays.items()}
        if not counts or len(set(counts.values())) != 1:
            raise DataError(
                "features of different numbers of samples" if counts else "no features",
                got=counts or "nothing",
                expected="arrays [n, ...] of the same n samples, in the same order",
            )
        self.count = next(iter(counts.values()))
        self.taps = nn.ModuleList(nn.Identity() for _ in self.arrays)

    def forward(self, rows: Tensor) -> Tensor:
        """Numbers of rows ``[m, 1]`` to the last of the features; each is read at its site."""
        first, m = int(rows[0, 0]), len(rows)
        found = rows
        for tap, array in zip(self.taps, self.arrays.values()):
            found = tap(torch.as_tensor(array[first : first + m]))
        return found

    def places(self, side: str, select: str, axis: int | None) -> list[RowPlace]:
        """The arrays that a selector names: ``activations`` and ``all`` are all of them."""
        found = []
        for i, (name, array) in enumerate(self.arrays.items()):
            if select in ("activations", "all") or name in select.split(","):
                site = Site(f"taps.{i}", 0, "Identity", tuple(array.shape[1:]))
                found.append(RowPlace(side, site, name, channel_axis(site, (), axis)))
        if not found:
            raise OptionError("no such features", got=repr(select), expected=list(self.arrays))
        return found


class Rows:
    """Batches of row numbers, consecutive in each, with labels 0: what `Features` are given."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, self.count, self.size):
            rows = torch.arange(first, min(first + self.size, self.count))
            yield rows[:, None], torch.zeros(len(rows), dtype=torch.int64)


@register(
    "noun",
    "Representation",
    kinds=("arch", "model"),
    help='a model, e.g. "trained(cnn, digits, seed=1)", or features.npz',
    typed="trained(cnn, digits, seed=1)",
    example="cnn(width=2)",
    default="@model",
)
def representation(
    given: str | Spec | nn.Module | Tensor | np.ndarray | Mapping,
    *,
    like: Samples | Batches | None = None,
) -> nn.Module:
    """A model, or features: arrays, arrays by name, or an ``.npz`` file of arrays.

    Raises:
        FileError: The file is damaged.
        DataError: Arrays of different numbers of samples.
    """
    if isinstance(given, nn.Module):
        return given
    if isinstance(given, Tensor | np.ndarray | Mapping):
        return Features(given)
    if str(given).lower().endswith(".npz"):
        return Features(read_npz(str(given)))
    return parse_module(given, like=like)


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file; nothing is unpickled.

    Raises:
        FileError: Missing, damaged, or larger than memory.
    """
    context.typed_only("open a file", path)
    place = storage.regular(path, "file of features")
    try:
        with zipfile.ZipFile(place) as archive:
            total = sum(item.file_size for item in archive.infolist())
        if total > memory_limit():
            raise FileError(
                "features larger than memory", got=f"{total:,} bytes", expected=memory_limit()
            )
        with np.load(place, allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, FileError):
            raise
        raise damaged(place, ".npz file of arrays", first_line(error)) from error


def places(
    model: nn.Module, side: str, select: str, example: ExampleInputs, axis: int | None
) -> list[RowPlace]:
    """The representations of one side, in the order in which they are computed."""
    if isinstance(model, Features):
        return model.places(side, select, axis)
    found = called(model, example)
    return [
        RowPlace(side, site, site.name, channel_axis(site, found, axis))
        for site in choose(unwrap(model), found, select)
    ]


def _array(name: str, given: Any) -> np.ndarray:
    array = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    if array.ndim < 1 or array.dtype.kind not in "fiub":
        raise DataError(
            f"features {name!r} are no numbers [n, ...]",
            got=f"{array.dtype} {list(array.shape)}",
            expected="an array [n, ...] of numbers",
        )
    array = array[:, None] if array.ndim == 1 else array
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)

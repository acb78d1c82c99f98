"""What a pass over two models gathers for their comparison."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from isogon.measures.alignment import hsic
from isogon.measures.alignment.metrics.kernels import Alignment
from isogon.measures.alignment.moments import CrossSums, SiteSums
from isogon.measures.alignment.representations import RowPlace
from isogon.stats.wrappers import matrix, same_positions

if TYPE_CHECKING:
    from isogon.nets.watchers import Key


LARGE = 1e6  # of the size of the first rows: beyond, float32 is left
RAM = 2 * 2**30  # bytes of kept activations in memory; more lie on disk


class Activations:
    """The activations of one place, of the first samples: in memory, or on disk if they are many.

    Args:
        place: Where.
        count: Number of samples that are kept.
        share: Of the bytes that may be in memory.
    """

    def __init__(self, place: RowPlace, count: int, share: float = 1.0) -> None:
        self.place, self.count, self.part = place, count, share
        self.sites = (place.key,)
        self.values: Tensor | None = None
        self.seen = 0

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Keep a chunk."""
        if int(rows[0]) >= self.count:
            return
        x = values[self.place.key]
        if self.values is None:
            self.values = self._room(x)
        keep = rows < self.count
        self.values[rows[keep]] = x[keep.to(x.device)].to("cpu", self.values.dtype)
        self.seen += int(keep.sum())

    def _room(self, x: Tensor) -> Tensor:
        dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
        shape = (self.count, *x.shape[1:])
        if math.prod(shape) * dtype.itemsize <= RAM * self.part:
            return torch.empty(shape, dtype=dtype)
        self._folder = tempfile.TemporaryDirectory(prefix="isogon-")
        kind = np.float64 if dtype == torch.float64 else np.float32
        return torch.from_numpy(np.memmap(f"{self._folder.name}/values", kind, "w+", shape=shape))

    def again(self) -> bool:
        """One pass is enough."""
        return False

    def share(self) -> Self:
        """The same store: shares of the data fill different rows of it."""
        return self

    def merge(self, other: Self) -> Self:
        """Nothing: the store is one."""
        return self

    def result(self) -> Tensor:
        """``[n, C, P]``: channels first, positions flat."""
        assert self.values is not None
        x = self.values[: self.seen]
        x = x.movedim(self.place.axis, 1) if x.dim() > 1 else x[:, None]
        return x.reshape(len(x), x.shape[1], -1)


class PairMoments:
    """Second moments of all places and of the pairs that were asked for.

    Positions of a pair are those of the larger map (see `isogon.stats.wrappers.same_positions`);
    the sums of a place are kept once for each size that it is brought to.

    Args:
        pairs: Which places are compared.
        maps: How activations become matrices, for each pair.
        example: Activations by key, whose means are near those of all.
        single: Float32 rows stay float32, divided by their size: enough for what a common scale
            does not change and no small eigenvalue decides.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[RowPlace, RowPlace]],
        maps: Sequence[str],
        example: dict,
        *,
        single: bool = False,
    ) -> None:
        self.single = single
        self.pairs, self.maps, self.example = list(pairs), list(maps), example
        self.sites = tuple(dict.fromkeys(p.key for pair in pairs for p in pair))
        self.own: dict[tuple, SiteSums] = {}
        self.frames: dict[tuple, tuple[Tensor, float]] = {}  # shift and a power of two
        self.cross: list[CrossSums | None] = [None] * len(self.pairs)
        self.forms = [_forms(a, b, m) for (a, b), m in zip(self.pairs, self.maps)]

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in a chunk."""
        held: dict[tuple, tuple[Tensor, Tensor]] = {}
        for k, ((a, b), (fa, fb)) in enumerate(zip(self.pairs, self.forms)):
            (x, xx), (y, yy) = (self._rows(held, p, f, values) for p, f in ((a, fa), (b, fb)))
            sums = self.cross[k]
            if sums is None:
                sums = self.cross[k] = CrossSums.empty(x.shape[1], y.shape[1], x.device)
            sums.update(x, y, xx, yy)

    def _rows(
        self, held: dict, place: RowPlace, form: tuple, values: Mapping[Key, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Shifted rows of a place in one form and their squared norms, once per chunk."""
        key = (place.key, form)
        if key not in held:
            x = formed(values[place.key], place, form)
            if key not in self.own:
                first = formed(self.example[place.key], place, form).to(x.device).double()
                shift = first.mean(0).to(x.dtype).double()  # exact in the type of the rows
                size = float((first - shift).abs().max()) if self.single else 0.0
                factor = 0.5 ** math.frexp(size)[1] if 0 < size < math.inf else 1.0
                self.frames[key] = shift, factor
                self.own[key] = SiteSums.empty(shift * factor)
            rows = self._framed(x, *self.frames[key])
            held[key] = rows, rows.square().sum(1)
            self.own[key].update(*held[key])
        return held[key]

    def _framed(self, x: Tensor, shift: Tensor, factor: float) -> Tensor:
        if self.single and x.dtype == torch.float32:
            rows = (x - shift.float()).mul_(factor)
            if float(rows.abs().max()) < LARGE:
                return rows
        return (x.double() - shift).mul_(factor)

    def again(self) -> bool:
        """One pass is enough."""
        return False

    def share(self) -> Self:
        """The same, empty, with the same shifts."""
        return type(self)(self.pairs, self.maps, self.example, single=self.single)

    def merge(self, other: Self) -> Self:
        """Add sums."""
        for key, sums in other.own.items():
            if key in self.own:
                self.own[key].merge(sums)
            else:
                self.own[key] = sums
        for k, sums in enumerate(other.cross):
            mine = self.cross[k]
            if sums is not None and mine is not None:
                mine.merge(sums)
            elif sums is not None:
                self.cross[k] = sums
        return self

    def result(self) -> Self:
        """Itself: see `own`, `cross` and `forms`."""
        return self


Form = tuple[str, tuple[int, ...]]  # maps, and the positions that they are brought to


def _forms(a: RowPlace, b: RowPlace, maps: str) -> tuple[Form, Form]:
    if maps != "positions":
        return (maps, ()), (maps, ())
    space = tuple(map(max, a.space, b.space))
    return (maps, space), (maps, space)


def formed(x: Tensor, place: RowPlace, form: Form) -> Tensor:
    """An activation as a matrix in one form."""
    maps, space = form
    x = x.movedim(place.axis, 1) if x.dim() > 2 else x
    if maps == "positions" and x.dim() > 2 and tuple(x.shape[2:]) != space:
        x, _ = same_positions(x, x.new_empty(1, 1, *space))
    return matrix(x[:, None] if x.dim() == 1 else x, maps)  # type: ignore[arg-type]


class Minibatch:
    """Sums over batches of the HSIC of every pair.

    Args:
        a: Places of the one side.
        b: Places of the other.
        chosen: Options of the CKA.
    """

    def __init__(self, a: Sequence[RowPlace], b: Sequence[RowPlace], chosen: Alignment) -> None:
        self.a, self.b, self.chosen = list(a), list(b), chosen
        self._places: dict[Key, RowPlace] = {p.key: p for p in (*a, *b)}
        self.sites = tuple(self._places)
        self.between = np.zeros((len(a), len(b)))
        self.within = [np.zeros(len(a)), np.zeros(len(b))]
        self.sizes: dict[int, int] = {}

    @property
    def keeps_nan(self) -> bool:
        """Only of products of rows as they are: a channel's NaN may be taken for a dead one's."""
        return self.chosen.kernel == "linear" and self.chosen.normalize == "none"

    def reduced(self, key: Key, value: Tensor) -> Tensor:
        """The kernel's matrix of a batch ``[b, b]``, float64, which centring is to come to."""
        if len(value) < hsic.LEAST:
            return value.new_zeros(len(value), len(value))
        return hsic.of_batch(_by_channel(value, self._places[key]), self.chosen).double().cpu()

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in the matrices of a batch; one of fewer than four samples counts nothing."""
        if len(rows) < hsic.LEAST:
            return
        sides = [
            hsic.centred_rows(torch.stack([values[p.key] for p in side]))
            for side in (self.a, self.b)
        ]
        self.between += sides[0] @ sides[1].T
        for total, rows_ in zip(self.within, sides):
            total += np.square(rows_).sum(1)
        self.sizes[len(rows)] = self.sizes.get(len(rows), 0) + 1

    def again(self) -> bool:
        """One pass is enough."""
        return False

    def share(self) -> Self:
        """The same, empty."""
        return type(self)(self.a, self.b, self.chosen)

    def merge(self, other: Self) -> Self:
        """Add sums."""
        self.between += other.between
        for mine, theirs in zip(self.within, other.within):
            mine += theirs
        for size, count in other.sizes.items():
            self.sizes[size] = self.sizes.get(size, 0) + count
        return self

    def result(self) -> np.ndarray:
        """CKA of all pairs."""
        return hsic.ratio(self.between, *self.within)


def _by_channel(x: Tensor, place: RowPlace) -> Tensor:
    x = x.movedim(place.axis, 1) if x.dim() > 1 else x[:, None]
    return x.reshape(len(x), x.shape[1], -1)

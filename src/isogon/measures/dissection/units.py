"""The watcher of one site: thresholds of its units in a first pass, overlaps in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isogon.measures.dissection.labels import Columns
from isogon.measures.dissection.pixels import Counter
from isogon.measures.dissection.upsampling import Upsampling
from isogon.nets.sites import Site
from isogon.stats import Quantiles
from isogon.stats.tails import Tail

if TYPE_CHECKING:
    from isogon.nets.watchers import Key


@dataclass(eq=False)
class Basis:
    """One basis of a site's channels, and what is found of its units.

    Attributes:
        name: What it is called.
        draw: Number of the random element.
        matrix: ``[C, C]``, float64: unit u is row u times the channels; None for the channels
            themselves.
        quantile: Of the activations, one value per unit.
    """

    name: str
    draw: int
    matrix: Tensor | None
    quantile: Quantiles
    threshold: Tensor = field(init=False)  # [C], float64
    pixels: Tensor = field(init=False)  # of unit and concept, those of none first [C, 1 + K], int64
    lit: Tensor = field(init=False)  # pixels of the unit in images of a category [C, G], int64
    peaks: Tensor = field(init=False)  # largest activations in an image [C, k], float64
    top: Tensor = field(init=False)  # their images [C, k], int64, -1 for none
    masks: Tensor = field(init=False)  # where the unit is on in them [C, k, h, w], bool

    def of(self, maps: Tensor) -> Tensor:
        """Channels ``[n, C, h, w]`` in this basis."""
        if self.matrix is None:
            return maps
        matrix = self.matrix.to(maps.device, maps.dtype)
        # one product per image: a sum never depends on how many images come together
        return torch.stack([(matrix @ m.flatten(1)).reshape(m.shape) for m in maps])

    def images(self, maps: Tensor) -> Iterator[Tensor]:
        """The same an image ``[C, h, w]`` at a time, each in the memory of the one before."""
        if self.matrix is None:
            yield from maps.contiguous()
            return
        matrix = self.matrix.to(maps.dtype)
        room = maps.new_empty(len(matrix), maps[0, 0].numel())
        for m in maps:
            yield torch.mm(matrix, m.flatten(1), out=room).reshape(m.shape)

    @property
    def shared(self) -> Tensor:
        """Pixels that unit and concept have both, ``[C, K]``, int64."""
        return self.pixels[:, 1:]

    def iou(self, columns: Columns) -> Tensor:
        """Intersection over union of units and concepts, over the images of its category."""
        area = self.lit[:, columns.category] + columns.pixels.to(self.lit.device)
        return (self.shared.double() / (area - self.shared).double()).cpu()


class Units:
    """What is counted of the units of one site, in several bases.

    Args:
        site: Where.
        axis: Its channel axis.
        bases: The bases.
        size: Pixels ``(h, w)`` of the maps of concepts.
        columns: The concepts that are there; asked for once the first pass is over.
        gallery: How many images are kept for each unit.
    """

    def __init__(
        self,
        site: Site,
        axis: int,
        bases: Sequence[Basis],
        size: tuple[int, ...],
        columns: Callable[[], Columns],
        gallery: int,
    ) -> None:
        self.site, self.axis, self.bases, self.size = site, axis, list(bases), size
        self.sites, self.gallery = (site,), gallery
        self._columns, self.columns = columns, None
        self.channels = site.shape[axis - 1]
        self.upsampling: Upsampling | None = None
        for b in self.bases:
            b.peaks = torch.full((self.channels, gallery), -torch.inf, dtype=torch.float64)
            b.top = torch.full((self.channels, gallery), -1, dtype=torch.int64)

    def maps(self, values: Tensor) -> Tensor:
        """Activations as maps ``[n, C, h, w]``, in float32 at least; a vector has one position."""
        found = values.movedim(self.axis, 1)
        found = found if found.dim() == 4 else found.reshape(len(found), -1, 1, 1)
        return found if found.dtype == torch.float64 else found.float()

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in activations ``[n, *site.shape]`` and maps of concepts ``[n, L, h, w]``."""
        maps = self.maps(values[self.site]).detach()
        if self.columns is None:
            for b in self.bases:
                self._order(b, maps, rows)
            return
        labels = labels.to(maps.device)
        carried = self.columns.carried(labels)
        if self.upsampling is None:
            self.upsampling = Upsampling(tuple(maps.shape[2:]), self.size, maps.device)
        if Tail.serves(maps):
            self._count_compiled(maps, labels, carried, rows)
            return
        flat = labels.flatten(2)
        for b in self.bases:
            self._count(b, b.of(maps), flat, carried, rows)

    def _order(self, b: Basis, maps: Tensor, rows: Tensor) -> None:
        """Take in activations for the thresholds, and for the gallery."""
        if not Tail.serves(maps):
            z = b.of(maps)
            b.quantile.update(z.movedim(1, -1).reshape(-1, self.channels))
            self._rank(b, z.amax((2, 3)), rows)
            return
        peaks = []
        for z in b.images(maps):
            b.quantile.update(z.flatten(1).T)
            if self.gallery:
                peaks.append(z.amax((1, 2)))
        if peaks:
            self._rank(b, torch.stack(peaks), rows)

    def _rank(self, b: Basis, largest: Tensor, rows: Tensor) -> None:
        """Keep the images with the largest activations ``[n, C]``, the earlier one of equals."""
        if not self.gallery:
            return
        peaks = torch.cat([b.peaks, largest.T.double().cpu()], 1)
        images = torch.cat([b.top, rows.cpu().expand(self.channels, -1)], 1)
        order = peaks.argsort(dim=1, descending=True, stable=True)[:, : self.gallery]
        b.peaks, b.top = peaks.gather(1, order), images.gather(1, order)

    def _count_compiled(self, maps: Tensor, labels: Tensor, carried: Tensor, rows: Tensor) -> None:
        """As `_count` for every basis, an image at a time."""
        assert self.columns is not None
        assert self.upsampling is not None
        counter = Counter(self.upsampling)
        layers = range(labels.shape[1])
        columns = [self.columns.columns(labels[:, k], k).int() for k in layers]
        stacked = torch.stack(columns, 1)
        for b in self.bases:
            threshold = b.threshold.to(maps.dtype).double()  # one of the values, as they were
            for image, z in enumerate(b.images(maps)):
                lit = counter.count(z, threshold, stacked[image], b.pixels)
                b.lit += lit[:, None] * carried[image]
                self._mask(b, z[None], rows[image : image + 1])

    def _count(self, b: Basis, z: Tensor, labels: Tensor, carried: Tensor, rows: Tensor) -> None:
        """Add the pixels that units share with concepts, those of the units, and masks."""
        assert self.columns is not None
        assert self.upsampling is not None
        n, c = z.shape[:2]
        threshold = b.threshold.to(z)  # one of the values, so that no type rounds it
        width = b.pixels.shape[1]
        for pair, pixel in self.upsampling.above(z.flatten(0, 1), threshold.repeat(n)):
            lit = torch.bincount(pair, minlength=n * c).reshape(n, c)
            b.lit += (lit.T.double() @ carried.double()).long()  # whole numbers below 2^53
            image, unit = pair // c, pair % c
            for layer in range(labels.shape[1]):
                column = self.columns.columns(labels[image, layer, pixel], layer)
                found = torch.bincount(unit * width + column, minlength=c * width)
                b.pixels += found.reshape(c, width)
        self._mask(b, z, rows)

    def _mask(self, b: Basis, z: Tensor, rows: Tensor) -> None:
        """Where the units are on in the images ``rows`` that are kept for them."""
        if not self.gallery:
            return
        assert self.upsampling is not None
        first, last = int(rows[0]), int(rows[-1])
        held = ((b.top >= first) & (b.top <= last)).nonzero(as_tuple=True)
        if len(held[0]):
            where = (b.top[held] - first).to(z.device), held[0].to(z.device)
            on = self.upsampling.whole(z[where]) > b.threshold[where[1]][:, None, None]
            b.masks[held] = on.cpu()

    def again(self) -> bool:
        """After the first pass thresholds are known, and a second one counts."""
        if self.columns is not None:
            return False
        self.columns = self._columns()
        for b in self.bases:
            b.threshold = b.quantile.least()
            self._clear(b)
        return True

    def _clear(self, b: Basis) -> None:
        assert self.columns is not None
        device, c = b.threshold.device, self.channels
        whole = {"dtype": torch.int64, "device": device}
        b.pixels = torch.zeros(c, len(self.columns) + 1, **whole)
        b.lit = torch.zeros(c, len(self.columns.categories), **whole)
        b.masks = torch.zeros(c, self.gallery, *self.size, dtype=torch.bool)

    def share(self) -> Units:
        """A watcher of another share of the data, that knows the thresholds."""
        bases = []
        for b in self.bases:
            q = b.quantile
            made = Basis(b.name, b.draw, b.matrix, Quantiles(q.q, total=q.total, keep=q.keep))
            bases.append(made)
        new = Units(self.site, self.axis, bases, self.size, self._columns, self.gallery)
        if self.columns is not None:
            new.columns = self.columns
            for b, held in zip(bases, self.bases, strict=True):
                b.threshold, b.top = held.threshold, held.top
                new._clear(b)
        return new

    def merge(self, other: Units) -> Units:
        """Take in what the watcher of another share has seen in this pass."""
        for b, o in zip(self.bases, other.bases, strict=True):
            if self.columns is not None:
                b.pixels += o.pixels
                b.lit += o.lit
                b.masks |= o.masks
                continue
            b.quantile.merge(o.quantile)
            peaks, images = torch.cat([b.peaks, o.peaks], 1), torch.cat([b.top, o.top], 1)
            # by image first: of equal ones the earlier is kept, whatever the shares
            order = torch.where(images < 0, 2**62, images).argsort(dim=1, stable=True)
            peaks, images = peaks.gather(1, order), images.gather(1, order)
            order = peaks.argsort(dim=1, descending=True, stable=True)[:, : self.gallery]
            b.peaks, b.top = peaks.gather(1, order), images.gather(1, order)
        return self

    def result(self) -> list[Basis]:
        """The bases, with all that was found."""
        return self.bases

"""What flows through a cut, of all samples: computed once, as often read as training needs it."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from isogon.measures.stitching.cuts import Cut, Cuts
from isogon.nets.hygiene import cast
from isogon.nets.passes import INPUT
from isogon.nets.watchers import Key, Once

if TYPE_CHECKING:
    from isogon.data.batches import Batches


MEMORY = 2**29  # bytes of activations that are held in memory
DISK = 0.25  # share of the free space that they may take on disk above that


class Kept(Once):
    """Values of a cut and labels by sample: in memory, above `MEMORY` in a file, or made again.

    The file has no name: it is gone with the process, whatever ends it.

    Args:
        cuts: Of the model.
        cut: Where its head ends.
        data: The samples that a pass shows.
    """

    def __init__(self, cuts: Cuts, cut: Cut, data: Batches) -> None:
        self.cuts, self.cut, self.data = cuts, cut, data
        self.head = cuts.anatomy.head(*cut.nodes)
        self.sites = ((cut.side, INPUT),)
        self.held: list[Tensor] | None = None
        self.labels: Tensor | None = None

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in a chunk."""
        if self.labels is None:
            self.labels = labels.new_zeros((int(self.data.count), *labels.shape[1:]))
            self.held = self._room(values[self.cut.side, INPUT][:1])
        self.labels[rows] = labels
        if self.held is not None:
            for room, value in zip(self.held, self._flowing(values[self.cut.side, INPUT])):
                room[rows] = value.to(room.device)

    def read(self, rows: Tensor) -> tuple[list[Tensor], Tensor]:
        """What flows through the cut for some samples, on the model's device, and their labels."""
        model = self.cuts.anatomy.model
        if self.held is not None:
            assert self.labels is not None
            return [cast(room[rows], model) for room in self.held], self.labels[rows]
        x, y = self.data.samples.take(rows)
        with torch.no_grad():
            return self._flowing(cast(x, model)), y

    def _flowing(self, x: Tensor) -> list[Tensor]:
        found = self.head(x)
        return list(found) if isinstance(found, tuple) else [found]

    def _room(self, x: Tensor) -> list[Tensor] | None:
        """Memory for all samples; None where there is too little of it."""
        with torch.no_grad():
            one = self._flowing(x)
        shapes = [(int(self.data.count), *v.shape[1:]) for v in one]
        sizes = [math.prod(s) * v.element_size() for s, v in zip(shapes, one)]
        if sum(sizes) <= MEMORY:
            return [torch.empty(s, dtype=v.dtype) for s, v in zip(shapes, one)]
        if sum(sizes) > DISK * shutil.disk_usage(tempfile.gettempdir()).free:
            return None
        return [self._file(s, v) for s, v in zip(shapes, one)]

    def _file(self, shape: Sequence[int], like: Tensor) -> Tensor:
        dtype = torch.empty(0, dtype=like.dtype).numpy().dtype
        with tempfile.TemporaryFile() as file:  # the map outlives its name
            return torch.from_numpy(np.memmap(file, dtype=dtype, mode="w+", shape=tuple(shape)))

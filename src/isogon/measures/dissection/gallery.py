"""The images that fire units most, kept for a gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from isogon.measures.dissection.units import Units
from isogon.nets.watchers import INPUT, Key


class Images:
    """A watcher that keeps, in the second pass, the images that units were fired by most.

    Args:
        units: The watchers of all sites; they stand before this one in a pass.
    """

    sites = (INPUT,)

    def __init__(self, units: Sequence[Units]) -> None:
        self.units = units
        self.wanted: Tensor | None = None  # numbers of images, sorted
        self.found: dict[int, Tensor] = {}

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in images ``[n, C, H, W]``."""
        if self.wanted is None:
            return
        for i in torch.isin(rows.cpu(), self.wanted).nonzero()[:, 0].tolist():
            self.found[int(rows[i])] = values[INPUT][i].float().cpu().clone()

    def again(self) -> bool:
        """After the first pass it is known which."""
        if self.wanted is not None:
            return False
        tops = [b.top.flatten() for w in self.units for b in w.bases]
        self.wanted = torch.cat(tops).unique()
        return True

    def share(self) -> Images:
        """The same, empty."""
        new = Images(self.units)
        new.wanted = self.wanted
        return new

    def merge(self, other: Images) -> Images:
        """Take in what another one has kept."""
        self.found |= other.found
        return self

    def result(self) -> dict[int, Tensor]:
        """The images by number, in their order."""
        return dict(sorted(self.found.items()))

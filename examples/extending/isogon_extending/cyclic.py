"""A group that acts on channels: cyclic shifts, as after a lifting convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from isogon import registry
from isogon.actions import Group


class Cyclic(Group):
    """Cyclic shifts of channels: y_i = x_(i - s mod c)."""

    name = "cyclic"

    def _best(self, moments) -> Tensor:
        xy = moments.raw_xy().T
        c = len(xy)
        shifts = [torch.eye(c, dtype=xy.dtype).roll(s, 0) for s in range(c)]
        return max(shifts, key=lambda a: float((a * xy).sum()))

    def _draw(self, channels: int, generator: torch.Generator) -> Tensor:
        shift = int(torch.randint(channels, (), generator=generator))
        return torch.eye(channels, dtype=torch.float64).roll(shift, 0)

    def _holds(self, a: Tensor, tolerance: float) -> bool:
        c = len(a)
        shifts = (torch.eye(c, dtype=a.dtype).roll(s, 0) for s in range(c))
        return any(bool(((a - s).abs() <= tolerance).all()) for s in shifts)


@registry.group()
def cyclic() -> Group:
    """Cyclic shifts of channels: y_i = x_(i - s mod c)."""
    return Cyclic()

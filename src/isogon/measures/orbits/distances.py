"""Mean distances between all pairs, over transformations and over samples."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import Tensor

from isogon.errors import DataError
from isogon.jit import loop
from isogon.stats import Kept, Moments

BLOCK = 2**24  # numbers worked on at a time
COMPILE = 2**16  # values in one update from which the compiled loop is used


class PairDistances:
    """Mean distance over pairs of transformations (per sample) and of samples (per transformation).

    ``TD = mean_i mean_{t<t'} d(a_it, a_it')``, ``SD = mean_t mean_{i<i'} d(a_it, a_i't)``, over
    all pairs. For units d is the absolute difference, by sorting in O(n log n); for channels
    the Euclidean distance of the maps.

    Args:
        channels: Whether maps ``[C, h, w]`` are compared as wholes, channel by channel.
    """

    def __init__(self, channels: bool = False) -> None:
        self.channels = channels
        self.within = Moments()
        self.kept = Kept()

    def update(self, a: Tensor) -> Self:
        """Take in ``[n, T, *shape]``."""
        if self.channels:
            maps = a.flatten(3).transpose(1, 2).double()  # [n, C, T, h * w]
            self.within.update(pair_norms(maps))
        else:
            self.within.update(pair_gaps(a.double(), 1))
        self.kept.update(a)
        return self

    def merge(self, other: Self) -> Self:
        """Take in what another one has seen."""
        self.within.merge(other.within)
        self.kept.merge(other.kept)
        return self

    def compute(self) -> dict[str, Tensor]:
        """TD, SD and their quotient, per unit or channel."""
        if self.kept.count < 2:
            raise DataError("too few samples", got=self.kept.count, expected="at least two")
        across = self._channels() if self.channels else self._units()
        within = self.within.compute().mean.cpu()
        return {
            "transformation_distance": within,
            "sample_distance": across,
            "normalized_distance": quotient(within, across),
        }

    def _units(self) -> Tensor:
        t, *shape = self.kept.shape
        units, found = int(np.prod(shape, dtype=int)), []
        step = max(1, BLOCK // max(1, self.kept.count * t))
        for start in range(0, units, step):
            block = torch.from_numpy(self.kept.columns(start, min(units, start + step), 1))
            found.append(pair_gaps(block, 0).mean(0))
        return torch.cat(found).reshape(shape)

    def _channels(self) -> Tensor:
        _, channels, *places = self.kept.shape
        size, found = int(np.prod(places, dtype=int)), []
        for c in range(channels):
            maps = torch.from_numpy(self.kept.columns(c * size, (c + 1) * size, 1))
            found.append(torch.stack([pair_norms(maps[:, t]) for t in range(maps.shape[1])]).mean())
        return torch.stack(found)


class Gaps:
    """Mean distance of maps from what they should be, over samples and transformations.

    Per unit ``mean |a - b|``, per channel the mean of the root mean square over space; sums in
    float64.

    Args:
        shape: ``(C, h, w)`` of the maps.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device | None = None) -> None:
        self.count = 0
        self.unit = torch.zeros(shape, dtype=torch.float64, device=device)
        self.channel = torch.zeros(shape[0], dtype=torch.float64, device=device)

    def update(self, a: Tensor, b: Tensor) -> Self:
        """Take in two sets of maps ``[T, n, C, h, w]``."""
        self.count += a.shape[0] * a.shape[1]
        same = a.dtype == b.dtype and a.dtype in (torch.float32, torch.float64)
        if a.device.type == "cpu" and same and a.numel() >= COMPILE:
            maps = (x.detach().flatten(3).flatten(0, 1).contiguous().numpy() for x in (a, b))
            add_gaps(*maps, self.unit.flatten(1).numpy(), self.channel.numpy())
            return self
        apart = (a.double() - b.double()).abs()
        self.unit += apart.sum((0, 1))
        self.channel += apart.square_().mean((-1, -2)).sqrt().sum((0, 1))
        return self

    def merge(self, other: Self) -> Self:
        """Take in what another one has seen."""
        self.count += other.count
        self.unit += other.unit
        self.channel += other.channel
        return self

    def compute(self) -> tuple[Tensor, Tensor]:
        """Per unit ``[C, h, w]`` and per channel ``[C]``."""
        return self.unit / self.count, self.channel / self.count


@loop(fastmath={"contract", "reassoc"})
def add_gaps(a, b, unit, channel):
    """The loop of `Gaps`, over ``[T n, C, h w]``."""
    for k in range(a.shape[0]):
        for c in range(a.shape[1]):
            x, y, u = a[k, c], b[k, c], unit[c]
            total = 0.0
            for p in range(u.size):
                apart = abs(np.float64(x[p]) - np.float64(y[p]))
                u[p] += apart
                total += apart * apart
            channel[c] += np.sqrt(total / u.size)


def pair_gaps(x: Tensor, dim: int) -> Tensor:
    """Mean of ``|x_i - x_j|`` over pairs i < j along an axis, from the sorted values."""
    n = x.shape[dim]
    ordered = (x - x.narrow(dim, 0, 1)).sort(dim).values  # less an offset: it would cost digits
    weight = (2 * torch.arange(n, dtype=x.dtype, device=x.device) - n + 1) / (n * (n - 1) / 2)
    shape = [n if axis == dim else 1 for axis in range(x.dim())]
    return (ordered * weight.reshape(shape)).sum(dim)


def pair_norms(x: Tensor) -> Tensor:
    """Mean Euclidean distance over pairs of the rows of ``[..., n, d]``."""
    n = x.shape[-2]
    x = x - x.mean(-2, keepdim=True)
    total = x.new_zeros(x.shape[:-2])
    step = max(1, BLOCK // max(1, n * int(np.prod(x.shape[:-2]))))
    square = x.square().sum(-1)
    for start in range(0, n, step):
        part, mine = x[..., start : start + step, :], square[..., start : start + step]
        gram = part @ x.mT
        apart = mine.unsqueeze(-1) + square.unsqueeze(-2) - 2 * gram
        # what is left of equal rows is rounding, not a distance
        floor = 1e-14 * (mine.unsqueeze(-1) + square.unsqueeze(-2))
        total += torch.where(apart > floor, apart, 0.0).sqrt().sum((-1, -2))
    return total / (n * (n - 1))


def quotient(top: Tensor, bottom: Tensor) -> Tensor:
    """``top / bottom`` with 0/0 = 1 and x/0 infinite."""
    return torch.where((top == 0) & (bottom == 0), torch.ones_like(top), top / bottom)

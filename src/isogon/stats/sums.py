"""The inner loop of `TwoWayMoments`: shifted sums over samples and treatments.

Two forms of the same sums: torch for any device, and a compiled loop that reads each value
once, for large streams on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from isogon.stats.base import merged_moments

COMPILE = 30_000_000  # values seen in this process before compiling pays
BLOCK = 512  # units at a time: their accumulators stay in the cache

_seen = 0
_kernel: Any = None


@dataclass
class Sums:
    """Sums over samples, in float64; a sample's row is its values under all treatments.

    Attributes:
        shift: What column sums are counted from, ``[T, U]``.
        first: ``sum_i (a - shift)``, ``[T, U]``.
        second: ``sum_i (a - shift)^2``, ``[T, U]``.
        center: What row means are counted from, ``[U]``.
        row_first: ``sum_i (m_i - center)``, ``[U]``.
        row_second: ``sum_i (m_i - center)^2``, ``[U]``.
        sd: Sum of the rows' standard deviations, ``[U]``.
        variance: Sum of the rows' variances, ``[U]``.
    """

    shift: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    center: torch.Tensor
    row_first: torch.Tensor
    row_second: torch.Tensor
    sd: torch.Tensor
    variance: torch.Tensor

    @classmethod
    def start(cls, a: torch.Tensor) -> Self:
        """Empty sums, counted from the first sample of ``[T, n, U]``."""
        shift = a[:, 0].double()
        zero, nothing = torch.zeros_like(shift), torch.zeros_like(shift[0])
        rows = (nothing.clone() for _ in range(4))
        return cls(shift.clone(), zero, zero.clone(), shift.mean(0), *rows)

    def copy(self) -> Self:
        """Sums of their own."""
        return type(self)(**{name: t.clone() for name, t in vars(self).items()})

    def centered(self, n: int) -> Self:
        """The same sums counted from the means of the n samples so far."""
        shift, first, second = _centered(self.shift, self.first, self.second, n)
        center, row_first, row_second = _centered(self.center, self.row_first, self.row_second, n)
        return type(self)(
            shift, first, second, center, row_first, row_second, self.sd, self.variance
        )

    def merged(self, n: int, other: Self, m: int) -> Self:
        """Sums of both streams, of n and m samples (Chan et al. 1983)."""
        mine = (self.shift, self.first, self.second), (self.center, self.row_first, self.row_second)
        theirs = (
            (other.shift, other.first, other.second),
            (other.center, other.row_first, other.row_second),
        )
        column, row = (_merged(*a, n, *b, m) for a, b in zip(mine, theirs))
        shift, first, second = column
        center, row_first, row_second = row
        sd, variance = self.sd + other.sd, self.variance + other.variance
        return type(self)(shift, first, second, center, row_first, row_second, sd, variance)


def _centered(shift: torch.Tensor, first: torch.Tensor, second: torch.Tensor, n: int) -> tuple:
    mean = first / n
    moved = shift + mean
    rest = mean - (moved - shift)  # what the sum could not hold
    return moved, n * rest, left(first, second, n) + n * rest.square()


def _merged(shift, first, second, n, other_shift, other_first, other_second, m) -> tuple:
    """Shift, first and second sums of both; means are compared, never their squares."""
    mean = first / n
    apart = (other_shift - shift) + (other_first / m - mean)
    squares = left(first, second, n), left(other_first, other_second, m)
    zero = torch.zeros_like(apart)
    total, gain, together = merged_moments(n, zero, squares[0], m, apart, squares[1])
    mean = mean + gain
    return shift, total * mean, together + total * mean.square()


def left(first: torch.Tensor, second: torch.Tensor, n: int) -> torch.Tensor:
    """Sum of squared deviations from the mean, of shifted sums; never negative."""
    return (second - first.square() / n).clamp_min(0)


def accumulate(a: torch.Tensor, sums: Sums) -> None:
    """Add the samples ``[T, n, U]`` to the sums, in place."""
    global _seen
    _seen += a.numel()
    on_cpu = a.device.type == "cpu" and a.dtype in (torch.float32, torch.float64)
    if on_cpu and _seen > COMPILE and a.is_contiguous():
        compiled(a, sums)
    else:
        plain(a, sums)


def plain(a: torch.Tensor, sums: Sums) -> None:
    """`accumulate` in torch, on any device."""
    t = len(a)
    a = a.double()
    origin = a[0]
    apart = a - origin  # exactly 0 where a row is constant; a mean would leave rounding
    middle = apart.mean(0)
    spread = (apart - middle).square_().sum(0) / max(1, t - 1)
    sums.sd += spread.sqrt().sum(0)
    sums.variance += spread.sum(0)
    middle = middle + (origin - sums.center)
    sums.row_first += middle.sum(0)
    sums.row_second += middle.square_().sum(0)
    apart = torch.sub(a, sums.shift.unsqueeze(1), out=apart)
    sums.first += apart.sum(1)
    sums.second += apart.square_().sum(1)


def compiled(a: torch.Tensor, sums: Sums) -> None:
    """`accumulate` as a loop that reads each value once."""
    global _kernel
    if _kernel is None:
        import numba

        _kernel = numba.njit(nogil=True, error_model="numpy")(loop)
    _kernel(a.detach().numpy(), *(t.numpy() for t in vars(sums).values()), BLOCK)


def loop(a, shift, first, second, center, row_first, row_second, sd, variance, block):
    """The loop itself, over NumPy arrays; see `Sums` for their names and shapes."""
    # np.float64, not float: numba's float() of a float32 stays a float32
    treatments, samples, units = a.shape
    total = center[:block].copy()
    squares = center[:block].copy()
    for start in range(0, units, block):
        stop = min(units, start + block)
        for i in range(samples):
            total[:] = 0.0
            squares[:] = 0.0
            for t in range(treatments):
                for u in range(start, stop):
                    value = np.float64(a[t, i, u])
                    apart = value - np.float64(a[0, i, u])
                    total[u - start] += apart
                    squares[u - start] += apart * apart
                    moved = value - shift[t, u]
                    first[t, u] += moved
                    second[t, u] += moved * moved
            for u in range(start, stop):
                mean = total[u - start] / treatments
                spread = (squares[u - start] - total[u - start] * mean) / max(1, treatments - 1)
                spread = max(spread, 0.0)
                sd[u] += spread**0.5
                variance[u] += spread
                middle = mean + (np.float64(a[0, i, u]) - center[u])
                row_first[u] += middle
                row_second[u] += middle * middle

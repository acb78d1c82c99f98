"""The inner loop of `TwoWayMoments`: shifted sums over samples and treatments.

Two forms of the same sums: torch for any device, and a compiled loop that reads each value from
memory once, for whatever is not tiny on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from isogon.jit import loop
from isogon.stats.base import merged_moments

COMPILE = 2**16  # values in one update from which the compiled loop is used
BLOCK = 512  # units at a time: their sums stay in the cache


@dataclass
class Sums:
    """Sums over samples, in float64; a sample's row is its values under all treatments.

    Attributes:
        shift: What column sums are counted from, ``[T, U]``, in the dtype of float32 values (any
            number near the mean will do, and half the size is half the time), else float64.
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
        kept = torch.float32 if a.dtype == torch.float32 else torch.float64
        shift = a[:, 0].to(kept, copy=True).contiguous()
        t, units = shift.shape
        first = shift.new_zeros(t, units, dtype=torch.float64)
        center = shift.double().mean(0)
        rows = [torch.zeros_like(center) for _ in range(4)]
        return cls(shift, first, first.clone(), center, *rows)

    def copy(self) -> Self:
        """Sums of their own."""
        return type(self)(**{name: t.clone() for name, t in vars(self).items()})

    def center_on_means(self, n: int) -> None:
        """Count the same sums from the means of the n samples so far, in place."""
        columns = self.shift, self.first, self.second
        rows = self.center, self.row_first, self.row_second
        if self.shift.device.type == "cpu" and self.shift.numel() >= COMPILE:
            center_block(*(t.numpy().reshape(-1) for t in columns), n)
        else:
            _center(*columns, n)
        _center(*rows, n)

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


def _center(shift: torch.Tensor, first: torch.Tensor, second: torch.Tensor, n: int) -> None:
    mean = first / n
    before = shift.to(torch.float64, copy=True)
    shift += mean
    rest = mean - (shift.double() - before)  # what the shift could not hold
    second.copy_(left(first, second, n).add_(rest.square(), alpha=n))
    first.copy_(n * rest)


def _merged(shift, first, second, n, other_shift, other_first, other_second, m) -> tuple:
    """Shift, first and second sums of both; means are compared, never their squares."""
    mean = first / n
    apart = (other_shift.double() - shift.double()) + (other_first / m - mean)
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
    usual = a.dtype == sums.shift.dtype and a.dtype in (torch.float32, torch.float64)
    if a.device.type == "cpu" and usual and a.numel() >= COMPILE:
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
    apart = torch.sub(a, sums.shift.double().unsqueeze(1), out=apart)
    sums.first += apart.sum(1)
    sums.second += apart.square_().sum(1)


def compiled(a: torch.Tensor, sums: Sums) -> None:
    """`accumulate` as a loop over blocks of units."""
    total, squares = np.empty(BLOCK), np.empty(BLOCK)
    values = a.detach().contiguous().numpy()
    add_block(values, *(t.numpy() for t in vars(sums).values()), total, squares)


@loop(fastmath={"contract"})
def add_block(a, shift, first, second, center, row_first, row_second, sd, variance, total, squares):
    """The loop itself, over NumPy arrays; see `Sums` for their names and shapes.

    Two samples, then two treatments at a time: the sums go through memory half as often, and
    no more arrays are in play than LLVM checks for overlap before it uses vectors.

    ``total`` and ``squares`` are scratch; their length is the size of a block.
    """
    # np.float64, not float: numba's float() of a float32 stays a float32
    treatments, samples, units = a.shape
    for start in range(0, units, total.size):
        stop = min(start + total.size, units)
        for t in range(treatments):
            f, s, h = first[t, start:stop], second[t, start:stop], shift[t, start:stop]
            for i in range(0, samples - 1, 2):
                x, y = a[t, i, start:stop], a[t, i + 1, start:stop]
                for u in range(stop - start):
                    one = np.float64(x[u]) - np.float64(h[u])
                    two = np.float64(y[u]) - np.float64(h[u])
                    f[u] += one + two
                    s[u] += one * one + two * two
            if samples % 2:
                x = a[t, samples - 1, start:stop]
                for u in range(stop - start):
                    one = np.float64(x[u]) - np.float64(h[u])
                    f[u] += one
                    s[u] += one * one
        p, q, c = total[: stop - start], squares[: stop - start], center[start:stop]
        v, d = variance[start:stop], sd[start:stop]
        f, s = row_first[start:stop], row_second[start:stop]
        for i in range(samples):
            p[:] = 0.0
            q[:] = 0.0
            h = a[0, i, start:stop]
            for t in range(1, treatments - 1, 2):
                x, y = a[t, i, start:stop], a[t + 1, i, start:stop]
                for u in range(stop - start):
                    one = np.float64(x[u]) - np.float64(h[u])
                    two = np.float64(y[u]) - np.float64(h[u])
                    p[u] += one + two
                    q[u] += one * one + two * two
            if treatments % 2 == 0:
                x = a[treatments - 1, i, start:stop]
                for u in range(stop - start):
                    one = np.float64(x[u]) - np.float64(h[u])
                    p[u] += one
                    q[u] += one * one
            for u in range(stop - start):
                mean = p[u] / treatments
                spread = max((q[u] - p[u] * mean) / max(1, treatments - 1), 0.0)
                p[u] = mean
                q[u] = spread
                v[u] += spread
            for u in range(stop - start):
                d[u] += np.sqrt(q[u])
            for u in range(stop - start):
                middle = p[u] + (np.float64(h[u]) - c[u])
                f[u] += middle
                s[u] += middle * middle


@loop()
def center_block(shift, first, second, n):
    """`_center` as a loop."""
    for u in range(shift.size):
        mean = first[u] / n
        before = np.float64(shift[u])
        shift[u] = before + mean
        rest = mean - (np.float64(shift[u]) - before)
        second[u] = max(second[u] - first[u] * first[u] / n, 0.0) + n * (rest * rest)
        first[u] = n * rest

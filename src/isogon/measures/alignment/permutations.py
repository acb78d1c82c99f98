"""Permutations of samples for tests of significance: random elements of a random group.

The p-value of a permutation test is exact for random elements of *any* group of permutations
(`hemerik2018`); it need not be that of all. The group taken here is that of
``p -> a (p + s) mod n`` in a random labelling of the n samples: for one a, the inner products of
two matrices under all shifts s are one correlation along their diagonals, which a Fourier
transform gives at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from isogon.jit import loop

BYTES = 2**28  # of transformed diagonals at once
FEW = 2  # times k^2 within n samples: k neighbours are counted one by one
ROUNDING = 1e-7  # of the product of two float32 matrices' norms: how far an inner product is off


class SampleOrders:
    """Distinct permutations of samples, none of them the identity.

    Where no such group has enough elements (few samples, many permutations) they are drawn from all
    permutations, independently.

    Args:
        samples: n.
        count: K, how many.
        generator: Draws the labelling and the elements.

    Attributes:
        labels: ``[n]``: which sample has label p.
        elements: ``[K, 2]``: a and s of each; None where they are no affine maps.
    """

    def __init__(self, samples: int, count: int, generator: torch.Generator) -> None:
        self.samples, self.count = samples, count
        self.labels = torch.randperm(samples, generator=generator)
        self.elements: Tensor | None = None
        factors = _factors(samples, count + 1)
        if len(factors) * samples > count:
            size = len(factors) * samples - 1
            drawn = torch.randperm(size, generator=generator)[:count].sort().values + 1
            a = torch.tensor(factors)[drawn // samples]
            self.elements = torch.stack((a, drawn % samples), 1)
        else:
            self._drawn = [torch.randperm(samples, generator=generator) for _ in range(count)]

    def orders(self) -> Iterator[Tensor]:
        """Each as indices ``[n]``: sample i is replaced by sample ``order[i]``."""
        if self.elements is None:
            yield from self._drawn
            return
        place = torch.arange(self.samples)
        for a, s in self.elements.tolist():
            order = torch.empty_like(place)
            order[self.labels] = self.labels[a * (place + s) % self.samples]
            yield order

    def inner(self, a: Sequence[Tensor], b: Sequence[Tensor], *, symmetric: bool) -> Tensor:
        """Inner products of matrices with others whose samples are permuted.

        Args:
            a: Matrices ``[n, n]``, rows and columns are samples.
            b: Others, to be permuted.
            symmetric: Whether all are symmetric: half of the work.

        Returns:
            ``sum_ij a[s][i, j] b[t][order[i], order[j]]``, ``[K, len(a), len(b)]``. Of float32
            matrices the transforms are float32 too: within `ROUNDING` of the product of norms.
        """
        if self.elements is None:
            return torch.stack([_inner(a, b, order) for order in self.orders()])
        found = torch.empty(self.count, len(a), len(b), dtype=torch.float64)
        for factor in self.elements[:, 0].unique().tolist():
            mine = (self.elements[:, 0] == factor).nonzero()[:, 0]
            found[mine] = self._shifted(a, b, factor, symmetric)[self.elements[mine, 1]]
        return found

    def common(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """`inner` of matrices of zeros and a few ones, from where the ones lie.

        Two ones on diagonals at the same distance from the main one meet under one shift: they are
        counted pair by pair, about ``n k^2`` of them, where `inner` transforms ``n^2`` numbers.

        Args:
            a: Columns of the k ones of each row, ``[n, k]`` for each matrix.
            b: The same of the others.

        Returns:
            ``[K, len(a), len(b)]``, whole numbers.
        """
        n, k = self.samples, max(v.shape[1] for v in (*a, *b))
        if self.elements is None or k * k > n // FEW:
            dense = ([torch.zeros(n, n).scatter_(1, v, 1.0) for v in side] for side in (a, b))
            return self.inner(*dense, symmetric=False).round()
        found = torch.empty(self.count, len(a), len(b), dtype=torch.float64)
        mine = self._diagonals(a, 1)
        for factor in self.elements[:, 0].unique().tolist():
            counts = np.zeros((len(a), len(b), n), dtype=np.int64)
            _meet(*mine, *self._diagonals(b, pow(factor, -1, n)), counts)
            rows = (self.elements[:, 0] == factor).nonzero()[:, 0]
            taken = torch.from_numpy(counts)[..., self.elements[rows, 1]]
            found[rows] = taken.movedim(2, 0).double()
        return found

    def _diagonals(self, ones: Sequence[Tensor], factor: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the ones by diagonal, and where each diagonal begins, by matrix.

        Both in the labels' order times a factor: ``[matrices, n k]`` and ``[matrices, n + 1]``.
        """
        n = self.samples
        place = torch.empty(n, dtype=torch.int64)
        place[self.labels] = factor * torch.arange(n) % n
        rows, starts = [], []
        for columns in ones:
            diagonal = ((place[columns] - place[:, None]) % n).flatten()
            order = diagonal.argsort()
            rows.append(place[order // columns.shape[1]])
            ends = torch.bincount(diagonal, minlength=n).cumsum(0)
            starts.append(torch.cat((ends.new_zeros(1), ends)))
        return torch.stack(rows).numpy(), torch.stack(starts).numpy()

    def _shifted(
        self, a: Sequence[Tensor], b: Sequence[Tensor], factor: int, symmetric: bool
    ) -> Tensor:
        """Inner products under all shifts at once, ``[n, len(a), len(b)]``."""
        n = self.samples
        last = n // 2 if symmetric else n - 1
        # the diagonals d and n - d of a symmetric matrix hold the same numbers
        single = all(m.dtype == torch.float32 for m in (*a, *b))
        weight = torch.full((last + 1,), 2.0 if symmetric else 1.0)
        weight[0] = 1.0
        if symmetric and n % 2 == 0:
            weight[last] = 1.0
        total = torch.zeros(n // 2 + 1, len(a), len(b), dtype=torch.complex128)
        step = max(1, BYTES // (8 * (n + 2) * (len(a) + len(b))))
        for low in range(0, last + 1, step):
            offsets = torch.arange(low, min(low + step, last + 1))
            places = self._places(offsets, 1)
            mine = _spectra(a, places, single=single, weight=weight[offsets])
            if factor != 1:
                places = self._places(offsets, factor)
            total += mine @ _spectra(b, places, single=single).mH
        return torch.fft.irfft(total.conj(), n, dim=0)

    def _places(self, offsets: Tensor, factor: int) -> Tensor:
        """Where diagonals lie in a flat matrix, in the labels' order, ``[n, offsets]``."""
        n = self.samples
        twice = self.labels[factor * torch.arange(2 * n) % n]
        return twice[:n, None] * n + twice[torch.arange(n)[:, None] + offsets]


@loop()
def _meet(rows_a, starts_a, rows_b, starts_b, counts):
    """Count the pairs of ones of each two matrices by the shift under which they meet."""
    n = starts_a.shape[1] - 1
    for i in range(rows_a.shape[0]):
        for j in range(rows_b.shape[0]):
            for d in range(n):
                for u in range(starts_a[i, d], starts_a[i, d + 1]):
                    row = rows_a[i, u]
                    for v in range(starts_b[j, d], starts_b[j, d + 1]):
                        shift = rows_b[j, v] - row
                        if shift < 0:
                            shift += n
                        counts[i, j, shift] += 1


def _spectra(
    matrices: Sequence[Tensor], places: Tensor, *, single: bool, weight: Tensor | None = None
) -> Tensor:
    """Transforms along diagonals, ``[n // 2 + 1, matrices, offsets]``."""
    n, width = places.shape
    kind = torch.complex64 if single else torch.complex128
    found = torch.empty(n // 2 + 1, len(matrices), width, dtype=kind)
    for k, matrix in enumerate(matrices):
        taken = matrix.reshape(-1).index_select(0, places.reshape(-1)).reshape(n, width)
        taken = taken if single else taken.double()
        found[:, k] = torch.fft.rfft(taken if weight is None else taken.mul_(weight), dim=0)
    return found


def _inner(a: Sequence[Tensor], b: Sequence[Tensor], order: Tensor) -> Tensor:
    moved = [m[order][:, order].double() for m in b]
    return torch.stack([torch.stack([(m.double() * v).sum() for v in moved]) for m in a])


def _factors(n: int, least: int) -> list[int]:
    """A group of multipliers modulo n with at least ``least / n`` elements, if there is one."""
    group = [1]
    if n >= least:
        return group
    if 2 * n >= least and n > 2:
        return [1, n - 1]
    units = [a for a in range(2, n) if math.gcd(a, n) == 1]
    for unit in sorted(units, key=lambda a: _order(a, n)):  # small ones first: little beyond
        if len(group) * n >= least:
            break
        if unit in group:
            continue
        powers, power = [1], unit
        while power not in group:
            powers.append(power)
            power = power * unit % n
        group = sorted({g * p % n for g in group for p in powers})
    return group


def _order(a: int, n: int) -> int:
    k, power = 1, a
    while power != 1:
        k, power = k + 1, power * a % n
    return k

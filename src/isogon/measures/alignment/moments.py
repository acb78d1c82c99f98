"""Second moments of representations and of pairs of them, streamed: any number of samples.

With shifted rows ``x_i <- x_i - c`` (c fixed beforehand, near the mean) the sums are plain, so that
shares of the data are merged by adding, and an offset costs no digits. Beside ``X^T X`` and
``X^T Y`` the sums of squared norms are kept that the exact unbiased HSIC needs.

Sums are float64 always; the rows may be float32, whose products are then float32 in blocks of rows
(twice as fast, and an error of some 1e-7 of the size of the products).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from isogon.measures.alignment.products import half_square, mirrored, product


@dataclass
class SiteSums:
    """Sums over the shifted rows of one representation, float64.

    Attributes:
        shift: ``[p]``.
        count: Number of rows.
        total: ``sum x``, ``[p]``.
        lower: ``X^T X``, ``[p, p]``, of which the lower triangle counts, see `square`.
        norms: ``sum |x|^2`` and ``sum |x|^4``.
        weighted: ``sum |x|^2 x``, ``[p]``.
    """

    shift: Tensor
    count: int
    total: Tensor
    lower: Tensor
    norms: Tensor
    weighted: Tensor

    @classmethod
    def empty(cls, shift: Tensor) -> Self:
        """Sums of nothing."""
        p = len(shift)
        zero = torch.zeros(p, dtype=torch.float64, device=shift.device)
        return cls(shift, 0, zero, zero.new_zeros(p, p), zero.new_zeros(2), zero.clone())

    @property
    def square(self) -> Tensor:
        """``X^T X``, ``[p, p]``."""
        return mirrored(self.lower)

    def update(self, x: Tensor, xx: Tensor) -> None:
        """Take in shifted rows ``[m, p]`` with their squared norms ``[m]``."""
        norm = xx.double()
        self.count += len(x)
        self.total += x.sum(0, dtype=torch.float64)
        self.lower += half_square(x)
        self.norms += torch.stack((norm.sum(), norm.square().sum()))
        self.weighted += product(x, xx[:, None])[:, 0]

    def merge(self, other: Self) -> None:
        """Add the sums of other rows with the same shift."""
        self.count += other.count
        for name in ("total", "lower", "norms", "weighted"):
            getattr(self, name).add_(getattr(other, name))


@dataclass
class CrossSums:
    """Sums over pairs of shifted rows, float64.

    Attributes:
        product: ``X^T Y``, ``[p, q]``.
        norms: ``sum |x|^2 |y|^2``.
        by_y: ``sum |y|^2 x``, ``[p]``.
        by_x: ``sum |x|^2 y``, ``[q]``.
    """

    product: Tensor
    norms: Tensor
    by_y: Tensor
    by_x: Tensor

    @classmethod
    def empty(cls, p: int, q: int, device: torch.device) -> Self:
        """Sums of nothing."""
        shapes = ((p, q), (), (p,), (q,))
        return cls(*(torch.zeros(s, dtype=torch.float64, device=device) for s in shapes))

    def update(self, x: Tensor, y: Tensor, xx: Tensor, yy: Tensor) -> None:
        """Take in pairs of shifted rows ``[m, p]`` and ``[m, q]``, with their squared norms.

        The products of equal rows are those of either with itself to the last bit, so that the
        differences that metrics are made of are 0.
        """
        same = x is y or (x.shape == y.shape and torch.equal(x, y))
        self.product += mirrored(half_square(x)) if same else product(x, y)
        self.norms += xx.double() @ yy.double()
        self.by_y += product(x, yy[:, None])[:, 0]
        self.by_x += product(y, xx[:, None])[:, 0]

    def merge(self, other: Self) -> None:
        """Add the sums of other rows."""
        for name in ("product", "norms", "by_y", "by_x"):
            getattr(self, name).add_(getattr(other, name))


class SiteView:
    """One representation as metrics of second moments see it.

    Attributes:
        sums: What was summed.
        count: Number of rows.
    """

    def __init__(self, sums: SiteSums) -> None:
        self.sums, self.count = sums, sums.count

    @cached_property
    def mean(self) -> Tensor:
        """Of the rows as they were, ``[p]``."""
        return self.sums.shift + self.sums.total / self.count

    @cached_property
    def centred(self) -> Tensor:
        """``sum (x - mean)(x - mean)^T``, ``[p, p]``."""
        s = self.sums
        return s.square - torch.outer(s.total, s.total / s.count)

    @cached_property
    def raw(self) -> Tensor:
        """``X^T X`` of the rows as they were, ``[p, p]``."""
        return self.centred + self.count * torch.outer(self.mean, self.mean)

    @cached_property
    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (descending, not negative) and eigenvectors of the centred moments."""
        values, vectors = torch.linalg.eigh(self.centred)
        return values.flip(0).clamp(min=0), vectors.flip(1)

    @cached_property
    def rank(self) -> int:
        """Numerical rank of the centred moments."""
        values = self.eigen[0]
        floor = len(values) * torch.finfo(torch.float64).eps * float(values[:1].sum())
        return int((values > floor).sum())

    @cached_property
    def live(self) -> Tensor:
        """Which channels are not zero throughout, ``[p]``."""
        return self.raw.diagonal() > 0

    def norms(self, *, centre: bool = False) -> Tensor:
        """Length of each channel over all rows, ``[p]``."""
        return (self.centred if centre else self.raw).diagonal().clamp(min=0).sqrt()

    def whiten(self) -> Tensor:
        """``V diag(values^-1/2)`` of the principal components, ``[p, rank]``."""
        return self._white

    @cached_property
    def _white(self) -> Tensor:
        values, vectors = self.eigen
        return vectors[:, : self.rank] * values[: self.rank].rsqrt()

    @cached_property
    def hsic(self) -> float:
        """Unbiased HSIC of the linear Gram matrix with itself, see `CrossView.hsic`."""
        s = self.sums
        return CrossView(self, self, CrossSums(s.square, s.norms[1], s.weighted, s.weighted)).hsic()

    @cached_property
    def trivial(self) -> bool:
        """Whether the representation is constant within rounding."""
        spread = self.sums.lower.diagonal() - self.sums.total.square() / self.count
        size = spread.sum() + self.count * self.mean.square().sum()
        return bool(spread.sum() <= 4 * size * torch.finfo(torch.float64).eps)


class CrossView:
    """A pair of representations as metrics of second moments see it.

    Attributes:
        x: The one.
        y: The other.
        sums: Of the pair.
    """

    def __init__(self, x: SiteView, y: SiteView, sums: CrossSums) -> None:
        self.x, self.y, self.sums = x, y, sums

    @cached_property
    def centred(self) -> Tensor:
        """``sum (x - mean_x)(y - mean_y)^T``, ``[p, q]``."""
        a, b = self.x.sums, self.y.sums
        return self.sums.product - torch.outer(a.total, b.total / a.count)

    @cached_property
    def raw(self) -> Tensor:
        """``X^T Y`` of the rows as they were, ``[p, q]``."""
        return self.centred + self.x.count * torch.outer(self.x.mean, self.y.mean)

    def hsic(self) -> float:
        """Unbiased HSIC of the linear Gram matrices K and L, times n (n - 3).

        With the diagonals removed,
        ``tr(KL) + 1'K1 1'L1 / ((n-1)(n-2)) - 2/(n-2) 1'KL1`` in terms of the features, which no
        shift changes.
        """
        a, b, c, n = self.x.sums, self.y.sums, self.sums, self.x.count
        trace = c.product.flatten() @ c.product.flatten() - c.norms
        k = a.total @ a.total - a.norms[0]
        m = b.total @ b.total - b.norms[0]
        rows = a.total @ c.product @ b.total - a.total @ c.by_y - b.total @ c.by_x + c.norms
        return float(trace + k * m / ((n - 1) * (n - 2)) - 2 * rows / (n - 2))

    @cached_property
    def whitened(self) -> Tensor:
        """``centred`` between the whitened principal components of both, ``[rank, rank]``."""
        return self.x.whiten().T @ self.centred @ self.y.whiten()

    @cached_property
    def canonical(self) -> Tensor:
        """Canonical correlations, descending."""
        return torch.linalg.svdvals(self.whitened).clamp(max=1)


def nuclear(matrix: Tensor) -> float:
    """Sum of the singular values; not by way of a Gram matrix, which costs half of the digits."""
    return float(torch.linalg.svdvals(matrix).sum()) if matrix.numel() else math.nan

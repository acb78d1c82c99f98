"""Neighbourhoods: which samples lie nearest to which, by the cosine of uncentred rows."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from isogon.errors import DataError
from isogon.measures.alignment.metrics.metric import Metric, bounded
from isogon.registry import register

_COSINE = ("permutation", "orthogonal", "scale")


class Near(NamedTuple):
    """Cosines of all pairs ``[n, n]`` (the diagonal -inf), and nearest samples, nearest first."""

    cosines: Tensor
    order: Tensor

    def members(self) -> Tensor:
        """``[n, n]``, 1 where the column is among the row's nearest."""
        return torch.zeros_like(self.cosines).scatter_(1, self.order, 1.0)


def near(x: Tensor, k: int) -> Near:
    """Nearest samples of each row.

    Raises:
        DataError: Not more than k samples.
    """
    if len(x) <= k:
        raise DataError(
            "not enough samples for the neighbours asked for",
            got=f"{len(x)} samples",
            expected=f"more than k = {k}",
            fix="Use more samples, or a smaller k.",
        )
    rows = x / torch.where(x.norm(dim=1, keepdim=True) > 0, x.norm(dim=1, keepdim=True), 1.0)
    cosines = (rows @ rows.T).fill_diagonal_(-math.inf)
    return Near(cosines, cosines.topk(k, dim=1).indices)


@register("metric")
def mutual_knn(k: int = 10) -> Metric:
    """Share of the k nearest samples that both sides have in common.

    Args:
        k: Number of neighbours.

    Source: `huh2024`.
    """
    bounded(k, "k", 1, 10**6)

    def pair(x: Tensor, y: Tensor, _: None) -> float:
        return float((x * y).sum() / x.sum())

    return Metric(
        "mutual_knn",
        "samples",
        lambda x: near(x, k).members(),
        pair,
        invariant=_COSINE,
        maps="flatten",
        centred=False,
    )


@register("metric")
def jaccard(k: int = 10) -> Metric:
    """Mean Jaccard index of the sets of k nearest samples.

    Args:
        k: Number of neighbours.

    Source: `wang2022`.
    """
    bounded(k, "k", 1, 10**6)

    def pair(x: Tensor, y: Tensor, _: None) -> float:
        common = (x * y).sum(1)
        return float((common / (2 * k - common)).mean())

    return Metric(
        "jaccard",
        "samples",
        lambda x: near(x, k).members(),
        pair,
        invariant=_COSINE,
        maps="flatten",
        centred=False,
    )


@register("metric")
def rank_similarity(k: int = 10) -> Metric:
    """Agreement of the ranks of common neighbours.

    Over samples the mean of ``sum 2 / ((1 + |r - s|) (r + s)) / sum_{m <= c} 1/m``, the first sum
    over the c neighbours in common, with ranks r and s from 1; 0 where there are none.

    Args:
        k: Number of neighbours.

    Source: `wang2022`.
    """
    bounded(k, "k", 1, 10**6)

    def site(x: Tensor) -> Tensor:
        """Ranks ``[n, n]`` of neighbours, 0 elsewhere."""
        found = near(x, k)
        ranks = torch.arange(1, k + 1, dtype=x.dtype, device=x.device).expand(len(x), k)
        return torch.zeros_like(found.cosines).scatter_(1, found.order, ranks)

    def pair(x: Tensor, y: Tensor, _: None) -> float:
        common = (x > 0) & (y > 0)
        parts = torch.where(common, 2 / ((1 + (x - y).abs()) * (x + y).clamp(min=1)), 0.0).sum(1)
        harmonic = (1 / torch.arange(1, k + 1, dtype=x.dtype, device=x.device)).cumsum(0)
        count = common.sum(1)
        return float(torch.where(count > 0, parts / harmonic[(count - 1).clamp(min=0)], 0.0).mean())

    return Metric(
        "rank_similarity",
        "samples",
        site,
        pair,
        invariant=_COSINE,
        maps="flatten",
        centred=False,
    )


@register("metric")
def second_order_cosine(k: int = 10) -> Metric:
    """Cosine between the cosines to the neighbours of either side, mean over samples.

    Args:
        k: Number of neighbours.

    Source: `hamilton2016`.
    """
    bounded(k, "k", 1, 10**6)

    def site(x: Tensor) -> tuple[Tensor, Tensor]:
        found = near(x, k)
        return found.cosines.clone().fill_diagonal_(0.0), found.members()

    def pair(x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], _: None) -> float:
        union = (x[1] + y[1]).clamp(max=1)
        a, b = x[0] * union, y[0] * union
        sizes = a.norm(dim=1) * b.norm(dim=1)
        return float(((a * b).sum(1) / torch.where(sizes > 0, sizes, 1.0)).mean())

    return Metric(
        "second_order_cosine",
        "samples",
        site,
        pair,
        bounds=(-1.0, 1.0),
        invariant=_COSINE,
        maps="flatten",
        centred=False,
    )


@register("metric")
def cknna(k: int = 10) -> Metric:
    """CKA of the cosines between mutual neighbours only.

    Unbiased HSIC of the matrices of cosines, each kept where the column is among the row's k
    nearest on both sides; normalised by the same of each side with itself.

    Args:
        k: Number of neighbours.

    Source: `huh2024`.
    """
    bounded(k, "k", 1, 10**6)

    def site(x: Tensor) -> tuple[Tensor, Tensor, float]:
        found = near(x, k)
        mask = found.members()
        kernel = found.cosines.clone().fill_diagonal_(0.0)
        return kernel, mask, _hsic(kernel * mask, kernel * mask)

    def pair(x: tuple, y: tuple, _: None) -> float:
        mask = x[1] * y[1]
        size = x[2] * y[2]
        return _hsic(x[0] * mask, y[0] * mask) / math.sqrt(size) if size > 0 else math.nan

    return Metric(
        "cknna",
        "samples",
        site,
        pair,
        bounds=(-math.inf, math.inf),
        invariant=_COSINE,
        maps="flatten",
        centred=False,
    )


def _hsic(k: Tensor, m: Tensor) -> float:
    """Unbiased HSIC times n (n - 3) of matrices that need not be symmetric, zero diagonals."""
    n = len(k)
    total = k.sum() * m.sum() / ((n - 1) * (n - 2))
    rows = k.sum(0) @ m.sum(1)
    return float((k * m.T).sum() + total - 2 * rows / (n - 2))

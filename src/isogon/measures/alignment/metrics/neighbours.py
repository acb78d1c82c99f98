"""Neighbourhoods: which samples lie nearest to which, by the cosine of uncentred rows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from isogon.measures.alignment.metrics.metric import Inner, Metric, bounded
from isogon.measures.alignment.samples import Near, SampleView
from isogon.registry import register

_FEW = 64  # neighbours that are compared each with each


@register("metric")
def mutual_knn(k: int = 10) -> Metric:
    """Share of the k nearest samples that both sides have in common.

    Args:
        k: Number of neighbours.

    Source: `huh2024`.
    """
    bounded(k, "k", 1, 10**6)

    def pair(x: Near, y: Near, _: None) -> float:
        return float((ranks_in(x, y) < k).sum()) / x.order.numel()

    # as for all pairs at once under permutations: each sample has k neighbours
    inner = Inner(
        lambda near: near.order,
        lambda common, x, y: common / (len(x.order) * k),
        symmetric=False,
        ones=True,
    )
    return _metric("mutual_knn", k, pair, inner=inner)


@register("metric")
def jaccard(k: int = 10) -> Metric:
    """Mean Jaccard index of the sets of k nearest samples.

    Args:
        k: Number of neighbours.

    Source: `wang2022`.
    """
    bounded(k, "k", 1, 10**6)

    def pair(x: Near, y: Near, _: None) -> float:
        common = (ranks_in(x, y) < k).sum(1).double()
        return float((common / (2 * k - common)).mean())

    return _metric("jaccard", k, pair)


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
    harmonic = (1 / torch.arange(1, k + 1, dtype=torch.float64)).cumsum(0)

    def pair(x: Near, y: Near, _: None) -> float:
        theirs = ranks_in(x, y)
        common = theirs < k
        mine, theirs = torch.arange(1.0, k + 1, dtype=torch.float64), theirs + 1.0
        parts = 2 / ((1 + (mine - theirs).abs()) * (mine + theirs))
        count = common.sum(1)
        found = torch.where(common, parts, 0.0).sum(1) / harmonic[(count - 1).clamp(min=0)]
        return float(found.mean())  # 0 where there are none

    return _metric("rank_similarity", k, pair)


@register("metric")
def second_order_cosine(k: int = 10) -> Metric:
    """Cosine between the cosines to the neighbours of either side, mean over samples.

    Args:
        k: Number of neighbours.

    Source: `hamilton2016`.
    """
    bounded(k, "k", 1, 10**6)

    def pair(x: Near, y: Near, _: None) -> float:
        # the union: the neighbours in x, and those in y that are none in x
        alone = (ranks_in(y, x) >= k).double()
        a = torch.cat((x.cosines, _cosines(x, y.order) * alone), 1)
        b = torch.cat((_cosines(y, x.order), y.cosines * alone), 1)
        sizes = a.norm(dim=1) * b.norm(dim=1)
        return float(((a * b).sum(1) / torch.where(sizes > 0, sizes, 1.0)).mean())

    return _metric("second_order_cosine", k, pair, bounds=(-1.0, 1.0))


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

    def site(x: SampleView) -> tuple[Near, float]:
        near = x.near(k)
        return near, _hsic(near.order, near.cosines, near.cosines)

    def pair(one: tuple[Near, float], other: tuple[Near, float], _: None) -> float:
        (x, own), (y, size) = one, other
        theirs = ranks_in(x, y)
        common = theirs < k
        b = y.cosines.gather(1, theirs.clamp(max=k - 1))
        a, b = (torch.where(common, v, 0.0) for v in (x.cosines, b))
        size *= own
        return _hsic(x.order, a, b) / math.sqrt(size) if size > 0 else math.nan

    def moved(state: tuple[Near, float], order: Tensor) -> tuple[Near, float]:
        return state[0].moved(order), state[1]

    found = _metric("cknna", k, pair, bounds=(-math.inf, math.inf))
    return replace(found, site=site, moved=moved)


def ranks_in(x: Near, y: Near) -> Tensor:
    """Which of y's neighbours each of x's is, from 0, ``[n, k]``; k where it is none of them."""
    n, k = x.order.shape
    step = max(1, 2**24 // (k * k if k <= _FEW else n))
    found = []
    for mine, theirs in zip(x.order.split(step), y.order.split(step)):
        if k <= _FEW:
            same = mine[:, :, None] == theirs[:, None]
            found.append(torch.where(same.any(2), same.to(torch.uint8).argmax(2), k))
            continue
        table = torch.full((len(mine), n), k, dtype=torch.int32)
        table.scatter_(1, theirs, torch.arange(k, dtype=torch.int32).expand(len(mine), k))
        found.append(table.gather(1, mine).long())
    return torch.cat(found)


def _cosines(x: Near, order: Tensor) -> Tensor:
    """Of each sample with others, ``[n, k]``."""
    n, k = order.shape
    step = max(1, 2**22 // (k * max(1, x.unit.shape[1])))
    rows = torch.arange(n).split(step)
    return torch.cat([torch.einsum("np,nkp->nk", x.unit[r], x.unit[order[r]]) for r in rows])


def _hsic(order: Tensor, a: Tensor, b: Tensor) -> float:
    """Unbiased HSIC times n (n - 3) of sparse matrices, from their rows' entries ``[n, k]``.

    They need not be symmetric: the trace pairs an entry with the one across the diagonal.
    """
    n, k = order.shape
    flat = (torch.arange(n)[:, None] * n + order).flatten()
    across = (order * n + torch.arange(n)[:, None]).flatten()
    ordered, at = flat.sort()
    place = torch.searchsorted(ordered, across).clamp(max=n * k - 1)
    there = ordered[place] == across
    trace = (a.flatten() * torch.where(there, b.flatten()[at[place]], 0.0)).sum()
    columns = torch.zeros(n, dtype=a.dtype).index_add_(0, order.flatten(), a.flatten())
    total = a.sum() * b.sum() / ((n - 1) * (n - 2))
    return float(trace + total - 2 * (columns @ b.sum(1)) / (n - 2))


def _metric(name: str, k: int, pair: Any, *, bounds=(0.0, 1.0), inner=None) -> Metric:
    def site(x: SampleView) -> Near:
        return x.near(k)

    return Metric(
        name,
        "samples",
        site,
        pair,
        bounds=bounds,
        invariant=("permutation", "orthogonal", "scale"),
        maps="flatten",
        centred=False,
        inner=inner,
        moved=Near.moved,
    )

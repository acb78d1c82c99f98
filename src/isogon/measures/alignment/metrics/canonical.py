"""Subspaces of samples: canonical correlations, regression, overlap of eigenspaces."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from isogon.measures.alignment.metrics.metric import Metric, bounded
from isogon.measures.alignment.moments import CrossView, SiteView
from isogon.registry import register

_ALL = ("permutation", "orthogonal", "G_relu", "invertible", "scale", "translation")


@register("metric")
def cca() -> Metric:
    """Mean canonical correlation of the centred representations, over the smaller rank.

    Source: `raghu2017`.
    """

    def pair(x: SiteView, y: SiteView, cross: CrossView) -> float:
        return _mean(cross.canonical, min(x.rank, y.rank))

    return Metric("cca", "moments", _itself, pair, invariant=_ALL)


@register("metric")
def svcca(keep: float = 0.99) -> Metric:
    """Mean canonical correlation of the leading principal components.

    Of each side the least number of components is kept whose share of the variance reaches
    ``keep``; the mean is over the smaller number.

    Args:
        keep: Share of the variance, in (0, 1].

    Source: `raghu2017`.
    """
    bounded(keep, "keep", 1e-12, 1.0)

    def site(x: SiteView) -> int:
        values = x.eigen[0][: x.rank]
        share = values.cumsum(0) / values.sum()
        k = int((share < keep * (1 - 1e-12)).sum()) + 1 if len(values) else 0
        return min(k, x.rank)

    def pair(x: int, y: int, cross: CrossView) -> float:
        found = torch.linalg.svdvals(cross.whitened[:x, :y]).clamp(max=1)
        return _mean(found, min(x, y))

    return Metric(
        "svcca",
        "moments",
        site,
        pair,
        invariant=("permutation", "orthogonal", "scale", "translation"),
    )


@register("metric")
def pwcca(*, reverse: bool = False) -> Metric:
    """Canonical correlations, weighted by how much of x each canonical direction accounts for.

    Weights are ``sum_j |<h_i, x_j>|`` over the channels of x (of y where ``reverse``), with h_i the
    canonical variates of that side.

    Args:
        reverse: Weigh by y.

    Source: `morcos2018`.
    """

    def pair(x: SiteView, y: SiteView, cross: CrossView) -> float:
        own = y if reverse else x
        between = cross.whitened.T if reverse else cross.whitened
        u, values, _ = torch.linalg.svd(between, full_matrices=False)
        scales, vectors = own.eigen
        channels = scales[: own.rank, None].sqrt() * vectors[:, : own.rank].T
        weights = (u.T @ channels).abs().sum(1)
        return float((weights * values.clamp(max=1)).sum() / weights.sum())

    return Metric(
        "pwcca",
        "moments",
        _itself,
        pair,
        invariant=("permutation", "scale", "translation"),
    )


@register("metric")
def linear_regression(*, reverse: bool = False, held_out: int = 0) -> Metric:
    """Share of the centred variance of x that the best affine map of y explains (R squared).

    On the samples that the map is fitted on, or by cross-validation: with ``held_out`` folds
    (sample i belongs to fold i mod folds) the map is fitted on all folds but one, and what it
    leaves unexplained in each fold is summed, relative to what the mean of the others leaves. That
    is negative where the map says less than the mean.

    Args:
        reverse: Explain y by x.
        held_out: Number of folds: 2 fits on one half and explains the other; 0 for none.

    Source: `kornblith2019`.
    """
    if held_out:
        bounded(held_out, "held_out", 2, 1000)

    def pair(x: SiteView, y: SiteView, cross: CrossView) -> float:
        target, between = (y, cross.centred.T) if reverse else (x, cross.centred)
        source = x if reverse else y
        explained = (between @ source.whiten()).square().sum()
        return float((explained / target.centred.trace()).clamp(max=1))

    return Metric(
        "linear_regression",
        "moments",
        _itself,
        pair,
        bounds=(-math.inf, 1.0) if held_out else (0.0, 1.0),
        invariant=("permutation", "orthogonal", "scale", "translation"),
        facts={"folds": held_out, "reverse": reverse} if held_out else {},
    )


@register("metric")
def eigenspace_overlap() -> Metric:
    """Overlap of the spaces that the channels span: ``|U^T V|_F^2 / max(rank)``, not centred.

    U and V are orthonormal bases of the columns of X and Y.

    Source: `may2019`.
    """

    def pair(x: _Span, y: _Span, cross: CrossView) -> float:
        rank = max(x.rank, y.rank)
        if not rank:
            return math.nan
        if x.basis is None and y.basis is None:
            common = cross.whitened + torch.outer(x.mean, y.mean)
            common -= torch.outer(x.shrink * x.mean, x.mean @ common)
            common -= torch.outer(common @ y.mean, y.shrink * y.mean)
        else:
            common = _basis(x, cross.x).T @ cross.raw @ _basis(y, cross.y)
        return min(1.0, float(common.square().sum()) / rank)

    return Metric(
        "eigenspace_overlap",
        "moments",
        _span,
        pair,
        centred=False,
        invariant=("permutation", "orthogonal", "G_relu", "invertible", "scale"),
    )


class _Span(NamedTuple):
    """Where the columns of X lie: ``X @ basis`` has orthonormal columns.

    Where the centred columns are independent there is no need of other eigenvectors than theirs:
    with W that whitens them, ``X^T X = W^-T (1 + m m^T) W^-1`` for m the whitened mean times
    sqrt(n), so that ``basis = W (1 - shrink m m^T)``.
    """

    rank: int
    mean: Tensor
    shrink: float
    basis: Tensor | None


def _span(x: SiteView) -> _Span:
    if len(x.mean) and x.rank == len(x.mean):
        mean = math.sqrt(x.count) * (x.whiten().T @ x.mean)
        size = math.sqrt(1 + float(mean @ mean))
        return _Span(x.rank, mean, 1 / (size * (size + 1)), None)
    values, vectors = torch.linalg.eigh(x.raw)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1:].clamp(min=0)
    basis = vectors[:, kept] * values[kept].rsqrt()
    return _Span(basis.shape[1], x.mean, 0.0, basis)


def _basis(span: _Span, view: SiteView) -> Tensor:
    if span.basis is not None:
        return span.basis
    white = view.whiten()
    return white - torch.outer(white @ span.mean, span.shrink * span.mean)


def _itself(view: SiteView) -> SiteView:
    return view


def _mean(correlations: Tensor, count: int) -> float:
    return float(correlations[:count].sum()) / count if count else math.nan

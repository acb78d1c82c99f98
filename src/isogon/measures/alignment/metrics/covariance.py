"""Metrics of the covariances themselves: GULP, Bures, matched channels, norms."""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from isogon.measures.alignment.metrics.metric import Metric, bounded
from isogon.measures.alignment.moments import CrossView, SiteView, nuclear
from isogon.registry import register


@register("metric")
def gulp(lam: float = 0.01) -> Metric:
    """The largest difference between ridge regressions on x and on y, over targets of norm 1.

    With covariances S of the centred representations, scaled to total variance 1, and
    ``R = (S + lam)^-1``: ``d^2 = tr(R_x S_x R_x S_x) + tr(R_y S_y R_y S_y) - 2 tr(R_x S_xy R_y
    S_yx)``; the value is d itself.

    Args:
        lam: Weight of the ridge penalty; at 0 only the spans count.

    Source: `boixadsera2022`.
    """
    bounded(lam, "lam", 0.0, 1e12)

    def site(x: SiteView) -> Tensor:
        """Of each principal component the share of the variance that the ridge keeps."""
        values = x.eigen[0][: x.rank]
        share = values / x.eigen[0].sum()
        return share / (share + lam)

    def pair(x: Tensor, y: Tensor, cross: CrossView) -> float:
        common = x @ cross.whitened.square() @ y
        return math.sqrt(max(0.0, float(x @ x + y @ y - 2 * common)))

    return Metric(
        "gulp",
        "moments",
        site,
        pair,
        closer="lower",
        bounds=(0.0, math.inf),
        identical=0.0,
        invariant=("permutation", "orthogonal", "scale", "translation"),
    )


@register("metric")
def bures() -> Metric:
    """Normalised Bures similarity, ``|X^T Y|_* / (|X|_F |Y|_F)``, centred.

    Source: `tang2020`.
    """

    def pair(x: SiteView, y: SiteView, cross: CrossView) -> float:
        size = math.sqrt(float(x.centred.trace()) * float(y.centred.trace()))
        return min(1.0, nuclear(cross.centred) / size)

    return Metric("bures", "moments", _itself, pair)


@register("metric")
def hard_correlation() -> Metric:
    """Mean Pearson correlation of channels that are matched one to one, so that it is greatest.

    Channels that never change match nothing; the mean is over the matches.

    Source: `li2016`.
    """

    def pair(x: SiteView, y: SiteView, cross: CrossView) -> float:
        found = _correlations(x, y, cross).numpy()
        return float(found[linear_sum_assignment(found, maximize=True)].mean())

    return Metric(
        "hard_correlation",
        "moments",
        _itself,
        pair,
        bounds=(-1.0, 1.0),
        invariant=("permutation", "G_relu", "scale", "translation"),
    )


@register("metric")
def soft_correlation() -> Metric:
    """Mean over channels of the greatest Pearson correlation with a channel of the other side.

    The mean of both directions; channels that never change are left out.

    Source: `li2016`.
    """

    def pair(x: SiteView, y: SiteView, cross: CrossView) -> float:
        found = _correlations(x, y, cross)
        return float((found.amax(0).mean() + found.amax(1).mean()) / 2)

    return Metric(
        "soft_correlation",
        "moments",
        _itself,
        pair,
        bounds=(-1.0, 1.0),
        invariant=("permutation", "G_relu", "scale", "translation"),
    )


@register("metric")
def rsm_norm() -> Metric:
    """Distance of the Gram matrices, ``|X X^T - Y Y^T|_F``, nothing centred or scaled.

    Source: `klabunde2023`.
    """

    def site(x: SiteView) -> float:
        return float(x.raw.square().sum())

    def pair(x: float, y: float, cross: CrossView) -> float:
        return math.sqrt(max(0.0, x + y - 2 * float(cross.raw.square().sum())))

    return Metric(
        "rsm_norm",
        "moments",
        site,
        pair,
        closer="lower",
        bounds=(0.0, math.inf),
        identical=0.0,
        invariant=("permutation", "orthogonal"),
        centred=False,
    )


@register("metric")
def magnitude() -> Metric:
    """Difference of the lengths of the mean vectors, ``| |mean x| - |mean y| |``.

    Source: `klabunde2023`.
    """

    def site(x: SiteView) -> float:
        return float(x.mean.norm())

    def pair(x: float, y: float, _: CrossView) -> float:
        return abs(x - y)

    return Metric(
        "magnitude",
        "moments",
        site,
        pair,
        closer="lower",
        bounds=(0.0, math.inf),
        identical=0.0,
        invariant=("permutation", "orthogonal"),
        centred=False,
    )


def _correlations(x: SiteView, y: SiteView, cross: CrossView) -> Tensor:
    """Pearson correlations of the channels that change, ``[p', q']``."""
    a, b = x.norms(centre=True), y.norms(centre=True)
    live_x, live_y = (_changing(v, n) for v, n in ((x, a), (y, b)))
    found = cross.centred[live_x][:, live_y] / torch.outer(a[live_x], b[live_y])
    return found.clamp(-1, 1)


def _changing(view: SiteView, norm: Tensor) -> Tensor:
    floor = torch.finfo(torch.float64).eps * view.raw.diagonal().clamp(min=0)
    return norm.square() > 4 * floor


def _itself(view: SiteView) -> SiteView:
    return view

"""Distances between samples: RSA, distance correlation, uniformity, concentricity."""

from __future__ import annotations

import math
from typing import Literal

import torch
from scipy.stats import rankdata
from torch import Tensor

from isogon.measures.alignment.metrics.metric import Metric, bounded
from isogon.registry import register

Inner = Literal["correlation", "cosine", "dot", "euclidean"]
Outer = Literal["spearman", "pearson", "cosine"]


@register("metric")
def rsa(inner: Inner = "correlation", outer: Outer = "spearman") -> Metric:
    """Representational similarity analysis: do both sides find the same samples alike?

    Each side gives a number for every pair of samples; the value compares these numbers.

    Args:
        inner: What two samples are compared by: Pearson ``correlation`` over features,
            ``cosine``, ``dot`` product or (negative) ``euclidean`` distance.
        outer: How the two lists are compared: ``spearman``, ``pearson``, ``cosine``.

    Source: `kriegeskorte2008`.
    """

    def site(x: Tensor) -> Tensor:
        if inner == "correlation":
            x = x - x.mean(1, keepdim=True)
        if inner in ("correlation", "cosine"):
            size = x.norm(dim=1, keepdim=True)
            x = x / torch.where(size > 0, size, 1.0)
        full = -torch.cdist(x, x) if inner == "euclidean" else x @ x.T
        n = len(x)
        below = torch.tril_indices(n, n, -1, device=x.device)
        values = full[below[0], below[1]]
        if outer == "spearman":
            values = torch.from_numpy(rankdata(values.cpu().numpy())).to(values)
        if outer != "cosine":
            values = values - values.mean()
        size = values.norm()
        return values / size if size > 0 else values * math.nan

    def pair(x: Tensor, y: Tensor, _: None) -> float:
        return float((x @ y).clamp(-1, 1))

    invariant = {
        "correlation": ("permutation", "scale"),
        "cosine": ("permutation", "orthogonal", "scale"),
        "dot": ("permutation", "orthogonal", "scale"),
        "euclidean": ("permutation", "orthogonal", "scale", "translation"),
    }[inner]
    return Metric(
        "rsa",
        "samples",
        site,
        pair,
        bounds=(-1.0, 1.0),
        invariant=invariant,
        maps="flatten",
        centred=False,
    )


@register("metric")
def distance_correlation() -> Metric:
    """Distance correlation of the two sides, biased, with the square root.

    ``sqrt(dCov^2(x, y) / sqrt(dCov^2(x, x) dCov^2(y, y)))`` of doubly centred Euclidean distances.

    Source: `szekely2007`.
    """

    def site(x: Tensor) -> Tensor:
        d = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        d = d - d.mean(0) - d.mean(1, keepdim=True) + d.mean()
        size = d.norm()
        return d / size if size > 0 else d * math.nan

    def pair(x: Tensor, y: Tensor, _: None) -> float:
        return float((x * y).sum().clamp(0, 1).sqrt())

    return Metric("distance_correlation", "samples", site, pair, maps="flatten")


@register("metric")
def uniformity(t: float = 2.0) -> Metric:
    """Difference in how evenly the samples cover the sphere.

    The uniformity of one side is ``log mean exp(-t |u - v|^2)`` over pairs of rows of length 1.

    Args:
        t: Sharpness of the Gaussian potential.

    Source: `wang2020`.
    """
    bounded(t, "t", 1e-12, 1e12)

    def site(x: Tensor) -> float:
        size = x.norm(dim=1, keepdim=True)
        x = x / torch.where(size > 0, size, 1.0)
        squared = torch.nn.functional.pdist(x).square()
        return float(torch.logsumexp(-t * squared, 0) - math.log(len(squared)))

    return Metric(
        "uniformity",
        "samples",
        site,
        _gap,
        closer="lower",
        bounds=(0.0, math.inf),
        identical=0.0,
        invariant=("permutation", "orthogonal", "scale"),
        maps="flatten",
        centred=False,
    )


@register("metric")
def concentricity() -> Metric:
    """Difference in how closely the samples gather around the direction of their mean.

    The concentricity of one side is the mean cosine of its rows with their mean.

    Source: `klabunde2023`.
    """

    def site(x: Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(x, x.mean(0, keepdim=True)).mean())

    return Metric(
        "concentricity",
        "samples",
        site,
        _gap,
        closer="lower",
        bounds=(0.0, 2.0),
        identical=0.0,
        invariant=("permutation", "orthogonal", "scale"),
        maps="flatten",
        centred=False,
    )


def _gap(x: float, y: float, _: None) -> float:
    return abs(x - y)

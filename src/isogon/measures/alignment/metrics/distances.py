"""Distances between samples: RSA, distance correlation, uniformity, concentricity."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from isogon.measures.alignment.metrics.metric import Inner, Metric, bounded
from isogon.measures.alignment.products import gram
from isogon.measures.alignment.samples import (
    SampleView,
    from_off_diagonal,
    off_diagonal,
    ranks,
    squared_distances,
)
from isogon.registry import register

Alike = Literal["correlation", "cosine", "dot", "euclidean"]
Outer = Literal["spearman", "pearson", "cosine"]


@register("metric")
def rsa(inner: Alike = "correlation", outer: Outer = "spearman") -> Metric:
    """Representational similarity analysis: do both sides find the same samples alike?

    Each side gives a number for every pair of samples; the value compares these numbers.

    Args:
        inner: What two samples are compared by: Pearson ``correlation`` over features,
            ``cosine``, ``dot`` product or (negative) ``euclidean`` distance.
        outer: How the two lists are compared: ``spearman``, ``pearson``, ``cosine``.

    Source: `kriegeskorte2008`.
    """

    def site(x: SampleView) -> Tensor:
        values = off_diagonal(_alike(x, inner))
        if outer == "spearman":
            values = ranks(values)
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
        inner=Inner(from_off_diagonal, lambda twice, x, y: np.clip(twice / 2, -1, 1)),
    )


def _alike(x: SampleView, inner: Alike) -> Tensor:
    """How alike all pairs of samples are, ``[n, n]``."""
    if inner == "euclidean":
        return -x.distances
    if inner == "cosine":
        return x.cosines
    if inner == "dot":
        return gram(x.x)
    return gram(SampleView(x.x - x.x.mean(1, keepdim=True)).unit)


@register("metric")
def distance_correlation() -> Metric:
    """Distance correlation of the two sides, biased, with the square root.

    ``sqrt(dCov^2(x, y) / sqrt(dCov^2(x, x) dCov^2(y, y)))`` of doubly centred Euclidean distances.

    Source: `szekely2007`.
    """

    def site(x: SampleView) -> Tensor:
        d = x.distances
        rows = d.mean(1)
        d = d - rows - (rows - rows.mean())[:, None]
        size = d.norm()
        return d / size if size > 0 else d * math.nan

    def pair(x: Tensor, y: Tensor, _: None) -> float:
        return float((x.flatten() @ y.flatten()).clamp(0, 1).sqrt())

    return Metric(
        "distance_correlation",
        "samples",
        site,
        pair,
        maps="flatten",
        inner=Inner(lambda d: d, lambda common, x, y: np.sqrt(np.clip(common, 0, 1))),
    )


@register("metric")
def uniformity(t: float = 2.0) -> Metric:
    """Difference in how evenly the samples cover the sphere.

    The uniformity of one side is ``log mean exp(-t |u - v|^2)`` over pairs of rows of length 1.

    Args:
        t: Sharpness of the Gaussian potential.

    Source: `wang2020`.
    """
    bounded(t, "t", 1e-12, 1e12)

    def site(x: SampleView) -> float:
        squared = squared_distances(x.unit).fill_diagonal_(math.inf)  # no pair with itself
        n = len(squared)
        return float(torch.logsumexp(squared.mul_(-t).flatten(), 0)) - math.log(n * (n - 1))

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
        moved=_unmoved,
    )


@register("metric")
def concentricity() -> Metric:
    """Difference in how closely the samples gather around the direction of their mean.

    The concentricity of one side is the mean cosine of its rows with their mean.

    Source: `klabunde2023`.
    """

    def site(view: SampleView) -> float:
        x = view.x
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
        moved=_unmoved,
    )


def _unmoved(state: float, _: Tensor) -> float:
    return state


def _gap(x: float, y: float, _: None) -> float:
    return abs(x - y)

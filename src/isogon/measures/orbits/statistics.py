"""Statistics of activations ``a[i, t, u]`` under a family: each from a stream of orbits."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from isogon.errors import DataError
from isogon.measures.orbits.distances import BLOCK, quotient
from isogon.stats import Kept, Quantiles, TwoWay

LEVEL = 0.99  # of the normal law or the samples below a threshold
FLAT = 1e-10  # a spread below this share of the size of the values is rounding

Threshold = Literal["normal", "quantile"]


def variance_columns(layout: TwoWay, *, squared: bool = False) -> dict[str, Tensor]:
    """TV, SV and NV = TV/SV, by standard deviations or, squared, by variances."""
    within, across = layout.within_rows(squared), layout.within_columns(squared)
    name = "squared" if squared else "variance"
    return {
        f"transformation_{name}": within,
        f"sample_{name}": across,
        f"normalized_{name}": quotient(within, across),
    }


def anova_columns(layout: TwoWay) -> dict[str, Tensor]:
    """F over transformations and its p-values: plain, repeated measures, and corrected.

    Bonferroni and Benjamini-Hochberg correct for the number of units that have an F (units
    that never change have none: NaN).
    """
    columns: dict[str, Tensor] = {}
    for prefix, (f, i, j) in (("anova", layout.f()), ("repeated", layout.f_repeated())):
        columns[f"{prefix}_f"] = f
        p = scipy.stats.f.sf(f.cpu().numpy(), i, j) if i and j else torch.full_like(f, torch.nan)
        columns[f"{prefix}_p"] = torch.as_tensor(p, dtype=torch.float64).reshape(f.shape)
    p = columns["anova_p"]
    columns["anova_p_bonferroni"] = bonferroni(p)
    columns["anova_p_bh"] = benjamini_hochberg(p)
    return columns


def bonferroni(p: Tensor) -> Tensor:
    """p-values times the number of tests, 1 at most: significant where below the level."""
    return (p * (~p.isnan()).sum()).clamp_max(1)


def benjamini_hochberg(p: Tensor) -> Tensor:
    """Adjusted p-values: rejecting those below q keeps the false discovery rate below q.

    ``p_(k) m / k``, made monotone from the largest down (Benjamini and Hochberg 1995).
    """
    flat = p.reshape(-1)
    tests = ~flat.isnan()
    values, order = flat[tests].sort(descending=True)
    m = len(values)
    ranks = torch.arange(m, 0, -1, dtype=p.dtype)
    adjusted = (values * m / ranks).cummin(0).values.clamp_max(1) if m else values
    kept = torch.empty_like(adjusted)
    kept[order] = adjusted
    out = torch.full_like(flat, torch.nan)
    out[tests] = kept
    return out.reshape(p.shape)


class Firing:
    """How often units fire, and whether those that fire keep firing (Goodfellow et al. 2009).

    With a threshold th per unit: ``G`` is the share of untransformed samples above it, Z those
    samples, ``L`` the mean over Z and over all transformations of ``1[a_it > th]``; the score
    is L/G. By name, the variants of others: ``goodfellow_all`` takes the mean over all samples
    in place of Z; ``goodfellow_normal`` also takes the threshold from the transformed samples
    and 1 % in place of G.

    Args:
        threshold: Threshold of each unit from the untransformed samples.
        pooled: Threshold of each unit from all samples.
    """

    def __init__(self, threshold: Tensor, pooled: Tensor) -> None:
        self.threshold, self.pooled = threshold, pooled
        self.samples = self.treatments = 0
        self.fired = torch.zeros_like(threshold)
        self.kept = torch.zeros_like(threshold)
        self.all = torch.zeros_like(threshold)
        self.normal = torch.zeros_like(threshold)

    def fresh(self) -> Firing:
        """The same thresholds, nothing seen."""
        return Firing(self.threshold, self.pooled)

    def update(self, a: Tensor) -> Self:
        """Take in ``[n, T, *shape]``."""
        self.treatments, self.samples = a.shape[1], self.samples + len(a)
        a = a.transpose(0, 1).double()
        above = a > self.threshold
        first = above[0]
        self.fired += first.sum(0)
        self.kept += (above & first).sum((0, 1))
        self.all += above.sum((0, 1))
        self.normal += (a > self.pooled).sum((0, 1))
        return self

    def merge(self, other: Self) -> Self:
        """Take in what another one with the same thresholds has seen."""
        self.treatments = self.treatments or other.treatments
        self.samples += other.samples
        for name in ("fired", "kept", "all", "normal"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def compute(self) -> dict[str, Tensor]:
        """The scores and their parts; NaN where no sample fires."""
        share = self.fired / self.samples
        local = self.kept / (self.fired * self.treatments)
        total = self.samples * self.treatments
        return {
            "goodfellow": local / share,
            "goodfellow_global": share,
            "goodfellow_local": local,
            "goodfellow_threshold": self.threshold,
            "goodfellow_all": quotient(self.all / total, share),
            "goodfellow_normal": self.normal / total / (1 - LEVEL),
        }


def order_statistic(kept: Kept) -> Tensor:
    """The 99 % quantile of each unit, exactly, from all values ``[N, *shape]``."""
    units, found = int(np.prod(kept.shape, dtype=int)), []
    step = max(1, BLOCK // max(1, kept.count))
    for start in range(0, units, step):
        block = torch.from_numpy(kept.columns(start, min(units, start + step)))
        found.append(Quantiles(LEVEL, total=kept.count).update(block).compute())
    return torch.cat(found).reshape(kept.shape)


def thresholds(layout: TwoWay, order: Tensor | None) -> tuple[Tensor, Tensor]:
    """Threshold per unit of the untransformed and of all samples.

    ``mean + z_0.99 sd`` (sd unbiased), or for the untransformed ones the order statistic.
    """
    if layout.samples < 2:
        raise DataError("too few samples", got=layout.samples, expected="at least two")
    z = float(scipy.stats.norm.ppf(LEVEL))
    n, t = layout.samples, layout.treatments
    mean = layout.shift + layout.column_mean[0]
    first = mean + z * _sd(layout.column_m2[0] / (n - 1), mean)
    if order is not None:
        first = order.to(first)
    squares = layout.ss_within() + layout.ss_treatments()
    pooled = layout.mean + z * _sd(squares / (n * t - 1), layout.mean)
    return first, pooled


def _sd(variance: Tensor, mean: Tensor) -> Tensor:
    """Standard deviation; of constants, whose spread is rounding, enough to keep them silent."""
    return variance.sqrt().clamp_min(1e-16).maximum(FLAT * mean.abs())

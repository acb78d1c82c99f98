"""Intervals and tests behind findings, in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.05  # of every test and, as 1 - LEVEL, of every interval
Z = float(stats.norm.ppf(1 - LEVEL / 2))


def wilson(right: float, total: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a share, of which ``right`` of ``total`` were counted."""
    z = float(stats.norm.ppf(1 - level / 2))
    p, n = right / total, total
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def drop(before: float, after: float, total: float, level: float = LEVEL) -> tuple[float, float]:
    """Newcombe's interval of the difference ``before - after`` of two shares of ``total`` samples.

    It takes the samples as independent; on the same ones it is too wide where the networks are
    alike, never too narrow for what it is used for here.
    """
    low1, high1 = wilson(before * total, total, level)
    low2, high2 = wilson(after * total, total, level)
    d = before - after
    low = d - math.hypot(before - low1, high2 - after)
    high = d + math.hypot(high1 - before, after - low2)
    return low, high


def apart(
    a: float, between_a: tuple[float, float], b: float, between_b: tuple[float, float]
) -> tuple[float, float, float]:
    """Difference b - a of two estimates, with the interval that theirs give (Zou and Donner)."""
    d = b - a
    low = d - math.hypot(b - between_b[0], between_a[1] - a)
    return d, low, d + math.hypot(between_b[1] - b, a - between_a[0])


def paired_shares(only_a: int, only_b: int, total: int) -> tuple[float, float, float]:
    """Difference of two shares on the same samples, with its 95 % interval (Bonett and Price).

    Args:
        only_a: Samples that a alone has right.
        only_b: Samples that b alone has right.
        total: All samples.

    Returns:
        a's share less b's, and the interval's ends.
    """
    p, q = (only_a + 1) / (total + 2), (only_b + 1) / (total + 2)
    half = Z * math.sqrt(max(p + q - (p - q) ** 2, 0.0) / (total + 2))
    return (only_a - only_b) / total, max(p - q - half, -1.0), min(p - q + half, 1.0)


def mean(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of some numbers and the ends of its 95 % interval (Student's t)."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan, math.nan
    centre = float(values.mean())
    if len(values) < 2:
        return centre, math.nan, math.nan
    sd = float(values.std(ddof=1))
    half = float(stats.t.ppf(1 - LEVEL / 2, len(values) - 1)) * sd / math.sqrt(len(values))
    return centre, centre - half, centre + half


def median(values: np.ndarray) -> tuple[float, float, float]:
    """Median of some numbers and its interval of at least 95 % by order statistics."""
    values = np.sort(np.asarray(values, float)[np.isfinite(values)])
    if not len(values):
        return math.nan, math.nan, math.nan
    k = int(stats.binom.ppf(LEVEL / 2, len(values), 0.5))
    centre = float(np.median(values))
    if k < 1:
        return centre, math.nan, math.nan
    return centre, float(values[k - 1]), float(values[len(values) - k])


def coin(count: int, total: int) -> float:
    """Two-sided p-value of so many heads of a fair coin."""
    return float(stats.binomtest(count, total, 0.5).pvalue) if total else 1.0


def corrected(p: Sequence[float]) -> np.ndarray:
    """Holm's p-values for several tests made at once."""
    values = np.asarray(p, float)
    order = np.argsort(values)
    scaled = values[order] * (len(values) - np.arange(len(values)))
    found = np.empty(len(values))
    found[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return found


def separation(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Share of pairs in which a's value is above b's (ties half), and Mann and Whitney's p."""
    if not len(a) or not len(b):
        return 0.5, 1.0
    test = stats.mannwhitneyu(a, b, alternative="two-sided")
    return float(test.statistic) / (len(a) * len(b)), float(test.pvalue)

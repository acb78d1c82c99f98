"""How the share of non-positive projections lies to that of a network that was never trained."""

from __future__ import annotations

import numpy as np
from scipy import stats

LEVEL = 0.05  # corrected p-values below it are marked


def null_sd(units: np.ndarray) -> np.ndarray:
    """Standard deviation of the mass of N independent symmetric filters: sqrt(0.25 / N)."""
    return np.sqrt(0.25 / units)


def p_values(counts: np.ndarray, units: np.ndarray, drawn: np.ndarray | None) -> np.ndarray:
    """Two-sided p-values of "these filters are as they were drawn".

    Where the weights of a filter are drawn independently of the others and their law does not
    change under a change of sign, each projection is not positive with probability 1/2, so that
    the count is binomial (the exact test). With random states of the layers p = (1 + k) / (1 + K),
    k of K of them being at least as far from N/2.

    Args:
        counts: Number of filters whose projection is not positive, ``[..., layers]``.
        units: Number of filters, ``[layers]``.
        drawn: The same counts in K random states of the layers, ``[K, layers]``; None for the
            exact test.

    Returns:
        ``[..., layers]``.

    Example:
        >>> p_values(np.array([[0, 5]]), np.array([10, 10]), None).round(4).tolist()
        [[0.002, 1.0]]
    """
    away = np.abs(2 * counts - units)
    if drawn is not None:
        far = np.abs(2 * drawn - units)
        return (1 + (far >= away[..., None, :]).sum(-2)) / (1 + len(drawn))
    tail = stats.binom.cdf((units - away) // 2, units, 0.5)
    return np.minimum(1.0, 2 * tail)


def corrected(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's correction of p-values ``[..., layers]`` over the layers."""
    return np.apply_along_axis(stats.false_discovery_control, -1, p)

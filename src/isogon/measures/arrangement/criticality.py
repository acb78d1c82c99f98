"""How sure the drop of a reset is, and whether biased layers are the critical ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats
from torch.nn import Module

from isogon.measures.arrangement.layers import filters

INTERVAL = (2.5, 97.5)  # percent


def interval(
    own: np.ndarray, right: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """95 % bootstrap interval of accuracy - accuracy with a layer reset, samples in pairs.

    A sample adds 1, 0 or -1 to the difference, so that resampling samples is a draw of how many
    of each there are.

    Args:
        own: Whether the model classifies each sample right, ``[N]``.
        right: The same with each state of each layer, ``[layers, states, N]``.
        count: Number of resamplings.
        seed: Of the random numbers.

    Returns:
        Lower and upper ends, ``[layers, states]`` each.
    """
    n = len(own)
    lost = (own & ~right).sum(-1)
    won = (~own & right).sum(-1)
    generator = np.random.default_rng(seed)
    shares = np.stack([lost, won, n - lost - won], -1) / n
    drawn = generator.multinomial(n, shares[..., None, :], size=(*lost.shape, count))
    low, high = np.percentile((drawn[..., 0] - drawn[..., 1]) / n, INTERVAL, axis=-1)
    return low, high


def bias(model: Module, paths: Sequence[str]) -> dict[str, float]:
    """Share of a layer's filters whose projection is not positive, less 1/2, by its path.

    Only of convolutions and linear layers.
    """
    modules, found = dict(model.named_modules()), {}
    for path in paths:
        if (w := filters(modules[path])) is not None:
            found[path] = float((w.sum(1) <= 0).double().mean()) - 0.5
    return found


def correlation(
    drop: np.ndarray, biases: Sequence[float], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Spearman's rank correlation over layers of drop and |bias|, for each snapshot.

    Args:
        drop: ``[layers, snapshots]``.
        biases: Of the layers.
        names: Of the snapshots.

    Returns:
        By snapshot spearman, p_value and n; only where at least three layers differ in both.
    """
    found = {}
    away = np.abs(np.asarray(biases, float))
    known = np.isfinite(away)
    for name, column in zip(names, drop.T, strict=True):
        x, y = column[known], away[known]
        if len(x) < 3 or not np.ptp(x) or not np.ptp(y):
            continue
        test: Any = stats.spearmanr(x, y)
        found[name] = {
            "spearman": float(test.statistic),
            "p_value": float(test.pvalue),
            "n": len(x),
        }
    return found

"""What the rows of the benchmark of similarity share: time, features, values by definition."""

from __future__ import annotations

import statistics

import torch


def ratio(taken, name, base):
    """Median over repeats of the quotient within one."""
    quotients = [a / b for a, b in zip(taken[name], taken[base], strict=True)]
    return round(statistics.median(quotients), 3)


def features(n, d, layers, seed):
    """Layers of features [n, d] that share a common part, float32."""
    g = torch.Generator().manual_seed(seed)
    common = torch.randn(n, 64, generator=torch.Generator().manual_seed(0))
    found = {}
    for k in range(layers):
        mixed = common @ torch.randn(64, d, generator=g) / 8
        found[f"l{k}"] = mixed + torch.randn(n, d, generator=g)
    return found


def ucentred(x):
    """U-centred linear matrix of rows, float64, by its definition."""
    k = x.double() @ x.double().T
    k.fill_diagonal_(0)
    n = len(k)
    means = k.sum(1) / (n - 2)
    k -= means[:, None]
    k -= means[None, :]
    k += means.sum() / (n - 1)
    return k.fill_diagonal_(0)


def truth(x, y):
    """Unbiased linear CKA by its definition, float64."""
    k, m = ucentred(x), ucentred(y)
    return float((k * m).sum() / (k.norm() * m.norm()))

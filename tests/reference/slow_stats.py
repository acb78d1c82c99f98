"""Streaming statistics, written down literally in NumPy."""

from __future__ import annotations

import numpy as np


def moments(x):
    """Mean and unbiased variance of ``[N, ...]``."""
    x = np.asarray(x, np.longdouble)
    return x.mean(0), ((x - x.mean(0)) ** 2).sum(0) / (len(x) - 1)


def two_way(a):
    """Every sum of the two-way layout ``a[i, t, ...]``, one by one."""
    a = np.asarray(a, np.longdouble)
    n, t = a.shape[:2]
    grand = a.reshape(n * t, *a.shape[2:]).mean(0)
    sd_rows = np.stack([a[i].std(0, ddof=1) for i in range(n)])
    sd_columns = np.stack([a[:, j].std(0, ddof=1) for j in range(t)])
    between = n * sum((a[:, j].mean(0) - grand) ** 2 for j in range(t))
    within = sum(((a[:, j] - a[:, j].mean(0)) ** 2).sum(0) for j in range(t))
    samples = t * sum((a[i].mean(0) - grand) ** 2 for i in range(n))
    return {
        "tv": sd_rows.mean(0),
        "sv": sd_columns.mean(0),
        "tv2": (sd_rows**2).mean(0),
        "sv2": (sd_columns**2).mean(0),
        "between": between,
        "within": within,
        "samples": samples,
        "f": (between / (t - 1)) / (within / (t * (n - 1))),
        "f_repeated": (between / (t - 1)) / ((within - samples) / ((t - 1) * (n - 1))),
    }


def cross(x, y):
    """Means, centred and raw second moments of rows."""
    x, y = np.asarray(x, np.longdouble), np.asarray(y, np.longdouble)
    cx, cy = x - x.mean(0), y - y.mean(0)
    return {"xx": cx.T @ cx, "xy": cx.T @ cy, "yy": cy.T @ cy, "raw": x.T @ y}

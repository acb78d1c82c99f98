"""Literal float64 twin of dissection: loops over pixels, units and concepts."""

from __future__ import annotations

import math

import numpy as np


def threshold(values, q):
    """The smallest of the values that at least a share q of them does not exceed."""
    return next(v for v in sorted(values) if np.mean(np.asarray(values) <= v) >= q)


def upsampled(a, height, width):
    """A map ``[h, w]`` at every pixel: bilinear, corners not aligned, edges repeated."""
    h, w = a.shape
    out = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y = max((i + 0.5) * h / height - 0.5, 0.0)
            x = max((j + 0.5) * w / width - 0.5, 0.0)
            y0, x0 = math.floor(y), math.floor(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            fy, fx = y - y0, x - x0
            out[i, j] = (1 - fy) * ((1 - fx) * a[y0, x0] + fx * a[y0, x1]) + fy * (
                (1 - fx) * a[y1, x0] + fx * a[y1, x1]
            )
    return out


def table(maps, labels, q):
    """IoU of every unit with every concept.

    ``maps [N, U, h, w]``; ``labels {category: sets [N, H, W]}``: the concepts at each pixel.
    Returns ``{(unit, category, number): iou}`` and the thresholds ``[U]``.
    """
    found, thresholds = {}, []
    for u in range(maps.shape[1]):
        t = threshold(maps[:, u].reshape(-1).tolist(), q)
        thresholds.append(t)
        for category, there in labels.items():
            n, height, width = there.shape
            numbers = sorted({k for s in there.reshape(-1) for k in s})
            both, either = dict.fromkeys(numbers, 0), dict.fromkeys(numbers, 0)
            for i in range(n):
                if not any(there[i].reshape(-1)):
                    continue  # does not carry the category
                map = upsampled(maps[i, u], height, width)
                for y in range(height):
                    for x in range(width):
                        for k in numbers:
                            on, has = map[y, x] > t, k in there[i, y, x]
                            both[k] += on and has
                            either[k] += on or has
            for k in numbers:
                found[u, category, k] = both[k] / either[k]
    return found, thresholds

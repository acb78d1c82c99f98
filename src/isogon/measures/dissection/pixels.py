"""Pixels at which upsampled maps are above their thresholds, counted by concept: compiled loops."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from isogon import jit
from isogon.measures.dissection.upsampling import Upsampling


@jit.loop()
def _count(
    maps, threshold, first_y, first_x, share_y, share_x, columns, top, bottom, high, lit, shared
):
    """Add the pixels above the threshold to ``lit [C]``, and by column to ``shared [C, K + 1]``.

    ``maps [C, h, w]``; ``columns [L, H, W]``; ``top``, ``bottom`` ``[W]`` and ``high [h]`` are
    scratch. The value at a pixel is, operation by operation, that of `Upsampling.whole`.
    """
    units, h, w = maps.shape
    layers = columns.shape[0]
    for u in range(units):
        t = threshold[u]
        some = 0
        for r in range(h):
            above = 0
            for c in range(w):
                above += maps[u, r, c] > t
            high[r] = above
            some += above
        if some == 0:
            continue
        found = 0
        for r in range(h):
            below = min(r + 1, h - 1)
            if high[r] + high[below] == 0 or first_y[r] == first_y[r + 1]:
                continue
            for c in range(w):
                right = min(c + 1, w - 1)
                left_top, right_top = np.float64(maps[u, r, c]), np.float64(maps[u, r, right])
                left, end = np.float64(maps[u, below, c]), np.float64(maps[u, below, right])
                if max(max(left_top, right_top), max(left, end)) <= t:
                    continue
                for j in range(first_x[c], first_x[c + 1]):
                    s = share_x[j]
                    top[j] = (1 - s) * left_top + s * right_top
                    bottom[j] = (1 - s) * left + s * end
                for i in range(first_y[r], first_y[r + 1]):
                    d = share_y[i]
                    there = 0
                    for j in range(first_x[c], first_x[c + 1]):
                        there += (1 - d) * top[j] + d * bottom[j] > t
                    if there == 0:
                        continue
                    found += there
                    for j in range(first_x[c], first_x[c + 1]):
                        if (1 - d) * top[j] + d * bottom[j] > t:
                            for k in range(layers):
                                shared[u, columns[k, i, j]] += 1
        lit[u] += found


class Counter:
    """Counts on the CPU what maps of one size are above their thresholds.

    Args:
        upsampling: From the maps to the image.
    """

    def __init__(self, upsampling: Upsampling) -> None:
        y, x = upsampling.rows, upsampling.columns
        self.first = [np.ascontiguousarray(a.first.numpy()) for a in (y, x)]
        self.share = [a.share.numpy() for a in (y, x)]
        self.scratch = [np.empty(upsampling.size[1]) for _ in range(2)]
        self.high = np.empty(len(y.following), dtype=np.int64)

    def count(
        self, maps: Tensor, threshold: Tensor, columns: Tensor, shared: Tensor
    ) -> torch.Tensor:
        """Pixels above the threshold, per unit.

        Args:
            maps: Of one image ``[C, h, w]``.
            threshold: ``[C]``, float64.
            columns: The column + 1 of each concept ``[L, H, W]``, int32.
            shared: Where the pixels of each unit and column are added, ``[C, K + 1]``, int64.

        Returns:
            ``[C]``, int64.
        """
        lit = torch.zeros(len(maps), dtype=torch.int64)
        _count(
            maps.detach().numpy(),
            threshold.numpy(),
            *self.first,
            *self.share,
            columns.numpy(),
            *self.scratch,
            self.high,
            lit.numpy(),
            shared.numpy(),
        )
        return lit

"""Maps against moved maps: the simple distance, and the interpolation floor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from isogon.actions import Family
from isogon.actions.warp import Positions, positions
from isogon.jit import loop
from isogon.measures.orbits.distances import COMPILE, Gaps, quotient
from isogon.stats import TwoWayMoments

TILE = 48  # positions of a map at a time: their rows of channels stay in the cache


class Moved:
    """The simple distance ``|a(T x) - T a(x)|``, and the variances of ``T^-1 T a(x)``.

    Args:
        shape: ``(C, h, w)`` of the maps.
        family: The transformations, identity first.
        measures: Which of ``simple`` and ``floor``.
    """

    def __init__(self, shape: tuple[int, ...], family: Family, measures: Sequence[str]) -> None:
        self.shape, self.family = shape, family
        self.simple = "simple" in measures
        self.gaps: Gaps | None = None
        # of maps with their channels last
        self.floor = TwoWayMoments(len(family)) if "floor" in measures else None

    def update(self, a: Tensor, x: Tensor) -> Self:
        """Take in maps ``[n, T, C, h, w]``, not moved back, of inputs ``[n, T, C, H, W]``."""
        size = x.shape[-2:]
        if self.simple and self.gaps is None:
            self.gaps = Gaps(self.shape, a.device)
        if self.gaps is not None and self.floor is not None and (there := self._warps(a, size)):
            self.floor.update(_moved(a.transpose(0, 1), *there, self.gaps).transpose(0, 1))
            return self
        moved = self.family.act(a[:, 0], size)
        if self.gaps is not None:
            self.gaps.update(a.transpose(0, 1), moved)
        if self.floor is not None:
            again = self.family.undo(moved, size)
            self.floor.update(again.transpose(0, 1).movedim(2, -1))
        return self

    def _warps(self, a: Tensor, size: Sequence[int]) -> tuple[Positions, Positions] | None:
        """Where pixels come from there and back, where the compiled loop serves."""
        usual = a.dtype in (torch.float32, torch.float64) and a.numel() >= COMPILE
        if a.device.type != "cpu" or not usual:
            return None
        found, (_, h, w) = [], self.shape
        for undone in (False, True):
            warps = self.family.warps(size, (h, w), undone)
            if warps is None or warps[1:] != ("border", "bilinear"):
                return None
            found.append(positions(warps[0], h, w, "border"))
        return found[0], found[1]

    def merge(self, other: Self) -> Self:
        """Take in what another one has seen."""
        if self.gaps is None:
            self.gaps = other.gaps
        elif other.gaps is not None:
            self.gaps.merge(other.gaps)
        if self.floor is not None and other.floor is not None:
            self.floor.merge(other.floor)
        return self

    def compute(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Columns per unit, and per channel."""
        unit: dict[str, Tensor] = {}
        channel: dict[str, Tensor] = {}
        if self.gaps is not None:
            unit["simple_distance"], channel["simple_distance"] = self.gaps.compute()
        if self.floor is not None:
            layout = self.floor.compute()
            within, across = (
                t.movedim(-1, 0) for t in (layout.within_rows(), layout.within_columns())
            )
            unit["transformation_floor"] = within
            unit["sample_floor"] = across
            unit["normalized_floor"] = quotient(within, across)
        return unit, channel

    def columns(self, aggregate: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`compute`, with the distance once: of whole maps where rows are channels."""
        unit, channel = self.compute()
        if aggregate == "channel":
            unit.pop("simple_distance", None)
        else:
            channel.clear()
        return unit, channel


def _moved(a: Tensor, there: Positions, back: Positions, gaps: Gaps) -> Tensor:
    """Maps moved there and back, and on the way their distance from those that came moved.

    Args:
        a: Maps ``[T, n, C, h, w]`` of the transformed inputs, of the untransformed ones first.
        there: Where pixels come from under each transformation.
        back: The same for its inverse.
        gaps: Takes in the distances.

    Returns:
        ``[T, n, h, w, C]``.
    """
    t, n, c, h, w = a.shape
    start = a[0].movedim(1, -1).reshape(n, h * w, c).contiguous()
    again = a.new_empty(t, n, h * w, c)
    scratch, turned = a.new_empty(h * w, c), a.new_empty(c, TILE)
    single = a.dtype == torch.float32
    gaps.count += t * n
    move_maps(
        start.numpy(),
        a.detach().reshape(t, n, c, h * w).numpy(),
        *(x for p in (there, back) for x in (p.exact, p.index, p.single if single else p.weights)),
        *there.steps,
        gaps.unit.flatten(1).numpy(),
        gaps.channel.numpy(),
        scratch.numpy(),
        turned.numpy(),
        np.empty((c, TILE)),
        again.numpy(),
    )
    return again.reshape(t, n, h, w, c)


@loop()
def move_maps(
    start,
    a,
    exact,
    index,
    weights,
    exact_back,
    index_back,
    weights_back,
    right,
    down,
    unit,
    channel,
    moved,
    turned,
    total,
    again,
):
    """The loop of `_moved`: channels are innermost, so that they are worked on together.

    Shapes: start ``[n, U, C]``, a ``[T, n, C, U]``, moved ``[U, C]``, again ``[T, n, U, C]``;
    products are not contracted, so that moved maps have the bits of `isogon.actions.warp`.
    """
    treatments, samples, units, channels = again.shape
    for t in range(treatments):
        for i in range(samples):
            x = start[i]
            for u in range(units):
                k = np.uint64(index[t, u])
                below = k + np.uint64(down)
                z = moved[u]
                one = x[k]
                if exact[t]:
                    for c in range(channels):
                        z[c] = one[c]
                    continue
                two, three, four = x[k + np.uint64(right)], x[below], x[below + np.uint64(right)]
                p, q, r, s = weights[t, 0, u], weights[t, 1, u], weights[t, 2, u], weights[t, 3, u]
                for c in range(channels):
                    z[c] = ((one[c] * p + two[c] * q) + three[c] * r) + four[c] * s
            x, y = moved, again[t, i]
            for u in range(units):
                k = np.uint64(index_back[t, u])
                below = k + np.uint64(down)
                z = y[u]
                one = x[k]
                if exact_back[t]:
                    for c in range(channels):
                        z[c] = one[c]
                    continue
                two, three, four = x[k + np.uint64(right)], x[below], x[below + np.uint64(right)]
                p, q, r, s = (
                    weights_back[t, 0, u],
                    weights_back[t, 1, u],
                    weights_back[t, 2, u],
                    weights_back[t, 3, u],
                )
                for c in range(channels):
                    z[c] = ((one[c] * p + two[c] * q) + three[c] * r) + four[c] * s
            total[:] = 0.0
            for first in range(0, units, TILE):
                width = min(TILE, units - first)
                for u in range(width):  # turned, so that positions are innermost again
                    for c in range(channels):
                        turned[c, u] = moved[first + u, c]
                for c in range(channels):
                    seen, sums = a[t, i, c, first : first + width], unit[c, first : first + width]
                    other, squares = turned[c], total[c]
                    for u in range(width):
                        apart = abs(np.float64(seen[u]) - np.float64(other[u]))
                        sums[u] += apart
                        squares[u] += apart * apart
            for c in range(channels):
                channel[c] += np.sqrt(total[c].sum() / units)

"""Statistics of streams: updated batch by batch, merged across workers, in float64.

A `Stat` takes ``update(x)``, ``merge(other)`` and ``compute()``. Whatever the batches, their
order and the way the work was shared out, the result is the one of the whole, up to rounding:
means and sums of squares are combined in Chan's form, never as differences of large sums.
"""

from __future__ import annotations

from isogon.stats.base import Stat, all_reduce
from isogon.stats.cross import Cross, CrossMoments
from isogon.stats.kept import Kept
from isogon.stats.moments import Moment, Moments
from isogon.stats.quantiles import Quantiles
from isogon.stats.twoway import TwoWay, TwoWayMoments
from isogon.stats.wrappers import Blocks, ByClass, Pair, Pooled, Together

__all__ = [
    "Blocks",
    "ByClass",
    "Cross",
    "CrossMoments",
    "Kept",
    "Moment",
    "Moments",
    "Pair",
    "Pooled",
    "Quantiles",
    "Stat",
    "Together",
    "TwoWay",
    "TwoWayMoments",
    "all_reduce",
]

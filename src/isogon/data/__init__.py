"""Data: `Samples` (indexable), `Batches` (re-iterable) and the registered data sets."""

from __future__ import annotations

from isogon.data.batches import Batches
from isogon.data.load import Points, as_batches, batches, points, sample, samples
from isogon.data.samples import Samples

__all__ = ["Batches", "Points", "Samples", "as_batches", "batches", "points", "sample", "samples"]

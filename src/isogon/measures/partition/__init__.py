"""Partition: the exact linear regions of a network on a plane, its boundary, and segments."""

from __future__ import annotations

from isogon.measures.partition.complexity import local_complexity
from isogon.measures.partition.evolution import Evolution, evolution
from isogon.measures.partition.line import Segments, segments
from isogon.measures.partition.measure import partition
from isogon.measures.partition.reading import Partition
from isogon.measures.partition.slices import Slice
from isogon.measures.partition.specs import nearest, parse_slice

__all__ = [
    "Evolution",
    "evolution",
    "Segments",
    "local_complexity",
    "segments",
    "Partition",
    "Slice",
    "nearest",
    "parse_slice",
    "partition",
]

"""Partition: the exact linear regions of a network on a plane, its boundary, and segments."""

from __future__ import annotations

from isogon.measures.partition.certify import Certificate
from isogon.measures.partition.measure import partition
from isogon.measures.partition.reading import Partition
from isogon.measures.partition.slices import Slice

__all__ = ["Certificate", "Partition", "Slice", "partition"]

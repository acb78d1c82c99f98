"""Paths along the leaves of a classifier and across them, and whether leaves exist.

The local data matrix splits input space at every point into the range of G, in which the
prediction moves, and its kernel, in which it does not. A *leaf* is a surface that is tangent
to the range everywhere.
"""

from __future__ import annotations

from isogon.measures.paths.distance import leaf_distance
from isogon.measures.paths.integrability import integrability
from isogon.measures.paths.walking import walk

__all__ = ["integrability", "leaf_distance", "walk"]

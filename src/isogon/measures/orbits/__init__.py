"""Orbits: invariance and equivariance of units under transformations of their inputs."""

from __future__ import annotations

from isogon.measures.orbits.compare import compare
from isogon.measures.orbits.equivariance import equivariance
from isogon.measures.orbits.invariance import invariance
from isogon.measures.orbits.reading import OrbitTable

__all__ = ["OrbitTable", "compare", "equivariance", "invariance"]

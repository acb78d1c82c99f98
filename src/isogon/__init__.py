"""Isogon: survey the geometry and symmetry of trained PyTorch networks.

Names are imported on first use, so that ``import isogon`` (and ``isogon --help``) does not
import torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# public name -> where it lives; one line each, grouped by capability
_API = {
    # models, data, specs
    "load": "isogon.nets.load",
    "batches": "isogon.data",
    "family": "isogon.actions",
    "group": "isogon.actions",
    "sites": "isogon.nets.sites",
    "fit": "isogon.training",
    # partition
    "Slice": "isogon.measures.partition",
    "partition": "isogon.measures.partition",
    "segments": "isogon.measures.partition",
    "local_complexity": "isogon.measures.partition",
    "evolution": "isogon.measures.partition",
    # networks as piecewise-linear programs
    "verify": "isogon.cpwl.verify",
    "piecewise": "isogon.cpwl.piecewise",
    # data manifold
    "data_matrix": "isogon.measures.fisher",
    "walk": "isogon.measures.paths",
    "integrability": "isogon.measures.paths",
    "leaf_distance": "isogon.measures.paths",
    # invariance
    "invariance": "isogon.measures.orbits",
    "equivariance": "isogon.measures.orbits",
    # arrangement
    "orientation": "isogon.measures.orientation",
    "reset": "isogon.measures.reset",
    # symmetry
    "similarity": "isogon.measures.alignment",
    # readings and figures
    "read": "isogon.readings",
    "draw": "isogon.show",
}

__all__ = ["__version__", *_API]


def __getattr__(name: str) -> Any:
    if name in _API:
        value = getattr(importlib.import_module(_API[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'isogon' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_API])

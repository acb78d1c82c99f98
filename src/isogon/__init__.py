"""Isogon: survey the geometry and symmetry of trained PyTorch networks.

Names are imported on first use, so that ``import isogon`` (and ``isogon --help``) does not
import torch.
"""

from __future__ import annotations

from isogon import lazy

__version__ = "0.2.0"

# public name -> where it lives; one line each, grouped by capability
_API = {
    # models, data, specs
    "load": "isogon.nets.load",
    "batches": "isogon.data",
    "family": "isogon.actions",
    "group": "isogon.actions",
    "sites": "isogon.nets.sites",
    "fit": "isogon.training.loop",
    # partition
    "Slice": "isogon.measures.partition.slices",
    "partition": "isogon.measures.partition.measure",
    "forecast": "isogon.measures.partition.forecast",
    "boundary": "isogon.measures.boundary.measure",
    "segments": "isogon.measures.segments",
    "local_complexity": "isogon.measures.local_complexity",
    "evolution": "isogon.measures.evolution.evolution",
    # networks as piecewise-linear programs
    "verify": "isogon.cpwl.verify",
    "piecewise": "isogon.cpwl.piecewise",
    # data manifold
    "data_matrix": "isogon.measures.manifold.data_matrix",
    "walk": "isogon.measures.manifold.walk",
    "integrability": "isogon.measures.manifold.integrability",
    "leaf_distance": "isogon.measures.manifold.leaf_distance",
    # invariance
    "invariance": "isogon.measures.orbits.invariance",
    "equivariance": "isogon.measures.orbits.equivariance",
    # arrangement
    "orientation": "isogon.measures.arrangement.orientation",
    "reset": "isogon.measures.arrangement.reset",
    # symmetry
    "similarity": "isogon.measures.alignment.similarity",
    "stitch": "isogon.measures.stitching.stitch",
    "rotate": "isogon.measures.stitching.rotate",
    "homogeneity": "isogon.measures.stitching.homogeneity",
    "match": "isogon.measures.alignment.matching",
    "barrier": "isogon.measures.alignment.barrier",
    "dissect": "isogon.measures.dissection.dissect",
    # all of it
    "survey": "isogon.survey",
    "compare": "isogon.survey.calls",
    # readings and figures
    "read": "isogon.readings",
    "draw": "isogon.show.figure",
    "progress": "isogon.bars",
}

__all__ = ["__version__", *_API]

__getattr__ = lazy.lazy_names(__name__, _API)


def __dir__() -> list[str]:
    return sorted([*globals(), *_API])

"""A model and a slice made ready for each other: the lowered program, the slice in its shape."""

from __future__ import annotations

from torch.nn import Module

from isogon import registry
from isogon.cpwl.lower import program_for
from isogon.cpwl.program import Program
from isogon.measures.partition.slices import Slice
from isogon.specs import Spec


def as_slice(plane: str | Spec | Slice) -> Slice:
    """The slice that a spec names, e.g. ``"box2d((-1, -1), (1, 1))"``; slices pass through."""
    return plane if isinstance(plane, Slice) else registry.build("slice", plane)


def lowered(model: Module | Program, plane: str | Slice) -> tuple[Program, Slice]:
    """The program of a model (or a program itself) and the slice in its input's shape."""
    plane = as_slice(plane)
    program, shape = program_for(model, plane.embed(plane.corners[:2]), plane.shape)
    return program, plane.with_shape(shape)

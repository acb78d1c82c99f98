"""What can be counted exactly of a network in a ball: on chords, in discs, at the first site."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.program import Program
from isogon.cpwl.stages import Affine, Join, Kink
from isogon.errors import IncompleteWarning
from isogon.measures.partition.lines import break_points
from isogon.measures.partition.measure import partition
from isogon.measures.partition.slices import Slice

CORNERS = 24  # of the polygon that stands for a disc: 98.9 % of its area


def mean_and_sd(name: str, counts: Sequence[int]) -> dict[str, float]:
    """Mean and standard deviation of counts, as columns; NaN where there are too few."""
    sd = float(np.std(counts, ddof=1)) if len(counts) > 1 else np.nan
    return {name: float(np.mean(counts)) if counts else np.nan, f"{name}_sd": sd}


def pieces(program: Program, center: Tensor, radius: float, generator: torch.Generator) -> int:
    """Linear pieces on a random chord of the ball through its centre.

    Args:
        program: The network.
        center: Of the ball, of the shape of one input, float64.
        radius: Of the ball.
        generator: Draws the direction.
    """
    v = torch.randn(center.shape, generator=generator, dtype=torch.float64)
    step = radius * v / v.norm()
    t, _, _, _ = break_points(program, torch.stack([center - step, center + step]))
    return len(t) - 1


def regions(
    program: Program, center: Tensor, radius: float, most: int, generator: torch.Generator
) -> int | None:
    """Regions in the disc that a random plane through the centre cuts out of the ball.

    Args:
        program: The network.
        center: Of the ball, of the shape of one input, float64.
        radius: Of the ball.
        most: None is answered where there are more.
        generator: Draws the plane.
    """
    draw = torch.randn(center.numel(), 2, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(draw).Q.numpy()
    angle = 2 * np.pi * np.arange(CORNERS) / CORNERS
    corners = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    origin = center.reshape(-1).numpy()
    plane = Slice(origin, basis, corners, tuple(center.shape), np.zeros((1, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IncompleteWarning)
        found = partition(program, plane, max_regions=most)  # type: ignore[arg-type]
    return len(found) if found.complete else None


@torch.no_grad()
def first_norms(program: Program) -> Tensor | None:
    """Norms of the weights of the first site's units `[units]`, where they are affine in the input.

    None where a kink, a maximum, or more than one map that mixes entries lies before it; maps entry
    by entry (normalisation, batch-norm) may.
    """
    cut = program.cuts[0] if program.cuts else None
    if not isinstance(cut, Kink):
        return None
    made = {stage.output: stage for stage in program.stages}
    path: list[Affine] = []
    while (name := path[-1].inputs[0] if path else cut.inputs[0]) != program.input:
        stage = made[name]
        if not isinstance(stage, Affine) or isinstance(stage, Join):
            return None
        path.append(stage)
    square = torch.ones(1, *program.shape, dtype=torch.float64)
    mixed = False
    for stage in reversed(path):
        scale = _diagonal(stage, square)
        if scale is not None:
            square = scale**2 * square
        elif stage.copies:
            square = stage.linear(square).abs()
        elif mixed or stage.weights is None:
            return None
        else:
            square, mixed = stage.weights(torch.square)(square), True
    return square.reshape(-1).sqrt()


def _diagonal(stage: Affine, like: Tensor) -> Tensor | None:
    """What a map entry by entry multiplies each entry with; None for other maps."""
    v = torch.rand(like.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    scale, image = stage.linear(torch.ones_like(v)), stage.linear(v)
    if scale.shape != v.shape or not torch.allclose(scale * v, image, rtol=1e-12, atol=0):
        return None
    return scale


@torch.no_grad()
def in_ball(program: Program, center: Tensor, norms: Tensor | None, radius: float) -> float:
    """Hyperplanes of the first site that meet the ball around an input `[1, *shape]`.

    Args:
        program: The network.
        center: Of the ball.
        norms: What `first_norms` found.
        radius: Of the ball.

    Returns:
        The number of units and knots t with |z - t| <= r |w|, w not 0; NaN where that is not known.
    """
    if norms is None:
        return np.nan
    cut = program.cuts[0]
    assert isinstance(cut, Kink)
    z = next(arguments[0] for stage, arguments, _ in program.steps(center) if stage is cut)[0]
    away = torch.stack([(z - knot).abs().reshape(-1) for knot in cut.knots])
    return float(((away <= radius * norms) & (norms > 0)).sum())

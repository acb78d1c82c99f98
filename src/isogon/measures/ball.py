"""What can be counted exactly of a network in a ball: on chords, in discs, at the first site."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from isogon.context import silent
from isogon.cpwl.program import Program
from isogon.cpwl.stages import Affine, Join, Kink
from isogon.errors import IncompleteWarning
from isogon.measures.partition.forecast import ENOUGH, Chords, Forecast
from isogon.measures.partition.lines import break_points
from isogon.measures.partition.measure import partitioned
from isogon.measures.partition.slices import Slice
from isogon.measures.partition.windows import pilot

CORNERS = 24  # of the polygon that stands for a disc: 98.9 % of its area
CHORDS = 4  # by which the regions of a disc are forecast
FAR = 2.0  # times what is wanted: a disc that is likely to hold so many is not begun
SMALL = 5000  # regions: such a disc is cut itself to see how long one takes
PATIENCE = 300.0  # seconds that one waits without being told beforehand


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


def disc(center: Tensor, radius: float, generator: torch.Generator) -> Slice:
    """A disc (a regular polygon) that a random plane through the centre cuts out of the ball.

    Args:
        center: Of the ball, of the shape of one input, float64.
        radius: Of the ball.
        generator: Draws the plane.
    """
    draw = torch.randn(center.numel(), 2, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(draw).Q.numpy()
    angle = 2 * np.pi * np.arange(CORNERS) / CORNERS
    corners = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    origin = center.reshape(-1).numpy()
    return Slice(origin, basis, corners, tuple(center.shape), np.zeros((1, 2)))


class Discs:
    """Regions in discs of balls of one radius; where they take long, it is said once, early.

    Args:
        program: The network.
        radius: Of the balls.
        count: How many discs there will be.
        most: Discs that hold more regions are left out.
    """

    def __init__(self, program: Program, radius: float, count: int, most: int) -> None:
        self.program, self.radius, self.count, self.most = program, radius, count, most
        self.first = True

    def regions(self, plane: Slice) -> int | None:
        """Regions in a disc; None where there are more than `most`.

        Where chords say that there are far more, nothing is cut.
        """
        first, self.first = self.first, False
        lines = Chords(self.program, plane, torch.Generator().manual_seed(0))
        for _ in range(CHORDS if first else 1):
            lines.look(ENOUGH)
        found, far = lines.forecast(), FAR * self.most
        if found.regions > far and not first:
            for _ in range(CHORDS):
                lines.look(ENOUGH)
            found = lines.forecast()
        small = found.regions <= SMALL
        if first and not small:
            self._tell(replace(found, seconds=pilot(self.program, plane, found.regions)))
        if found.regions * (1 - 2 * found.spread) > far:
            return None
        start = time.monotonic()
        p = partitioned(self.program, plane, self.most, silent)
        if first and small:  # the time of a disc itself is a better guess than a part of it
            self._tell(replace(found, regions=len(p), seconds=time.monotonic() - start))
        return len(p) if p.complete else None

    def _tell(self, disc: Forecast) -> None:
        """Say how long discs like one will take, where that is long, and which radius would do."""
        total = disc.seconds * self.count
        few = max(2.0, min(self.most, disc.regions * PATIENCE / max(total, PATIENCE)))
        if disc.regions > FAR * self.most:
            what = f"more than max_regions={self.most:,}: discs like this one are left out"
        elif total > PATIENCE:
            what = f"{spoken(disc.seconds)} each, {spoken(total)} for all {self.count}"
        else:
            return
        fits = self.radius * disc.radius_for(few) / disc.radius
        warnings.warn(
            f"a disc of radius {self.radius:.3g} holds about {disc.regions:,.0f} regions, {what}. "
            f"A radius of {fits:.2g} holds about {few:,.0f}: "
            f"{spoken(total * few / disc.regions)} for all.",
            IncompleteWarning,
            stacklevel=4,
        )


def spoken(seconds: float) -> str:
    """A time, in the unit in which one speaks of it."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.2g} {name}"
    return f"{seconds:.2g} s"


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

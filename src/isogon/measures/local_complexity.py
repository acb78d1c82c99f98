"""`local_complexity`: how many hyperplanes of a network pass near an input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import Module

from isogon import context, options
from isogon.cpwl.bounds import Bounds
from isogon.cpwl.lower import program_for
from isogon.cpwl.program import Program
from isogon.cpwl.rounding import ROUNDING, errors
from isogon.cpwl.stages import Kink, Max
from isogon.data import Points
from isogon.data import points as as_points
from isogon.data.finite import check_inputs
from isogon.errors import OptionError
from isogon.measures.ball import (
    Discs,
    disc,
    first_norms,
    in_ball,
    mean_and_sd,
    pieces,
)
from isogon.measures.partition.kernels.edges import WIDE
from isogon.readings import SampleTable
from isogon.registry import measure

DIRECTIONS = 16


@measure(
    cite="humayun2024",
    cost=7.5,
    survey={"radius": 0.05},
    example={"radius": 0.05},
    typed={"radius": 0.05, "chords": 4},
)
def local_complexity(
    model: Module,
    points: Points,
    *,
    radius: float,
    directions: int | None = None,
    slices: int = 0,
    chords: int = 0,
    max_regions: int = 200_000,
    generator: torch.Generator | None = None,
) -> SampleTable:
    """How finely a network cuts the neighbourhood of each input: hyperplanes, pieces, regions.

    Nobody can count the linear regions in a ball of thousands of dimensions. What can be counted,
    each for what it is: *hyperplanes* that cut a cross-polytope around the input, in full input
    space; on request *pieces* on random chords and *regions* in random plane discs through the
    input, both exact.

    P random orthonormal directions v span a neighbourhood with the 2P corners x +- r v. A
    unit's knot is counted where its pre-activation, among the corners and x, lies on both
    sides, by more than rounding; a maximum where no entry is the largest at all of them. The
    count is exact for the first site; behind it corners stand for the neighbourhood, as in the
    literature.

    A chord is the line from x - r v to x + r v for a random direction v; its number of linear
    pieces is exact. A disc is the ball's cut with a random plane through x (a regular polygon of 24
    corners with the ball's radius); its number of regions is exact. Both depend on what is drawn:
    mean and standard deviation over draws are given.

    For the first site, where its units are affine in the input, the hyperplanes that meet the ball
    itself are counted exactly: |z(x) - t| <= r |w| for a knot t.

    Args:
        model: Any network of piecewise-linear operations, convolutional and residual too.
        points: Inputs `[N, *shape]`.
        radius: Half the diameter of the neighbourhood, in input units.
        directions: P, the number of random directions, at most the input's D numbers; default:
            16, or D where that is less.
        slices: Number of random plane discs through each input.
        chords: Number of random chords.
        max_regions: A disc that holds more regions is left out (`meta["left_out"]` counts them).
            Where all discs will take longer than five minutes, a warning says so at the first
            one, and which radius would fit.
        generator: Source of the directions; default: seed 0.

    Returns:
        One row per input: sample, hyperplanes, patterns (distinct ones at x and the corners: a
        lower bound on the regions of the ball, which cannot exceed 2P + 1), in_ball (of the first
        site, exact; NaN where its units are not affine in the input), with chords and slices
        pieces, pieces_sd, regions, regions_sd, then `hyperplanes@SITE` for each site.

    Raises:
        UnsupportedOp: The network is not continuous piecewise linear.
        OptionError: A radius or a number of directions that is not positive, a number of
            slices or chords below 0, or an option that is no number.
        DataError: Inputs that hold NaN or infinite values.
    """
    radius, generator = options.number("radius", radius), options.generator(generator)
    slices, chords = options.whole("slices", slices), options.whole("chords", chords)
    max_regions = options.whole("max_regions", max_regions)
    if not 0 < radius < np.inf:
        raise OptionError("no neighbourhood", got=f"radius {radius}", expected="> 0")
    x = check_inputs(as_points(points).detach().cpu().double(), what="the points")
    size = x[0].numel()
    directions = (
        min(DIRECTIONS, size) if directions is None else options.whole("directions", directions)
    )
    if not 1 <= directions <= size:
        raise OptionError("directions don't fit the input", got=directions, expected=f"1..{size}")
    if min(slices, chords) < 0 or max_regions < 1 or (slices and size < 2):
        raise OptionError(
            "slices and chords don't fit",
            got=f"slices={slices}, chords={chords}, max_regions={max_regions}, {size} inputs",
            expected="slices and chords >= 0, max_regions >= 1, two inputs for a plane",
        )
    program, shape = program_for(model, x[:1].expand(2, *x.shape[1:]), tuple(x.shape[1:]))
    generator = generator or torch.Generator().manual_seed(0)
    report, rows, left_out = context.progress(), [], 0
    norms, steps_each = first_norms(program), slices + 1
    discs = Discs(program, radius, slices * len(x), max_regions)
    for n, center in enumerate(x):
        basis = torch.randn(size, directions, generator=generator, dtype=torch.float64)
        steps = radius * torch.linalg.qr(basis).Q.T
        cloud = torch.cat([torch.zeros(1, size), steps, -steps]).double() + center.reshape(1, -1)
        counts, patterns = _crossings(program, cloud.reshape(-1, *shape))
        found: dict[str, float] = {
            "sample": n,
            "hyperplanes": sum(counts.values()),
            "patterns": patterns,
        }
        found["in_ball"] = in_ball(program, center.reshape(1, *shape), norms, radius)
        if chords:
            cut = [pieces(program, center.reshape(shape), radius, generator) for _ in range(chords)]
            found |= mean_and_sd("pieces", cut)
        if slices:
            held = []
            for k in range(slices):
                plane = disc(center.reshape(shape), radius, generator)
                held.append(discs.regions(plane))
                report(n * steps_each + k + 1, steps_each * len(x), "local complexity: discs")
            left_out += sum(h is None for h in held)
            found |= mean_and_sd("regions", [h for h in held if h is not None])
        rows.append(found | {f"hyperplanes@{site}": count for site, count in counts.items()})
        report((n + 1) * steps_each, steps_each * len(x), "local complexity")
    return SampleTable(
        "local_complexity",
        table=pd.DataFrame(rows),
        meta={
            "radius": radius,
            "directions": directions,
            "slices": slices,
            "chords": chords,
            "left_out": left_out,
            "sites": program.sites,
            "dtype": "float64",
        },
    )


@torch.no_grad()
def _crossings(program: Program, cloud: Tensor) -> tuple[dict[str, int], int]:
    """Knots and maxima that change over a cloud of points, by site; number of patterns.

    A value within its carried rounding error of a knot, or of the largest entry, lies on
    neither side (`cpwl.rounding`).
    """
    counts: dict[str, int] = {}
    keys = np.zeros(len(cloud), np.uint64)
    rng = np.random.default_rng(0)
    zeros = Zeros(program, cloud)
    for i, (stage, arguments, _) in enumerate(program.steps(cloud)):
        if isinstance(stage, Kink):
            z = arguments[0]
            d = torch.stack([z - knot for knot in stage.knots]).reshape(-1, *z.shape).flatten(2)
            zero = zeros.of(i, d)
            above, below = d > zero, d < -zero
            counts[stage.site] = int((above.any(1) & below.any(1)).sum())
            piece = above.sum(0)
        elif isinstance(stage, Max):
            c = stage.candidates(*arguments)
            gap = (c.amax(-1, keepdim=True) - c).masked_fill(stage.index < 0, torch.inf)
            best = gap <= zeros.of(i, gap[None], c.argmax(-1, keepdim=True))
            counts[stage.site] = int((~best.all(0).any(-1)).sum())
            piece = best.to(torch.int8).argmax(-1)
        else:
            continue
        odd = rng.integers(1, 2**63, piece.shape[1], np.uint64) * 2 + 1
        with np.errstate(over="ignore"):
            keys += (piece.numpy().astype(np.uint64) * odd).sum(1, dtype=np.uint64)
    return counts, len(np.unique(keys))


class Zeros:
    """What counts as zero at points: bounds where these decide, else true errors.

    Args:
        program: The network.
        cloud: The points.
    """

    def __init__(self, program: Program, cloud: Tensor) -> None:
        self.program, self.cloud, self.bounds = program, cloud, Bounds(program, cloud)
        self.exact: list[Tensor] | None = None

    def of(self, position: int, gaps: Tensor, top: Tensor | None = None) -> Tensor:
        """Sizes that count as zero, for the cut at a stage.

        Args:
            position: The stage.
            gaps: Distances that are to be judged, `[..., N, units]` for a kink, `[1, N, units,
                K]` to the largest entry for a maximum.
            top: Of a maximum: its largest entries `[N, units, 1]`.
        """
        stage = self.program.stages[position]
        bound = ROUNDING * self.bounds.at(position)
        if isinstance(stage, Max):
            bound = bound[stage.index.clamp(min=0)].masked_fill(stage.index < 0, 0.0)
            bound = bound + bound.amax(-1, keepdim=True)
        if not bool(((gaps.abs() <= WIDE * bound) & (gaps != 0)).any()):
            return bound
        if self.exact is None:
            self.exact = list(errors(self.program, self.cloud))
        cut = self.program.cuts.index(stage)  # type: ignore[arg-type]
        found = ROUNDING * self.exact[cut]
        return found if top is None else found + found.gather(-1, top)

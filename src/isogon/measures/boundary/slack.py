"""What counts as zero where a network is followed on a slice: of what cuts see, of its outputs.

32 carried rounding errors, of values and of derivatives, as in `cpwl.rounding`. Of most networks
one bound of each unit holds for all of the slice. Where a unit is so large somewhere that its
rounding there is more than what the units behind it are elsewhere, errors are carried with every
point instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.magnitudes import EPS, finite, magnitude, squares, summed
from isogon.cpwl.program import Program
from isogon.cpwl.rounding import ROUNDING, errors
from isogon.cpwl.stages import Affine, Kink, Max, Stage
from isogon.measures.partition.mesh.zeros import NOISY, Space

LOOKED = 16  # points at which a bound is compared with what is carried there
HIDING = 1e-9  # of the largest value at a point: a bound that hides others
Squares = tuple[Tensor, Tensor]  # squared errors of values and of derivatives


@dataclass(frozen=True, eq=False)
class Allowance:
    """What counts as zero of what one cut sees, or of the outputs.

    Attributes:
        value: `[n, units]`, for a maximum `[n, units, K]`: of values; one row: at all points.
        rate: Likewise, of derivatives along a direction of unit length.
    """

    value: Tensor
    rate: Tensor

    def of(self, row: Tensor, *place: Tensor) -> Squares:
        """`[m]` those of values and of derivatives, at places of rows."""
        at = row if len(self.value) > 1 else torch.zeros_like(row)
        return self.value[at, *place], self.rate[at, *place]

    def take(self, rows: Tensor) -> Allowance:
        """Those of some rows."""
        return self if len(self.value) == 1 else Allowance(self.value[rows], self.rate[rows])


@dataclass(frozen=True, eq=False)
class Outputs:
    """What competes, at points.

    Attributes:
        value: `[n, C]`.
        slope: `[2, n, C]` derivatives along the slice's coordinates.
        slack: `[n, C]` what counts as zero of a value ...
        rate: ... and of a derivative along a direction of unit length.
    """

    value: np.ndarray
    slope: np.ndarray
    slack: np.ndarray
    rate: np.ndarray

    @classmethod
    def of(cls, value: Tensor, slope: Tensor, zero: Allowance) -> Outputs:
        """Of tensors `[n, C]`, `[2, n, C]`."""
        both = (np.broadcast_to(t.numpy(), value.shape) for t in (zero.value, zero.rate))
        return cls(value.numpy(), slope.numpy(), *both)

    def take(self, rows: np.ndarray) -> Outputs:
        """Some of the points."""
        return Outputs(self.value[rows], self.slope[:, rows], self.slack[rows], self.rate[rows])

    def known(self, pair: np.ndarray) -> np.ndarray:
        """`[n]` the class of each pair `[n, 2]` whose values are known best.

        Where both are equal it stands for both: what rounding leaves of the other may be more
        than what lies between the two and a third class.
        """
        first, second = np.take_along_axis(self.slack, pair, 1).T
        return np.where(second < first, pair[:, 1], pair[:, 0])


def bounds(
    program: Program, x: Tensor, directions: Tensor, found: list[Allowance]
) -> tuple[Squares, np.ndarray]:
    """Squared errors of the outputs, with the largest sizes that there are at some points.

    They are bounds over the slice as far as these points tell, unit by unit.

    Args:
        program: The network.
        x: `[m, *shape]` the points.
        directions: `[2, *shape]` those of the slice.
        found: Is filled with what counts as zero at every cut.

    Returns:
        Also `[cuts + 1, 2]`, the largest value and derivative that each cut sees, of the outputs
        last.
    """
    sizes: list[tuple[float, float]] = []
    size = x.abs().amax(0, keepdim=True)
    rate = torch.cat([v.expand(x.shape) for v in directions])
    start = x, rate, (2 * EPS * size).square(), torch.zeros_like(size)

    def visit(_: int, stage: Stage, held: list) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        v, d, e2, r2 = zip(*held, strict=True)
        if isinstance(stage, Affine):
            most, steep = ([t.abs().amax(0, keepdim=True) for t in ts] for ts in (v, d))
            return stage(*v), stage.linear(*d), *behind(stage, most, steep, (e2, r2))
        sizes.append((_largest(*v), _largest(*d)))
        found.append(seen_of(stage, e2, r2))
        if isinstance(stage, Kink):
            slope = stage.slope(stage.piece(v[0])).expand(v[0].shape)
            moved = (d[0].reshape(2, *v[0].shape) * slope).reshape(d[0].shape)
            steep = stage.slopes.abs().amax(0).square()
            own = (EPS * summed(stage, v[0]).amax(0, keepdim=True)).square()
            if stage.apply is torch.relu:
                own = own.new_zeros(())
            return stage(v[0]), moved, e2[0] * steep + own, r2[0] * steep
        winner = stage.candidates(*v).argmax(-1)
        moved = stage.choose(torch.cat([winner, winner]), *d)
        error, drift = (t.amax(-1).reshape(1, *stage.shape) for t in entries(stage, e2, r2))
        return stage.choose(winner, *v), moved, error, drift

    end = program.run({program.input: start}, visit=visit)[program.output]
    sizes.append((_largest(end[0]), _largest(end[1])))
    return end[2:], np.array(sizes)


def behind(
    stage: Affine, v: Sequence[Tensor], d: Sequence[Tensor], before: Sequence[Sequence[Tensor]]
) -> tuple[Tensor, Tensor]:
    """Squared errors behind an affine stage, of sizes of values and of derivatives before it."""
    e2, r2 = squares(stage, *before[0]), squares(stage, *before[1])
    if stage.copies:
        return e2, r2
    plain = replace(stage, bias=None)
    e2 = e2 + (EPS * magnitude(stage, *v)).square()
    return e2, r2 + (EPS * magnitude(plain, *d)).square()


def entries(stage: Max, *squared: Sequence[Tensor]) -> Iterator[Tensor]:
    """Squared errors of a maximum's entries in their groups, `[n, units, K]`."""
    for e in squared:
        yield stage.flat(*e)[:, stage.index.clamp(min=0)].masked_fill(stage.index < 0, 0.0)


def seen_of(stage: Kink | Max, e2: Sequence[Tensor], r2: Sequence[Tensor]) -> Allowance:
    """What counts as zero of what a cut sees."""
    if isinstance(stage, Max):
        return Allowance(*(ROUNDING * e.sqrt() for e in entries(stage, e2, r2)))
    return Allowance(zero_of(e2[0]), zero_of(r2[0]))


def zero_of(squared: Tensor) -> Tensor:
    """What counts as zero, `[n, entries]`, of squared errors."""
    return ROUNDING * squared.sqrt().reshape(len(squared), -1)


def drowning(space: Space, p: np.ndarray, cuts: list[Allowance], last: Tensor) -> bool:
    """Whether a bound hides what a cut sees at some point of the slice, and rounding does not.

    Args:
        space: The slice.
        p: `[m, 2]` some points.
        cuts: Bounds of what the cuts see.
        last: `[1, C]` that of the outputs.
    """
    program, x = space.program, space.embed(p[:LOOKED])
    found = errors(program, x, given=space.given, directions=space.directions, reach=space.reach)
    seen = [v for stage, v, _ in program.steps(x) if not isinstance(stage, Affine)]
    seen.append([program.evaluate(x)])
    for bound, e, v in zip([*(c.value for c in cuts), last], found, seen, strict=True):
        usual = torch.stack([finite(t).flatten(1).amax(1) for t in v]).amax(0).min()
        if bool(((bound > NOISY * ROUNDING * e) & (e > 0) & (bound > HIDING * usual)).any()):
            return True
    return False


def _largest(*values: Tensor) -> float:
    """The largest finite size."""
    return max(float(finite(v).max()) for v in values)

"""A network whose units are held on given linear pieces: one affine map per row.

What the cuts see of it, its value and its two derivatives along a slice, and how large the
rounding errors of these are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.magnitudes import EPS, finite, magnitude, squares, summed
from isogon.cpwl.program import Program
from isogon.cpwl.rounding import ROUNDING
from isogon.cpwl.single import COARSE, evaluate_single
from isogon.cpwl.stages import Affine, Kink, Max, Stage
from isogon.measures.partition.slices import Slice

Pieces = list[Tensor]  # per cut `[n, units]` int16: piece of a kink, winner of a maximum
Carried = tuple[Tensor, Tensor, Tensor, Tensor]  # values, derivatives, squared errors of both
NARROW = 256  # samples: a network of which a batch of double numbers holds fewer is large
MARGIN = 4.0  # of allowances, where a place is rounded, too
SAMPLE = 64  # points at which the sizes of values are looked at


@dataclass(frozen=True, eq=False)
class Seen:
    """What one cut sees on rows of frozen pieces.

    Attributes:
        z: `[n, units]` arguments of a kink, `[n, units, K]` entries of a maximum.
        d: `[2, n, ...]` their derivatives along the slice's coordinates.
    """

    z: Tensor
    d: Tensor


@dataclass(frozen=True, eq=False)
class Allowance:
    """What counts as zero of what one cut sees (or of the outputs), over all of the slice.

    Attributes:
        value: `[units]`, for a maximum `[units, K]`: of values.
        rate: Likewise, of derivatives along a direction of unit length.
    """

    value: Tensor
    rate: Tensor


@dataclass(frozen=True, eq=False)
class Beside:
    """A network just beside points.

    Attributes:
        pieces: Of all units.
        value: `[n, C]` what competes, at the points.
        slope: `[2, n, C]` its derivatives beside them.
        seen: What the cuts see.
    """

    pieces: Pieces
    value: np.ndarray
    slope: np.ndarray
    seen: list[Seen]


class Frozen:
    """A program on a slice.

    Args:
        program: The network.
        plane: The slice, in the network's input shape.
        classes: Outputs that compete, None: all. One output competes with a constant 0, which
            comes first.

    Attributes:
        allow: What counts as zero at every cut.
        zero: What counts as zero of what competes; `slack` are its values `[C]`.
        sizes: `[cuts + 1, 2]` largest value and derivative that each cut sees at some points of
            the slice, of the outputs last.
    """

    def __init__(
        self, program: Program, plane: Slice, classes: Sequence[int] | None = None
    ) -> None:
        self.program, self.plane = program, plane
        self.cuts = program.cuts
        self.classes = None if classes is None else torch.as_tensor(list(classes))
        self.outputs = int(torch.Size(program.shapes[program.output]).numel())
        self.single = self.outputs == 1
        self.directions = torch.from_numpy(plane.basis.T.copy()).reshape(2, *program.shape)
        corners = plane.corners
        inside = np.random.default_rng(0).dirichlet(np.ones(len(corners)), SAMPLE) @ corners
        self.allow, self.zero = self._allowances(np.concatenate([corners, inside]))
        self.slack = self.zero.value.numpy()

    def known(self, pair: np.ndarray) -> np.ndarray:
        """`[n]` the class of each pair `[n, 2]` whose values are known best, as good as its own.

        Where both are equal it stands for both: what rounding leaves of the other may be more
        than what lies between the two and a third class.
        """
        return np.where(self.slack[pair[:, 1]] < self.slack[pair[:, 0]], pair[:, 1], pair[:, 0])

    @property
    def names(self) -> np.ndarray:
        """`[C]` the classes by their numbers among the network's outputs."""
        if self.classes is not None:
            return self.classes.numpy()
        return np.arange(max(self.outputs, 2))

    def competing(self, outputs: Tensor) -> Tensor:
        """`[..., C]` what competes, of the network's outputs (or of their derivatives)."""
        if self.single:
            return torch.cat([torch.zeros_like(outputs), outputs], -1)
        return outputs if self.classes is None else outputs[..., self.classes]

    def embed(self, p: np.ndarray) -> Tensor:
        """Inputs at slice coordinates `[n, 2]`."""
        return self.plane.embed(p).reshape(-1, *self.program.shape)

    def values(self, p: np.ndarray) -> np.ndarray:
        """`[n, C]` what the network itself gives at slice coordinates."""
        step, parts = self.program.chunk(), [np.zeros((0, len(self.names)))]
        for low in range(0, len(p), step):
            found = self.program.evaluate(self.embed(p[low : low + step]))
            parts.append(self.competing(found.reshape(len(found), -1)).numpy())
        return np.concatenate(parts)

    def label(self, p: np.ndarray) -> np.ndarray:
        """`[n]` the class (position in `names`) with the largest output; of equal ones the first.

        Equal within rounding: so that an area on which classes are tied has one class.
        """
        return self.largest(p).argmax(1)

    def largest(self, p: np.ndarray) -> np.ndarray:
        """`[n, C]` which outputs are the largest, up to rounding.

        Of a large network single precision decides where it can: where no other output comes
        near the largest one, by its own rounding.
        """
        if 2 * self.program.chunk() > NARROW:
            return top_of(self.values(p), self.slack)
        step, parts = NARROW, [np.zeros((0, len(self.names)))]
        for low in range(0, len(p), step):
            found = evaluate_single(self.program, self.embed(p[low : low + step]))
            found = self.competing(found.reshape(len(found), -1))
            parts.append(found.to(torch.float64).numpy())
        found = top_of(np.concatenate(parts), COARSE * self.slack)
        close = found.sum(1) != 1
        if close.any():
            found[close] = top_of(self.values(p[close]), self.slack)
        return found

    @torch.no_grad()
    def held(self, p: np.ndarray, pieces: Pieces) -> tuple[Tensor, Tensor, list[Seen]]:
        """Value `[n, C]`, derivatives `[2, n, C]` on given pieces, and what the cuts see."""
        x = self.embed(p)
        return self._run(x, lambda cut, stage, z, d: pieces[cut])

    @torch.no_grad()
    def natural(self, p: np.ndarray) -> Pieces:
        """The pieces on which the network itself is at points; of equal ones the lowest."""
        found: Pieces = []
        for stage, arguments, _ in self.program.steps(self.embed(p)):
            if isinstance(stage, Kink):
                z = arguments[0].reshape(len(p), -1)
                found.append(_shaped(stage, z, arguments[0]))
            elif isinstance(stage, Max):
                found.append(_first_largest(stage.candidates(*arguments)))
        return found

    @torch.no_grad()
    def beside(self, p: np.ndarray, toward: np.ndarray, then: np.ndarray | None = None) -> Beside:
        """The network just beside points in a direction.

        Where a unit is at a knot within rounding its derivative along the direction decides.

        Args:
            p: `[n, 2]` slice coordinates.
            toward: `[n, 2]` directions of unit length.
            then: `[n, 2]` directions that decide where the first ones do not.
        """
        found: Pieces = []
        ways = [
            torch.from_numpy(np.ascontiguousarray(w.T)) for w in (toward, then) if w is not None
        ]

        def choose(cut: int, stage: Kink | Max, z: Tensor, d: Tensor) -> Tensor:
            zero = self.allow[cut]
            if isinstance(stage, Kink):
                rate = torch.zeros_like(z)
                for a, b in ways:
                    own = a[:, None] * d[0] + b[:, None] * d[1]
                    rate = torch.where((rate == 0) & (own.abs() > zero.rate), own, rate)
                piece = torch.zeros(z.shape, dtype=torch.int16)
                for knot in knots_of(stage, z.shape[1], self.program.shapes[stage.inputs[0]]):
                    gap = z - knot
                    piece += torch.where(gap.abs() <= MARGIN * zero.value, rate > 0, gap > 0)
            else:
                near = _near(z, MARGIN * zero.value)
                for a, b in ways:
                    rate = a[:, None, None] * d[0] + b[:, None, None] * d[1]
                    near = _near(rate.masked_fill(~near, -torch.inf), zero.rate)
                piece = _first_largest(near.to(torch.float64))
            found.append(piece)
            return piece

        value, slope, seen = self._run(self.embed(p), choose)
        return Beside(found, value.numpy(), slope.numpy(), seen)

    def first_of(self, value: np.ndarray, slope: np.ndarray, *ways: np.ndarray) -> np.ndarray:
        """`[n]` the class just beside points: of those tied there the first that grows fastest.

        Args:
            value: `[n, C]` at the points.
            slope: `[2, n, C]` derivatives beside them.
            ways: `[n, 2]` directions; each decides what those before it leave open.
        """
        near, least = top_of(value, MARGIN * self.slack), self.zero.rate.numpy()
        for way in ways:
            rate = way[:, :1] * slope[0] + way[:, 1:] * slope[1]
            near = top_of(np.where(near, rate, -np.inf), least)
        return near.argmax(1)

    def _run(self, x: Tensor, pick) -> tuple[Tensor, Tensor, list[Seen]]:
        n, program = len(x), self.program
        seen: list[Seen] = []

        def visit(_: int, stage: Stage, held: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
            v, d = [h[0] for h in held], [h[1] for h in held]
            if isinstance(stage, Affine):
                return stage(*v), stage.linear(*d)
            if isinstance(stage, Kink):
                z, dz = v[0].reshape(n, -1), d[0].reshape(2, n, -1)
                piece = pick(len(seen), stage, z, dz).reshape(v[0].shape)
                made = _held_kink(stage, v[0], d[0], piece)
            else:
                z = stage.candidates(*v)
                dz = stage.flat(*d)[:, stage.index.clamp(min=0)].reshape(2, *z.shape)
                winner = pick(len(seen), stage, z, dz)[..., None].long()
                shape = (-1, *stage.shape)
                moved = dz.gather(3, winner.expand(2, *winner.shape))[..., 0].reshape(shape)
                made = z.gather(2, winner)[..., 0].reshape(shape), moved
            seen.append(Seen(z, dz))
            return made

        both = torch.cat([v.expand(x.shape) for v in self.directions])
        value, slope = program.run({program.input: (x, both)}, visit=visit)[program.output]
        return (
            self.competing(value.reshape(n, -1)),
            self.competing(slope.reshape(2, n, -1)),
            seen,
        )

    @torch.no_grad()
    def _allowances(self, p: np.ndarray) -> tuple[list[Allowance], Allowance]:
        """What counts as zero at every cut, and of the outputs: 32 carried rounding errors.

        Errors are carried as in `cpwl.rounding`, with the largest sizes that values and
        derivatives have at some points, so that they are bounds over the slice (as far as these
        points tell), unit by unit.

        Args:
            p: `[n, 2]` slice coordinates of these points.
        """
        program, x = self.program, self.embed(p)
        value, rate = x, torch.cat([v.expand(x.shape) for v in self.directions])
        size = x.abs().amax(0, keepdim=True)
        sizes: list[tuple[float, float]] = []
        start = value, rate, (2 * EPS * size).square(), torch.zeros_like(size)
        found: list[Allowance] = []

        def visit(_: int, stage: Stage, held: list[Carried]) -> Carried:
            v, d, e2, r2 = zip(*held, strict=True)
            if not isinstance(stage, Affine):
                sizes.append((_largest(*v), _largest(*d)))
            if isinstance(stage, Affine):
                return stage(*v), stage.linear(*d), *_carried(stage, v, d, e2, r2)
            if isinstance(stage, Kink):
                found.append(Allowance(_zero(e2[0]), _zero(r2[0])))
                slope = stage.slope(stage.piece(v[0])).expand(v[0].shape)
                moved = (d[0].reshape(2, *v[0].shape) * slope).reshape(d[0].shape)
                most = stage.slopes.abs().amax(0).square()
                own = (
                    (EPS * summed(stage, v[0]).amax(0, keepdim=True)).square()
                    if (stage.apply is not torch.relu)
                    else 0.0
                )
                return stage(v[0]), moved, e2[0] * most + own, r2[0] * most
            index, missing = stage.index.clamp(min=0), stage.index < 0
            both = [stage.flat(*e)[0][index].masked_fill(missing, 0.0) for e in (e2, r2)]
            found.append(Allowance(*(ROUNDING * e.sqrt() for e in both)))
            winner = _first_largest(stage.candidates(*v))
            error, drift = (e.amax(1).reshape(1, *stage.shape) for e in both)
            moved = stage.choose(torch.cat([winner, winner]), *d)
            return stage.choose(winner, *v), moved, error, drift

        end = program.run({program.input: start}, visit=visit)[program.output]
        sizes.append((_largest(end[0]), _largest(end[1])))
        self.sizes = np.array(sizes)
        return found, Allowance(*(self.competing(_zero(e)[None])[0] for e in end[2:]))


def top_of(value: np.ndarray, slack: np.ndarray) -> np.ndarray:
    """`[n, C]` which values are the largest of their row, up to a slack of each column.

    None is larger than they are by more than the slacks of both.
    """
    return (value == value.max(1, keepdims=True)) | (
        value + slack >= (value - slack).max(1, keepdims=True)
    )


def _near(z: Tensor, slack: Tensor) -> Tensor:
    """Which entries along the last axis are the largest, up to a slack of each."""
    top, least = z.amax(-1, keepdim=True), (z - slack).amax(-1, keepdim=True)
    return (z == top) | (z + slack >= least)


def _largest(*values: Tensor) -> float:
    """The largest finite size."""
    return max(float(finite(v).max()) for v in values)


def _zero(square: Tensor) -> Tensor:
    return ROUNDING * square.sqrt().reshape(-1)


def _carried(stage: Affine, v, d, e2, r2) -> tuple[Tensor, Tensor]:
    """Squared errors of values and derivatives behind an affine stage."""
    after = squares(stage, *e2), squares(stage, *r2)
    if stage.copies:
        return after
    plain = replace(stage, bias=None)
    size = magnitude(stage, *(t.abs().amax(0, keepdim=True) for t in v))
    rate = magnitude(plain, *(t.abs().amax(0, keepdim=True) for t in d))
    return after[0] + (EPS * size).square(), after[1] + (EPS * rate).square()


def knots_of(stage: Kink, units: int, shape: tuple[int, ...]) -> list[Tensor]:
    """The knots of a kink, each `[units]` (or `[1]` where all units share it)."""
    return [k.reshape(1) if k.numel() == 1 else k.expand(shape).reshape(units) for k in stage.knots]


def _held_kink(stage: Kink, v: Tensor, d: Tensor, piece: Tensor) -> tuple[Tensor, Tensor]:
    """Values and derivatives behind a kink that is held on given pieces."""
    both = d.reshape(2, *v.shape)
    if stage.apply is torch.relu:
        on, none = piece > 0, v.new_zeros(())
        return torch.where(on, v, none), torch.where(on, both, none).reshape(d.shape)
    slope = stage.slope(piece).expand(v.shape)
    return stage.on_piece(v, piece), (both * slope).reshape(d.shape)


def _shaped(stage: Kink, z: Tensor, given: Tensor) -> Tensor:
    return stage.piece(given).reshape(z.shape).to(torch.int16)


def _first_largest(values: Tensor) -> Tensor:
    """Position of the first of the largest entries along the last axis."""
    top = values == values.amax(-1, keepdim=True)
    return top.to(torch.int8).argmax(-1).to(torch.int16)

"""A network whose units are held on given linear pieces: one affine map per row.

What the cuts see of it, its value and its two derivatives along a slice, and how large the
rounding errors of these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.magnitudes import EPS, summed
from isogon.cpwl.program import Program
from isogon.cpwl.single import COARSE, evaluate_single
from isogon.cpwl.stages import Affine, Kink, Max, Stage
from isogon.measures.boundary.slack import (
    Allowance,
    Outputs,
    behind,
    bounds,
    drowning,
    entries,
    seen_of,
    zero_of,
)
from isogon.measures.partition.mesh.zeros import Space
from isogon.measures.partition.slices import Slice

Pieces = list[Tensor]  # per cut `[n, units]` int16: piece of a kink, winner of a maximum
NARROW = 256  # samples: a network of which a batch of double numbers holds fewer is large
MARGIN = 4.0  # of allowances, where a place is rounded, too
SAMPLE = 64  # points at which the sizes of values are looked at


@dataclass(frozen=True, eq=False)
class Seen:
    """What one cut sees on rows of frozen pieces.

    Attributes:
        z: `[n, units]` arguments of a kink, `[n, units, K]` entries of a maximum.
        d: `[2, n, ...]` their derivatives along the slice's coordinates.
        zero: What counts as zero of them.
    """

    z: Tensor
    d: Tensor
    zero: Allowance

    def take(self, rows: Tensor) -> Seen:
        """Some of the rows."""
        return Seen(self.z[rows], self.d[:, rows], self.zero.take(rows))


@dataclass(frozen=True, eq=False)
class Beside:
    """A network just beside points.

    Attributes:
        pieces: Of all units.
        outputs: What competes, at the points; derivatives beside them.
        seen: What the cuts see.
    """

    pieces: Pieces
    outputs: Outputs
    seen: list[Seen]


class Frozen:
    """A program on a slice.

    Args:
        program: The network.
        plane: The slice, in the network's input shape.
        classes: Outputs that compete, None: all. One output competes with a constant 0, which
            comes first.

    Attributes:
        allow: What counts as zero at every cut, over all of the slice.
        zero: What counts as zero of what competes, likewise.
        noisy: Whether these bounds are far above what is carried at some points, so that errors
            are carried with every point.
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
        p = np.concatenate([corners, inside])
        self.allow: list[Allowance] = []
        with torch.no_grad():
            last, self.sizes = bounds(program, self.embed(p), self.directions, self.allow)
        self.zero = self._of_outputs(*last)
        self.space = Space.of_slice(program, plane)
        self.noisy = drowning(self.space, p, self.allow, zero_of(last[0]))

    def _of_outputs(self, e2: Tensor, r2: Tensor) -> Allowance:
        return Allowance(*(self.competing(zero_of(e)) for e in (e2, r2)))

    def slack(self, p: np.ndarray) -> np.ndarray:
        """`[n, C]` what counts as zero of what competes, at points; one row: at all of them."""
        if not self.noisy or not len(p):
            return self.zero.value.numpy()
        return self.competing(
            torch.from_numpy(self.space.zero(len(self.program.stages), p))
        ).numpy()

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
        if self.noisy or 2 * self.program.chunk() > NARROW:
            return top_of(self.values(p), self.slack(p))
        step, parts = NARROW, [np.zeros((0, len(self.names)))]
        for low in range(0, len(p), step):
            found = evaluate_single(self.program, self.embed(p[low : low + step]))
            found = self.competing(found.reshape(len(found), -1))
            parts.append(found.to(torch.float64).numpy())
        found = top_of(np.concatenate(parts), COARSE * self.slack(p))
        close = found.sum(1) != 1
        if close.any():
            found[close] = top_of(self.values(p[close]), self.slack(p[close]))
        return found

    @torch.no_grad()
    def held(self, p: np.ndarray, pieces: Pieces) -> tuple[Outputs, list[Seen]]:
        """What competes on given pieces, and what the cuts see."""
        return self._run(self.embed(p), lambda cut, stage, own: pieces[cut])

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

        def choose(_: int, stage: Kink | Max, own: Seen) -> Tensor:
            z, d, zero = own.z, own.d, own.zero
            if isinstance(stage, Kink):
                rate = torch.zeros_like(z)
                for a, b in ways:
                    along = a[:, None] * d[0] + b[:, None] * d[1]
                    rate = torch.where((rate == 0) & (along.abs() > zero.rate), along, rate)
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

        outputs, seen = self._run(self.embed(p), choose)
        return Beside(found, outputs, seen)

    def _run(
        self, x: Tensor, pick: Callable[[int, Kink | Max, Seen], Tensor]
    ) -> tuple[Outputs, list[Seen]]:
        n, program = len(x), self.program
        seen: list[Seen] = []

        def visit(_: int, stage: Stage, held: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
            v, d, *squared = zip(*held, strict=True)
            if isinstance(stage, Affine):
                made = stage(*v), stage.linear(*d)
                if not squared:
                    return made
                steep = [t.reshape(2, n, *t.shape[1:]).abs().amax(0) for t in d]
                return *made, *behind(stage, v, steep, squared)
            zero = seen_of(stage, *squared) if squared else self.allow[len(seen)]
            if isinstance(stage, Kink):
                own = Seen(v[0].reshape(n, -1), d[0].reshape(2, n, -1), zero)
                piece = pick(len(seen), stage, own).reshape(v[0].shape)
                seen.append(own)
                made = _held_kink(stage, v[0], d[0], piece)
                if not squared:
                    return made
                steep = stage.slope(piece).square()
                rounded = (EPS * summed(stage, v[0])).square()
                return *made, steep * squared[0][0] + rounded, steep * squared[1][0]
            z = stage.candidates(*v)
            dz = stage.flat(*d)[:, stage.index.clamp(min=0)].reshape(2, *z.shape)
            seen.append(own := Seen(z, dz, zero))
            winner = pick(len(seen) - 1, stage, own)[..., None].long()
            shape = (-1, *stage.shape)
            moved = dz.gather(3, winner.expand(2, *winner.shape))[..., 0].reshape(shape)
            made = z.gather(2, winner)[..., 0].reshape(shape), moved
            more = (e.gather(2, winner)[..., 0].reshape(shape) for e in entries(stage, *squared))
            return *made, *more

        start: tuple[Tensor, ...] = x, torch.cat([v.expand(x.shape) for v in self.directions])
        if self.noisy:
            start += (2 * self.space.given).square().expand(x.shape), torch.zeros_like(x)
        held: dict[str, tuple[Tensor, ...]] = {program.input: start}
        value, slope, *squared = program.run(held, visit=visit)[program.output]
        outputs = Outputs.of(
            self.competing(value.reshape(n, -1)),
            self.competing(slope.reshape(2, n, -1)),
            self._of_outputs(*squared) if squared else self.zero,
        )
        return outputs, seen


def first_of(found: Outputs, *ways: np.ndarray) -> np.ndarray:
    """`[n]` the class just beside points: of those tied there the first that grows fastest.

    Args:
        found: What competes, with derivatives beside the points.
        ways: `[n, 2]` directions; each decides what those before it leave open.
    """
    near = top_of(found.value, MARGIN * found.slack)
    for way in ways:
        rate = way[:, :1] * found.slope[0] + way[:, 1:] * found.slope[1]
        near = top_of(np.where(near, rate, -np.inf), found.rate)
    return near.argmax(1)


def top_of(value: np.ndarray, slack: np.ndarray) -> np.ndarray:
    """`[n, C]` which values are the largest of their row, up to a slack of each `[n or 1, C]`.

    None is larger than they are by more than the slacks of both.
    """
    return (value == value.max(1, keepdims=True)) | (
        value + slack >= (value - slack).max(1, keepdims=True)
    )


def _near(z: Tensor, slack: Tensor) -> Tensor:
    """Which entries along the last axis are the largest, up to a slack of each."""
    top, least = z.amax(-1, keepdim=True), (z - slack).amax(-1, keepdim=True)
    return (z == top) | (z + slack >= least)


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

"""Carried rounding error: how far a computed value of a unit may be from the exact one.

A value z counts as zero where `|z| <= 32 e`, with e the rounding error that its computation
carries, per unit and point::

    e_out^2 = (eps (|W| |h| + |b|))^2 + W^2 e_in^2

Noise that is inherited counts, kinks hand it on times their slope (nothing behind a unit that is
off), maxima that of their largest entry. Nothing here is relative to the largest value of a site:
one unit of 1e16, or padding of -inf, says nothing about its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from isogon.cpwl.magnitudes import EPS, Coefficients, magnitude, squares, summed
from isogon.cpwl.program import Program
from isogon.cpwl.stages import Affine, Kink, Max, Stage

__all__ = ["EPS", "ROUNDING", "ErrorWalk", "errors", "errors_and_slopes"]

ROUNDING = 32.0  # zero means: within this many carried errors
Beside = tuple[Tensor, Tensor, Tensor | None]  # values, squared errors, derivatives


def errors(
    program: Program,
    x: Tensor,
    *,
    given: Tensor | float = 0.0,
    directions: Tensor | None = None,
    reach: float = 0.0,
) -> Iterator[Tensor]:
    r"""The carried rounding errors e of what every cut sees at points, then of the output.

    A pre-activation z computed by the network at a point has a sign only where
    :math:`|z - \mathrm{knot}| > 32 e`; two entries of a maximum differ only by more than
    :math:`32 (e_i + e_j)`.

    Args:
        program: The network.
        x: Points ``[N, *shape]``, float64.
        given: Error of the points themselves, broadcastable to them (0: they are exact).
        directions: ``[k, *shape]`` in which points may be off by rounding of their coordinates.
        reach: Largest coordinate along the directions: they are off by ``eps * reach``.

    Yields:
        In the order of ``program.cuts``: for a kink ``[N, units]``, for a maximum ``[N, units,
        K]`` like its candidates (0 where a unit has fewer than K); last ``[N, C]``, the output.
    """
    for stage, _, found, _ in _walk(ErrorWalk(program, x, given, directions, reach)):
        yield _like_candidates(stage, found)


def errors_and_slopes(
    program: Program, x: Tensor, *, given: Tensor | float, directions: Tensor, reach: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """The errors, as `errors` yields them, and the derivatives along the directions, `[k, ...]`.

    At a knot of a kink the derivative behind it is that on the steeper side.
    """
    for stage, _, found, tangents in _walk(ErrorWalk(program, x, given, directions, reach)):
        flat = [t.reshape(-1, *t.shape[2:]) for t in tangents]
        slopes = _like_candidates(stage, flat)
        yield _like_candidates(stage, found), slopes.reshape(-1, len(x), *slopes.shape[1:])


def _like_candidates(stage: Stage | None, entries: list[Tensor]) -> Tensor:
    """Entries of what a cut sees: `[N, units]`; of a maximum in its groups, `[N, units, K]`."""
    if not isinstance(stage, Max):
        return entries[0].reshape(len(entries[0]), -1)
    flat = torch.cat([e.reshape(len(e), -1) for e in entries], 1)
    return flat[:, stage.index.clamp(min=0)].masked_fill(stage.index < 0, 0.0)


def _walk(
    carried: ErrorWalk,
) -> Iterator[tuple[Stage | None, list[Tensor], list[Tensor], list[Tensor]]]:
    """Each cut with values, errors and derivatives of its arguments; last None: of the output."""
    program = carried.program
    stop = -1
    while stop < len(program.stages):
        stop = program.next_cut(stop)
        carried.to(stop)
        v, e2, d = carried.seen()
        stage = program.stages[stop] if stop < len(program.stages) else None
        yield stage, v, [e.sqrt() for e in e2], [t for t in d if t is not None]


class ErrorWalk:
    """Points on their way through a network, with values, errors and derivatives.

    Args:
        program: The network.
        x: Points `[N, *shape]`, float64.
        given: Error of the points themselves, broadcastable to them (0: they are exact).
        directions: `[k, *shape]` in which points may be off by rounding of their coordinates.
        reach: Largest coordinate along the directions: they are off by ``eps * reach``.
        meant: Whether a value within 32 e of a knot is set to the knot, so that the unit hands on
            no error, neither of its value nor of the point's place: the place meant is the one
            where it is zero. Entries of a maximum that are equal within errors have the value of
            the one that is known best.

    Attributes:
        position: The points are before this stage.
    """

    def __init__(
        self,
        program: Program,
        x: Tensor,
        given: Tensor | float = 0.0,
        directions: Tensor | None = None,
        reach: float = 0.0,
        *,
        meant: bool = False,
    ) -> None:
        self.program, self.meant, self.shift = program, meant, EPS * reach
        self.position = 0
        square = torch.as_tensor(given, dtype=torch.float64).square().expand(x.shape)
        tangent = None
        if directions is not None and reach > 0:
            tangent = directions[:, None].expand(len(directions), *x.shape).to(torch.float64)
        self.held: dict[str, Beside] = {program.input: (x, square, tangent)}

    def __len__(self) -> int:
        return len(next(iter(self.held.values()))[0])

    @property
    def nbytes(self) -> int:
        """Bytes of what is held."""
        return sum(t.nbytes for group in self.held.values() for t in group if t is not None)

    def to(self, position: int, known: Coefficients | None = None) -> None:
        """Go on to the place before a stage."""

        def visit(_: int, stage: Stage, held: list[Beside]) -> Beside:
            v, e2, d = self._apart(stage, held)
            if isinstance(stage, Kink):
                return _kink(stage, v[0], e2[0], d[0], self.meant)
            if isinstance(stage, Max):
                return _max(stage, v, e2, d, self.meant)
            return stage(*v), *_affine(stage, v, e2, d, known)

        self.program.run(self.held, self.position, position, visit)
        self.position = position

    def seen(self) -> tuple[list[Tensor], list[Tensor], list[Tensor | None]]:
        """Values, squared errors, derivatives of what the stage here reads; at the end: output."""
        stages = self.program.stages
        if self.position == len(stages):
            return self._apart(None, [self.held[self.program.output]])
        stage = stages[self.position]
        return self._apart(stage, [self.held[name] for name in stage.inputs])

    def entries(self) -> tuple[Tensor, Tensor]:
        """Values and errors of the same, `[N, entries]`; of a maximum those of `Max.flat`."""
        v, e2, _ = self.seen()
        n = len(v[0])
        values, squared = (torch.cat([t.reshape(n, -1) for t in ts], 1) for ts in (v, e2))
        return values, squared.sqrt_()

    def kept(self, rows: Tensor) -> ErrorWalk:
        """Some of the points."""
        return self._with(
            {
                name: (v[rows], e2[rows], None if d is None else d[:, rows])
                for name, (v, e2, d) in self.held.items()
            }
        )

    @staticmethod
    def joined(parts: Sequence[ErrorWalk]) -> ErrorWalk:
        """The points of several that are at one place."""
        held: dict[str, Beside] = {}
        for name in parts[0].held:
            v, e2, d = zip(*(part.held[name] for part in parts), strict=True)
            tangent = None if d[0] is None else torch.cat(d, 1)
            held[name] = torch.cat(v), torch.cat(e2), tangent
        return parts[0]._with(held)

    def _with(self, held: dict[str, Beside]) -> ErrorWalk:
        other: ErrorWalk = object.__new__(ErrorWalk)
        other.__dict__ |= self.__dict__ | {"held": held}
        return other

    def _apart(
        self, stage: Stage | None, held: list[Beside]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor | None]]:
        v, e2, d = [h[0] for h in held], [h[1] for h in held], [h[2] for h in held]
        if d[0] is not None and not isinstance(stage, Affine) and stage is not None:
            # interpolated when the mesh was cut: off by its coordinates
            moved = [t.square().sum(0) * self.shift**2 for t in d if t is not None]
            e2 = [e + m for e, m in zip(e2, moved, strict=True)]
        return v, e2, d


def _affine(
    stage: Affine,
    v: list[Tensor],
    e2: list[Tensor],
    d: list[Tensor | None],
    known: Coefficients | None,
) -> tuple[Tensor, Tensor | None]:
    square = squares(stage, *e2, known=known)
    if not stage.copies:
        square = square + (EPS * magnitude(stage, *v, known=known)).square()
    if d[0] is None:
        return square, None
    flat = [t.reshape(-1, *t.shape[2:]) for t in d if t is not None]
    tangent = stage.linear(*flat)
    return square, tangent.reshape(len(d[0]), len(v[0]), *tangent.shape[1:])


def _kink(
    stage: Kink, z: Tensor, e2: Tensor, d: Tensor | None, snap: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    slack = ROUNDING * e2.sqrt()
    below, above = stage.slope(stage.piece(z - slack)), stage.slope(stage.piece(z + slack))
    slope = torch.where(below.abs() > above.abs(), below, above)
    tangent = None if d is None else d * slope
    square = slope.square() * e2
    if snap:
        for knot in stage.knots:
            close = (z - knot).abs() <= slack
            square = square.masked_fill(close, 0.0)
            tangent = None if tangent is None else tangent.masked_fill(close, 0.0)
            z = torch.where(close, knot, z)
    return stage(z), square + (EPS * summed(stage, z)).square(), tangent


def _max(
    stage: Max, v: list[Tensor], e2: list[Tensor], d: list[Tensor | None], snap: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    n, shape = len(v[0]), stage.shape
    flat, squared = stage.flat(*v), torch.cat([e.reshape(n, -1) for e in e2], 1)
    index = stage.index.clamp(min=0)
    entry = flat[:, index].masked_fill(stage.index < 0, -torch.inf)
    error = squared[:, index].masked_fill(stage.index < 0, 0.0)
    top, winner = entry.max(-1, keepdim=True)
    slack = ROUNDING * error.sqrt()
    near = (entry == top) | (entry + slack >= (entry - slack).amax(-1, keepdim=True))
    if snap:  # equal ones have the value of the best known
        own, winner = error.masked_fill(~near, torch.inf).min(-1, keepdim=True)
        top = entry.gather(-1, winner)
    else:  # one that may be the largest in truth
        own = error.masked_fill(~near, 0.0).amax(-1, keepdim=True)
    tangent = None
    if d[0] is not None:
        joined = torch.cat([t.reshape(len(t), n, -1) for t in d if t is not None], 2)
        at = stage.index.expand(n, -1, -1).gather(2, winner)[..., 0]
        tangent = joined.gather(2, at.expand(len(joined), *at.shape)).reshape(-1, n, *shape)
    return top.reshape(n, *shape), own.reshape(n, *shape), tangent

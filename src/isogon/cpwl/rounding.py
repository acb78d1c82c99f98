"""Carried rounding error: how far a computed value of a unit may be from the exact one.

A value z counts as zero where `|z| <= 32 e`, with e the rounding error that its computation
carries, per unit and point::

    e_out^2 = (eps (|W| |h| + |b|))^2 + W^2 e_in^2

Noise that is inherited counts, kinks hand it on times their slope (nothing behind a unit that is
off), maxima that of their largest entry. Nothing here is relative to the largest value of a site:
one unit of 1e16, or padding of -inf, says nothing about its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.program import Program
from isogon.cpwl.stages import Affine, Kink, Max, Stage

__all__ = ["EPS", "ROUNDING", "Bounds", "errors", "errors_and_slopes", "errors_at", "meant_at"]

EPS = float(torch.finfo(torch.float64).eps)
ROUNDING = 32.0  # zero means: within this many carried errors
Carried = tuple[Tensor, Tensor, Tensor | None]  # values, squared errors, derivatives
PROBES = 8  # signs with which the coefficients of an unknown linear map are looked at


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
    for stage, _, found, _ in _walk(program, x, given, directions, reach, snap=False):
        yield _like_candidates(stage, found)


def errors_and_slopes(
    program: Program, x: Tensor, *, given: Tensor | float, directions: Tensor, reach: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """The errors, as `errors` yields them, and the derivatives along the directions, `[k, ...]`.

    At a knot of a kink the derivative behind it is that on the steeper side.
    """
    for stage, _, found, tangents in _walk(program, x, given, directions, reach, snap=False):
        flat = [t.reshape(-1, *t.shape[2:]) for t in tangents]
        slopes = _like_candidates(stage, flat)
        yield _like_candidates(stage, found), slopes.reshape(-1, len(x), *slopes.shape[1:])


def _like_candidates(stage: Stage | None, entries: list[Tensor]) -> Tensor:
    """Entries of what a cut sees: `[N, units]`; of a maximum in its groups, `[N, units, K]`."""
    if not isinstance(stage, Max):
        return entries[0].reshape(len(entries[0]), -1)
    flat = torch.cat([e.reshape(len(e), -1) for e in entries], 1)
    return flat[:, stage.index.clamp(min=0)].masked_fill(stage.index < 0, 0.0)


@torch.no_grad()
def errors_at(
    program: Program,
    position: int,
    x: Tensor,
    *,
    given: Tensor | float = 0.0,
    directions: Tensor | None = None,
    reach: float = 0.0,
) -> Tensor:
    """The errors `[N, entries]` of what the cut at one stage sees, while a mesh is being cut.

    They are those of `meant_at`; the arguments, too.
    """
    options = {"given": given, "directions": directions, "reach": reach}
    return meant_at(program, position, x, **options)[1]  # type: ignore[arg-type]


@torch.no_grad()
def meant_at(
    program: Program,
    position: int,
    x: Tensor,
    *,
    given: Tensor | float = 0.0,
    directions: Tensor | None = None,
    reach: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Values and errors `[N, entries]` of what the cut at one stage sees at the places meant.

    There a value within 32 e of a knot is set to the knot, so that the unit hands on no error,
    neither of its value nor of the point's place: the place meant is the one where it is zero.
    For a maximum the entries are those of `Max.flat`; after the last stage, the output's. Other
    arguments: see `errors`.
    """
    wanted = program.stages[position] if position < len(program.stages) else None
    for stage, values, found, _ in _walk(program, x, given, directions, reach, snap=True):
        if stage is wanted:
            v, e = (torch.cat([t.reshape(len(x), -1) for t in ts], 1) for ts in (values, found))
            return v, e
    raise ValueError("no cut at this stage")


def _walk(
    program: Program,
    x: Tensor,
    given: Tensor | float,
    directions: Tensor | None,
    reach: float,
    snap: bool,
) -> Iterator[tuple[Stage | None, list[Tensor], list[Tensor], list[Tensor]]]:
    """Each cut with values, errors and derivatives of its arguments; last None: of the output."""
    n = len(x)
    square = torch.as_tensor(given, dtype=torch.float64).square().expand(x.shape)
    tangent = None
    if directions is not None and reach > 0:
        tangent = directions[:, None].expand(len(directions), *x.shape).to(torch.float64)
    values: dict[str, Carried] = {program.input: (x, square, tangent)}

    def affine(_: int, stage: Stage, held: list[Carried]) -> Carried:
        assert isinstance(stage, Affine)
        v, e2, d = _apart(held)
        return stage(*v), *_affine(stage, v, e2, d, n)

    at, stop = 0, program.next_cut(-1)
    while stop < len(program.stages):
        program.run(values, at, stop, affine)
        cut = program.stages[stop]
        v, e2, d = _apart([values[name] for name in cut.inputs])
        if d[0] is not None:  # interpolated when the mesh was cut: off by its coordinates
            moved = [(t.square().sum(0) * (EPS * reach) ** 2) for t in d if t is not None]
            e2 = [e + m for e, m in zip(e2, moved, strict=True)]
        yield cut, v, [e.sqrt() for e in e2], [t for t in d if t is not None]
        if isinstance(cut, Kink):
            made = _kink(cut, v[0], e2[0], d[0], snap)
        else:
            made = _max(cut, v, e2, d, snap)  # type: ignore[arg-type]
        del v, e2, d
        at = stop + 1
        program.run(values, stop, at, lambda *_, made=made: made)
        stop = program.next_cut(stop)
    program.run(values, at, stop, affine)
    value, square, tangent = values[program.output]
    yield None, [value], [square.sqrt()], [] if tangent is None else [tangent]


def _apart(held: list[Carried]) -> tuple[list[Tensor], list[Tensor], list[Tensor | None]]:
    return [h[0] for h in held], [h[1] for h in held], [h[2] for h in held]


def _affine(
    stage: Affine, v: list[Tensor], e2: list[Tensor], d: list[Tensor | None], n: int
) -> tuple[Tensor, Tensor | None]:
    square = squares(stage, *e2)
    if not stage.copies:
        square = square + (EPS * magnitude(stage, *v)).square()
    if d[0] is None:
        return square, None
    flat = [t.reshape(-1, *t.shape[2:]) for t in d if t is not None]
    tangent = stage.linear(*flat)
    return square, tangent.reshape(len(d[0]), n, *tangent.shape[1:])


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
    own = error.gather(-1, winner)
    near = (entry == top) | (entry >= top - ROUNDING * (error.sqrt() + own.sqrt()))
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


# --------------------------------------------------------------------------- coefficients


def summed(stage: Kink, z: Tensor) -> Tensor:
    """The size of what a kink sums; none for a ReLU, which rounds nothing."""
    if stage.apply is torch.relu:
        return torch.zeros((), dtype=z.dtype)
    if stage.apply is not None:
        return finite(stage(z))
    right = z - stage.knots[0]
    total = torch.as_tensor(stage.value, dtype=z.dtype).abs()
    total = total + stage.slopes[0].abs() * finite(right.clamp(max=0))
    total = total + stage.slopes[1].abs() * finite(right.clamp(min=0))
    for k in range(1, len(stage.knots)):
        jump = (stage.slopes[k + 1] - stage.slopes[k]).abs()
        total = total + jump * finite((z - stage.knots[k]).clamp(min=0))
    return total


def finite(v: Tensor) -> Tensor:
    """Sizes of values; those that are infinite are constants, which round nothing: 0."""
    return v.abs().nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def magnitude(stage: Affine, *v: Tensor) -> Tensor:
    """`|W| |v| + |b|`: the size of what a stage sums."""
    return _summed_up(stage, [finite(t) for t in v])


def _summed_up(stage: Affine, sizes: list[Tensor]) -> Tensor:
    """The same of sizes that are finite and not below 0."""
    if stage.weights is not None:
        total = stage.weights(torch.abs)(*sizes)
    elif stage.copies:
        total = stage.linear(*sizes).abs()
    else:
        total = _probed(stage, sizes).sqrt() * PROBES**0.5 + stage.linear(*sizes).abs()
    return total if stage.bias is None else total + finite(stage.bias)


def squares(stage: Affine, *e2: Tensor) -> Tensor:
    """`W^2 e^2`: the squared errors that a stage hands on."""
    if stage.weights is not None:
        return stage.weights(torch.square)(*e2)
    if stage.copies:
        return stage.linear(*e2).abs()
    return _probed(stage, [e.sqrt() for e in e2])


def _probed(stage: Affine, sizes: list[Tensor]) -> Tensor:
    """`W^2 s^2` of a linear map that tells nothing of its coefficients, by random signs.

    The mean of `(W (+-s))^2` over signs is `W^2 s^2`.
    """
    generator = torch.Generator().manual_seed(0)
    total: Tensor | None = None
    for _ in range(PROBES):
        signs = [
            torch.randint(0, 2, t.shape[1:], generator=generator, dtype=torch.float64) * 2 - 1
            for t in sizes
        ]
        found = stage.linear(*(t * s for t, s in zip(sizes, signs, strict=True))).square()
        total = found if total is None else total + found
    assert total is not None
    return total / PROBES


# --------------------------------------------------------------------------- bounds


class Bounds:
    """Bounds per unit, over all points of a mesh, of values and of their carried errors.

    One sample runs through the network, with the largest size and error of every entry; at each
    cut the true range of the values replaces what was summed up. They are cheap and only say
    where errors must be looked at: a value beyond its bound is not zero.

    Args:
        program: The network.
        start: Inputs of the network between which all points lie, `[n, *shape]`.
    """

    def __init__(self, program: Program, start: Tensor) -> None:
        self.program = program
        size = start.abs().amax(0, keepdim=True)
        self.held = {program.input: (size, (2 * EPS * size).square())}
        self.position = 0
        self.least = np.inf  # of what was asked of them, as who asks keeps it

    def copy(self) -> Bounds:
        """The same, to go on with independently."""
        other = object.__new__(Bounds)
        other.program, other.position, other.least = self.program, self.position, self.least
        other.held = dict(self.held)
        return other

    def at(self, position: int) -> Tensor:
        """Bounds `[entries]` of the errors of what the cut at a stage sees."""
        self.program.run(self.held, self.position, position, self._visit)
        self.position = max(self.position, position)
        if position == len(self.program.stages):
            return self.held[self.program.output][1].sqrt().reshape(-1)
        stage = self.program.stages[position]
        parts = [self.held[name][1].reshape(-1) for name in stage.inputs]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).sqrt()

    def _visit(
        self, position: int, stage: Stage, held: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        if isinstance(stage, Affine):
            size = _summed_up(stage, [h[0] for h in held])  # sizes are finite
            square = squares(stage, *(h[1] for h in held))
            if not stage.copies:
                square = square + (EPS * size).square_()
            return size, square
        if stage.output not in self.held:
            self.cut(position)  # a cut that was not made: all its pieces count
        return self.held[stage.output]

    def cut(
        self, position: int, lowest: np.ndarray | None = None, highest: np.ndarray | None = None
    ) -> None:
        """Pass a cut, whose values range from low to high (`[entries]`; None: unknown)."""
        stage = self.program.stages[position]
        if isinstance(stage, Kink) and stage.apply is torch.relu and highest is not None:
            # as below, on arrays: a third of the time where a site is small
            _, square = self.held[stage.inputs[0]]
            e2 = square.numpy().reshape(-1)
            on = highest + ROUNDING * np.sqrt(e2) > 0
            size = np.where(highest < np.inf, np.maximum(highest, 0.0), 0.0)
            size, e2 = (torch.from_numpy(v).reshape(square.shape) for v in (size, e2 * on))
            self.held[stage.output] = size, e2
            return
        low = None if lowest is None else torch.from_numpy(lowest)
        high = None if highest is None else torch.from_numpy(highest)
        if isinstance(stage, Kink):
            size, square = self.held[stage.inputs[0]]
            low = -size if low is None else low.reshape(size.shape)
            high = size if high is None else high.reshape(size.shape)
            slack = ROUNDING * square.sqrt()
            if stage.apply is torch.relu:
                on = high + slack > 0
                self.held[stage.output] = finite(high.clamp(min=0.0)), square * on
                return
            ends, first, last = (stage(low), stage(high)), low - slack, high + slack
            most = torch.maximum(*(finite(end) for end in ends))
            steep = torch.zeros(())
            for k, slope in enumerate(stage.slopes):
                met = torch.ones((), dtype=torch.bool)
                if k > 0:
                    knot = stage.knots[k - 1]
                    met = last > knot
                    here = met & (first <= knot)
                    most = torch.where(here, torch.maximum(most, finite(stage(knot))), most)
                if k < len(stage.knots):
                    met = met & (first <= stage.knots[k])
                steep = torch.maximum(steep, met * slope.abs())
            own = torch.maximum(summed(stage, low), summed(stage, high))
            square = steep.square() * square + (EPS * torch.maximum(own, most)).square()
            self.held[stage.output] = most, square
        elif isinstance(stage, Max):
            held = [self.held[name] for name in stage.inputs]
            sizes, squared = (torch.cat([h[k].reshape(-1) for h in held]) for k in (0, 1))
            alive = stage.index >= 0
            if low is not None and high is not None:
                sizes = torch.maximum(finite(low), finite(high))
                floor = low[stage.index].masked_fill(~alive, -torch.inf).amax(1, keepdim=True)
                alive &= high[stage.index] >= floor
            index = stage.index.clamp(min=0)
            most, square = (
                t[index].masked_fill(~alive, 0.0).amax(1).reshape(1, *stage.shape)
                for t in (sizes, squared)
            )
            self.held[stage.output] = most, square

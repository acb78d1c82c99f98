"""`segments`: the exact linear pieces of a network along a line between two inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import Module

from isogon.cpwl.certificate import Certificate
from isogon.cpwl.program import Kink, Max, Program
from isogon.data import Points
from isogon.errors import DataError, ModelError
from isogon.measures.partition.certify_line import certify_line
from isogon.measures.partition.grow import in_chunks
from isogon.measures.partition.kinks import EPS, ROUNDING
from isogon.measures.partition.measure import program_for
from isogon.readings import Curve
from isogon.registry import measure

ROOM = 1 << 22  # numbers that the entries of a maximum may take at a time


class Segments(Curve):
    """The linear pieces of a network along a line, one row per piece.

    Attributes:
        breakpoints: `[B]` positions in (0, 1) where a unit changes its piece, ascending.
        outputs: `[B + 2, C]` at start, breakpoints and end; linear in between.
        arrays: Also `ends`, the two inputs `[2, *shape]`.
        program: The network; None where the reading comes from a file (see `attach`).
    """

    row = "piece"
    program: Program | None = None
    breakpoints = property(lambda self: self.arrays["breakpoints"])
    outputs = property(lambda self: self.arrays["outputs"])

    def at(self, t: Any) -> np.ndarray:
        """Outputs `[N, C]` at positions on the line, from the pieces."""
        knots = np.concatenate([[0.0], self.breakpoints, [1.0]])
        t = np.atleast_1d(np.asarray(t, np.float64))
        return np.stack([np.interp(t, knots, column) for column in self.outputs.T], 1)

    def certify(
        self,
        points: int | None = None,
        *,
        generator: torch.Generator | None = None,
        seconds: float | None = None,
    ) -> Certificate:
        """Check the pieces against the network itself (see `certify_line.certify_line`).

        The certificate stays with the reading (`certificate`), also in a file.

        Args:
            points: Random points at which outputs are compared, beside the middle of every
                piece and both sides of every breakpoint; default: 1,000.
            generator: Source of the points; default: seed 0.
            seconds: About how long it may take: as many pieces as there is time for are looked
                at, and the certificate says how many; default: all.

        Raises:
            ModelError: The reading comes from a file and knows no network: `attach` it.
        """
        if self.program is None or "ends" not in self.arrays:
            raise ModelError(
                "segments read from disk have no network to be checked against",
                fix="Call segments.attach(model) first."
                if "ends" in self.arrays
                else "They were written without their ends: compute them again.",
            )
        found = certify_line(self, points, generator, seconds)
        self.meta["certificate"] = found.to_json()
        return found

    @property
    def certificate(self) -> Certificate | None:
        """What `certify` found last; None where it was not called."""
        return Certificate.from_json(self.meta.get("certificate"))

    def attach(self, model: Any) -> Segments:
        """Give segments that were read from disk their network again."""
        ends = torch.from_numpy(self.arrays["ends"])
        self.program, _ = program_for(model, ends, tuple(ends.shape[1:]))
        return self


@measure(
    cite="humayun2023",
    cost=7.0,
    survey={"a": "@class:0", "b": "@class:1"},
    example={"a": "digits(test)[0]", "b": "digits(test)[1]"},
)
def segments(model: Module, a: Points, b: Points) -> Segments:
    """All breakpoints of a continuous piecewise-linear network between two inputs, exactly.

    The line a + t (b - a), 0 <= t <= 1, is cut site by site where a unit reaches a knot or the
    largest entry of a maximum changes; between two breakpoints the network is affine.

    Args:
        model: Any network of piecewise-linear operations.
        a: The input at t = 0 (with or without a sample axis of length 1).
        b: The input at t = 1.

    Returns:
        One row per piece: piece, start, end, length (in input space), site and unit of the
        breakpoint at its end, slope (norm of the outputs' derivative per unit of length),
        prediction (largest output at its middle). Arrays `breakpoints`, `outputs`.

    Raises:
        UnsupportedOp: The network is not continuous piecewise linear.
        DataError: The inputs have different shapes or are equal.
    """
    x, y = a.detach().cpu().double(), b.detach().cpu().double()
    if x.shape != y.shape or torch.equal(x, y):
        raise DataError(
            "a line needs two different inputs of one shape",
            got=f"{list(x.shape)} and {list(y.shape)}" + (", equal" * torch.equal(x, y)),
        )
    program, shape = program_for(model, torch.stack([x, y]), tuple(x.shape))
    ends = torch.stack([x, y]).reshape(2, *shape)
    t, site, unit, outputs = break_points(program, ends)
    length = float((y - x).norm())
    names = [*program.sites, ""]
    span = np.diff(t)
    rise = np.diff(outputs, axis=0)
    middle = (outputs[1:] + outputs[:-1]) / 2
    single = outputs.shape[1] == 1
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.linalg.norm(rise, axis=1) / (span * length)
    table = pd.DataFrame(
        {
            "piece": np.arange(len(span)),
            "start": t[:-1],
            "end": t[1:],
            "length": span * length,
            "site": [names[s] for s in site[1:]],
            "unit": unit[1:],
            "slope": slope,
            "prediction": (middle[:, 0] > 0).astype(int) if single else middle.argmax(1),
        }
    )
    found = Segments(
        "segments",
        table=table,
        arrays={"breakpoints": t[1:-1], "outputs": outputs, "ends": ends.numpy()},
        axes={"breakpoints": ("breakpoint",), "outputs": ("point", "output")},
        meta={"sites": program.sites, "length": length, "dtype": "float64"},
    )
    found.program = program
    return found


@torch.no_grad()
def break_points(
    program: Program, ends: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions `[P]` from 0 to 1, site and unit of each (-1 at the ends), outputs `[P, C]`."""
    t, site, unit = np.array([0.0, 1.0]), np.array([-1, -1]), np.array([-1, -1])
    live, chunk, cut = {program.input: ends}, program.chunk(), 0
    for i, stage in enumerate(program.stages):
        arguments = [live[name] for name in stage.inputs]
        if isinstance(stage, Kink | Max):
            found = (
                kink_cuts(stage, arguments)
                if isinstance(stage, Kink)
                else max_cuts(stage, arguments)
            )
            at, ratio, which = found
            position = t[at] + ratio * (t[at + 1] - t[at])
            order = np.argsort(np.concatenate([t, position]), kind="stable")
            t = np.concatenate([t, position])[order]
            site = np.concatenate([site, np.full(len(at), cut)])[order]
            unit = np.concatenate([unit, which])[order]
            rows = torch.from_numpy(order)
            p, weight = torch.from_numpy(at), torch.from_numpy(ratio)
            for name, held in live.items():
                w = weight.reshape(-1, *[1] * (held.ndim - 1))
                live[name] = torch.cat([held, torch.lerp(held[p], held[p + 1], w)])[rows]
            arguments = [live[name] for name in stage.inputs]
            cut += 1
        live[stage.output] = in_chunks(stage, arguments, chunk)
        for name in program.dead_after(i):
            del live[name]
    outputs = live[program.output]
    return t, site, unit, outputs.reshape(len(t), -1).numpy()


def merged(at: np.ndarray, ratio: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, ...]:
    """Crossings in order along the line; those that rounding can't tell apart become one."""
    order = np.lexsort([ratio, at])
    at, ratio, unit = at[order], ratio[order], unit[order]
    same = (np.diff(at) == 0) & (np.diff(ratio) <= ROUNDING * EPS)
    keep = np.concatenate([[True], ~same]) if len(at) else np.zeros(0, bool)
    return at[keep], ratio[keep], unit[keep]


def kink_cuts(stage: Kink, arguments: list[Tensor]) -> tuple[np.ndarray, ...]:
    """Piece of the line, ratio along it and unit of every knot that is passed."""
    z = arguments[0].reshape(len(arguments[0]), -1)
    tol = ROUNDING * EPS * max(float(z.abs().max()), 1e-290)
    found = []
    for knot in stage.knots:
        d = z - knot.expand(arguments[0].shape[1:]).reshape(-1)
        p, q = d[:-1], d[1:]
        at, unit = torch.nonzero(((p > tol) & (q < -tol)) | ((p < -tol) & (q > tol))).T
        found.append((at, p[at, unit] / (p[at, unit] - q[at, unit]), unit))
    at, ratio, unit = (torch.cat(column).numpy() for column in zip(*found, strict=True))
    return merged(at, ratio, unit)


def max_cuts(stage: Max, arguments: list[Tensor]) -> tuple[np.ndarray, ...]:
    """The same for a maximum: the bends of the upper envelope of its entries on each piece."""
    flat = stage.flat(*arguments)
    tol = ROUNDING * EPS * max(float(flat.abs().max()), 1e-290)
    found = []
    step = max(1, ROOM // stage.candidates(flat[:1]).numel())
    for low in range(0, len(flat) - 1, step):
        c = stage.candidates(flat[low : low + step + 1])
        best = c >= c.amax(-1, keepdim=True) - tol
        changed = ~(best[:-1] & best[1:]).any(-1)
        for piece, unit in torch.nonzero(changed).tolist():
            for ratio in envelope(c[piece, unit].numpy(), c[piece + 1, unit].numpy(), tol):
                found.append((low + piece, ratio, unit))
    columns = list(zip(*found, strict=True)) or [(), (), ()]
    return merged(
        np.array(columns[0], np.int64), np.array(columns[1], float), np.array(columns[2], np.int64)
    )


def envelope(p: np.ndarray, q: np.ndarray, tol: float) -> list[float]:
    """Where the largest of the lines from p to q changes, by walking from bend to bend."""
    with np.errstate(invalid="ignore"):
        slope = q - p
        at_start = p >= p.max() - tol
    now = int(np.flatnonzero(at_start)[np.argmax(slope[at_start])])
    bends, t = [], 0.0
    while True:
        with np.errstate(divide="ignore", invalid="ignore"):
            steeper = np.isfinite(slope) & (slope > slope[now]) & (q > q[now] + tol)
            meet = np.where(steeper, (p[now] - p) / (slope - slope[now]), np.inf)
        if not steeper.any():
            return bends
        first = meet.min()
        ties = np.flatnonzero(meet <= first + EPS)
        now = int(ties[np.argmax(slope[ties])])
        if first > t and 0 < first < 1:
            bends.append(float(first))
        t = max(t, float(first))

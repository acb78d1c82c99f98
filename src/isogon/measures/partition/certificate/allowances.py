"""What a certificate lets pass: carried rounding errors, per unit and point.

A value on the wrong side of a knot is no contradiction where it is within rounding of it, by the
rule that decides what counts as zero while cutting (`cpwl.rounding`), with a margin of two:
corners were made by interpolation and are evaluated anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.program import Program
from isogon.cpwl.rounding import EPS, ROUNDING, errors, errors_and_slopes
from isogon.cpwl.stages import Kink, Max
from isogon.measures.partition.certificate.contradictions import Found

if TYPE_CHECKING:
    from isogon.measures.partition.reading import Partition

MARGIN = 2.0
SAMPLE = 128  # points at which all errors are looked at
CAP = 8.0  # times the largest of these: nowhere are errors larger, as a rule


class Allowances:
    """Allowances at points of a flat piece of input space.

    Args:
        program: The network.
        embed: Inputs `[n, *shape]` at coordinates `[n, k]`.
        directions: `[k, *shape]` along which coordinates are rounded.
        reach: Largest coordinate.
        size: `[*shape]` largest absolute inputs: embedding rounds them.
        sample: `[n, k]` coordinates of some points.
    """

    def __init__(
        self,
        program: Program,
        embed: Callable[[np.ndarray], Tensor],
        directions: Tensor,
        reach: float,
        size: Tensor,
        sample: np.ndarray,
    ) -> None:
        self.program, self.embed = program, embed
        self.directions, self.reach, self.given = directions, reach, EPS * size
        found = [self.errors(sample[part]) for part in self.chunks(len(sample))]
        every = [np.concatenate(site) for site in zip(*found, strict=True)]
        # where the least of all is not exceeded, or the most is, none has to be computed
        self.least = [e.min(0) for e in every]
        self.most = [CAP * e.max(0) for e in every]

    @classmethod
    def of_slice(cls, p: Partition) -> Allowances:
        """Those of a partition."""
        plane, shape = p.plane, p.program.shape
        reach = float(np.abs(p.vertices).max())
        size = np.abs(plane.origin) + np.abs(plane.basis).sum(1) * reach
        rows = np.random.default_rng(0).permutation(len(p.vertices))[:SAMPLE]
        return cls(
            p.program,
            lambda xy: plane.embed(xy).reshape(-1, *shape),
            torch.from_numpy(plane.basis.T.copy()).reshape(2, *shape),
            reach,
            torch.from_numpy(size).reshape(shape),
            p.vertices[rows],
        )

    def chunks(self, rows: int) -> list[slice]:
        """Slices of rows whose values stay within some tens of megabytes."""
        step = max(1, self.program.chunk() // 2)
        return [slice(low, min(low + step, rows)) for low in range(0, rows, step)]

    @torch.no_grad()
    def errors(self, xy: np.ndarray) -> list[np.ndarray]:
        """Carried errors at points: per cut, and last of the output."""
        found = errors(
            self.program,
            self.embed(xy),
            given=self.given,
            directions=self.directions,
            reach=self.reach,
        )
        return [e.numpy() for e in found]

    @torch.no_grad()
    def errors_and_slopes(self, xy: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Carried errors at points, and derivatives `[k, N, ...]`: per cut, last of the output."""
        found = errors_and_slopes(
            self.program,
            self.embed(xy),
            given=self.given,
            directions=self.directions,
            reach=self.reach,
        )
        both = [(e.numpy(), s.numpy()) for e, s in found]
        return [e for e, _ in both], [s for _, s in both]

    def judged(
        self,
        sites: list[Found],
        xy: np.ndarray,
        at: np.ndarray,
        more: Callable[[int, Found, np.ndarray], np.ndarray] | None = None,
    ) -> tuple[list[np.ndarray], float]:
        """Which contradictions are real, per site; and the largest of all in allowances.

        Args:
            sites: Per site, the contradictions of (point, region) pairs ...
            xy: ... of these points `[N, k]` ...
            at: ... the point of each pair.
            more: Further allowances `[n]`, of a site's contradictions at points `[n]`; asked for
                where values exceed their own.
        """
        limits = [
            f.error(e[None], np.zeros(len(f), np.int64)) * ROUNDING * MARGIN
            for f, e in zip(sites, self.least, strict=False)
        ]
        unsure = [f.off > limit for f, limit in zip(sites, limits, strict=True)]
        points = np.unique(np.concatenate([at[f.row[u]] for f, u in zip(sites, unsure)]))
        for part in self.chunks(len(points)):
            own = points[part]
            exact = self.errors(xy[own])
            for f, u, limit, e in zip(sites, unsure, limits, exact, strict=False):
                rows = np.flatnonzero(u & np.isin(at[f.row], own))
                place = np.searchsorted(own, at[f.row[rows]])
                limit[rows] = f.only(rows).error(e, place) * ROUNDING * MARGIN
        real = [~(f.off <= limit) for f, limit in zip(sites, limits, strict=True)]
        for number, (f, limit, r) in enumerate(zip(sites, limits, real, strict=True)):
            rows = np.flatnonzero(r & np.isfinite(f.off))
            if more is not None and len(rows):
                limit[rows] += more(number, f.only(rows), at[f.row[rows]])
                r[rows] = ~(f.off[rows] <= limit[rows])
        worst = 0.0
        for f, limit in zip(sites, limits, strict=True):
            with np.errstate(divide="ignore", invalid="ignore"):
                worst = max(worst, float(np.max(f.off / limit, initial=0.0)))
        return real, worst

    def exceeded(
        self,
        off: np.ndarray,
        xy: np.ndarray,
        more: float = 1.0,
        further: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> float:
        """Largest difference of outputs `[N, C]` at points, in allowances; NaN where one is.

        Args:
            off: Absolute differences.
            xy: The points.
            more: Factor on the allowance: how many values take part.
            further: Further allowances `[n, C]` of some of the points (their rows); asked for where
                differences exceed their own.
        """
        scale = ROUNDING * MARGIN * more
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(off == 0, 0.0, off / (scale * self.least[-1]))
        worst = 0.0
        unsure = np.flatnonzero(~(ratio <= 1).all(1))
        if len(unsure) < len(ratio):
            worst = float(np.delete(ratio, unsure, axis=0).max(initial=0))
        for part in self.chunks(len(unsure)):
            rows = unsure[part]
            own = scale * self.errors(xy[rows])[-1]
            over = np.flatnonzero(~(off[rows] <= own).all(1))
            if further is not None and len(over):
                own[over] += further(rows[over])
            with np.errstate(divide="ignore", invalid="ignore"):
                exact = np.where(off[rows] == 0, 0.0, off[rows] / own)
            worst = float(np.maximum(worst, exact.max(initial=0)))  # NaN stays NaN
        return worst


class Closeness:
    """Where values are within rounding of a knot, at some points.

    Caps tell where none is; true errors are computed once, at all of the points, should these
    not decide.

    Args:
        allowances: Of the points' program.
        xy: The points.
    """

    def __init__(self, allowances: Allowances, xy: np.ndarray) -> None:
        self.allowances, self.xy = allowances, xy

    @cached_property
    def errors(self) -> list[np.ndarray]:
        """Carried errors at the points, per cut."""
        return self.allowances.errors(self.xy)

    def units(
        self, number: int, stage: Kink | Max, values: np.ndarray, margin: float = 1.0
    ) -> np.ndarray:
        """Which values are not zero, but within rounding of it: `[N, units]`.

        Args:
            number: Of the site.
            stage: The site's.
            values: What it sees at the points, as `seen_by` tells.
            margin: Times what is taken for rounding.
        """
        gap, entries = gaps(self.allowances.program, stage, values)
        for known in (False, True):
            errors = self.errors[number] if known else self.allowances.most[number][None]
            zero = margin * ROUNDING * (errors if entries is None else two_of(errors, entries))
            found = (gap > 0) & (gap <= zero)
            if not found.any():
                break
        return found


def gaps(
    program: Program, stage: Kink | Max, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """How far values `[N, units]` are from a knot, or the two largest entries from each other.

    Of a maximum also which two these are, `[N, units, 2]`.
    """
    if isinstance(stage, Max):
        if values.shape[2] < 2:
            return np.full(values.shape[:2], np.inf), None
        two = np.argpartition(values, -2, axis=-1)[..., -2:]
        low, high = np.moveaxis(np.take_along_axis(values, two, -1), -1, 0)
        with np.errstate(invalid="ignore"):
            return high - low, two
    shape = program.shapes[stage.inputs[0]]
    levels = [knot.expand(shape).reshape(-1).numpy() for knot in stage.knots]
    return np.min([np.abs(values - level) for level in levels], axis=0), None


def two_of(errors: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """Errors `[N, units]` of differences of two entries `[N, units, 2]` of each group."""
    errors = np.broadcast_to(errors, (len(entries), *errors.shape[1:]))
    return np.take_along_axis(errors, entries, -1).sum(-1)

"""How large a partition will be, before anything is cut: from exact breakpoints on chords."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch.nn import Module

from isogon import context, options
from isogon.cpwl.lower import check_outputs
from isogon.cpwl.program import Program
from isogon.errors import IncompleteWarning, OptionError
from isogon.measures.partition.chords import changes, chord, count, crofton
from isogon.measures.partition.expected import Forecast
from isogon.measures.partition.lines import break_points
from isogon.measures.partition.lowering import lowered
from isogon.measures.partition.mesh import memory
from isogon.measures.partition.slices import Slice
from isogon.measures.partition.windows import (
    FEWEST,
    MODEL,
    PILOT,
    Windows,
    cut_part,
    excess,
    middle_of,
    wanted,
)

PROBE = 1 / 16  # of a chord: looked at first
ENOUGH = 2000  # breakpoints per chord
RIM = 100  # breakpoints per side, at least; and as on a chord ...
BORDER = 0.1  # ... where so many of the regions, or more, are told by them
PATIENCE = 1.0  # seconds of cutting before which nothing is forecast
BUDGET = 0.05  # of the time, for a forecast while cutting
FIRST = 1 / 256  # of a chord: looked at first while cutting
LIGHT = 1 / 4  # of the regions that are cut for a forecast, while cutting
FEW, CHORDS = 8, 32  # parts of chords that tell something, that are enough
LEAST = 100  # breakpoints that tell something
TURNS, NEAR = 6, 0.03  # smaller slices that are looked at for a radius; how near is enough
ROUGH = 4, 100, 1 / 8  # chords through one of those, breakpoints on each, share of windows
LONG = 4.0  # times as many chords, at most, through slices that are so much longer than wide


def forecast(
    model: Module | Program,
    plane: Slice,
    *,
    chords: int = 16,
    generator: torch.Generator | None = None,
) -> Forecast:
    r"""How many regions a slice holds, and what its partition takes, before anything is cut.

    By Euler's formula a slice whose border has B breakpoints holds :math:`1 + \tfrac{B}{2} + M`
    regions, M being a sum over the vertices inside. B is looked at on the border itself. Of M there
    are two estimates. From chords, with :math:`\lambda` the mean number of breakpoints per unit of
    length on random lines and A the area,

    .. math:: M \approx \tfrac{\pi}{4} \lambda^2 A

    which assumes lines that lie at random in all directions (Crofton); it is mostly within a factor
    of 1.4 on networks with biases, and far too large where lines run parallel or meet in one
    point. And from small windows all over the slice, and its middle, that are cut to the end (some
    2 % of the regions; of few up to half): without an assumption, but less precise. Both count,
    each by its precision; where lines in windows hardly ever meet, the windows do alone. What they
    miss is a place outside the middle where very many lines meet: the standard error allows for
    it, up to half as many regions as lines enter the slice.

    The boundary's length is :math:`\tfrac{\pi}{2} A` times the class changes per unit of length.
    Breakpoints are exact (as in `segments`); on a line with very many of them a random part of it
    is looked at. The time is counted up from two small parts in the middle of the slice.

    Args:
        model: Any network of piecewise-linear operations; left as it was.
        plane: A `Slice`.
        chords: Number of random lines; more through slices that are much longer than wide.
        generator: Source of the lines and windows; default: seed 0.

    Returns:
        A `Forecast`.

    Raises:
        UnsupportedOp: The network is not continuous piecewise linear.
        DataError: The slice does not fit the network's input.
        OptionError: Fewer than two chords.
    """
    chords, generator = options.whole("chords", chords), options.generator(generator)
    if chords < 2:
        raise OptionError("too few chords", got=chords, expected="chords >= 2")
    program, plane = lowered(model, plane)
    start = plane.embed(plane.corners).reshape(-1, *program.shape)
    check_outputs(program, start, "the slice's corners")
    lines = Chords(program, plane, generator or torch.Generator().manual_seed(0))
    found = lines.survey(chords, ENOUGH)
    if found.regions > found.most:
        found.radius_for(found.most)  # kept: it is part of what is printed
    return found


class Chords:
    """Random lines through a slice and what was found along them.

    Args:
        program: The network.
        plane: The slice.
        generator: Source of the lines.
    """

    def __init__(self, program: Program, plane: Slice, generator: torch.Generator) -> None:
        self.program, self.plane, self.generator = program, plane, generator
        self.found: list[tuple[float, int, int]] = []  # length, breakpoints, class changes
        self.part = PROBE
        self.rim: list[tuple[float, int]] = []  # length of a side or a part of it, breakpoints
        self.windows: Windows | None = None

    def survey(self, chords: int, enough: float, share: float = 1.0) -> Forecast:
        """Look at so many chords, at the border, and at windows (see `steps`)."""
        for _ in self.steps(chords, enough, share):
            pass
        return self.forecast()

    def steps(self, chords: int, enough: float, share: float = 1.0) -> Iterator[None]:
        """Likewise, step by step, with that share of the regions that may be cut in windows."""
        for _ in range(chords):
            self.look(enough)
            yield
        # of a long slice most lines see the short way across
        for _ in range(int(chords * (min(LONG, self.slender) - 1))):
            if sum(k for _, k, _ in self.found) > chords * min(LEAST, enough):
                break
            self.look(enough)
            yield
        yield from self.around(min(RIM, enough))
        regions = self.forecast().regions
        cut = max(share * wanted(regions), min(FEWEST, wanted(regions)))
        windows = Windows(self.program, self.plane, regions, cut, self.generator)
        yield from windows.cut()
        self.windows = windows
        unknown = sum((k + 1) * side / long for side, (long, k) in self._sides() if long < side)
        if unknown > BORDER * self.forecast().regions:
            yield from self.around(enough)

    def around(self, enough: float) -> Iterator[None]:
        """Look at the border: at a random part of each side where that has enough breakpoints."""
        corners, sides = self.plane.corners, self.sides
        total, breaks, _ = np.array(self.found).sum(0)
        # one more than was found: that there was none does not say that there is none
        density, least = np.full(len(sides), (breaks + 1) / total), 0.0
        if breaks < LEAST:  # short chords of a thin slice: they say little of its long sides
            least = PROBE
        if self.rim:
            density = np.array([(k + 1) / long for long, k in self.rim])
        parts = np.clip(enough / (density * sides), least, 1.0)
        rim: list[tuple[float, int]] = []
        for a, b, part in zip(corners, np.roll(corners, -1, 0), parts.tolist(), strict=True):
            rim.append(self._breaks(np.stack([a, b]), part)[:2])
            yield
        self.rim = rim

    def _breaks(self, ends: np.ndarray, part: float) -> tuple[float, int, int]:
        """Length, breakpoints and class changes of a random part of a line."""
        shift = float(torch.rand((), generator=self.generator, dtype=torch.float64))
        low = shift * (1 - part)
        cut = ends[0] + np.array([[low], [low + part]]) * (ends[1] - ends[0])
        x = self.plane.embed(cut).reshape(-1, *self.program.shape)
        t, _, _, outputs = break_points(self.program, x)
        return float(np.linalg.norm(cut[1] - cut[0])), len(t) - 2, changes(outputs)

    def look(self, enough: float) -> None:
        """Cut one more line, or a random part of it with about so many breakpoints."""
        ends = chord(self.plane.corners, self.generator)
        part = min(1.0, self.part)
        self.found.append(self._breaks(ends, part))
        total, breaks, _ = np.array(self.found).sum(0)
        typical = math.sqrt(self.plane.area)
        self.part = min(8 * part, enough / max(1.0, breaks / total * typical))

    def forecast(self) -> Forecast:
        """What all that was looked at says."""
        length, breaks, flips = np.array(self.found).T
        plane, program = self.plane, self.program
        sides, n = self.sides, len(length)
        density = breaks.sum() / length.sum()
        without = (breaks.sum() - breaks) / np.maximum(length.sum() - length, 1e-300)

        def error(values: np.ndarray) -> float:
            return math.sqrt((n - 1) / n * float(((values - values.mean()) ** 2).sum()))

        if len(self.rim) < len(sides):
            crossings = math.nan
            border, inside = density * sides.sum() / 2, crofton(density, plane.area)
            off = error(np.array([count(d, plane.area, sides.sum()) for d in without]))
        else:
            crossings = float(sum(side / long * k for side, (long, k) in self._sides()))
            border = crossings / 2
            # a part of a side is as uncertain as if its breakpoints lay at random
            unsure = sum(
                (side / long) ** 2 * max(k, 1) * (1 - long / side)
                for side, (long, k) in self._sides()
            )
            inside = crofton(density, plane.area)
            # one breakpoint more: that there was none does not say that there is none
            more = crofton((breaks.sum() + 1) / length.sum(), plane.area) - inside
            # along a long slice the density varies, of which the formula knows nothing
            varies = MODEL * inside * math.sqrt(max(0.0, self.slender - 1))
            off = math.hypot(error(crofton(without, plane.area)), more, varies)
            if self.windows is None:
                off = math.hypot(off, MODEL * inside)
            else:
                inside, off = self.windows.joined(inside, off, border)
            off = math.hypot(off, math.sqrt(max(0.0, unsure)) / 2)
        regions = 1 + border + max(0.0, inside)
        seconds = math.nan
        if self.windows is not None:
            seconds = self.windows.seconds_for(regions)
        widest = max((memory.width(program, i) for i in range(len(program.stages))), default=1)
        held = min(float(memory.LARGE), 8.0 * widest * regions)
        return Forecast(
            regions=regions,
            boundary_length=math.pi / 2 * flips.sum() / length.sum() * plane.area,
            seconds=seconds,
            memory=regions * memory.face(program) + held,
            spread=off / regions,
            density=density,
            area=plane.area,
            perimeter=float(sides.sum()),
            chords=n,
            most=memory.most(program),
            crossings=crossings,
            windows=0 if self.windows is None else len(self.windows.sums) + 1,
            smaller=None if self.windows is None else Smaller(program, plane),
        )

    @property
    def sides(self) -> np.ndarray:
        """Lengths of the slice's sides."""
        corners = self.plane.corners
        return np.linalg.norm(np.roll(corners, -1, 0) - corners, axis=1)

    @property
    def slender(self) -> float:
        """1 for a square, a quarter of the ratio of the sides for a long rectangle."""
        return float(self.sides.sum()) ** 2 / (16 * self.plane.area)

    def _sides(self) -> list[tuple[float, tuple[float, int]]]:
        """Length of each side, and what was seen of it."""
        return list(zip(self.sides.tolist(), self.rim, strict=True))


class Smaller:
    """Slices of other sizes around the same middle, for the radius of so many regions.

    Args:
        program: The network.
        plane: The slice.
    """

    def __init__(self, program: Program, plane: Slice) -> None:
        self.program, self.plane = program, plane
        self.kept: dict[float, float] = {}

    def scale(self, whole: Forecast, regions: float) -> float:
        """By what the slice is to be scaled so that it holds so many regions."""
        if regions not in self.kept:
            scale, found = 1.0, whole
            for _ in range(TURNS):
                step = found.scale_for(regions)
                scale *= step
                if (
                    abs(step - 1) < max(NEAR, found.spread / 2 * (found is not whole))
                    or not 0 < scale < math.inf
                ):
                    break
                found = self.look(scale, regions)
            self.kept[regions] = scale
        return self.kept[regions]

    def look(self, scale: float, regions: float) -> Forecast:
        """What a slice of that size holds: counted, where that is some thousand regions."""
        middle = middle_of(self.plane)
        corners = middle + scale * (self.plane.corners - middle)
        plane = Slice(self.plane.origin, self.plane.basis, corners, self.plane.shape)
        lines = Chords(self.program, plane, torch.Generator().manual_seed(0))
        found = lines.survey(*ROUGH)
        if max(found.regions, regions) > PILOT:
            return found
        mesh = cut_part(self.program, plane, corners)
        border = 2 * (len(mesh) - 1 - excess(mesh))
        return replace(found, regions=len(mesh), crossings=border, spread=0.0)


class Outlook:
    """A progress callback that adds a forecast, once cutting has lasted a second.

    It takes at most a twentieth of the time. Where more regions are expected than fit, it warns
    once, with the radius that would fit.

    Args:
        report: The callback that it passes everything on to.
        program: The network.
        plane: The slice that is being cut.
        max_regions: Most regions that are wanted; None: what memory holds.
    """

    def __init__(
        self, report: context.Progress, program: Program, plane: Slice, max_regions: int | None
    ) -> None:
        self.report, self.max_regions = report, max_regions
        self.lines = Chords(program, plane, torch.Generator().manual_seed(0))
        self.lines.part = FIRST
        self.start, self.spent, self.last = time.monotonic(), 0.0, 0.0
        self.text, self.warned, self.part = "", False, FIRST
        self.steps = self._steps()

    def __call__(self, done: int, total: int | None, what: str) -> None:
        """Pass a report on, with the forecast."""
        if time.monotonic() - self.start > PATIENCE:
            self._look()
        self.report(done, total, what if done == total else what + self.text)

    def _steps(self) -> Iterator[None]:
        """Some chords, the border and windows, then more chords."""
        yield from self.lines.steps(FEW, ENOUGH, LIGHT)
        for _ in range(CHORDS - FEW):
            self.lines.look(ENOUGH)
            yield

    def _look(self) -> None:
        while True:
            spare = BUDGET * (time.monotonic() - self.start) - self.spent
            if spare < self.last:
                return
            if self.last:  # as long a part as there is time for
                grown = self.part * spare / self.last / 2
                self.lines.part = min(self.lines.part, max(grown, FIRST))
            self.part, began = self.lines.part, time.monotonic()
            if next(self.steps, self) is self:
                self.last = math.inf
                return
            self.last = time.monotonic() - began
            self.spent += self.last
            breaks = sum(found[1] for found in self.lines.found)
            if len(self.lines.found) >= FEW and (breaks >= LEAST or self.lines.windows):
                began = time.monotonic()
                self._tell(self.lines.forecast())  # smaller slices are looked at for a warning
                self.spent += time.monotonic() - began

    def _tell(self, found: Forecast) -> None:
        self.text = f", about {found.regions:,.2g} to be expected".replace("e+0", "e")
        room = found.most if self.max_regions is None else min(self.max_regions, found.most)
        # not from chords alone: what they say may be off by any factor
        if self.warned or not found.windows or found.regions * (1 - 2 * found.spread) <= room:
            return
        self.warned = True
        what = "memory holds" if room == found.most else "max_regions allows"
        warnings.warn(
            f"about {found.regions:,.0f} regions are to be expected, {what} {room:,}: the "
            f"partition will not be whole. A radius of {found.radius_for(room):.3g} instead of "
            f"{found.radius:.3g} would fit.",
            IncompleteWarning,
            stacklevel=2,
        )

"""How large a partition will be, before anything is cut: from exact breakpoints on chords."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import Module

from isogon import context, options
from isogon.cpwl.lower import check_outputs
from isogon.cpwl.program import Program
from isogon.errors import IncompleteWarning, OptionError
from isogon.measures.partition.grow import grow
from isogon.measures.partition.lines import break_points
from isogon.measures.partition.lowering import lowered
from isogon.measures.partition.mesh import memory
from isogon.measures.partition.slices import Slice

PROBE = 1 / 16  # of a chord: looked at first
ENOUGH = 2000  # breakpoints per chord
PILOT = 2000  # regions that are cut to see how long one takes ...
SHARE = 0.02  # ... or this share of those forecast, whichever is less ...
MOST = 0.25  # ... but never in more than this part of the slice's extent
UNLIMITED = 1 << 40
PATIENCE = 1.0  # seconds of cutting before which nothing is forecast
BUDGET = 0.05  # of the time, for a forecast while cutting
FIRST = 1 / 256  # of a chord: looked at first while cutting
FEW, CHORDS = 8, 32  # parts of chords that tell something, that are enough
LEAST = 100  # breakpoints that tell something
TOGETHER = 1e-12  # of a piece: changes at one place


@dataclass(frozen=True)
class Forecast:
    """What a partition of a slice is likely to be.

    Attributes:
        regions: Number of regions.
        boundary_length: Length of the decision boundary (one output: zero set), in slice
            coordinates.
        seconds: Time that cutting takes, one thread; NaN where no part was cut to see.
        memory: Bytes of the finished partition and of what its cutting holds at a time.
        spread: Standard error of `regions`, relative: from the chords, so without what the
            formula itself is off by.
        density: Breakpoints per unit of length on random lines.
        area: Of the slice, in slice coordinates.
        perimeter: Likewise.
        chords: How many lines were looked at.
        most: Regions that fit in the memory which is free now.
    """

    regions: float
    boundary_length: float
    seconds: float
    memory: float
    spread: float
    density: float
    area: float
    perimeter: float
    chords: int
    most: int

    @property
    def radius(self) -> float:
        """Half the side of a square of the slice's area."""
        return math.sqrt(self.area) / 2

    def radius_for(self, regions: float) -> float:
        """The radius of a slice with so many regions, with this one's shape and middle.

        For a square that is half its side, as in `Slice.anchors`. It assumes that regions are
        as dense there as on the whole slice.

        Raises:
            OptionError: Fewer than one region.
        """
        regions = options.number("regions", regions)
        if not regions >= 1:
            raise OptionError("no slice has so few regions", got=regions, expected=">= 1")
        a = math.pi / 4 * self.density**2 * self.area
        b = self.density * self.perimeter / 2
        c = 1.0 - regions
        if a == 0:
            return math.inf
        return (math.sqrt(b * b - 4 * a * c) - b) / (2 * a) * self.radius

    def __repr__(self) -> str:
        fits = f"memory holds about {self.most:,}"
        if self.regions > self.most:
            fits += f": a radius of {self.radius_for(self.most):.3g} would fit"
        took = "" if math.isnan(self.seconds) else f", about {self.seconds:.2g} s"
        return (
            f"Forecast: about {self.regions:,.0f} regions (standard error "
            f"{100 * self.spread:.0f} %) at radius {self.radius:.3g}, boundary length "
            f"{self.boundary_length:.3g}{took}, {self.memory / 2**20:,.0f} MB; {fits}; from "
            f"{self.chords} chords"
        )


def forecast(
    model: Module | Program,
    plane: Slice,
    *,
    chords: int = 16,
    generator: torch.Generator | None = None,
) -> Forecast:
    r"""How many regions a slice holds, and what its partition takes, before anything is cut.

    With :math:`\lambda` the mean number of breakpoints per unit of length on random lines, a
    slice of area A and perimeter P holds about

    .. math:: \tfrac{\pi}{4} \lambda^2 A + \tfrac{1}{2} \lambda P + 1

    regions: exact for lines that lie at random in all directions (Crofton), and seen within a
    factor of 1.4 on networks. The boundary's length is :math:`\tfrac{\pi}{2} A` times the class
    changes per unit of length. The breakpoints are exact (as in `segments`); on a line with very
    many of them a random part of it is looked at. The time is counted up from two small parts
    in the middle of the slice that are cut to the end.

    Args:
        model: Any network of piecewise-linear operations; left as it was.
        plane: A `Slice`.
        chords: Number of random lines.
        generator: Source of the lines; default: seed 0.

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
    for _ in range(chords):
        lines.look(ENOUGH)
    return lines.forecast(pilot(program, plane, lines.forecast().regions))


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

    def look(self, enough: float) -> None:
        """Cut one more line, or a random part of it with about so many breakpoints."""
        ends = chord(self.plane.corners, self.generator)
        shift = float(torch.rand((), generator=self.generator, dtype=torch.float64))
        part = min(1.0, self.part)
        low = shift * (1 - part)
        cut = ends[0] + np.array([[low], [low + part]]) * (ends[1] - ends[0])
        x = self.plane.embed(cut).reshape(-1, *self.program.shape)
        t, _, _, outputs = break_points(self.program, x)
        length = float(np.linalg.norm(cut[1] - cut[0]))
        self.found.append((length, len(t) - 2, changes(outputs)))
        total, breaks, _ = np.array(self.found).sum(0)
        typical = math.sqrt(self.plane.area)
        self.part = min(8 * part, enough / max(1.0, breaks / total * typical))

    def forecast(self, seconds: float = math.nan) -> Forecast:
        """What these lines say."""
        length, breaks, flips = np.array(self.found).T
        plane, program = self.plane, self.program
        corners = plane.corners
        perimeter = float(np.linalg.norm(np.roll(corners, -1, 0) - corners, axis=1).sum())
        density = breaks.sum() / length.sum()
        regions = count(density, plane.area, perimeter)
        without = (breaks.sum() - breaks) / np.maximum(length.sum() - length, 1e-300)
        each = np.array([count(d, plane.area, perimeter) for d in without])
        n = len(each)
        spread = math.sqrt((n - 1) / n * float(((each - each.mean()) ** 2).sum())) / regions
        widest = max((memory.width(program, i) for i in range(len(program.stages))), default=1)
        held = min(float(memory.LARGE), 8.0 * widest * regions)
        return Forecast(
            regions=regions,
            boundary_length=math.pi / 2 * flips.sum() / length.sum() * plane.area,
            seconds=seconds,
            memory=regions * memory.face(program) + held,
            spread=spread,
            density=density,
            area=plane.area,
            perimeter=perimeter,
            chords=n,
            most=memory.most(program),
        )


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

    def __call__(self, done: int, total: int | None, what: str) -> None:
        """Pass a report on, with the forecast."""
        if time.monotonic() - self.start > PATIENCE and len(self.lines.found) < CHORDS:
            self._look()
        self.report(done, total, what if done == total else what + self.text)

    def _look(self) -> None:
        while len(self.lines.found) < CHORDS:
            spare = BUDGET * (time.monotonic() - self.start) - self.spent
            if spare < self.last:
                return
            if self.last:  # as long a part as there is time for
                grown = self.part * spare / self.last / 2
                self.lines.part = min(self.lines.part, max(grown, FIRST))
            self.part, began = self.lines.part, time.monotonic()
            self.lines.look(ENOUGH)
            self.last = time.monotonic() - began
            self.spent += self.last
            breaks = sum(found[1] for found in self.lines.found)
            if len(self.lines.found) >= FEW and breaks >= LEAST:
                self._tell(self.lines.forecast())

    def _tell(self, found: Forecast) -> None:
        self.text = f", about {found.regions:,.2g} to be expected".replace("e+0", "e")
        room = found.most if self.max_regions is None else min(self.max_regions, found.most)
        if self.warned or found.regions * (1 - 2 * found.spread) <= room:
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


def count(density: float, area: float, perimeter: float) -> float:
    """Regions of a slice through which lines have so many breakpoints per unit of length."""
    return math.pi / 4 * density**2 * area + density * perimeter / 2 + 1


def chord(corners: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """The ends `[2, 2]` of a random chord: any direction and offset that meets the polygon."""
    while True:
        a, b = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        normal = np.array([math.cos(math.pi * a), math.sin(math.pi * a)])
        middle = corners.mean(0)
        reach = float(np.linalg.norm(corners - middle, axis=1).max())
        height = (corners - middle) @ normal - (2 * b - 1) * reach
        after = np.roll(height, -1)
        crosses = (height > 0) != (after > 0)
        if crosses.sum() != 2:
            continue  # beside the polygon
        p, q = corners[crosses], np.roll(corners, -1, 0)[crosses]
        part = (height / np.where(crosses, height - after, 1.0))[crosses]
        ends = p + part[:, None] * (q - p)
        if np.linalg.norm(ends[1] - ends[0]) > 1e-9 * reach:
            return ends


def changes(outputs: np.ndarray) -> int:
    """How often the largest output changes along a line, linear between `outputs [P, C]`."""
    if outputs.shape[1] == 1:
        outputs = np.concatenate([np.zeros_like(outputs), outputs], 1)
    start, rise = outputs[:-1], np.diff(outputs, axis=0)
    rows, own = np.arange(len(start)), start.argmax(1)
    at, total = np.zeros(len(start)), 0
    for _ in range(outputs.shape[1]):
        # the first output that overtakes the largest one behind `at`
        gap = start[rows, own][:, None] - start[rows]
        speed = rise[rows] - rise[rows, own][:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            meets = np.where(speed > 0, gap / speed, np.inf)
        meets = np.where(meets >= at[:, None], meets, np.inf)
        at = meets.min(1)
        with np.errstate(invalid="ignore"):  # of those at one place, the highest there
            there = start[rows] + np.minimum(at, 1.0)[:, None] * rise[rows]
        to = np.where(meets <= at[:, None] + TOGETHER, there, -np.inf).argmax(1)
        on = at < 1
        total += int(on.sum())
        rows, own, at = rows[on], to[on], at[on]
        if not len(rows):
            break
    return total


def pilot(program: Program, plane: Slice, regions: float) -> float:
    """Seconds of a partition, from small parts of the slice that are cut to the end.

    The parts grow around the middle until they hold enough regions; time is counted up from the
    last two, so that what every partition takes, however small, counts once.
    """
    wanted = min(PILOT, SHARE * regions)
    scale = min(MOST, math.sqrt(max(wanted, 20.0) / regions))
    middle = plane.marks.mean(0) if len(plane.marks) else plane.corners.mean(0)
    _timed(program, plane, middle, scale / 8)  # kernels are compiled or read: not counted
    took, cut = _timed(program, plane, middle, scale / 8)
    while True:
        now, more = _timed(program, plane, middle, scale)
        if more >= wanted or scale >= MOST:
            each = max(now - took, 0.0) / max(more - cut, 1)
            return now + each * max(regions - more, 0.0)
        took, cut, scale = now, more, min(MOST, 2 * scale)


def _timed(program: Program, plane: Slice, middle: np.ndarray, scale: float) -> tuple[float, int]:
    """Seconds and regions of a part of a slice, shrunk around a point."""
    corners = middle + scale * (plane.corners - middle)
    start = time.perf_counter()
    small = Slice(plane.origin, plane.basis, corners, plane.shape)
    mesh, _, _ = grow(program, small, UNLIMITED, context.silent)
    return time.perf_counter() - start, len(mesh)

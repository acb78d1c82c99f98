r"""Regions counted in small windows of a slice: whatever its geometry, without a formula.

With N regions, B breakpoints on its border, and d edges that meet at a vertex, Euler's formula says
of every convex polygon

.. math:: N = 1 + \tfrac{B}{2} + \sum_{\text{vertices inside}} (\tfrac{d}{2} - 1)

The sum is over places: that of a slice is the sum over its parts. So windows that are cut to the
end tell it of the slice without a bias, also where lines run parallel or meet in one point.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import torch

from isogon import context
from isogon.cpwl.program import Program
from isogon.measures.partition.grow import grow
from isogon.measures.partition.mesh.mesh import Mesh
from isogon.measures.partition.slices import Slice, signed_area

PILOT = 2000  # regions that are cut to see how long one takes ...
SHARE = 0.02  # ... or this share of those forecast, whichever is less ...
FEWEST = 200  # ... but so many, if they are ...
PART = 1 / 2  # ... no more than this part of all
MOST = 0.25  # the middle is never more than this part of the slice's extent
WINDOWS = 16
MODEL = 0.1  # what the formula is off by on networks with biases
SOME, NONE = 0.4, 0.15  # how often lines meet: as in those networks (seen: 0.4 to 1.2); hardly
SKEW = 3.0  # times the scatter of windows: few of them hold most of what there is
LIMIT = 20_000  # regions of one window: where all lines meet in it


class Windows:
    """The middle of a slice, and windows all over the rest, cut to the end.

    The slice is divided into blocks, and each into cells, of which one is cut, chosen at random: it
    stands for its block. The middle is a stratum of its own, which is known: networks without
    biases have all their regions around a point.

    Args:
        program: The network.
        plane: The slice.
        regions: Of the slice, about: windows are made of a size by it.
        wanted: Regions that are to be cut altogether.
        generator: Chooses the cells.
    """

    def __init__(
        self,
        program: Program,
        plane: Slice,
        regions: float,
        wanted: float,
        generator: torch.Generator,
    ) -> None:
        self.program, self.plane, self.generator = program, plane, generator
        self.regions, self.wanted = max(1.0, regions), wanted
        self.base, self.each, self.held = math.nan, math.nan, 0  # time of the middle, its regions
        self.inside = 0.0  # the sum over the middle's vertices
        self.part = 0.0  # of the slice's area, that the middle is
        self.sums: list[float] = []  # of the windows
        self.random: list[float] = []  # what they would be for as many lines at random
        self.cells, self.looked = 1, 0.0

    def cut(self) -> Iterator[None]:
        """Cut one after the other, a step each."""
        middle, around, self.base, self.each = central(
            self.program, self.plane, self.regions, self.wanted / 2
        )
        self.held = len(middle)
        self.inside, self.part = excess(middle), signed_area(around) / self.plane.area
        yield
        area = self.plane.area * self.wanted / 2 / WINDOWS / self.regions
        grid = Grid(self.plane.corners, area)
        self.cells = grid.cells
        for block in grid.blocks:
            polygon = clipped(grid.cell(block, self.generator), self.plane.corners)
            found = at_random = 0.0
            if polygon is not None:
                self.looked += signed_area(polygon)
                mesh = cut_part(self.program, self.plane, polygon)
                found = excess(mesh)
                at_random = isotropic(mesh, polygon, found)
                found -= within(mesh, polygon, around)
            self.sums.append(found)
            self.random.append(at_random)
            yield

    def seconds_for(self, regions: float) -> float:
        """Seconds that a partition of so many regions takes."""
        return self.base + self.each * max(0.0, regions - self.held)

    @property
    def total(self) -> float:
        """The sum over the vertices of the slice."""
        return self.inside + self.cells * sum(self.sums)

    @property
    def error(self) -> float:
        """The standard error of the total, from blocks that lie side by side.

        It is never less than what one vertex more in one of the windows would change: windows in
        which nothing meets do not say that nothing does elsewhere.
        """
        each = self.cells * np.array(self.sums)
        n = len(each)
        if n < 2 or not self.looked:
            return math.inf
        among = n / (2 * (n - 1)) * float((np.diff(each) ** 2).sum())
        return math.sqrt((1 - 1 / self.cells) * (among + (self.plane.area / self.looked) ** 2))

    @property
    def ratio(self) -> tuple[float, float]:
        """How often lines meet in windows, in parts of how often they would at random; its error.

        0 where they run parallel, or meet elsewhere.
        """
        sums, usual = np.array(self.sums), np.array(self.random)
        if usual.sum() < 1:
            return 1.0, math.inf
        left = np.maximum(usual.sum() - usual, 1e-300)
        each = np.minimum((sums.sum() - sums) / left, 1e3)
        scatter = (len(each) - 1) / len(each) * float(((each - each.mean()) ** 2).sum())
        return sums.sum() / usual.sum(), math.hypot(math.sqrt(scatter), 1 / usual.sum())

    def joined(self, chords: float, off: float, border: float) -> tuple[float, float]:
        """The sum over the slice, and its error, from all that is known.

        Args:
            chords: What it would be for as many lines at random as chords see.
            off: The error of that.
            border: Half the breakpoints on the border: the lines that enter the slice.
        """
        first, (second, other) = chords, (self.total, self.error)
        if not math.isfinite(other):
            return first, math.hypot(off, MODEL * first)
        # what has missed a crowd of regions tells too small an error, too
        error = math.hypot(off * max(1.0, second / max(first, off, 1e-300)), MODEL * first)
        # a crowd that the formula knows nothing of: there may be others
        error = math.hypot(error, max(0.0, self.inside - self.part * first))
        wide = SKEW * other * max(1.0, first / max(second, other, 1e-300))
        ratio, unsure = self.ratio
        doubt = float(np.clip((SOME - ratio - unsure) / (SOME - NONE), 0, 1))
        share = wide**2 / max(error**2 + wide**2, 1e-300)
        agreed = share * first + (1 - share) * second
        apart = abs(first - second) / max(math.hypot(error, wide), 1e-300)
        off = math.sqrt(share) * error * max(1.0, apart)
        # lines that run through windows without meeting there may all meet at a place not looked at
        hidden = max(0.0, border - max(0.0, second)) / 2
        between = math.sqrt(doubt * (1 - doubt)) * (agreed - second)
        off = math.hypot((1 - doubt) * off, doubt * other, doubt * hidden, between)
        return (1 - doubt) * agreed + doubt * second, off


def wanted(regions: float) -> float:
    """Regions that are cut to forecast so many."""
    return min(PILOT, max(SHARE * regions, min(FEWEST, PART * regions)))


def excess(mesh: Mesh) -> float:
    """Half the edges less one, summed over the vertices inside: by Euler from faces and border."""
    degree = np.bincount(mesh.ends.reshape(-1), minlength=len(mesh.xy))
    border = np.unique(mesh.ends[mesh.site < 0])
    return len(mesh) - 1 - float((degree[border] - 2).sum()) / 2


def isotropic(mesh: Mesh, polygon: np.ndarray, found: float) -> float:
    """The sum over the vertices to expect if as many lines crossed the polygon at random.

    Two of them meet in it with probability 2 pi A / P^2.
    """
    lines = len(mesh) - 1 - found
    perimeter = float(np.linalg.norm(np.roll(polygon, -1, 0) - polygon, axis=1).sum())
    meet = 2 * math.pi * signed_area(polygon) / perimeter**2
    return meet * max(0.0, lines * (lines - 1) / 2)


def within(mesh: Mesh, polygon: np.ndarray, part: np.ndarray) -> float:
    """The same over those vertices inside that lie in a convex part of the plane."""
    if not (polygon.max(0) >= part.min(0)).all() or not (polygon.min(0) <= part.max(0)).all():
        return 0.0
    degree = np.bincount(mesh.ends.reshape(-1), minlength=len(mesh.xy)).astype(float)
    degree[np.unique(mesh.ends[mesh.site < 0])] = 2
    step = np.roll(part, -1, 0) - part
    away = mesh.xy[:, None] - part
    inside = (step[:, 0] * away[..., 1] - step[:, 1] * away[..., 0] >= 0).all(1)
    return float((degree[inside] / 2 - 1).sum())


class Grid:
    """Blocks that cover a polygon, each divided into rectangles of about an area.

    They lie along its longest side, as square as they can be.

    Args:
        corners: Of the polygon.
        area: Of a cell.
    """

    def __init__(self, corners: np.ndarray, area: float) -> None:
        sides = np.roll(corners, -1, 0) - corners
        along = sides[np.linalg.norm(sides, axis=1).argmax()]
        along = along / np.linalg.norm(along)
        self.axes = np.array([along, [-along[1], along[0]]])
        turned = (corners - corners[0]) @ self.axes.T
        extent = np.ptp(turned, axis=0)
        self.origin = corners[0] + turned.min(0) @ self.axes
        wide = int(np.clip(round(math.sqrt(WINDOWS * extent[0] / extent[1])), 1, WINDOWS))
        high = max(1, round(WINDOWS / wide))
        # in the order of a snake: blocks that follow each other lie side by side
        self.blocks = [
            (x if y % 2 == 0 else wide - 1 - x, y) for y in range(high) for x in range(wide)
        ]
        block = extent / (wide, high)
        rows = max(1, round(block[1] / math.sqrt(area)))
        self.shape = max(1, round(block[0] * block[1] / (area * rows))), rows
        self.size = block / self.shape

    @property
    def cells(self) -> int:
        """Of a block."""
        return self.shape[0] * self.shape[1]

    def cell(self, block: tuple[int, int], generator: torch.Generator) -> np.ndarray:
        """One of the cells of a block, chosen at random."""
        shift = torch.rand(2, generator=generator, dtype=torch.float64).numpy()
        low = np.array(block) * self.shape + np.floor(shift * self.shape)
        square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
        return self.origin + (low + square) * self.size @ self.axes


def clipped(polygon: np.ndarray, by: np.ndarray) -> np.ndarray | None:
    """What of a convex polygon lies in another one; None: nothing, or a sliver."""
    area = signed_area(polygon)
    for a, step in zip(by, np.roll(by, -1, 0) - by, strict=True):
        height = step[0] * (polygon[:, 1] - a[1]) - step[1] * (polygon[:, 0] - a[0])
        height[np.abs(height) < 1e-12 * np.linalg.norm(step) * np.abs(by).max()] = 0
        if (height >= 0).all():
            continue
        after, nexts = np.roll(height, -1), np.roll(polygon, -1, 0)
        kept: list[np.ndarray] = []
        for p, q, h, g in zip(polygon, nexts, height, after, strict=True):
            if h >= 0:
                kept.append(p)
            if h * g < 0:
                kept.append(p + h / (h - g) * (q - p))
        if len(kept) < 3:
            return None
        polygon = np.array(kept)
    return polygon if signed_area(polygon) > 1e-6 * area else None


def cut_part(program: Program, plane: Slice, corners: np.ndarray) -> Mesh:
    """A part of a slice, cut to the end."""
    small = Slice(plane.origin, plane.basis, corners, plane.shape)
    return grow(program, small, LIMIT, context.silent)[0]


def middle_of(plane: Slice) -> np.ndarray:
    """The middle of the marks, or of the corners where those lie elsewhere."""
    corners = plane.corners
    middle = plane.marks.mean(0) if len(plane.marks) else corners.mean(0)
    step, away = np.roll(corners, -1, 0) - corners, middle - corners
    inside = (step[:, 0] * away[:, 1] - step[:, 1] * away[:, 0] > 0).all()
    return middle if inside else corners.mean(0)


def central(
    program: Program, plane: Slice, regions: float, wanted: float
) -> tuple[Mesh, np.ndarray, float, float]:
    """The middle of a slice, cut to the end: mesh, corners, seconds, seconds per region.

    The part grows around the middle until it holds enough regions; time is counted up from the
    last two, so that what every partition takes, however small, counts once.
    """
    middle = middle_of(plane)

    def timed(scale: float) -> tuple[float, Mesh, np.ndarray]:
        corners = middle + scale * (plane.corners - middle)
        start = time.perf_counter()
        mesh = cut_part(program, plane, corners)
        return time.perf_counter() - start, mesh, corners

    scale = min(MOST, math.sqrt(max(wanted, 20.0) / regions))
    timed(scale / 8)  # kernels are compiled or read: not counted
    took, small, _ = timed(scale / 8)
    while True:
        now, mesh, corners = timed(scale)
        if len(mesh) >= wanted or scale >= MOST:
            return mesh, corners, now, max(now - took, 0.0) / max(len(mesh) - len(small), 1)
        took, small, scale = now, mesh, min(MOST, 2 * scale)


def pilot(program: Program, plane: Slice, regions: float) -> float:
    """Seconds of a partition of so many regions, from small parts that are cut to the end."""
    mesh, _, base, each = central(program, plane, regions, min(PILOT, SHARE * regions))
    return base + each * max(regions - len(mesh), 0.0)

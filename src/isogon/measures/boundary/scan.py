"""Classes on the lines of a grid: where the boundary must be, and whether all of it is known.

Every line of a scan runs from border to border of the slice, or along the border. Along it the
class is known at nodes; between two nodes it may change only where the boundary crosses the
line. A stretch along which the known crossings don't lead from one class to the next holds a
part of the boundary that is not known yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isogon.context import Progress
from isogon.measures.boundary.frozen import Frozen
from isogon.measures.boundary.strokes import Strokes

GOLDEN = np.array([0.381966, 0.414214])  # lines in their cells: not where people put things
ROUNDS = 100  # of root finding
FINE = 4e-16
CLOSE = 1e-12  # of a line
BESIDE = 1e-6  # of a line: how far beside a root classes that are tied there are compared


@dataclass(eq=False)
class Gaps:
    """Stretches of scan lines along which an unknown part of the boundary crosses.

    Attributes:
        line: `[n]` line of each.
        ends: `[n, 2]` places on it, ascending.
        classes: `[n, 2]` the class at each end, inside the stretch.
    """

    line: np.ndarray
    ends: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.line)

    def take(self, rows: np.ndarray) -> Gaps:
        """Some of them."""
        return Gaps(self.line[rows], self.ends[rows], self.classes[rows])


class Scan:
    """Classes on the lines of a grid.

    Args:
        frozen: The network on its slice.
        grid: Lines each way.
        shift: `[2]` places of the lines in their cells, along either axis, from 0 to 1.
        report: Called while classes are computed.
        image: The classes where the lines cross, where they are known.

    Attributes:
        image: `[grid, grid]` classes (positions among those that compete) where the lines
            cross, rows along the second coordinate; -1 outside the slice.
        x: `[grid]` first coordinates of the image's columns.
        y: `[grid]` second coordinates of its rows.
    """

    def __init__(
        self,
        frozen: Frozen,
        grid: int,
        shift: np.ndarray,
        report: Progress,
        image: np.ndarray | None = None,
    ) -> None:
        self.frozen = frozen
        self.corners = corners = frozen.plane.corners
        low, self.step = corners.min(0), np.ptp(corners, axis=0) / grid
        self.x, self.y = (
            low[:, None] + (np.arange(grid) + shift[:, None]) * self.step[:, None]
        ).copy()
        # the part of each line inside the polygon
        spans = [
            [_clipped(corners, axis, at) for at in c] for axis, c in ((0, self.y), (1, self.x))
        ]
        self.origin = np.concatenate(
            [
                np.stack([np.array([s[0] for s in spans[0]]), self.y], 1),
                np.stack([self.x, np.array([s[0] for s in spans[1]])], 1),
                corners,
            ]
        )
        along = np.roll(corners, -1, 0) - corners
        length = np.linalg.norm(along, axis=1)
        self.length = np.concatenate([[b - a for a, b in spans[0] + spans[1]], length])
        self.direction = np.concatenate(
            [
                np.tile([1.0, 0.0], (grid, 1)),
                np.tile([0.0, 1.0], (grid, 1)),
                along / length[:, None],
            ]
        )
        self.first_border = 2 * grid
        self._nodes(spans, grid, report, image)

    def _nodes(self, spans, grid: int, report: Progress, image: np.ndarray | None) -> None:
        inside = np.array([(self.x > a) & (self.x < b) for a, b in spans[0]])
        inside &= np.array([(self.y > a) & (self.y < b) for a, b in spans[1]]).T
        row, column = np.nonzero(inside)
        ends = self.origin[: 2 * grid] + self.length[: 2 * grid, None] * self.direction[: 2 * grid]
        border, places, lines = [], [], []
        for k in range(2 * grid, len(self.origin)):
            count = max(2, round(self.length[k] / self.step.min()))
            t = np.arange(count) / count * self.length[k]  # the next edge starts where this ends
            border.append(self.origin[k] + t[:, None] * self.direction[k])
            places.append(t)
            lines.append(np.full(count, k))
        inner = np.stack([self.x[column], self.y[row]], 1)
        parts = [inner, self.origin[: 2 * grid], ends, *border]
        points = np.concatenate(parts)
        labels, several = np.empty(len(points), np.int64), np.zeros(len(points), bool)
        step, known = max(1, 8 * self.frozen.program.chunk()), 0
        if image is not None:
            known = len(inner)
            labels[:known] = image[row, column]
        for at in range(known, len(points), step):
            largest = self.frozen.largest(points[at : at + step])
            labels[at : at + step] = largest.argmax(1)
            several[at : at + step] = largest.sum(1) > 1
            report(min(at + step, len(points)), len(points), "classes on a grid")
        n, m = len(inner), 2 * grid
        self.image = np.full((grid, grid), -1)
        self.image[row, column] = labels[:n]
        start = labels[n + 2 * m :]
        first = np.cumsum([0, *map(len, places)])
        after = first[(np.arange(len(places)) + 1) % len(places)]  # first node of the next edge
        closing = start[after]
        self.node_line = np.concatenate(
            [
                row,
                grid + column,
                np.arange(m),
                np.arange(m),
                *lines,
                2 * grid + np.arange(len(places)),
            ]
        )
        self.node_at = np.concatenate(
            [
                self.x[column] - self.origin[row, 0],
                self.y[row] - self.origin[grid + column, 1],
                np.zeros(m),
                self.length[:m],
                *places,
                self.length[m:],
            ]
        )
        self.node_class = np.concatenate([labels[:n], labels[:n], labels[n:], closing])
        # at the border nobody sees which of several classes an area is of
        doubt = np.concatenate(
            [
                np.zeros(2 * n, bool),
                several[n:],
                several[n + 2 * m :][after],
            ]
        )
        kept = (self.length[self.node_line] > 0) & ~doubt
        self.node_line, self.node_at = self.node_line[kept], self.node_at[kept]
        self.node_class = self.node_class[kept].astype(np.int64)

    def points(self, line: np.ndarray, at: np.ndarray) -> np.ndarray:
        """`[n, 2]` slice coordinates of places on lines."""
        return self.origin[line] + at[:, None] * self.direction[line]

    def changes(self) -> Gaps:
        """All stretches between neighbouring nodes of different classes."""
        return self.gaps(Strokes())

    def expected(self) -> float:
        """The boundary's length by what crosses the lines: N crossings of lines at a spacing s.

        Lines in two directions are crossed (4 / pi) L / s times by curves of length L that run
        in all directions alike.
        """
        found = self.changes().line
        across = (found < len(self.y)).sum() * self.step[1]
        along = ((found >= len(self.y)) & (found < self.first_border)).sum() * self.step[0]
        return float(np.pi / 4 * (across + along))

    def gaps(self, strokes: Strokes) -> Gaps:
        """The stretches whose crossings with the known boundary don't fit their classes."""
        line, at, before, after = self._crossings(strokes)
        line = np.concatenate([self.node_line, line])
        at = np.concatenate([self.node_at, at])
        before = np.concatenate([self.node_class, before])
        after = np.concatenate([self.node_class, after])
        order = np.lexsort((at, line))
        line, at, before, after = line[order], at[order], before[order], after[order]
        node = order < len(self.node_line)
        # a node on the boundary itself has either class
        near = (line[1:] == line[:-1]) & (np.diff(at) <= CLOSE * self.length[line[1:]])
        doubt = np.zeros(len(node), bool)
        doubt[1:] = near & ~node[:-1]
        doubt[:-1] |= near & ~node[1:]
        kept = ~(node & doubt)
        line, at, before, after = line[kept], at[kept], before[kept], after[kept]
        wrong = np.flatnonzero((line[1:] == line[:-1]) & (after[:-1] != before[1:]))
        return Gaps(
            line[wrong],
            np.stack([at[wrong], at[wrong + 1]], 1),
            np.stack([after[wrong], before[wrong + 1]], 1),
        )

    def _crossings(self, strokes: Strokes):
        """Line, place and classes before and after every crossing with the boundary."""
        ends, pairs = strokes.arrays()
        grid = len(self.x)
        found = []
        for axis, lines in ((1, self.y), (0, self.x)):  # horizontal lines are met at their y
            a, b = ends[:, 0, axis], ends[:, 1, axis]
            low = np.searchsorted(lines, np.minimum(a, b), side="left")
            high = np.searchsorted(lines, np.maximum(a, b), side="left")
            count = high - low
            piece = np.repeat(np.arange(len(ends)), count)
            line = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + low[piece]
            part = (lines[line] - a[piece]) / (b - a)[piece]
            p, q = ends[piece, 0, 1 - axis], ends[piece, 1, 1 - axis]
            number = line + (0 if axis == 1 else grid)
            at = p + part * (q - p) - self.origin[number, 1 - axis]
            # along a horizontal line one comes from the left of a piece that goes up
            forth = (b > a)[piece] == (axis == 1)
            left, right = pairs[piece].T
            found.append((number, at, np.where(forth, left, right), np.where(forth, right, left)))
        piece, which, edge = strokes.borders()
        line = edge + self.first_border
        at = ((ends[piece, which] - self.origin[line]) * self.direction[line]).sum(1)
        left, right = pairs[piece].T
        inward = which == 0
        found.append((line, at, np.where(inward, left, right), np.where(inward, right, left)))
        line, at, before, after = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return line, np.clip(at, 0.0, self.length[line]), before, after

    def roots(self, gaps: Gaps) -> tuple[np.ndarray, np.ndarray]:
        """A point of the boundary in each stretch, and the two classes that meet there.

        Where that point lies on an area on which classes are tied, so that rounding alone tells
        them apart, the border of the area is looked for instead.

        Returns:
            `[n, 2]` slice coordinates, `[n, 2]` classes.
        """
        at, pairs = self._bracketed(gaps, 0.0)
        rows, tied = np.arange(len(gaps)), np.ones(len(gaps), bool)
        for side in (-1, 1):
            place = np.clip(at + side * BESIDE * self.length[gaps.line], *gaps.ends.T)
            there = self.points(gaps.line, place)
            value = self.frozen.values(there)
            slack = np.broadcast_to(self.frozen.slack(there), value.shape)
            slack = np.take_along_axis(slack, pairs, 1).sum(1)
            tied &= np.abs(value[rows, pairs[:, 0]] - value[rows, pairs[:, 1]]) <= slack
        if tied.any():
            at[tied], pairs[tied] = self._bracketed(gaps.take(np.flatnonzero(tied)), 1.0)
        return self.points(gaps.line, at), pairs

    def _bracketed(self, gaps: Gaps, slack: float) -> tuple[np.ndarray, np.ndarray]:
        """Places of class changes in stretches, and the classes.

        The class of the first end is compared with the best of all others, whose difference is
        continuous and changes its sign, by false position (Illinois), to the last digits.

        Args:
            gaps: The stretches.
            slack: 1: classes within rounding are equal, and the first of them counts; 0: not.
        """
        own = gaps.classes[:, 0]
        low, high = gaps.ends.T.copy()
        rival = gaps.classes[:, 1].copy()
        below, above = np.full((2, len(gaps)), np.nan)  # the difference at both ends
        size = FINE * np.maximum(np.abs(high), self.length[gaps.line])
        active = np.flatnonzero(high - low > size)
        for n in range(ROUNDS):
            if not len(active):
                break
            a, b = low[active], high[active]
            p, q = below[active], above[active]
            with np.errstate(invalid="ignore", divide="ignore"):
                at = a + (b - a) * p / (p - q)
            # halved now and then, and wherever an end is equal itself, as on an area of ties
            known = np.isfinite(at) & (n % 8 < 6) & (p != 0) & (q != 0) & (slack == 0)
            middle = a + (b - a) / 2
            # false position lands on the root itself: look beside it, too
            near = np.clip(at, a + size[active] / 2, b - size[active] / 2)
            at = np.where(known, near, middle)
            there = self.points(gaps.line[active], at)
            value = self.frozen.values(there)
            rows = np.arange(len(active))
            mine = value[rows, own[active]].copy()
            value[rows, own[active]] = -np.inf
            other = value.argmax(1)
            gap = mine - value[rows, other]
            close = 0.0
            if slack:
                zero = np.broadcast_to(self.frozen.slack(there), value.shape)
                close = slack * (zero[rows, own[active]] + zero[rows, other])
            lower = np.where(own[active] < other, gap >= -close, gap > close)
            kept = np.where(lower, q, p) / 2  # the end that stays counts half: it will move
            low[active] = np.where(lower, at, a)
            high[active] = np.where(lower, b, at)
            below[active] = np.where(lower, gap, np.where(known, kept, p))
            above[active] = np.where(lower, np.where(known, kept, q), gap)
            rival[active] = np.where(lower, rival[active], other)
            active = active[high[active] - low[active] > size[active]]
        return (low + high) / 2, np.stack([own, rival], 1)


def _clipped(corners: np.ndarray, axis: int, at: float) -> tuple[float, float]:
    """Where an axis-parallel line enters and leaves a convex polygon; (0, 0) if it doesn't.

    Args:
        corners: Of the polygon.
        axis: The coordinate along which the line runs.
        at: Its other coordinate.
    """
    a, b = corners, np.roll(corners, -1, 0)
    fixed = 1 - axis
    crosses = (a[:, fixed] <= at) != (b[:, fixed] <= at)
    if crosses.sum() != 2:
        return 0.0, 0.0
    a, b = a[crosses], b[crosses]
    part = (at - a[:, fixed]) / (b[:, fixed] - a[:, fixed])
    places = a[:, axis] + part * (b[:, axis] - a[:, axis])
    return float(places.min()), float(places.max())

"""Points in which many units vanish or classes tie: what leaves them, and how it hangs together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from isogon.measures.boundary.exits import EDGE, NOTHING, Exit, Regions
from isogon.measures.boundary.fan import Fan, fan, vanishing
from isogon.measures.boundary.frozen import MARGIN, Beside, Pieces, Seen
from isogon.measures.boundary.live import Start
from isogon.measures.boundary.slack import Outputs
from isogon.measures.boundary.strokes import BORDER, TRIPLE, End, Strokes

ALIKE = 1e-6  # radians: a piece runs along a ray
SAME = 1e-9  # of the slice's extent: ends in one point


class Junctions:
    """The points that traces end in, because more than one thing happens there.

    Args:
        regions: The borders of regions and of the slice.
        extent: Of the slice.

    Attributes:
        fans: Per point the rays that leave it inside the slice; None: they are too many.
        torn: Points whose rays are not the pieces that end there.
    """

    def __init__(self, regions: Regions, extent: float) -> None:
        self.regions, self.size = regions, SAME * extent
        self.places: list[np.ndarray] = []
        self.fans: list[Fan | None] = []
        self.torn = 0
        self._cells: dict[tuple[int, int], int] = {}

    def meet(self, p: np.ndarray) -> list[Start]:
        """The traces that start in a point `[2]`: along every ray, if it is a new one."""
        x, y = np.round(p / self.size).astype(np.int64).tolist()
        if any((x + i, y + j) in self._cells for i in (-1, 0, 1) for j in (-1, 0, 1)):
            return []
        self._cells[x, y] = len(self.places)
        found = self._inside(p, fan(self.regions.frozen, p))
        self.places.append(p.copy())
        self.fans.append(found)
        if found is None:
            return []
        return [
            Start(p, (int(found.left[k]), int(found.right[k])), _row(found, k), NOTHING, None)
            for k in range(len(found))
        ]

    def edge_of(self, p: np.ndarray) -> int:
        """Edge of the slice's polygon on which a point `[2]` lies; -1: none."""
        far = np.abs(self.regions.inward @ p - self.regions.offset)
        return int(far.argmin()) if far.min() <= self.size else -1

    def _inside(self, p: np.ndarray, found: Fan | None) -> Fan | None:
        """The rays that run inside the slice, not along its border."""
        if found is None:
            return None
        way = np.stack([np.cos(found.angle), np.sin(found.angle)], 1)
        at = np.abs(self.regions.inward @ p - self.regions.offset) <= self.size
        kept = (way @ self.regions.inward[at].T > ALIKE).all(1)
        own = torch.from_numpy(kept)
        return Fan(
            found.angle[kept], found.left[kept], found.right[kept], [x[own] for x in found.pieces]
        )

    def crowded(
        self,
        seen: list[Seen],
        values: Outputs,
        pieces: Pieces,
        start: tuple[np.ndarray, np.ndarray, np.ndarray],
        pair: np.ndarray,
        out: Exit,
    ) -> np.ndarray:
        """`[n]` whether more than one thing happens where rows leave their regions.

        Units whose lines are parallel there are one thing, as long as no third class ties.

        Args:
            seen: What the cuts see at the rows' places.
            values: What competes there.
            pieces: Of the rows.
            start: `p`, `delta`, `t` as in `Regions.first`.
            pair: `[n, 2]` the two classes.
            out: Where the rows leave.
        """
        _, delta, t = start
        way = delta + np.where(np.isfinite(out.s), out.s, 0.0)[:, None] * t
        frozen, n, rows = self.regions.frozen, len(way), np.arange(len(way))
        with np.errstate(invalid="ignore"):
            value = values.value + way[:, :1] * values.slope[0] + way[:, 1:] * values.slope[1]
            own, slack = values.known(pair), values.slack
            near = np.abs(value - value[rows, own][:, None]) <= MARGIN * (
                slack + slack[rows, own][:, None]
            )
        near[rows[:, None], pair] = False
        thirds = near.sum(1)
        a, b = (torch.from_numpy(np.ascontiguousarray(c)) for c in way.T)
        moved = []
        for s in seen:
            shape = (n, *[1] * (s.z.ndim - 1))
            z = torch.addcmul(
                torch.addcmul(s.z, a.reshape(shape), s.d[0]), b.reshape(shape), s.d[1]
            )
            moved.append(replace(s, z=z))
        there = Beside(pieces, replace(values, value=value), moved)
        found = list(vanishing(frozen, there))
        row, d, give = (np.concatenate(x) for x in zip(*found, strict=True)) if found else _NONE
        units = np.bincount(row, minlength=n)
        many = (units > 0) & (thirds > 0) | (thirds > 1) | (out.kind == EDGE) & (units + thirds > 0)
        for r in np.flatnonzero((units > 1) & ~many):
            many[r] = not _parallel(d[row == r], give[row == r])
        return many & np.isfinite(out.s)

    def link(self, strokes: Strokes) -> None:
        """Let the pieces that end in each point follow each other as its rays do."""
        if not self.places or not len(strokes):
            self.torn = sum(found is None or len(found) > 0 for found in self.fans)
            return
        from scipy.spatial import KDTree

        at = np.array(strokes.ends).reshape(-1, 2)
        groups = KDTree(at).query_ball_point(np.array(self.places), self.size)
        for found, group in zip(self.fans, groups, strict=True):
            ends = [(k // 2, k % 2) for k in sorted(group)]
            inside = {k for k, _ in ends if np.abs(at[2 * k] - at[2 * k + 1]).max() <= self.size}
            ends = [end for end in ends if end[0] not in inside]
            if found is None or (order := _matched(found, strokes, ends)) is None:
                self.torn += 1
            else:
                _linked(strokes, found, order)
                strokes.gone |= inside  # regions that are no wider than rounding


_NONE = np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros(0)


def _row(found: Fan, k: int) -> Pieces:
    return [x[k].clone() for x in found.pieces]


def _parallel(d: np.ndarray, give: np.ndarray) -> bool:
    """Whether derivatives `[m, 2]` are multiples of one, within what counts as zero of them."""
    size = np.linalg.norm(d, axis=1)
    k = int((size / give.clip(1e-300)).argmax())
    cross = np.abs(d[:, 0] * d[k, 1] - d[:, 1] * d[k, 0])
    return bool((cross <= MARGIN * (give * size[k] + give[k] * size)).all())


def _matched(found: Fan, strokes: Strokes, ends: list[End]) -> list[End] | None:
    """The end that lies on each ray; None unless there is one of its classes on every ray."""
    if len(ends) != len(found):
        return None
    if not ends:
        return []
    at = np.array([strokes.ends[piece] for piece, _ in ends]).reshape(-1, 2, 2)
    side = np.array([e for _, e in ends], np.int64)
    rows = np.arange(len(ends))
    way = at[rows, 1 - side] - at[rows, side]
    angle = np.arctan2(way[:, 1], way[:, 0])
    pairs = np.array([strokes.pairs[piece][:: 1 - 2 * e] for piece, e in ends]).reshape(-1, 2)
    off = np.abs((angle - found.angle[:, None] + np.pi) % (2 * np.pi) - np.pi)
    fits = (off < ALIKE) & (pairs[:, 0] == found.left[:, None])
    fits &= pairs[:, 1] == found.right[:, None]
    if not ((fits.sum(0) == 1).all() and (fits.sum(1) == 1).all()):
        return None
    return [ends[k] for k in fits.argmax(1)]


def _linked(strokes: Strokes, found: Fan, order: list[End]) -> None:
    """Let ends on rays in order follow each other, where only two classes meet in the point."""
    for end in order:
        other = strokes.links.pop(end, None)
        if other is not None:
            strokes.links.pop(other, None)
    border = [strokes.stop_of(end) == BORDER for end in order]
    two = len(set(found.left.tolist()) | set(found.right.tolist())) == 2
    if two and len(order) % 2 == 0 and not any(border):
        for a, b in zip(order[::2], order[1::2], strict=True):
            strokes.link(a, b)
        return
    for end, at_border in zip(order, border, strict=True):
        if not at_border:
            strokes.stops[end] = (TRIPLE, -1)

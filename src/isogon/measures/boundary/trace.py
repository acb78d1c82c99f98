"""Follow the boundary from region to region, many traces at a time.

A trace keeps one class on its left. In a region the two classes are equal on a line, which the
trace follows to its first exit: a unit that changes its piece (it goes on behind, on the line of
the next region), a third class (two traces go on in the same region), the slice's border, or a
piece that is known already.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from isogon.context import Progress
from isogon.measures.boundary.carried import Carried, Carrier
from isogon.measures.boundary.exits import (
    CLASS,
    EDGE,
    NOTHING,
    UNIT,
    Exit,
    Regions,
    moved,
)
from isogon.measures.boundary.fan import fan
from isogon.measures.boundary.frozen import Frozen, Seen
from isogon.measures.boundary.junctions import Junctions
from isogon.measures.boundary.live import Limits, Live, Start, Tail, started
from isogon.measures.boundary.seams import seam
from isogon.measures.boundary.slack import Outputs
from isogon.measures.boundary.strokes import (
    BORDER,
    OPEN,
    STUCK,
    TIED,
    TOUCH,
    TRIPLE,
    End,
    Region,
    Strokes,
)

LARGEST = 256  # traces that advance together
SMALLEST = 8
ATTEMPTS = 200  # changes of units in one point
EPS = float(np.finfo(np.float64).eps)
SHORT = 64 * EPS  # of the slice's extent: a piece without a length
MOMENT = 0.1  # seconds between two reports
PATIENCE = 500  # regions after which states are carried
NEVER = 1 << 62


class Tracer:
    """Traces all of the boundary that hangs together with given seeds.

    Attributes:
        strokes: What was found.
        drift: Largest distance by which a trace was beside its line behind an exit, in parts of
            the slice's extent.
        steps: Number of regions that were entered.
        carried: Largest difference of a state that was carried from region to region from one
            computed afresh, relative to the largest value that the same cut sees.
        ended: Traces that ended where classes are tied on an area (`TIED`), where the boundary
            only touches (`TOUCH`), or without a way out of a point (`STUCK`).
        refused: Seeds that were on no boundary.
        limits: Where it stops.
        expected: Length that the boundary is expected to have, for reports; 0: not known.
    """

    def __init__(self, frozen: Frozen, report: Progress, limits: Limits | None = None) -> None:
        self.frozen, self.regions, self.report = frozen, Regions(frozen), report
        self.strokes = Strokes()
        self.waiting: list[Start] = []
        self.triples: set[tuple[int, ...]] = set()
        self.drift, self.steps, self.refused = 0.0, 0, 0
        self.ended: dict[int, int] = {}
        self.extent = float(np.abs(frozen.plane.corners).max()) + float(
            np.ptp(frozen.plane.corners, axis=0).max()
        )
        self.width = int(np.clip(frozen.program.chunk() // 3, SMALLEST, LARGEST))
        self.told = 0.0
        self.limits, self.expected = limits or Limits(), 0.0
        self.carrier: Carrier | None = None
        self.patience, self.carried = PATIENCE, 0.0
        self.passed: set[int] = set()
        self.junctions = Junctions(self.regions, self.extent)
        self.met: list[np.ndarray] = []

    def seed(self, p: np.ndarray, pairs: np.ndarray) -> None:
        """Let traces start both ways at points `[n, 2]` where two classes `[n, 2]` change."""
        for at, (i, j) in zip(p, pairs.tolist(), strict=True):
            self.waiting.append(Start(at, (i, j), None, NOTHING, None))

    def run(self) -> None:
        """Advance until no trace is left, or a limit is reached."""
        live: Live | None = None
        while (self.waiting or live is not None) and not self.stopped:
            live = self._filled(live)
            keep = self._step(live)
            live = None if not len(keep) else live if len(keep) == len(live) else live.take(keep)
            if time.monotonic() - self.told > MOMENT:
                self.told = time.monotonic()
                self.report(*self.progress())

    @property
    def stopped(self) -> bool:
        """Whether a limit is reached."""
        return self.limits.reached(len(self.strokes))

    def progress(self) -> tuple[int, int | None, str]:
        """Pieces so far, pieces to be expected, and words for both."""
        done, length = len(self.strokes), self.strokes.length
        if not self.expected or not length:
            return done, None, f"{done:,} pieces of the boundary"
        total = max(done + 1, round(done * self.expected / length))
        return done, total, f"{done:,} pieces of the boundary, about {total:,} to be expected"

    # -- rows --------------------------------------------------------------------------------

    def _filled(self, live: Live | None) -> Live:
        count = self.width - (0 if live is None else len(live))
        starts = [self.waiting.pop() for _ in range(min(count, len(self.waiting)))]
        if not starts:
            assert live is not None
            return live
        new = started(starts, self.frozen)
        return new if live is None else live.joined(new)

    # -- a step ------------------------------------------------------------------------------

    def _step(self, live: Live) -> np.ndarray:
        """Take every row through its region; returns the rows that go on."""
        n = len(live)
        values, seen = self.frozen.held(live.p, live.pieces)
        self.steps += n
        states = self._states(live, values, seen)
        line = self.regions.onto(values, live.pair, seen, live.pieces, live.banned, self.extent)
        delta, t, flat, off = line.delta, line.t, line.flat, line.off
        rays = [moved(own, t, delta) for own in seen]
        along = self.regions.settle(seen, live.pieces, rays) if seen else np.zeros(n, bool)
        start = live.p, delta, t
        out = self.regions.first(rays, live.pieces, values, start, live.pair, live.banned)
        back = self._backwards(live, seen, values, start)
        told = self.regions.keys(live.pieces, n).tolist()
        entry = live.p + delta
        leave = entry + np.where(np.isfinite(out.s), out.s, 0.0)[:, None] * t
        over, third = self.regions.rivals(values, delta, t, live.pair)
        care = along | third
        many = self.junctions.crowded(seen, values, live.pieces, start, live.pair, out)
        edge = self.regions.edge_of(entry, leave, SHORT * self.extent)
        why = np.select(
            [flat, line.lost | ~np.isfinite(out.s), edge >= 0], [TIED, STUCK, BORDER], OPEN
        )
        keep: list[int] = []
        self.passed.clear()
        for r in range(n):
            if flat[r] and live.fresh[r] and live.idle[r] == 0:
                goes = self._beside(live, r)
            elif why[r] != OPEN:
                goes = self._over(live, r, int(why[r]), int(edge[r]))
            elif care[r]:
                goes = self._seam(live, r, entry[r], t[r])
            elif live.fresh[r] and (over[r] or back[r][3]):
                self.refused += 1
                goes = False
            else:
                if not live.fresh[r]:
                    self.drift = max(self.drift, float(off[r]))
                tail = live.tail[r]
                if line.sharp[r] and tail is not None:  # what led here ends where this begins
                    self.strokes.move(tail, entry[r])
                goes = self._advance(live, r, told[r], entry[r], leave[r], out, back, many[r])
            keep += [r] * goes
        for p in self.met:
            self.waiting += self.junctions.meet(p)
        self.met.clear()
        if states is not None:
            keep = [r for r in keep if self._run(live, r, states[r], told[r])]
        return np.array(keep, np.int64)

    def _states(self, live: Live, values: Outputs, seen: list[Seen]) -> list[Carried] | None:
        """The states of all rows, compared with those that were carried; None: nothing is."""
        if self.carrier is None and self.steps >= self.patience:
            self.carrier = Carrier.of(self.frozen, self.regions, self.extent)
            self.patience = NEVER if self.carrier is None else self.patience
        if self.carrier is None:
            return None
        found = self.carrier.states(live.p, values, seen)
        for r, before in enumerate(live.carried):
            if before is not None:
                self.carried = max(self.carried, self.carrier.apart(before, found[r]))
                live.carried[r] = None
        return found

    def _run(self, live: Live, r: int, state: Carried, key: list[int]) -> bool:
        """Take a row on through regions that it leaves by units; whether it goes on."""
        if r not in self.passed:
            return True
        assert self.carrier is not None
        left, right = live.pair[r].tolist()
        low, high = min(left, right), max(left, right)
        found = self.carrier.follow(
            state, live.p[r], live.pair[r], live.pieces, r, live.banned[r], int(live.idle[r]), key
        )
        self.steps += found.steps
        self.drift = max(self.drift, found.drift)
        for ends, region in zip(found.ends.tolist(), found.keys.tolist(), strict=True):
            if not self._follows(live, r, (region[0], region[1], low, high), ends):
                return False
        live.p[r], live.banned[r], live.idle[r] = found.p, found.banned, found.still
        live.carried[r] = state
        return True

    def _follows(self, live: Live, r: int, region: Region, ends: list[float]) -> bool:
        """Keep a trace's next piece; False where it is known already, and the trace ends."""
        left, right = live.pair[r].tolist()
        tail, known = live.tail[r], self.strokes.known.get(region)
        if known is not None:
            same = self.strokes.pairs[known][0] == left
            self._joined(tail, (known, 0 if same else 1))
            return False
        piece = self.strokes.add(region, ends, left, right)
        if tail is None:
            edge = self.junctions.edge_of(np.array(ends[:2]))
            self.strokes.stops[piece, 0] = (TRIPLE if edge < 0 else BORDER, edge)
        self._joined(tail, (piece, 0))
        live.tail[r] = (piece, 1)
        return True

    def _backwards(self, live: Live, seen: list[Seen], values: Outputs, start) -> dict[int, tuple]:
        """The other ends of the pieces of fresh rows.

        Row -> exit, its row there, its place, whether the row starts outside its region.
        """
        rows = np.flatnonzero(live.fresh)
        if not len(rows):
            return {}
        at = torch.from_numpy(rows)
        part, there = [s.take(at) for s in seen], values.take(rows)
        own = [x[at] for x in live.pieces]
        p, delta, t = (a[rows] for a in start)
        none = np.tile(NOTHING, (len(rows), 1))
        out = self.regions.first(
            [moved(s, -t, delta) for s in part],
            own,
            there,
            (p, delta, -t),
            live.pair[rows],
            none,
        )
        outside = self.regions.outside(part, own, delta)
        place = p + delta - np.where(np.isfinite(out.s), out.s, 0.0)[:, None] * t
        full = self.junctions.crowded(part, there, own, (p, delta, -t), live.pair[rows], out)
        return {int(r): (out, k, place[k], outside[k], full[k]) for k, r in enumerate(rows)}

    def _advance(self, live: Live, r: int, key, entry, leave, out: Exit, back, many: bool) -> bool:
        left, right = live.pair[r].tolist()
        region = (key[0], key[1], min(left, right), max(left, right))
        known = self.strokes.known.get(region)
        if live.fresh[r]:
            other, k, place, _, full = back[r]
            live.fresh[r] = False
            if known is not None:
                return False
            if np.abs(leave - place).max() <= SHORT * self.extent:  # a corner of the boundary
                self.met.append(entry)
                return False
            ends = [*place.tolist(), *leave.tolist()]
            piece = self.strokes.add(region, ends, left, right)
            if full:
                self._meets((piece, 0), place)
            if np.isfinite(other.s[k]) and (other.kind[k] == EDGE or not full):
                behind = [x[r].clone() for x in live.pieces]
                self._turn(Start(place, (right, left), behind, NOTHING, (piece, 0)), other, k, key)
            live.tail[r] = (piece, 1)
        elif np.abs(leave - entry).max() <= SHORT * self.extent:
            live.idle[r] += 1
            if live.idle[r] > ATTEMPTS:
                return self._over(live, r, STUCK)
        else:
            live.idle[r] = 0
            if not self._follows(live, r, region, [*entry.tolist(), *leave.tolist()]):
                return False
        if many:
            self._meets(live.tail[r], leave)
            if out.kind[r] != EDGE:
                return False
        if out.kind[r] == UNIT:
            cut, unit, to = out.which[r]
            live.banned[r] = (cut, unit, int(live.pieces[cut][r, unit]))
            live.pieces[cut][r, unit] = int(to)
            live.p[r] = leave
            self.passed.add(r)
            return True
        row = [x[r] for x in live.pieces] if out.kind[r] == CLASS else []
        self._turn(Start(leave, (left, right), row, NOTHING, live.tail[r]), out, r, key)
        return False

    def _joined(self, tail: Tail, end: End) -> None:
        """Let the piece of an end follow on where a trace comes from."""
        if tail is not None and not self.strokes.link(tail, end):
            self.met.append(self.strokes.place(tail))

    def _ended(self, tail: Tail, why: int, edge: int = -1) -> None:
        """Say why nothing follows where a trace comes from."""
        if tail is not None:
            self.strokes.stops[tail] = (why, edge)

    def _turn(self, trace: Start, out: Exit, k: int, key) -> None:
        """Go through an exit with a trace that has just reached it."""
        kind, which = out.kind[k], out.which[k]
        pieces = trace.pieces
        assert pieces is not None
        if kind == UNIT:
            cut, unit, to = (int(v) for v in which)
            trace.banned = np.array([cut, unit, int(pieces[cut][unit])])
            pieces[cut][unit] = to
            self.waiting.append(trace)
        elif kind == EDGE:
            self._ended(trace.tail, BORDER, int(which[0]))
        else:
            self._ended(trace.tail, TRIPLE)
            (left, right), third = trace.pair, int(which[0])
            point = (key[0], key[1], *sorted((left, right, third)))
            if point in self.triples:
                return
            self.triples.add(point)
            for pair, gone in (((left, third), right), ((third, right), left)):
                copy = [x.clone() for x in pieces]
                self.waiting.append(Start(trace.p, pair, copy, np.array([-2, gone, -1]), None))

    def _over(self, live: Live, r: int, why: int, edge: int = -1) -> bool:
        self.ended[why] = self.ended.get(why, 0) + 1
        self._ended(live.tail[r], why, edge)
        if why != BORDER and not live.fresh[r]:
            self.met.append(live.p[r])
        return False

    def _beside(self, live: Live, r: int) -> bool:
        """Start on the border of an area on which the two classes are tied, instead of in it."""
        found = fan(self.frozen, live.p[r])
        way = None if found is None else found.straight()
        if way is not None:
            return self._seam(live, r, live.p[r], way)
        self.met.append(live.p[r])
        return False

    def _seam(self, live: Live, r: int, entry: np.ndarray, t: np.ndarray) -> bool:
        """Follow a line along the border of its region, or on which a third class is tied."""
        size = SHORT * self.extent
        own = seam(self.regions, entry, t)
        total = self.regions.keys(own.pieces, 2).sum(0)
        pair, place = own.pair, entry
        if live.fresh[r]:
            other = seam(self.regions, entry, -t)
            place = entry - other.length * t
            if (
                other.pair != pair[::-1]
                or (self.regions.keys(other.pieces, 2).sum(0) != total).any()
            ):
                self.met.append(entry)
                return False
            if pair[0] == pair[1]:
                self.refused += 1
                return False
            live.pair[r] = pair
        elif pair != tuple(live.pair[r].tolist()):
            return self._over(live, r, TOUCH)
        leave = entry + own.length * t
        edge = int(self.regions.edge_of(place[None], leave[None], size)[0])
        if edge >= 0 or not np.abs(leave - place).max() > size:
            return self._over(live, r, BORDER if edge >= 0 else STUCK, edge)
        region = (int(total[0]), int(total[1]), min(pair), max(pair))
        live.tail[r] = None if live.fresh[r] else live.tail[r]
        if not self._follows(live, r, region, [*place.tolist(), *leave.tolist()]):
            return False
        self.ended[TIED] = self.ended.get(TIED, 0) + own.tied
        tail = live.tail[r]
        assert tail is not None
        self._meets(tail, leave)
        if live.fresh[r]:
            self._meets((tail[0], 0), place)
        return False

    def _meets(self, end: Tail, at: np.ndarray) -> None:
        """Let a piece end in a point where more than one thing happens."""
        self.met.append(at)
        edge = self.junctions.edge_of(at)
        if edge >= 0:
            self._ended(end, BORDER, edge)

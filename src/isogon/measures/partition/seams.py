"""Where the seams between tiles will be cut: edges alone, through all later sites.

Between its ends an edge is a line, along which the network can be cut as in a face: at every
site, where a unit changes its sign or a maximum its winner, by the same tolerances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from isogon.cpwl.program import Kink, Max, Program
from isogon.measures.partition import edges as ek
from isogon.measures.partition import memory, stream
from isogon.measures.partition.envelope import winner_masks
from isogon.measures.partition.jit import kernel
from isogon.measures.partition.kinks import TABLE, every_function, listed, masks, tolerance
from isogon.measures.partition.maxima import as_functions, entries, everywhere
from isogon.measures.partition.mesh import Mesh, cut_edges

INDEX = np.int32
Values = dict[str, Tensor]


@dataclass(eq=False)
class Seams:
    """The edges between tiles and the vertices that all later sites put on them.

    Attributes:
        edges: `[S]` numbers of the edges, ascending.
        ends: `[S, 2]` their vertices.
        open: `[S]` whether a face on either side is still cut.
        first: `[S + 1]` CSR offsets of their new vertices ...
        place: ... and where these lie, from 0 at the first end to 1, ascending on each edge.
    """

    edges: np.ndarray
    ends: np.ndarray
    open: np.ndarray
    first: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    place: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def between(cls, mesh: Mesh, group: np.ndarray) -> Seams:
        """The edges whose faces belong to different groups; those fixed before are done."""
        sides = mesh.sides()
        inner = np.flatnonzero((sides >= 0).all(1))
        inner = inner[inner >= mesh.fixed]
        left, right = sides[inner].T
        edges = inner[group[left] != group[right]]
        still = mesh.open_edges()[edges]
        return cls(edges, mesh.ends[edges], still, np.zeros(len(edges) + 1, np.int64))

    def cut(
        self,
        program: Program,
        rows: Callable[[np.ndarray], Values],
        start: int,
        floors: dict[str, float],
    ) -> None:
        """Find the new vertices.

        Args:
            program: The network.
            rows: Live tensors of given vertices before stage `start`.
            start: Position of the cut that was made last.
            floors: Site -> tolerance: read, and raised to what was used here.
        """
        edge, place = [np.zeros(0, np.int64)], [np.zeros(0)]
        step = max(16, memory.TILE // (64 * memory.width(program, start)))
        still = np.flatnonzero(self.open)
        for low in range(0, len(still), step):
            part = still[low : low + step]
            ends = self.ends[part]
            line = strings(rows(ends.reshape(-1)), len(ends))
            run(program, line, start, floors)
            edge.append(part[line.xy[2 * len(ends) :, 1].astype(np.int64)])
            place.append(line.xy[2 * len(ends) :, 0])
        number, at = np.concatenate(edge), np.concatenate(place)
        inside = (at > 0) & (at < 1)
        # vertices that no coordinate tells apart are one
        both = np.unique(np.stack([number[inside], at[inside]], 1), axis=0)
        self.place = np.ascontiguousarray(both[:, 1])
        self.first = np.searchsorted(both[:, 0], np.arange(len(self.edges) + 1))


def strings(live: Values, count: int) -> Mesh:
    """A mesh of `count` separate edges and no faces; their vertices come pair by pair.

    Coordinates are the place along the edge and the edge's number.
    """
    xy = np.empty((2 * count, 2))
    xy[0::2, 0], xy[1::2, 0] = 0.0, 1.0
    xy[:, 1] = np.repeat(np.arange(count), 2)
    nothing = np.zeros(0, INDEX)
    ends = np.arange(2 * count, dtype=INDEX).reshape(count, 2)
    tags = np.full(count, -1, INDEX)
    offsets = np.zeros(1, np.int64)
    return Mesh(xy, ends, tags, tags.copy(), offsets, nothing, nothing.copy(), live)


def run(program: Program, line: Mesh, start: int, floors: dict[str, float]) -> None:
    """Cut separate edges by all sites after the one at `start`."""
    i = start
    while True:
        stop = stream.next_cut(program, i)
        if stop == len(program.stages):
            return
        rows = stream.all_rows(line.live, None)
        line.live = stream.advance(program, i, stop, len(line.xy), rows)
        line.room = {}
        stage, i = program.stages[stop], stop
        if isinstance(stage, Kink):
            floors[stage.site] = kink(line, stage, floors.get(stage.site, 0.0))
        elif isinstance(stage, Max):
            floors[stage.site] = maximum(line, stage, floors.get(stage.site, 0.0))


def kink(line: Mesh, stage: Kink, floor: float) -> float:
    """Cut the edges where a unit passes a knot; returns the tolerance."""
    name = stage.inputs[0]
    tol = tolerance(line.live[name], floor)
    functions = every_function(stage, line.live[name].shape[1:])
    signs = masks(line.values(name), functions, tol, None)
    by_edge = listed(ek.edge_crossings, len(line.ends), line.ends, *signs)
    cut_edges(line, name, functions, tol, *by_edge)
    return tol


def maximum(line: Mesh, stage: Max, floor: float) -> float:
    """Cut the edges where the largest entry of a group changes; returns the tolerance."""
    flat = stage.flat(*(line.live[name] for name in stage.inputs))
    tol = tolerance(flat, floor)
    _, varying = everywhere(stage, flat, tol)
    if len(varying) == 0:
        return tol
    entry, line.live[TABLE] = entries(stage, flat, varying)
    z = line.values(TABLE)
    tops = np.empty((len(z), len(varying)), np.uint64)
    winner_masks(z, entry, tol, 0, tops)
    count = edge_bends(line.ends, z, entry, tops, tol, np.empty((0, 4), np.int64))
    bends = np.empty((count, 4), np.int64)
    edge_bends(line.ends, z, entry, tops, tol, bends)
    functions, which = as_functions(bends, entry, varying)
    found = np.unique(np.stack([bends[:, 0], which], 1), axis=0)
    first = np.searchsorted(found[:, 0], np.arange(len(line.ends) + 1))
    cut_edges(line, TABLE, functions, tol, first, np.ascontiguousarray(found[:, 1]))
    line.forget([TABLE])
    return tol


@kernel
def edge_bends(ends, z, entry, masks, tol, bends):
    """(edge, group, entry, entry) wherever the largest entry of a group changes along an edge.

    The envelope of the group's lines is followed from bend to bend. Fills as many rows as fit
    and returns how many there are: call with an empty array to count.
    """
    made = 0
    size = entry.shape[1]
    for e in range(len(ends)):
        p, q = ends[e, 0], ends[e, 1]
        for g in range(masks.shape[1]):
            if masks[p, g] & masks[q, g]:
                continue
            now, best = -1, -np.inf
            for k in range(size):  # of those that are largest at p, the steepest one
                if entry[g, k] >= 0 and masks[p, g] >> np.uint64(k) & np.uint64(1):
                    rise = z[q, entry[g, k]] - z[p, entry[g, k]]
                    if rise > best:
                        now, best = k, rise
            while True:
                a, b = z[p, entry[g, now]], z[q, entry[g, now]]
                following, first, steep = -1, np.inf, -np.inf
                for k in range(size):
                    if entry[g, k] < 0 or z[q, entry[g, k]] <= b + tol:
                        continue
                    rise = (z[q, entry[g, k]] - b) - (z[p, entry[g, k]] - a)
                    if rise <= 0:
                        continue
                    t = (a - z[p, entry[g, k]]) / rise
                    if t < first or (t == first and rise > steep):
                        following, first, steep = k, t, rise
                if following < 0:
                    break
                if z[p, entry[g, following]] < a - tol:
                    if made < len(bends):
                        bends[made, 0], bends[made, 1] = e, g
                        bends[made, 2], bends[made, 3] = min(now, following), max(now, following)
                    made += 1
                now = following
    return made

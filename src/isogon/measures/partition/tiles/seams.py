"""Where the seams between tiles will be cut: edges alone, through all later sites.

Between its ends an edge is a line, along which the network can be cut as in a face: at every
site, where a unit changes its sign or a maximum its winner, by the same rule of what is zero.
What vanishes at a vertex is noted, so that the tiles know it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from isogon.cpwl.program import Program
from isogon.cpwl.stages import Kink, Max
from isogon.measures.partition.kernels import edges as ek
from isogon.measures.partition.kernels.edges import NEAR, WIDE, blend
from isogon.measures.partition.kernels.envelope import winner_masks
from isogon.measures.partition.kernels.jit import kernel
from isogon.measures.partition.mesh import memory, stream
from isogon.measures.partition.mesh.cut_kinks import TABLE, count_then_fill, every_function
from isogon.measures.partition.mesh.cut_maxima import (
    as_functions,
    contending,
    equal,
    everywhere,
    keep,
    used_entries,
)
from isogon.measures.partition.mesh.cutting import cut_edges
from isogon.measures.partition.mesh.mesh import Mesh
from isogon.measures.partition.mesh.zeros import Errors, Judge, Table, clear, store

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
        pins: `[P, 4]` what vanishes there, as `Mesh.pins`; new vertices are numbered from 0.
    """

    edges: np.ndarray
    ends: np.ndarray
    open: np.ndarray
    first: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    place: np.ndarray = field(default_factory=lambda: np.zeros(0))
    pins: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.int64))

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
        mesh: Mesh,
        program: Program,
        rows: Callable[[np.ndarray], Values],
        start: int,
        judge: Judge,
    ) -> None:
        """Find the new vertices.

        Args:
            mesh: Whose edges they are.
            program: The network.
            rows: Live tensors of given vertices before stage `start`.
            start: Position of the cut that was made last.
            judge: Decides what is zero; left as it is.
        """
        edge, place = [np.zeros(0, np.int64)], [np.zeros(0)]
        pins, made = [np.zeros((0, 4), np.int64)], 0
        step = max(16, memory.TILE // (64 * memory.width(program, start)))
        still = np.flatnonzero(self.open)
        for low in range(0, len(still), step):
            part = still[low : low + step]
            ends = self.ends[part]
            line = strings(rows(ends.reshape(-1)), len(ends))
            own = Judge(judge.space.along(mesh.xy[ends]), judge.bounds.copy(), start)
            cut_line(program, line, own)
            edge.append(part[line.xy[2 * len(ends) :, 1].astype(np.int64)])
            place.append(line.xy[2 * len(ends) :, 0])
            line.pins[:, 1] += made - 2 * len(ends)
            pins.append(line.pins)
            made += len(edge[-1])
        number, at, known = (np.concatenate(x) for x in (edge, place, pins))
        inside = (at > 0) & (at < 1)
        # vertices that no coordinate tells apart are one
        both, one = np.unique(
            np.stack([number[inside], at[inside]], 1), axis=0, return_inverse=True
        )
        self.place = np.ascontiguousarray(both[:, 1])
        self.first = np.searchsorted(both[:, 0], np.arange(len(self.edges) + 1))
        final: np.ndarray = np.full(len(inside), -1, np.int64)
        final[inside] = one.reshape(-1)
        known[:, 1] = final[known[:, 1].astype(np.int64)]
        self.pins = known[known[:, 1] >= 0]


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


def cut_line(program: Program, line: Mesh, judge: Judge) -> np.ndarray:
    """Cut separate edges by all sites after the one that `judge` is at (-1: the first ones).

    `judge` is then at the last cut, and `line.live` holds what is alive before it.

    Returns:
        Of every zero, in the order of the sites: vertex, number of the site, unit.
    """
    makers = [np.zeros((0, 3), np.int64)]
    while True:
        stop = program.next_cut(judge.position)
        if stop == len(program.stages):
            return np.concatenate(makers)
        rows = stream.all_rows(line.live, None)
        line.live = stream.advance(program, max(judge.position, 0), stop, len(line.xy), rows)
        line.room, judge.position, stage = {}, stop, program.stages[stop]
        cut = kink if isinstance(stage, Kink) else _maximum
        vertex, first, second, unit = cut(line, stage, judge)  # type: ignore[arg-type]
        fresh = np.stack([np.full(len(vertex), stop), vertex, first, second], 1)
        line.pins = np.concatenate([line.pins, fresh])
        site = np.full(len(vertex), program.cuts.index(stage))  # type: ignore[arg-type]
        makers.append(np.stack([vertex, site, unit], 1))


def kink(line: Mesh, stage: Kink, judge: Judge) -> tuple[np.ndarray, ...]:
    """Cut the edges where a unit passes a knot.

    Returns:
        Of all zeros that this makes: vertex, number of the function, -1, unit.
    """
    name = stage.inputs[0]
    functions = every_function(stage, line.live[name].shape[1:])
    bound, signs = clear(line, stage, functions, judge)
    by_edge = count_then_fill(
        ek.edge_crossings, len(line.ends), 8 * signs[0].shape[1], lambda p: (line.ends[p], *signs)
    )
    errors = Errors(judge, line, functions.unit, functions.other, bound)
    vertex, f = cut_edges(line, name, functions, errors, *by_edge)
    store(line, name, vertex, f, functions.column, functions.offset)
    return vertex, f, np.full(len(f), -1), functions.unit[f]


def _maximum(line: Mesh, stage: Max, judge: Judge) -> tuple[np.ndarray, ...]:
    """Cut the edges where the largest entry of a group changes.

    Returns:
        Of all ties that this makes: vertex, both entries, group.
    """
    flat = stage.flat(*(line.live[name] for name in stage.inputs))
    bound = judge.bound()
    index = contending(stage, flat, judge, bound)
    _, varying, open_ = everywhere(index, line, flat, judge, bound)
    nothing = np.zeros(0, np.int64)
    if len(varying) == 0:
        return nothing, nothing, nothing, nothing
    used, entry, line.live[TABLE] = used_entries(stage, index, flat, varying)
    z = line.values(TABLE)
    sizes = Table(bound[used], len(z), lambda rows: judge.zero(line.xy[rows])[:, used])
    sizes.settle(open_)
    tops = np.empty((len(z), len(varying)), np.uint64)
    sizes.settled(lambda error, row, open_: winner_masks(z, entry, error, row, 0, open_, tops))
    equal(line, stage, used, entry, sizes, tops)
    none, lines = np.empty((0, 4), np.int64), (line.ends, z, entry, tops)
    count = sizes.settled(lambda error, row, open_: edge_bends(*lines, error, row, open_, none))
    bends = np.empty((count, 4), np.int64)
    edge_bends(*lines, sizes.error, sizes.row, np.zeros(len(z), np.bool_), bends)
    functions, which = as_functions(bends, entry, varying)
    found = np.unique(np.stack([bends[:, 0], which], 1), axis=0)
    first = np.searchsorted(found[:, 0], np.arange(len(line.ends) + 1))
    errors = Errors(judge, line, used[functions.column], used[functions.other], bound)
    which = np.ascontiguousarray(found[:, 1])
    vertex, f = cut_edges(line, TABLE, functions, errors, first, which)
    keep(line, stage, used, functions, vertex, f, bound)
    line.forget([TABLE])
    return vertex, used[functions.column[f]], used[functions.other[f]], functions.unit[f]


@kernel
def edge_bends(ends, z, entry, masks, error, row, unclear, bends):
    """(edge, group, entry, entry) wherever the largest entry of a group changes along an edge.

    The envelope of the group's lines is followed from bend to bend. Fills as many rows as fit
    and returns how many there are: call with an empty array to count. `error`, `row`, `unclear`:
    see `envelope.tops`.
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
                own = entry[g, now]
                a, b = z[p, own], z[q, own]
                following, first, steep, doubt = -1, np.inf, -np.inf, 0.0
                for k in range(size):
                    if entry[g, k] < 0 or z[q, entry[g, k]] <= b:
                        continue
                    gap, slack = z[q, entry[g, k]] - b, error[row[q], entry[g, k]]
                    slack += error[row[q], own]
                    if gap <= WIDE * slack and row[q] == 0:
                        unclear[q] = True
                    if gap <= slack:
                        continue
                    rise = (z[q, entry[g, k]] - b) - (z[p, entry[g, k]] - a)
                    if rise <= 0:
                        continue
                    t = (a - z[p, entry[g, k]]) / rise
                    slack = max(slack, error[row[p], entry[g, k]] + error[row[p], own]) / rise
                    sooner = t < first or (t == first and rise > steep)
                    if following >= 0 and abs(t - first) <= NEAR + slack + doubt:
                        # which one comes first: the higher one there, if its place does not tell
                        last = entry[g, following]
                        lead = blend(
                            z[p, entry[g, k]] - z[p, last], z[q, entry[g, k]] - z[q, last], t
                        )
                        known = max(
                            error[row[p], entry[g, k]] + error[row[p], last],
                            error[row[q], entry[g, k]] + error[row[q], last],
                        )
                        if abs(lead) <= WIDE * known:
                            unclear[p] |= row[p] == 0
                            unclear[q] |= row[q] == 0
                        if abs(lead) > known:
                            sooner = lead > 0
                    if sooner:
                        following, first, steep, doubt = k, t, rise, slack
                if following < 0:
                    break
                gap = a - z[p, entry[g, following]]
                slack = error[row[p], entry[g, following]] + error[row[p], own]
                if gap > 0 and gap <= WIDE * slack and row[p] == 0:
                    unclear[p] = True
                if gap > slack:
                    if made < len(bends):
                        bends[made, 0], bends[made, 1] = e, g
                        bends[made, 2], bends[made, 3] = min(now, following), max(now, following)
                    made += 1
                now = following
    return made

"""Cutting a mesh along the zero lines of functions: edges first, once each, then faces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from isogon.measures.partition.kernels import edges as ek
from isogon.measures.partition.kernels.chords import count_meetings, find_chords, keep_chords
from isogon.measures.partition.kernels.meetings import Cut
from isogon.measures.partition.kernels.threads import by_parts, shared
from isogon.measures.partition.mesh.mesh import INDEX, Mesh, sizes
from isogon.measures.partition.mesh.splitting import split_mesh
from isogon.measures.partition.mesh.stream import Pending


class Full(Exception):
    """A cut would make more faces than there is room for.

    Attributes:
        new: `[F]` how many it adds to each face, or a part of them.
        memory: Whether it is memory that does not suffice.
    """

    def __init__(self, new: np.ndarray, *, memory: bool = False) -> None:
        super().__init__(int(new.sum()))
        self.new, self.memory = new, memory


class Limit(NamedTuple):
    """Most faces that a cut may make; and most of them as counted beforehand.

    Chords that meet in one point are counted as if they did so in pairs: a cut may make fewer
    faces than are counted.
    """

    faces: int
    counted: int


@dataclass(eq=False)
class Functions:
    """Cut functions of a site: which columns they read and what they stand for.

    Function f is `z[:, column[f]] - z[:, other[f]] - offset[f]`; `unit[f]` is its unit.
    """

    column: np.ndarray
    other: np.ndarray
    offset: np.ndarray
    unit: np.ndarray

    def __len__(self) -> int:
        return len(self.column)

    def at(self, z: np.ndarray, vertices: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Values of pairs of a vertex and a function, from the columns at the vertices."""
        other = self.other[which]
        less = np.where(other >= 0, z[vertices, other], 0.0)
        return z[vertices, self.column[which]] - self.offset[which] - less


class Doubts(Protocol):
    """What counts as zero of cut functions (`zeros.Errors`)."""

    bound: np.ndarray

    def at(self, vertices: np.ndarray, functions: np.ndarray) -> np.ndarray:
        """Of pairs of a vertex and a function."""
        ...


def cut_edges(
    mesh: Mesh,
    table: str,
    functions: Functions,
    errors: Doubts,
    first: np.ndarray,
    which: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Put the vertices of all crossings on the mesh's edges and loops.

    Args:
        mesh: The mesh; `mesh.live[table]` holds the values that the functions read.
        table: See there.
        functions: The cut functions.
        errors: What counts as zero of them.
        first: `[E + 1]` CSR offsets: the functions that cross each edge ...
        which: ... and their numbers.

    Returns:
        New vertices and the functions that vanish there, pair by pair.
    """
    z, count, f = mesh.values(table), len(mesh.xy), functions
    chain = np.empty(len(mesh.ends) + 1, np.int64)
    most = int(sizes(first).max(initial=0))
    source, ratio = np.empty((len(which), 2), np.int64), np.empty(len(which))
    place, unclear = np.empty(len(which), np.int64), np.empty(len(mesh.ends), np.bool_)
    error = errors.bound[which]
    for again in (True, False):
        made = ek.cut_edges(
            mesh.ends,
            z,
            f.column,
            f.other,
            f.offset,
            error,
            first,
            which,
            source,
            ratio,
            chain,
            place,
            unclear,
            np.empty(most),
            np.empty(most, np.int64),
        )
        if not again or not unclear.any():
            break
        edge = np.repeat(np.arange(len(mesh.ends)), sizes(first))
        close = np.flatnonzero(unclear[edge])
        a, b = mesh.ends[edge[close]].T
        own = which[close]
        # where a function vanishes it is as uncertain as its values at both ends make it
        p, q = f.at(z, a, own), f.at(z, b, own)
        t = p / (p - q)
        error[close] = np.hypot((1 - t) * errors.at(a, own), t * errors.at(b, own))
    if made == 0:
        return place, which
    mesh.divide(chain)
    mesh.add_vertices(source[:made], ratio[:made])
    return count + place, which


class EdgeSplit(NamedTuple):
    """What `cut_faces` did: the parent of every face, the new faces that were counted for each
    of the former ones beforehand, the pending vertices if any; new vertices and the functions
    that vanish there, pair by pair; bits `[F, words]` of the functions that are positive on each
    face.
    """

    parent: np.ndarray
    new: np.ndarray
    pending: Pending | None
    zeros: tuple[np.ndarray, np.ndarray]
    bits: np.ndarray


def cut_faces(
    mesh: Mesh,
    table: str,
    functions: Functions,
    errors: Doubts,
    tie: tuple[np.ndarray, np.ndarray],
    site: int,
    first: np.ndarray,
    which: np.ndarray,
    bits: np.ndarray,
    limit: int,
    large: float = np.inf,
) -> EdgeSplit:
    """Split every face along its functions' chords.

    Args:
        mesh: With all crossings on its edges (`cut_edges`).
        table: Name of the live tensor that the functions read.
        functions: The cut functions.
        errors: What counts as zero of them, for crossings of two of them.
        tie: `error`, `row` as in `edges.slack`: what counts as zero at the mesh's vertices.
        site: Number of the site, for the new edges.
        first: `[F + 1]` CSR offsets: the functions of each face ...
        which: ... and their numbers.
        bits: `[F, words]` of the functions that are positive at a vertex of each face; changed.
            Without words none are made; with words a table (`#...`) is dropped.
        limit: Faces, counted beforehand, from which on nothing is split.
        large: Bytes from which the new vertices are left pending.

    Raises:
        Full: There would be more faces.
    """
    z, old = mesh.values(table), len(mesh.xy)
    start, end = np.empty(len(which), np.int64), np.empty(len(which), np.int64)
    above, f = np.empty(len(which), np.bool_), functions

    def chords_of(p: slice) -> None:
        to = slice(p.start, p.stop + 1)
        longest = np.empty(sizes(mesh.offsets[to]).max(initial=0))
        own = mesh.offsets[to], mesh.loops, first[to], which, z, f.column, f.other, f.offset
        find_chords(*own, *tie, start, end, above, longest)

    cost = 8 * sizes(first) * sizes(mesh.offsets)  # a value that is read takes as long as 8 copied
    by_parts(shared(np.concatenate([[0], np.cumsum(cost)])), chords_of)
    kept = np.empty(len(first), np.int64)
    total = keep_chords(first, start, end, above, which, kept, bits)
    meetings = np.empty(len(mesh), np.int64)
    k = sizes(kept)
    if count_meetings(kept, start, end, limit, meetings) < total:
        if len(mesh) + total > limit:
            raise Full(k)
        count_meetings(kept, start, end, np.iinfo(np.int64).max, meetings)
        raise Full(k + meetings)
    chords = np.stack([which[:total], start[:total], end[:total], above[:total]], 1)
    cut, error = Cut(z, f.column, f.other, f.offset, f.unit), errors.bound[which[:total]]
    made = split_mesh(mesh, bits, kept, chords, error, cut, meetings)
    close = np.flatnonzero(made.unclear)
    if len(close):
        # of all chords in these faces: a function is no more uncertain than at its chord's ends
        own = np.flatnonzero(np.repeat(made.unclear, k))
        base = np.repeat(mesh.offsets[:-1], k)[own]
        a, b = (mesh.loops[base + side[own]] for side in (start, end))
        error[own] = np.maximum(errors.at(a, which[own]), errors.at(b, which[own]))
        made = split_mesh(mesh, bits, kept, chords, error, cut, meetings)
    mesh.ends = np.concatenate([mesh.ends, made.edge[:2].T])
    mesh.site = np.concatenate([mesh.site, np.full(made.edge.shape[1], site, INDEX)])
    mesh.unit = np.concatenate([mesh.unit, f.unit[made.edge[2]].astype(INDEX)])
    mesh.offsets, parent = made.offsets.copy(), made.parent
    mesh.loops, mesh.borders = made.half[0], made.half[1]
    mesh.stopped = mesh.stopped[parent]
    source, ratio, own = made.source, made.ratio, made.bits.copy()
    zeros = old + made.zero[0], made.zero[1]
    if bits.shape[1] and table.startswith("#"):
        mesh.forget([table])  # with the bits, nobody asks for its values at the new vertices
    if len(ratio) * mesh.row_bytes() >= large:
        mesh.add_places(source, ratio)
        return EdgeSplit(parent, k + meetings, Pending(source, ratio), zeros, own)
    mesh.add_vertices(source, ratio)
    return EdgeSplit(parent, k + meetings, None, zeros, own)

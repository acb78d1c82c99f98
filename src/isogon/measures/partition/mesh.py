"""The planar subdivision: shared vertices and edges, counter-clockwise faces."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from isogon.measures.partition import edges as ek
from isogon.measures.partition.chords import count_meetings, find_chords, keep_chords
from isogon.measures.partition.faces import Cut, Made, Room, split_faces
from isogon.measures.partition.stream import Pending

INDEX = np.int32


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


@dataclass(eq=False)
class Mesh:
    """Vertices `xy [V, 2]`, edges `ends [E, 2]`, faces as loops of half-edges (CSR).

    `loops[h]` is a vertex, `borders[h]` the edge from it to the next vertex of the face.
    `site[e]`, `unit[e]` say which cut made an edge (-1: the domain's border). `live` are the
    network's tensors at the vertices, `[V, ...]`: on each face and edge they are affine, so a
    new vertex gets the interpolation of the two vertices between which it was made. The first
    `corners` vertices are the domain's, or shared with other tiles; the first `fixed` edges are
    shared with other tiles and have all their vertices already. `stopped [F]` is the number of
    the site at which a face was left, uncut by it and all later ones; -1: it is still cut.

    `pins [P, 4]` are zeros that are known of the first vertices from a cut of the whole: stage,
    vertex, and what vanishes there: for a kink the function's number and -1, for a maximum two
    entries that are equal.
    """

    xy: np.ndarray
    ends: np.ndarray
    site: np.ndarray
    unit: np.ndarray
    offsets: np.ndarray
    loops: np.ndarray
    borders: np.ndarray
    live: dict[str, Tensor] = field(default_factory=dict)
    room: dict[str, Tensor] = field(default_factory=dict)
    corners: int = 0
    fixed: int = 0
    pins: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    stopped: np.ndarray = field(default_factory=lambda: np.zeros(0, INDEX))

    def __post_init__(self) -> None:
        if len(self.stopped) != len(self):
            self.stopped = np.full(len(self), -1, INDEX)

    @classmethod
    def of_polygon(cls, corners: np.ndarray) -> Mesh:
        """One face."""
        k = len(corners)
        ring = np.arange(k, dtype=INDEX)
        return cls(
            xy=corners.copy(),
            ends=np.stack([ring, np.roll(ring, -1)], 1),
            site=np.full(k, -1, INDEX),
            unit=np.full(k, -1, INDEX),
            offsets=np.array([0, k]),
            loops=ring.copy(),
            borders=ring.copy(),
            corners=k,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def open(self) -> np.ndarray:
        """`[F]` whether a face is still cut."""
        return self.stopped < 0

    def open_faces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of the faces that are still cut, and their loops (CSR)."""
        faces = np.flatnonzero(self.open)
        if len(faces) == len(self):
            return faces, self.offsets, self.loops
        sizes = np.diff(self.offsets)[faces]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        half = np.arange(offsets[-1]) + np.repeat(self.offsets[faces] - offsets[:-1], sizes)
        return faces, offsets, self.loops[half]

    def open_edges(self) -> np.ndarray:
        """`[E]` whether a face that is still cut lies on either side of an edge."""
        if self.open.all():
            return np.ones(len(self.ends), bool)
        found = np.zeros(len(self.ends), bool)
        found[self.borders[np.repeat(self.open, np.diff(self.offsets))]] = True
        return found

    def snapshot(self) -> Mesh:
        """What `restore` needs: all but the live tensors, of which only the rows grow."""
        return replace(self, live={}, room={})

    def restore(self, before: Mesh) -> None:
        """Undo cuts, back to a snapshot; tables of cut values are dropped."""
        self.forget([name for name in self.live if name.startswith("#")])
        live, room = self.live, self.room
        vars(self).update(vars(before))
        self.live = {name: held[: len(self.xy)] for name, held in live.items()}
        self.room = room

    def add_vertices(self, source: np.ndarray, ratio: np.ndarray) -> None:
        """Append vertices at `(1 - ratio) source[:, 0] + ratio source[:, 1]`."""
        if len(ratio) == 0:
            return
        self.add_places(source, ratio)
        for name, held in self.live.items():
            self.live[name] = self.extended(name, held, source, ratio)

    def add_places(self, source: np.ndarray, ratio: np.ndarray) -> None:
        """Append vertices' coordinates alone."""
        a, b = self.xy[source[:, 0]], self.xy[source[:, 1]]
        self.xy = np.concatenate([self.xy, a + ratio[:, None] * (b - a)])

    def row_bytes(self) -> int:
        """Bytes of all live tensors per vertex."""
        return sum(8 * held[0].numel() for held in self.live.values())

    def extended(self, name: str, held: Tensor, source: np.ndarray, ratio: np.ndarray) -> Tensor:
        """Append rows `(1 - t) held[p] + t held[q]`, in place where there is room left over."""
        n, m = len(held), len(ratio)
        buffer = self.room.get(name)
        inside = buffer is not None and buffer.data_ptr() == held.data_ptr()
        if buffer is None or not inside or len(buffer) < n + m:
            # memory that is never touched costs nothing
            buffer = torch.empty((n + m + (n + m) // 2, *held.shape[1:]), dtype=held.dtype)
            buffer[:n] = held
            self.room[name] = buffer
        flat = buffer.reshape(len(buffer), -1).numpy()
        ek.interpolate(flat, source, ratio, n)
        return buffer[: n + m]

    def owns(self, name: str) -> bool:
        """Whether a live tensor's memory is the mesh's own and no other live tensor's."""
        buffer, held = self.room.get(name), self.live[name]
        if buffer is None or buffer.data_ptr() != held.data_ptr():
            return False
        others = (t for other, t in self.live.items() if other != name)
        place = held.untyped_storage().data_ptr()
        return all(t.untyped_storage().data_ptr() != place for t in others)

    def forget(self, names: list[str]) -> None:
        """Drop tensors that no later stage reads."""
        for name in names:
            self.live.pop(name, None)
            self.room.pop(name, None)

    def values(self, name: str) -> np.ndarray:
        """A live tensor as a table `[V, columns]`."""
        held = self.live[name]
        return held.reshape(len(held), -1).numpy()

    def writable(self, name: str) -> np.ndarray:
        """A live tensor as a table `[V, columns]` that may be written to."""
        self.live[name] = self.live[name].contiguous()
        return self.values(name)

    def sides(self) -> np.ndarray:
        """Left and right face of every edge, `[E, 2]`; -1 outside."""
        sides = np.empty((len(self.ends), 2), INDEX)
        ek.edge_sides(self.offsets, self.loops, self.borders, self.ends, sides)
        return sides

    def divide(self, chain: np.ndarray) -> None:
        """Put new vertices into the loops, and make room for the pieces of the edges.

        Args:
            chain: `[E + 1]`: edge e gets the new vertices `chain[e]` to `chain[e + 1]`, numbered
                from the number of vertices on.
        """
        count, made = len(self.ends), int(chain[-1])
        size = len(self.loops) + int(np.diff(chain)[self.borders].sum())
        offsets = np.empty_like(self.offsets)
        loops, borders = np.empty(size, INDEX), np.empty(size, INDEX)
        ek.divide_loops(
            self.offsets, self.loops, self.borders, self.ends, chain, len(self.xy), count,
            offsets, loops, borders,
        )  # fmt: skip
        self.ends = np.concatenate([self.ends, np.empty((made, 2), INDEX)])
        self.site = np.concatenate([self.site, np.empty(made, INDEX)])
        self.unit = np.concatenate([self.unit, np.empty(made, INDEX)])
        self.offsets, self.loops, self.borders = offsets, loops, borders
        ek.divide_edges(self.ends, self.site, self.unit, chain, len(self.xy), count)


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
    most = int(np.diff(first).max(initial=0))
    source, ratio = np.empty((len(which), 2), np.int64), np.empty(len(which))
    place, unclear = np.empty(len(which), np.int64), np.empty(len(mesh.ends), np.bool_)
    error = errors.bound[which]
    for again in (True, False):
        made = ek.cut_edges(
            mesh.ends, z, f.column, f.other, f.offset, error, first, which, source, ratio, chain,
            place, unclear, np.empty(most), np.empty(most, np.int64),
        )  # fmt: skip
        if not again or not unclear.any():
            break
        edge = np.repeat(np.arange(len(mesh.ends)), np.diff(first))
        close = np.flatnonzero(unclear[edge])
        a, b = mesh.ends[edge[close]].T
        error[close] = np.maximum(errors.at(a, which[close]), errors.at(b, which[close]))
    if made == 0:
        return place, which
    mesh.divide(chain)
    mesh.add_vertices(source[:made], ratio[:made])
    return count + place, which


class Split(NamedTuple):
    """What `cut_faces` did: the parent of every face, the new faces that were counted for each
    of the former ones beforehand, the pending vertices if any; new vertices and the functions
    that vanish there, pair by pair.
    """

    parent: np.ndarray
    new: np.ndarray
    pending: Pending | None
    zeros: tuple[np.ndarray, np.ndarray]


def cut_faces(
    mesh: Mesh,
    table: str,
    functions: Functions,
    errors: Doubts,
    tie: tuple[np.ndarray, np.ndarray],
    site: int,
    first: np.ndarray,
    which: np.ndarray,
    limit: int,
    large: float = np.inf,
) -> Split:
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
        limit: Faces, counted beforehand, from which on nothing is split.
        large: Bytes from which the new vertices are left pending.

    Raises:
        Full: There would be more faces.
    """
    z, old = mesh.values(table), len(mesh.xy)
    start, end = np.empty(len(which), np.int64), np.empty(len(which), np.int64)
    f = functions
    longest = np.empty(np.diff(mesh.offsets).max())
    find_chords(
        mesh.offsets, mesh.loops, first, which, z, f.column, f.other, f.offset, *tie, start, end,
        longest,
    )  # fmt: skip
    kept = np.empty(len(first), np.int64)
    total = keep_chords(first, start, end, which, kept)
    meetings = np.empty(len(mesh), np.int64)
    k = np.diff(kept)
    if count_meetings(kept, start, end, limit, meetings) < total:
        if len(mesh) + total > limit:
            raise Full(k)
        count_meetings(kept, start, end, np.iinfo(np.int64).max, meetings)
        raise Full(k + meetings)
    chords = np.stack([which[:total], start[:total], end[:total]], 1)
    cut, error = Cut(z, f.column, f.other, f.offset, f.unit), errors.bound[which[:total]]
    made = _split(mesh, kept, chords, error, cut, meetings)
    close = np.flatnonzero(made.unclear)
    if len(close):
        for face in close:
            loop = mesh.loops[mesh.offsets[face] : mesh.offsets[face + 1]]
            own = which[kept[face] : kept[face + 1]]
            pairs = np.tile(loop, len(own)), np.repeat(own, len(loop))
            error[kept[face] : kept[face + 1]] = (
                errors.at(*pairs).reshape(len(own), len(loop)).max(1)
            )
        made = _split(mesh, kept, chords, error, cut, meetings)
    n_vertex, n_edge, n_face, n_half, n_zero = (int(c) for c in made.count)
    edge, face, half = made.edge[:, :n_edge], made.face[:, : n_face + 1], made.half[:, :n_half]
    mesh.ends = np.concatenate([mesh.ends, edge[:2].T])
    mesh.site = np.concatenate([mesh.site, np.full(n_edge, site, INDEX)])
    mesh.unit = np.concatenate([mesh.unit, f.unit[edge[2]].astype(INDEX)])
    mesh.offsets, parent = face[0].copy(), face[1, :-1].astype(INDEX)
    mesh.loops, mesh.borders = half[0], half[1]
    mesh.stopped = mesh.stopped[parent]
    source, ratio = made.source[:n_vertex], made.ratio[:n_vertex]
    zeros = old + made.zero[0, :n_zero], made.zero[1, :n_zero]
    if n_vertex * mesh.row_bytes() >= large:
        mesh.add_places(source, ratio)
        return Split(parent, k + meetings, Pending(source, ratio), zeros)
    mesh.add_vertices(source, ratio)
    return Split(parent, k + meetings, None, zeros)


def _split(
    mesh: Mesh,
    kept: np.ndarray,
    chords: np.ndarray,
    error: np.ndarray,
    cut: Cut,
    meetings: np.ndarray,
) -> Made:
    """Run `split_faces` with as much room as it takes."""
    slack, failed = 1.0, 0
    while True:
        made, room = _room(mesh, np.diff(kept), meetings, slack)
        failed = split_faces(
            mesh.offsets, mesh.loops, mesh.borders, kept, chords, error, cut, made, room,
            len(mesh.ends),
        )  # fmt: skip
        if failed < 0:
            return made
        slack *= 2


def _room(mesh: Mesh, k: np.ndarray, meetings: np.ndarray, slack: float) -> tuple[Made, Room]:
    """Arrays as large as the counts of chords and of their crossings say.

    Args:
        mesh: The mesh.
        k: Number of chords of each face ...
        meetings: ... and of crossings of two of them.
        slack: Factor on all sizes, should these ever not suffice.
    """

    def grown(n: float) -> int:
        return int(slack * n) + int(64 * (slack - 1))

    i64 = np.int64
    chords, crossings, most = int(k.sum()), int(meetings.sum()), int(k.max(initial=0))
    sizes = np.diff(mesh.offsets)
    pieces = k + 2 * meetings
    # the splitting of one face needs some elbow room beyond what stays of it
    widest = int((2 * sizes + 4 * pieces).max(initial=0)) + 16
    vertices, edges = grown(crossings) + most, grown(chords + 2 * crossings) + most + 1
    faces = grown(len(mesh) + chords + crossings) + 4
    halves = grown(len(mesh.loops) + 2 * (chords + 2 * crossings)) + widest
    made = Made(
        np.empty((vertices, 2), i64), np.empty(vertices), np.empty((3, edges), INDEX),
        np.empty((2, halves), INDEX), np.zeros((2, faces), i64),
        np.empty((2, 2 * (vertices + most)), i64), np.zeros(5, i64),
        np.zeros(len(mesh), np.bool_),
    )  # fmt: skip
    bottom = grown((2 * (sizes + 2 * k)).max(initial=0)) + 16
    stacked = int(slack * (2 * int(pieces.max(initial=0)) + 24))
    rows = most + stacked
    room = Room(
        np.empty((2, bottom + int(slack * 2 * widest)), INDEX), np.empty((rows, 9), i64),
        np.empty((rows, 8)), np.zeros((stacked, 4), i64), np.empty(most, i64), np.empty(most),
        np.empty(most + 2, i64),
    )  # fmt: skip
    room.frame[0] = bottom, 0, most, 0
    return made, room

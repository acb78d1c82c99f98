"""Running the kernel that splits faces: room for what it makes, and shares of the faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isogon.measures.partition.kernels.faces import split_faces
from isogon.measures.partition.kernels.meetings import (
    EDGE,
    FACE,
    HALF,
    VERTEX,
    ZERO,
    Cut,
    Made,
    Room,
)
from isogon.measures.partition.kernels.threads import by_parts, shared
from isogon.measures.partition.mesh.mesh import INDEX, Mesh, sizes


@dataclass(eq=False)
class Split:
    """What faces turn into; numbers of vertices and edges go on behind those of the mesh.

    Attributes:
        source: `[V, 2]` vertices of the mesh between which new ones lie ...
        ratio: ... `[V]` and where.
        edge: `[3, E]` ends and function of the new edges.
        offsets: `[F + 1]` CSR of the loops.
        parent: `[F]` the face that each was a part of.
        half: `[2, H]` vertices and edges of the loops.
        zero: `[2, Z]` new vertices, from 0, and functions that vanish there.
        bits: `[F, words]` functions that are positive.
        unclear: `[old F]` former faces with a close decision.
    """

    source: np.ndarray
    ratio: np.ndarray
    edge: np.ndarray
    offsets: np.ndarray
    parent: np.ndarray
    half: np.ndarray
    zero: np.ndarray
    bits: np.ndarray
    unclear: np.ndarray


def split_mesh(
    mesh: Mesh,
    bits: np.ndarray,
    kept: np.ndarray,
    chords: np.ndarray,
    error: np.ndarray,
    cut: Cut,
    meetings: np.ndarray,
) -> Split:
    """Split every face of a mesh by its chords, in as many shares as there are threads.

    Args:
        mesh: The mesh; it is left as it is.
        bits: `[F, words]`, `kept` `[F + 1]`, `chords`, `error`, `cut`: see `split_faces`.
        kept: See there.
        chords: See there.
        error: See there.
        cut: See there.
        meetings: `[F]` crossings of two chords in each face.
    """
    k, total = sizes(kept), np.concatenate([[0], np.cumsum(meetings)])

    def before(face: int) -> np.ndarray:
        """Vertices, edges, faces, half-edges and zeros of all faces before, as counted."""
        v, chords = int(total[face]), int(kept[face])
        edges = chords + 2 * v
        return np.array([v, edges, face + chords + v, mesh.offsets[face] + 2 * edges, 2 * v])

    def run(made: Made, p: slice, slack: float) -> tuple[bool, np.ndarray]:
        """Split some faces; whether there was room, and the counts behind them."""
        to = slice(p.start, p.stop + 1)
        own = made._replace(count=before(p.start), unclear=made.unclear[p])
        room = _room(sizes(mesh.offsets[to]), k[p], meetings[p], bits.shape[1], slack)
        start = int(own.count[FACE])
        place = mesh.offsets[to], mesh.loops, mesh.borders, bits[p], kept[to], chords, error
        failed = split_faces(*place, cut, own, room, len(mesh.ends))
        made.face[1, start : own.count[FACE]] += p.start
        return failed < 0, own.count

    def shares(p: slice) -> bool:
        fits, count = run(made, p, 1.0)
        return fits and np.array_equal(count, before(p.stop))

    made = _made(mesh, k, meetings, bits.shape[1], 1.0)
    work = mesh.offsets + 8 * (kept + 2 * total)
    if len(by := shared(work)) > 1 and all(by_parts(by, shares)):
        return _only(made, before(len(mesh)))
    # Where several chords meet in one point there are fewer faces than were counted: the place
    # where a share begins is not known beforehand.
    slack = 1.0
    while True:
        fits, count = run(made, slice(0, len(mesh)), slack)
        if fits:
            return _only(made, count)
        slack *= 2
        made = _made(mesh, k, meetings, bits.shape[1], slack)


def _only(made: Made, count: np.ndarray) -> Split:
    """What was made, without the room that is left over."""
    return Split(
        made.source[: count[VERTEX]],
        made.ratio[: count[VERTEX]],
        made.edge[:, : count[EDGE]],
        made.face[0, : count[FACE] + 1],
        made.face[1, : count[FACE]].astype(INDEX),
        made.half[:, : count[HALF]],
        made.zero[:, : count[ZERO]],
        made.bits[: count[FACE]],
        made.unclear,
    )


def _grown(n: float, slack: float) -> int:
    return int(slack * n) + int(64 * (slack - 1))


def _widest(long: np.ndarray, k: np.ndarray, meetings: np.ndarray) -> int:
    """Half-edges that splitting one face needs beyond what stays of it."""
    return int((2 * long + 4 * (k + 2 * meetings)).max(initial=0)) + 16


def _made(mesh: Mesh, k: np.ndarray, meetings: np.ndarray, words: int, slack: float) -> Made:
    """Arrays as large as the counts of chords and of their crossings say.

    Args:
        mesh: The mesh.
        k: Number of chords of each face ...
        meetings: ... and of crossings of two of them.
        words: Of each face's bits.
        slack: Factor on all sizes, should these ever not suffice.
    """
    chords, crossings, most = int(k.sum()), int(meetings.sum()), int(k.max(initial=0))
    vertices = _grown(crossings, slack) + most
    edges = _grown(chords + 2 * crossings, slack) + most + 1
    faces = _grown(len(mesh) + chords + crossings, slack) + 4
    halves = _grown(len(mesh.loops) + 2 * (chords + 2 * crossings), slack)
    halves += _widest(sizes(mesh.offsets), k, meetings)
    i64 = np.int64
    return Made(
        np.empty((vertices, 2), i64),
        np.empty(vertices),
        np.empty((3, edges), INDEX),
        np.empty((2, halves), INDEX),
        np.zeros((2, faces), i64),
        np.empty((2, 2 * (vertices + most)), i64),
        np.zeros(5, i64),
        np.zeros(len(mesh), np.bool_),
        np.empty((faces, words), np.uint64),
    )


def _room(long: np.ndarray, k: np.ndarray, meetings: np.ndarray, words: int, slack: float) -> Room:
    """A workplace for the splitting of one face after another.

    Args:
        long: Length of each face's loop.
        k: Number of chords of each face ...
        meetings: ... and of crossings of two of them.
        words: Of each face's bits.
        slack: Factor on all sizes, should these ever not suffice.
    """
    i64, most = np.int64, int(k.max(initial=0))
    widest, pieces = _widest(long, k, meetings), k + 2 * meetings
    bottom = _grown((2 * (long + 2 * k)).max(initial=0), slack) + 16
    stacked = int(slack * (2 * int(pieces.max(initial=0)) + 24))
    rows = most + stacked
    room = Room(
        np.empty((2, bottom + int(slack * 2 * widest)), INDEX),
        np.empty((rows, 10), i64),
        np.empty((rows, 8)),
        np.zeros((stacked, 4), i64),
        np.empty(most, i64),
        np.empty(most),
        np.empty(most + 2, i64),
        np.empty((stacked + 1, words), np.uint64),
    )
    room.frame[0] = bottom, 0, most, 0
    return room

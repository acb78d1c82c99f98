"""The planar subdivision: shared vertices and edges, counter-clockwise faces."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from isogon.measures.partition.kernels import edges as ek
from isogon.measures.partition.kernels.threads import by_rows
from isogon.measures.partition.mesh import memory

INDEX = np.int32


def sizes(offsets: np.ndarray) -> np.ndarray:
    """Number of entries of each row, from CSR offsets (a fourth of `np.diff`'s time)."""
    return offsets[1:] - offsets[:-1]


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
        if self.open.all():
            return np.arange(len(self)), self.offsets, self.loops
        faces = np.flatnonzero(self.open)
        count = sizes(self.offsets)[faces]
        offsets = np.concatenate([[0], np.cumsum(count)])
        half = np.arange(offsets[-1]) + np.repeat(self.offsets[faces] - offsets[:-1], count)
        return faces, offsets, self.loops[half]

    def open_edges(self) -> np.ndarray:
        """`[E]` whether a face that is still cut lies on either side of an edge."""
        if self.open.all():
            return np.ones(len(self.ends), bool)
        found = np.zeros(len(self.ends), bool)
        found[self.borders[np.repeat(self.open, sizes(self.offsets))]] = True
        return found

    def free_edges(self) -> np.ndarray:
        """The edges that may be cut: not fixed, and with a face that is still cut beside them."""
        if self.open.all():
            return np.arange(self.fixed, len(self.ends))
        free = np.flatnonzero(self.open_edges())
        return free[free >= self.fixed]

    def snapshot(self) -> Mesh:
        """What `restore` needs: all but the live tensors, of which only the rows grow."""
        before = copy.copy(self)  # its arrays are replaced when it is cut, not written to
        before.live, before.room = {}, {}
        return before

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
        return sum(8 * (held.numel() // held.shape[0]) for held in self.live.values())

    def extended(self, name: str, held: Tensor, source: np.ndarray, ratio: np.ndarray) -> Tensor:
        """Append rows `(1 - t) held[p] + t held[q]`, in place where there is room left over."""
        n, m = held.shape[0], len(ratio)
        buffer = self.room.get(name)
        inside = buffer is not None and buffer.data_ptr() == held.data_ptr()
        if buffer is None or not inside or buffer.shape[0] < n + m:
            buffer = memory.spare.room(n + m, held.shape[1:])
            buffer[:n] = held
            self.room[name] = buffer
        flat = buffer.reshape(buffer.shape[0], -1).numpy()
        if len(source) and source.max() >= n:  # between rows that are made on the way
            ek.append_between(flat, source, ratio, n)
        else:
            by_rows(
                m,
                flat.shape[1],
                lambda p: ek.append_between(flat, source[p], ratio[p], n + p.start),
            )
        return buffer[: n + m]

    def drop_rows(self, gone: np.ndarray) -> None:
        """Drop vertices `[V]` from the live tensors, in place where their memory is the mesh's."""
        own = {name for name in self.live if self.owns(name)}
        self.room = {name: self.room[name] for name in own}
        for name in own:
            ek.close_up(self.values(name), gone)
        stay = torch.from_numpy(np.nonzero(~gone)[0])
        self.live = {
            name: held[: len(stay)] if name in own else held[stay]
            for name, held in self.live.items()
        }

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
        return held.reshape(held.shape[0], -1).numpy()

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
        size = len(self.loops) + int(sizes(chain)[self.borders].sum())
        offsets = np.empty_like(self.offsets)
        loops, borders = np.empty(size, INDEX), np.empty(size, INDEX)
        ek.divide_loops(
            self.offsets,
            self.loops,
            self.borders,
            self.ends,
            chain,
            len(self.xy),
            count,
            offsets,
            loops,
            borders,
        )
        self.ends = np.concatenate([self.ends, np.empty((made, 2), INDEX)])
        self.site = np.concatenate([self.site, np.empty(made, INDEX)])
        self.unit = np.concatenate([self.unit, np.empty(made, INDEX)])
        self.offsets, self.loops, self.borders = offsets, loops, borders
        ek.divide_edges(self.ends, self.site, self.unit, chain, len(self.xy), count)

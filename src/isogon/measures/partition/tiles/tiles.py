"""Tiles: parts of a mesh that are grown one after the other, and joined again.

A tile holds some of the faces. The edges between tiles, the seams, get all their later vertices
beforehand (`seams`) and are fixed in both tiles, so that joining is a matter of numbering.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from isogon.measures.partition.mesh import memory, stream
from isogon.measures.partition.mesh.mesh import INDEX, Mesh
from isogon.measures.partition.mesh.stream import Pending, Values
from isogon.measures.partition.tiles.seams import Seams


class TileRows:
    """Live tensors at any vertices of a mesh, also the pending ones."""

    def __init__(self, live: Values, pending: Pending | None) -> None:
        self.live = live
        self.pending = pending
        self.count = count = len(next(iter(live.values())))
        own = np.arange(count)
        self.source, self.ratio = np.stack([own, own], 1), np.zeros(count)
        if pending is not None:
            self.source = np.concatenate([self.source, pending.source])
            self.ratio = np.concatenate([self.ratio, pending.ratio])

    def of(self, vertices: np.ndarray) -> Values:
        """The rows of given vertices."""
        source, ratio = self.source[vertices], self.ratio[vertices]
        found = {name: stream.between(held, source, ratio) for name, held in self.live.items()}
        if self.pending is not None and self.pending.name in found:
            self.pending.restore(found[self.pending.name], vertices - self.count)
        return found


@dataclass(eq=False)
class Tile:
    """A part of a mesh.

    Attributes:
        mesh: Its faces, on its own; vertices and edges shared with other tiles come first.
        faces: `[F]` numbers of its faces in the whole.
        vertices: `[V]` of its vertices (at first).
        edges: `[E]` of its edges (at first).
        ends: `[V, 2]` vertices of the whole between which each vertex lies, and ...
        place: ... `[V]` where, from 0 to 1.
        source: Live tensors of the whole.
    """

    mesh: Mesh
    faces: np.ndarray
    vertices: np.ndarray
    edges: np.ndarray
    ends: np.ndarray
    place: np.ndarray
    source: TileRows

    def rows(self) -> Iterator[stream.Chunk]:
        """Live tensors of its vertices, chunk by chunk."""
        for part in stream.chunks(len(self.place), stream.wide(self.source.live)):
            yield part, partial(self._rows, part)

    def _rows(self, part: slice) -> Values:
        ends, place = self.ends[part], self.place[part]
        found = self.source.of(ends[:, 0])
        between = np.flatnonzero(place)
        if len(between):
            at = torch.from_numpy(between)
            far = self.source.of(ends[between, 1])
            for name, near in found.items():
                weight = torch.from_numpy(place[between])
                weight = weight.reshape(-1, *[1] * (near.ndim - 1))
                own = near[at]
                near[at] = torch.where(own == far[name], own, torch.lerp(own, far[name], weight))
        return found


def assigned(mesh: Mesh, count: int) -> np.ndarray:
    """Divide the faces into `count` compact tiles of about equal size: `[F]` tile of each."""
    sizes = np.diff(mesh.offsets)
    corner = np.add.reduceat(mesh.xy[mesh.loops], mesh.offsets[:-1]) / sizes[:, None]
    group = np.zeros(len(mesh), np.int64)
    open_ = [(np.arange(len(mesh)), 0, min(count, len(mesh)))]
    while open_:
        faces, first, k = open_.pop()
        if k == 1:
            group[faces] = first
            continue
        xy = corner[faces]
        axis = int(np.ptp(xy, axis=0).argmax())
        half = k // 2
        cut = len(faces) * half // k
        order = np.argpartition(xy[:, axis], cut)
        open_.append((faces[order[:cut]], first, half))
        open_.append((faces[order[cut:]], first + half, k - half))
    return group


def cut_out(mesh: Mesh, group: np.ndarray, seams: Seams, rows: TileRows) -> list[Tile]:
    """The tiles of a mesh, after the seams' vertices have been put in (in place)."""
    count, edges = len(mesh.xy), len(mesh.ends)
    pins = np.concatenate([mesh.pins, seams.pins + np.array([0, count, 0, 0])])
    put_in(mesh, seams)
    fixed = np.zeros(len(mesh.ends), bool)
    fixed[: mesh.fixed] = fixed[seams.edges] = fixed[edges:] = True
    kept = np.zeros(len(mesh.xy), bool)
    kept[: mesh.corners] = kept[mesh.ends[fixed]] = True
    # between which vertices the rows of each vertex are to be found
    own = np.arange(count)
    on = np.repeat(seams.ends, np.diff(seams.first), 0)
    ends = np.concatenate([np.stack([own, own], 1), on])
    place = np.concatenate([np.zeros(count), seams.place])
    number = np.empty(max(len(mesh.xy), len(mesh.ends)), np.int64)
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(group.max() + 2))
    found = []
    for low, high in pairwise(bounds):
        faces = order[low:high]
        sizes = np.diff(mesh.offsets)[faces]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        half = np.arange(offsets[-1]) + np.repeat(mesh.offsets[faces] - offsets[:-1], sizes)
        vertices, loops = numbered(mesh.loops[half], kept, number)
        inside, borders = numbered(mesh.borders[half], fixed, number)
        number[vertices] = np.arange(len(vertices))
        own = pins[np.isin(pins[:, 1], vertices)]
        own[:, 1] = number[own[:, 1]]
        part = Mesh(
            mesh.xy[vertices],
            number[mesh.ends[inside]].astype(INDEX),
            mesh.site[inside],
            mesh.unit[inside],
            offsets,
            loops,
            borders,
            corners=int(kept[vertices].sum()),
            fixed=int(fixed[inside].sum()),
            pins=own,
            stopped=mesh.stopped[faces],
        )
        found.append(Tile(part, faces, vertices, inside, ends[vertices], place[vertices], rows))
    return found


def numbered(
    used: np.ndarray, first: np.ndarray, number: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What is used, those marked `first` first; and each entry's new number."""
    every = np.unique(used)
    every = np.concatenate([every[first[every]], every[~first[every]]])
    number[every] = np.arange(len(every))
    return every, number[used].astype(INDEX)


def put_in(mesh: Mesh, seams: Seams) -> None:
    """Put the seams' vertices on the mesh's edges and loops."""
    if len(seams.place) == 0:
        return
    per_edge = np.zeros(len(mesh.ends), np.int64)
    per_edge[seams.edges] = np.diff(seams.first)
    chain = np.concatenate([[0], np.cumsum(per_edge)])
    source = np.repeat(seams.ends, np.diff(seams.first), 0)
    mesh.divide(chain)
    mesh.add_places(source, seams.place)


def joined(whole: Mesh, parts: list[Tile]) -> Mesh:
    """The mesh of all tiles, grown to the end.

    Shared vertices and edges come first, in their order in the whole.
    """
    shared = [p.vertices[: p.mesh.corners] for p in parts]
    fixed = [p.edges[: p.mesh.fixed] for p in parts]
    vertices, edges = np.unique(np.concatenate(shared)), np.unique(np.concatenate(fixed))
    held = {name: rows for p in parts[:1] for name, rows in p.mesh.live.items()}
    ((name, rows),) = held.items()
    total = len(vertices) + sum(len(p.mesh.xy) - p.mesh.corners for p in parts)
    live = memory.spare.empty((total, *rows.shape[1:]))
    xy = [whole.xy[vertices]]
    ends = [np.searchsorted(vertices, whole.ends[edges]).astype(INDEX)]
    site, unit = [whole.site[edges]], [whole.unit[edges]]
    sizes, loops, borders = [], [], []
    at_vertex, at_edge = len(vertices), len(edges)
    for part, own_vertices, own_edges in zip(parts, shared, fixed, strict=True):
        mesh = part.mesh
        new = len(mesh.xy) - mesh.corners
        place = np.searchsorted(vertices, own_vertices)
        vertex = np.concatenate([place, np.arange(at_vertex, at_vertex + new)]).astype(INDEX)
        live[torch.from_numpy(vertex.astype(np.int64))] = mesh.live[name]
        fresh = len(mesh.ends) - mesh.fixed
        place = np.searchsorted(edges, own_edges)
        edge = np.concatenate([place, np.arange(at_edge, at_edge + fresh)]).astype(INDEX)
        xy.append(mesh.xy[mesh.corners :])
        ends.append(vertex[mesh.ends[mesh.fixed :]])
        site.append(mesh.site[mesh.fixed :])
        unit.append(mesh.unit[mesh.fixed :])
        sizes.append(np.diff(mesh.offsets))
        loops.append(vertex[mesh.loops])
        borders.append(edge[mesh.borders])
        at_vertex, at_edge = at_vertex + new, at_edge + fresh
    return Mesh(
        np.concatenate(xy),
        np.concatenate(ends),
        np.concatenate(site),
        np.concatenate(unit),
        np.concatenate([[0], np.cumsum(np.concatenate(sizes))]),
        np.concatenate(loops),
        np.concatenate(borders),
        live={name: live},
        corners=whole.corners,
        fixed=whole.fixed,
        stopped=np.concatenate([part.mesh.stopped for part in parts]),
    )

"""Removing edges of a mesh across which nothing changes, and vertices that join two edges."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from isogon.measures.partition.kernels import envelope as ev
from isogon.measures.partition.mesh.mesh import INDEX, Mesh


def void_edges(mesh: Mesh, site: int, bits: np.ndarray, varying: np.ndarray) -> np.ndarray:
    """Edges of this site with the same largest entries on both sides: no edges at all.

    Two groups may share a bisector; an edge is attributed to one that does change there.
    """
    sides = mesh.sides()
    own = np.flatnonzero((mesh.site == site) & mesh.open[sides].all(1))
    sides = sides[own]
    void = np.zeros(len(mesh.ends), bool)
    for low in range(0, len(own), 1 << 14):
        part = own[low : low + (1 << 14)]
        left, right = sides[low : low + len(part)].T
        changes = bits[left] != bits[right]
        void[part] = ~changes.any(1)
        column = np.searchsorted(varying, mesh.unit[part])
        changes_own = changes[np.arange(len(part)), column]
        first = varying[changes.argmax(1)]
        mesh.unit[part] = np.where(changes_own, mesh.unit[part], first)
    return void


def unions(mesh: Mesh, void: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The unions of faces without some edges: one face of each, the union of each face."""
    faces = len(mesh)
    if not void.any():
        return np.arange(faces), np.arange(faces)
    a, b = mesh.sides()[void].T
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(faces, faces))
    _, group = connected_components(graph, directed=False)
    kept = np.unique(group, return_index=True)[1]
    order = np.argsort(kept, kind="stable")
    rank = np.empty(len(kept), np.int64)
    rank[order] = np.arange(len(kept))
    return kept[order], rank[group]


def dissolve(mesh: Mesh, void: np.ndarray, kept: np.ndarray, group: np.ndarray) -> None:
    """Remove edges, joining the (convex) unions of faces.

    Vertices that are left with two edges, other than the domain's corners, go too.
    """
    mesh.stopped = mesh.stopped[kept]
    _relink(mesh, group, ~void)
    _drop_edges(mesh, ~void)
    straighten(mesh)


def _relink(mesh: Mesh, group: np.ndarray, stay: np.ndarray) -> None:
    """Loops of the joined faces from the half-edges that stay."""
    sizes = np.diff(mesh.offsets)
    face = np.repeat(group, sizes)
    following = np.arange(1, len(face) + 1)
    following[mesh.offsets[1:] - 1] = mesh.offsets[:-1]
    ends = mesh.loops[following]
    half = np.nonzero(stay[mesh.borders])[0]
    half = half[np.argsort(face[half], kind="stable")]
    first = np.searchsorted(face[half], np.arange(group.max() + 2))
    order = np.empty(len(half), np.int64)
    ev.chain(first, mesh.loops[half], ends[half], order)
    half = half[order]
    mesh.offsets, mesh.loops, mesh.borders = first, mesh.loops[half], mesh.borders[half]


def _drop_edges(mesh: Mesh, stay: np.ndarray) -> None:
    number = np.cumsum(stay) - 1
    mesh.ends, mesh.site, mesh.unit = mesh.ends[stay], mesh.site[stay], mesh.unit[stay]
    mesh.borders = number[mesh.borders].astype(INDEX)


def straighten(mesh: Mesh) -> None:
    """Remove vertices with fewer than three edges that are no corners of the domain."""
    degree = np.bincount(mesh.ends.reshape(-1), minlength=len(mesh.xy))
    gone = degree < 3
    gone[: mesh.corners] = False
    if not gone.any():
        return
    # the edges that meet in a vertex that goes are pieces of one edge
    at = np.nonzero(gone[mesh.ends])
    order = np.argsort(mesh.ends[at], kind="stable")
    edge, vertex = at[0][order], mesh.ends[at][order]
    pair = np.nonzero(vertex[1:] == vertex[:-1])[0]
    count = len(mesh.ends)
    graph = coo_array((np.ones(len(pair)), (edge[pair], edge[pair + 1])), shape=(count, count))
    total, chain = connected_components(graph, directed=False)
    _, first = np.unique(chain, return_index=True)
    outer = np.nonzero(~gone[mesh.ends])
    by_chain = np.argsort(chain[outer[0]], kind="stable")
    ends = mesh.ends[outer][by_chain].reshape(total, 2)
    mesh.site, mesh.unit = mesh.site[first], mesh.unit[first]
    half = ~gone[mesh.loops]
    face = np.repeat(np.arange(len(mesh)), np.diff(mesh.offsets))[half]
    number = (np.cumsum(~gone) - 1).astype(INDEX)
    mesh.offsets = np.searchsorted(face, np.arange(len(mesh) + 1))
    mesh.loops, mesh.borders = number[mesh.loops[half]], chain[mesh.borders[half]].astype(INDEX)
    mesh.ends, mesh.xy = number[ends], mesh.xy[~gone]
    mesh.drop_rows(gone)

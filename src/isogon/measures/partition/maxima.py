"""Cutting the mesh along the upper envelopes of a maximum."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from isogon.cpwl.program import Max
from isogon.errors import UnsupportedOp
from isogon.measures.partition import edges as ek
from isogon.measures.partition import envelope as ev
from isogon.measures.partition import memory
from isogon.measures.partition.boundary import workplace
from isogon.measures.partition.cutting import Full, Functions, Limit, cut_edges, cut_faces
from isogon.measures.partition.edges import WIDE
from isogon.measures.partition.kinks import TABLE
from isogon.measures.partition.mesh import INDEX, Mesh
from isogon.measures.partition.patterns import SitePattern
from isogon.measures.partition.zeros import Errors, Judge, Table

WORD = 64
NEAR = 256.0  # times what counts as zero below the envelope that still count as on it, on a seam


def cut_max(
    mesh: Mesh,
    stage: Max,
    site: int,
    limit: Limit,
    judge: Judge,
    units: np.ndarray | None = None,
) -> tuple[SitePattern, None]:
    """Cut where the set of largest entries of a group changes.

    Args, result and errors are those of `kinks.cut_kink`; no vertices are left pending.
    """
    table = TABLE
    flat = stage.flat(*(mesh.live[name] for name in stage.inputs))
    flat = tied(mesh, flat, judge.position)
    bound = judge.bound()
    tol = float(bound.max(initial=0))
    index = contending(stage, flat, judge, bound)
    base, varying, open_ = everywhere(index, mesh, flat, judge, bound)
    if units is not None:
        varying = np.intersect1d(varying, units)
    parent = np.arange(len(mesh), dtype=INDEX)
    if len(varying) == 0:
        empty = np.zeros((len(mesh), 0), np.uint64)
        return SitePattern(stage.site, "max", base, varying, empty, parent, tol), None
    used, entry, mesh.live[table] = entries(stage, index, flat, varying)
    z = mesh.values(table)
    sizes = Table(bound[used], len(z), lambda rows: judge.zero(mesh.xy[rows])[:, used])
    sizes.settle(open_)
    masks = np.empty((len(z), len(varying)), np.uint64)
    sizes.settled(lambda *error: ev.winner_masks(z, entry, *error[:2], 0, error[2], masks))
    nothing = np.empty((0, 4), np.int64)
    room = workplace(mesh.offsets, entry.shape[1])
    faces, offsets, loops = mesh.open_faces()
    polygons = offsets, loops, z, entry, masks
    count = sizes.settled(lambda *error: ev.face_pairs(*polygons, *error, nothing, room))
    pairs = np.empty((count, 4), np.int64)
    ev.face_pairs(*polygons, sizes.error, sizes.row, np.zeros(len(z), np.bool_), pairs, room)
    pairs[:, 0] = faces[pairs[:, 0]]
    functions, which = as_functions(pairs, entry, varying)
    first = np.searchsorted(pairs[:, 0], np.arange(len(mesh) + 1))
    if len(mesh) + count > limit.counted:
        raise Full(np.diff(first))
    by_edge = crossings(mesh, z, functions, sizes, first, which)
    by_edge = off_seams(
        mesh, z, functions, entry[np.searchsorted(varying, functions.unit)], sizes, *by_edge
    )
    if not memory.fits(mesh.live, len(by_edge[1])):
        raise Full(np.diff(first), memory=True)
    errors = Errors(judge, mesh, used[functions.column], used[functions.other], bound)
    old = len(z)
    vertex, f = cut_edges(mesh, table, functions, errors, *by_edge)
    ev.tie(mesh.values(table), vertex, functions.column[f], functions.other[f])
    sizes.extended(len(mesh.xy))
    parent, new, _, (vertex, f) = cut_faces(
        mesh, table, functions, errors, (sizes.error, sizes.row), site, first, which, limit.counted
    )
    z = mesh.values(table)
    ev.tie(z, vertex, functions.column[f], functions.other[f])
    sizes.extended(len(z))
    masks = np.concatenate([masks, np.empty((len(z) - old, len(varying)), np.uint64)])
    sizes.settled(lambda *error: ev.winner_masks(z, entry, *error[:2], old, error[2], masks))
    bits = np.empty((len(mesh), len(varying)), np.uint64)
    ev.face_winners(mesh.offsets, mesh.loops, z, entry, masks, bits)
    mesh.forget([table])
    void = void_edges(mesh, site, bits, varying)
    kept, group = unions(mesh, void)
    if len(kept) > limit.faces:
        raise Full(new)
    if void.any():
        dissolve(mesh, void, kept, group)
    pattern = SitePattern(stage.site, "max", base, varying, bits[kept], parent[kept], tol)
    return pattern, None


def tied(mesh: Mesh, flat: Tensor, position: int) -> Tensor:
    """The entries with those set equal that are known to be, at vertices on seams."""
    known = mesh.pins[mesh.pins[:, 0] == position]
    if len(known):
        flat = flat.clone()
        ev.tie(flat.numpy(), *known[:, 1:].T.copy())
    return flat


def contending(stage: Max, flat: Tensor, judge: Judge, bound: np.ndarray) -> np.ndarray:
    """The groups `[groups, K]` without entries that are never the largest, such as padding."""
    z = flat.contiguous().numpy()
    units = z.shape[1]
    low, high = np.full(units, np.inf), np.full(units, -np.inf)
    nothing = np.empty((0, units))
    ek.look(z, nothing, nothing, low, high, np.empty(len(z), np.bool_))
    judge.bounds.cut(judge.position, torch.from_numpy(low), torch.from_numpy(high))
    index = stage.index.numpy()
    top = np.where(index >= 0, low[index], -np.inf)
    floor = np.take_along_axis(index, top.argmax(1)[:, None], 1)
    never = high[index] + WIDE * bound[index] < low[floor] - WIDE * bound[floor]
    return np.where(never, -1, index)


def everywhere(
    index: np.ndarray, mesh: Mesh, flat: Tensor, judge: Judge, bound: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks of the entries that are largest at every vertex, the groups that have none.

    Also the vertices at which bounds do not tell which ones are.
    """
    groups, size = index.shape
    base = np.full(groups, ~np.uint64(0))
    if size <= WORD:
        z, unclear = flat.contiguous().numpy(), np.zeros(len(flat), np.bool_)
        ev.common_winners(z, index, bound[None], np.zeros(len(z), np.int64), unclear, base)
        rows = np.flatnonzero(unclear)
        for low in range(0, len(rows), 1024):
            part = rows[low : low + 1024]
            error, own = judge.zero(mesh.xy[part]), 1 + np.arange(len(part))
            error = np.concatenate([bound[None], error])
            ev.common_winners(z[part], index, error, own, unclear[: len(part)], base)
        return base, np.flatnonzero(base == 0), rows
    # too many for a mask: fine where one of the first is largest everywhere
    always = index >= 0
    step = max(1, (4 << 20) // (8 * groups * size))
    entry = index.clip(min=0)
    for low in range(0, len(flat), step):
        found = np.where(index >= 0, flat[low : low + step].numpy()[:, entry], -np.inf)
        best = found.argmax(-1)[..., None]
        slack = bound[entry] + np.take_along_axis(bound[entry][None], best, 2)
        with np.errstate(invalid="ignore"):
            always &= (np.take_along_axis(found, best, 2) - found <= slack).all(0)
    base[:] = 0
    for k in range(WORD):
        base |= always[:, k].astype(np.uint64) << np.uint64(k)
    return base, np.flatnonzero(base == 0), np.zeros(0, np.int64)


def entries(
    stage: Max, index: np.ndarray, flat: Tensor, varying: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Which entries the varying groups use, these as columns of a table, the table `[V, columns]`.

    Raises:
        UnsupportedOp: More than 64 entries of a group compete on the slice.
    """
    index = index[varying]
    if index.shape[1] > WORD:
        raise UnsupportedOp(
            f"{stage.op} at {stage.site!r} takes the maximum of too many entries",
            got=index.shape[1],
            expected=f"at most {WORD}",
            fix="Take the maximum in two steps, e.g. over rows and then over columns.",
        )
    used = np.unique(index[index >= 0])
    entry = np.where(index >= 0, np.searchsorted(used, index), -1)
    return used, entry, flat[:, torch.from_numpy(used)]


def as_functions(
    pairs: np.ndarray, entry: np.ndarray, varying: np.ndarray
) -> tuple[Functions, np.ndarray]:
    """Each (group, entry, entry) once, as a cut function; and which one each row means."""
    unique, which = np.unique(pairs[:, 1:], axis=0, return_inverse=True)
    group = unique[:, 0]
    functions = Functions(
        entry[group, unique[:, 1]],
        entry[group, unique[:, 2]],
        np.zeros(len(unique)),
        varying[group],
    )
    return functions, which.reshape(-1).astype(np.int64)


def crossings(
    mesh: Mesh,
    z: np.ndarray,
    functions: Functions,
    sizes: Table,
    first: np.ndarray,
    which: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """CSR by edge of the functions that cross it, each once."""
    f = functions
    rest = (
        mesh.offsets, mesh.loops, mesh.borders, first, which, z, f.column, f.other, f.offset,
        sizes.error, sizes.row,
    )  # fmt: skip
    count = ev.crossed_edges(*rest, np.empty((0, 2), np.int64))
    found = np.empty((count, 2), np.int64)
    ev.crossed_edges(*rest, found)
    found = np.unique(found, axis=0)
    return (
        np.searchsorted(found[:, 0], np.arange(len(mesh.ends) + 1)),
        np.ascontiguousarray(found[:, 1]),
    )


def off_seams(
    mesh: Mesh,
    z: np.ndarray,
    functions: Functions,
    entry: np.ndarray,
    sizes: Table,
    first: np.ndarray,
    which: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Without the crossings of fixed edges where the largest entry changes.

    Those have their vertices already. Where a bisector crosses a fixed edge below the envelope
    it is cut like any other, and dissolved again.

    Args:
        mesh: The mesh.
        z: `[V, columns]` values of the entries.
        functions: Bisectors of two entries.
        entry: `[functions, K]` columns of each one's group, -1: none.
        sizes: What counts as zero of the entries at the vertices.
        first: `[E + 1]` CSR offsets: the functions that cross each edge ...
        which: ... and their numbers.
    """
    count = first[mesh.fixed]
    f = which[:count]
    edge = np.repeat(np.arange(mesh.fixed), np.diff(first[: mesh.fixed + 1]))
    a, b = mesh.ends[edge].T
    p = z[a, functions.column[f]] - z[a, functions.other[f]]
    q = z[b, functions.column[f]] - z[b, functions.other[f]]
    t = (p / (p - q))[:, None]
    rival = entry[f]
    height = (1 - t) * z[a[:, None], rival] + t * z[b[:, None], rival]
    height[rival < 0] = -np.inf
    own = np.take_along_axis(
        height, (rival == functions.column[f][:, None]).argmax(1)[:, None], axis=1
    )[:, 0]
    stay = np.ones(len(which), bool)
    slack = np.zeros(count)
    for end in (a, b):
        error = sizes.error[sizes.row[end][:, None], rival]
        error = np.where(rival >= 0, error, 0.0).max(1, initial=0.0)
        slack = np.maximum(slack, error + sizes.error[sizes.row[end], functions.column[f]])
    stay[:count] = own < height.max(1, initial=-np.inf) - NEAR * slack
    offsets = np.concatenate([[0], np.cumsum(stay)])
    return offsets[first], which[stay]


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
    stay = torch.from_numpy(np.nonzero(~gone)[0])
    mesh.live = {name: held[stay] for name, held in mesh.live.items()}
    mesh.room = {}

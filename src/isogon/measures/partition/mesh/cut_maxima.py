"""Cutting the mesh along the upper envelopes of a maximum."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.stages import Max
from isogon.errors import UnsupportedOp
from isogon.measures.partition.kernels import envelope as ev
from isogon.measures.partition.kernels.contenders import workplace
from isogon.measures.partition.kernels.edges import WIDE
from isogon.measures.partition.kernels.threads import by_rows
from isogon.measures.partition.mesh import memory
from isogon.measures.partition.mesh.cut_kinks import TABLE
from isogon.measures.partition.mesh.cutting import Full, Functions, Limit, cut_edges, cut_faces
from isogon.measures.partition.mesh.dissolving import dissolve, unions, void_edges
from isogon.measures.partition.mesh.mesh import INDEX, Mesh
from isogon.measures.partition.mesh.zeros import Errors, Judge, Table
from isogon.measures.partition.patterns import SitePattern

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
    bound = judge.bound()
    known = mesh.pins[mesh.pins[:, 0] == judge.position]
    vertex, first, second = known[:, 1:].T.copy()
    level(mesh, stage, vertex, first, second, bound)
    flat = stage.flat(*(mesh.live[name] for name in stage.inputs))
    tol = float(bound.max(initial=0))
    index = contending(stage, flat, judge, bound)
    base, varying, open_ = everywhere(index, mesh, flat, judge, bound)
    if units is not None:
        varying = np.intersect1d(varying, units)
    parent = np.arange(len(mesh), dtype=INDEX)
    if len(varying) == 0:
        empty = np.zeros((len(mesh), 0), np.uint64)
        return SitePattern(stage.site, "max", base, varying, empty, parent, tol), None
    used, entry, mesh.live[table] = used_entries(stage, index, flat, varying)
    z = mesh.values(table)
    sizes = Table(bound[used], len(z), lambda rows: judge.zero(mesh.xy[rows])[:, used])
    sizes.settle(open_)
    masks = np.empty((len(z), len(varying)), np.uint64)
    sizes.settled(lambda error, row, open_: ev.winner_masks(z, entry, error, row, 0, open_, masks))
    equal(mesh, stage, used, entry, sizes, masks)
    nothing = np.empty((0, 4), np.int64)
    room = workplace(mesh.offsets, entry.shape[1])
    faces, offsets, loops = mesh.open_faces()
    polygons = offsets, loops, z, entry, masks
    count = sizes.settled(
        lambda error, row, open_: ev.face_pairs(*polygons, error, row, open_, nothing, room)
    )
    pairs = np.empty((count, 4), np.int64)
    ev.face_pairs(*polygons, sizes.error, sizes.row, np.zeros(len(z), np.bool_), pairs, room)
    pairs[:, 0] = faces[pairs[:, 0]]
    functions, which = as_functions(pairs, entry, varying)
    first = np.searchsorted(pairs[:, 0], np.arange(len(mesh) + 1))
    if len(mesh) + count > limit.counted:
        raise Full(np.diff(first))
    by_edge = _crossings(mesh, z, functions, sizes, first, which)
    by_edge = off_seams(
        mesh, z, functions, entry[np.searchsorted(varying, functions.unit)], sizes, *by_edge
    )
    if not memory.has_room(mesh.live, len(by_edge[1])):
        raise Full(np.diff(first), memory=True)
    errors = Errors(judge, mesh, used[functions.column], used[functions.other], bound)
    old = len(z)
    vertex, f = cut_edges(mesh, table, functions, errors, *by_edge)
    keep(mesh, stage, used, functions, vertex, f, bound)
    sizes.extended(len(mesh.xy))
    tie, none = (sizes.error, sizes.row), np.empty((len(mesh), 0), np.uint64)
    parent, new, _, (vertex, f), _ = cut_faces(
        mesh, table, functions, errors, tie, site, first, which, none, limit.counted
    )
    keep(mesh, stage, used, functions, vertex, f, bound)
    z = mesh.values(table)
    sizes.extended(len(z))
    masks = np.concatenate([masks, np.empty((len(z) - old, len(varying)), np.uint64)])
    sizes.settled(
        lambda error, row, open_: ev.winner_masks(z, entry, error, row, old, open_, masks)
    )
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


def level(
    mesh: Mesh,
    stage: Max,
    vertex: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    error: np.ndarray,
) -> None:
    """Set entries that are equal at vertices to the value of the best known of them.

    Args:
        mesh: Its live tensors are written to.
        stage: The maximum.
        vertex: `[n]` vertices at which ...
        first: ... this entry ...
        second: ... and this one are equal.
        error: `[entries]` what counts as zero of each.
    """
    if len(vertex) == 0:
        return
    if len(stage.inputs) == 1:
        ev.tie(mesh.writable(stage.inputs[0]), vertex, first, second, error)
        return
    tables = [mesh.writable(name) for name in stage.inputs]
    order = np.argsort(vertex, kind="stable")
    for part in np.array_split(order, -(-len(order) // 1024)):
        rows, at = np.unique(vertex[part], return_inverse=True)
        joined = np.concatenate([table[rows] for table in tables], 1)
        ev.tie(joined, at, first[part], second[part], error)
        low = 0
        for table in tables:
            table[rows] = joined[:, low : low + table.shape[1]]
            low += table.shape[1]


def keep(
    mesh: Mesh,
    stage: Max,
    used: np.ndarray,
    functions: Functions,
    vertex: np.ndarray,
    which: np.ndarray,
    bound: np.ndarray,
) -> None:
    """Store that functions vanish at new vertices, in what the maximum sees and in its table."""
    a, b = functions.column[which], functions.other[which]
    level(mesh, stage, vertex, used[a], used[b], bound)
    ev.tie(mesh.values(TABLE), vertex, a, b, bound[used])


def equal(
    mesh: Mesh,
    stage: Max,
    used: np.ndarray,
    entry: np.ndarray,
    sizes: Table,
    masks: np.ndarray,
) -> None:
    """Store ties at the vertices at which true errors had to tell them."""
    for v in np.flatnonzero(sizes.row):
        size = sizes.error[sizes.row[v]]
        pairs = [np.zeros((0, 2), np.int64)]
        for g in np.flatnonzero(masks[v] & (masks[v] - np.uint64(1))):
            flags = np.unpackbits(masks[v, g : g + 1].view(np.uint8), bitorder="little")
            own = entry[g, np.flatnonzero(flags)]
            best = own[np.argmin(size[own])]
            rest = own[own != best]
            pairs.append(np.stack([np.full(len(rest), best), rest], 1))
        first, second = used[np.concatenate(pairs)].T
        error = np.zeros(used[-1] + 1)
        error[used] = size
        level(mesh, stage, np.full(len(first), v), first, second, error)


def contending(stage: Max, flat: Tensor, judge: Judge, bound: np.ndarray) -> np.ndarray:
    """The groups `[groups, K]` without entries that are never the largest, such as padding."""
    z = flat.contiguous().numpy()
    low, high = z.min(0, initial=np.inf), z.max(0, initial=-np.inf)
    judge.bounds.cut(judge.position, low, high)
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

        def common(p: slice) -> np.ndarray:
            found, row = base.copy(), np.zeros(p.stop - p.start, np.int64)
            ev.common_winners(z[p], index, bound[None], row, unclear[p], found)
            return found

        base = np.bitwise_and.reduce(by_rows(len(z), z.shape[1], common))
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
        top, least = found.max(-1, keepdims=True), (found - bound[entry]).max(-1, keepdims=True)
        always &= ((found == top) | (found + bound[entry] >= least)).all(0)
    base[:] = 0
    for k in range(WORD):
        base |= always[:, k].astype(np.uint64) << np.uint64(k)
    return base, np.flatnonzero(base == 0), np.zeros(0, np.int64)


def used_entries(
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


def _crossings(
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
        mesh.offsets,
        mesh.loops,
        mesh.borders,
        first,
        which,
        z,
        f.column,
        f.other,
        f.offset,
        sizes.error,
        sizes.row,
    )
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

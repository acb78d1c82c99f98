"""Whether a partition's decision boundary is that of the outputs at its vertices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, KDTree

from isogon.cpwl.certificate import Ledger
from isogon.measures.partition.certificate.allowances import Allowances
from isogon.measures.partition.certificate.narrow import broad
from isogon.measures.partition.decisions import outputs_within
from isogon.measures.partition.mesh.zeros import outputs_at
from isogon.measures.partition.statistics import distance_to

if TYPE_CHECKING:
    from isogon.measures.partition.reading import Partition

BESIDE = 1e-3  # how far beside an edge or a piece outputs are looked at, of the way to a corner
MOST = 20_000  # pieces that are looked at
JOINT = 1e-9  # of the extent: how far apart ends of pieces may lie that meet ...
LOOSE = 1e-6  # ... where they do not close up otherwise
NUMBERS = 2_000_000  # outputs at edges that are looked at at once
CLEAR = 64.0  # times what counts as zero of two outputs: they differ by more


def check_boundary(p: Partition, found: Ledger, allowances: Allowances) -> None:
    """Count places where the class changes without a piece, and pieces without such a change.

    - Of a region at whose corners several outputs are the largest, beyond rounding, each of these
      must have a piece in it. Across the middle of an edge on whose sides the largest outputs
      differ, a piece must lie.
    - Around every point in which pieces end, each class must begin as often as it ends.
    - On both sides of a piece the largest outputs must be its two classes, and none may be there
      twice.

    Nothing is asked of regions no wider than rounding.
    """
    z = _as_two(p.outputs)
    zero = CLEAR * outputs_at(p).error[0]
    places = np.stack([p.boundary_region, p.boundary_edge, *p.boundary_classes.T], 1)
    twice = len(places) - len(np.unique(places, axis=0))
    whole = p.finished & broad(p, allowances)
    wrong = _within(p, z, zero, whole) + _across(p, z, zero, whole) + twice
    wrong += _spurious(p, z, zero, whole)
    torn = _torn(p, z, zero) if p.complete else 0
    note = "changes of the class without a piece of the boundary, and pieces without a change"
    if torn:
        note += f"; {torn} are gaps, as where outputs that are huge elsewhere are known too badly"
    wrong += torn
    found.check("boundary", wrong, 0, note)


def _within(p: Partition, z: np.ndarray, zero: np.ndarray, whole: np.ndarray) -> int:
    """Classes that are the largest at a corner of a region, as others are, and have no piece."""
    top = z.argmax(1)
    rows = np.arange(len(z))
    other = np.where(np.arange(z.shape[1]) == top[:, None], -np.inf, z + zero).max(1)
    clear = z[rows, top] - zero[top] > other
    region = np.repeat(np.arange(len(p)), np.diff(p.face_offsets))
    own = clear[p.face_vertices] & whole[region]
    count = z.shape[1]
    cells = np.unique(region[own] * count + top[p.face_vertices[own]])
    several = np.bincount(cells // count, minlength=len(p)) > 1
    inside = p.boundary_region >= 0
    held = p.boundary_region[inside, None] * count + p.boundary_classes[inside]
    return int((several[cells // count] & ~np.isin(cells, held)).sum())


def _torn(p: Partition, z: np.ndarray, zero: np.ndarray) -> int:
    """Points inside the slice around which the classes of the pieces do not close up."""
    ends = p.boundary.reshape(-1, 2)
    pairs = np.repeat(p.boundary_classes, 2, 0)
    # where classes are known so badly that places are, too, nothing is said
    known = zero <= JOINT * np.maximum(np.ptp(z, axis=0), 1e-300)
    extent = float(np.ptp(p.plane.corners, axis=0).max())
    for distance in (JOINT, LOOSE):  # places of badly conditioned points differ by more
        if not len(ends):
            return 0
        near = KDTree(ends).query_pairs(distance * extent, output_type="ndarray")
        graph = coo_array((np.ones(len(near)), near.T), shape=(len(ends), len(ends)))
        point = connected_components(graph, directed=False)[1]
        cells, count = np.unique(
            point[:, None] * z.shape[1] + pairs, return_counts=True
        )  # of a point and a class, and how many ends there are
        odd = np.unique(cells[count % 2 > 0] // z.shape[1])
        odd = odd[~np.isin(odd, point[_at_border(p, ends, LOOSE * extent)])]
        odd = odd[~np.isin(odd, point[~known[pairs].all(1)])]
        torn = np.isin(point, odd)
        # its neighbours, which it may have to be joined to
        close = KDTree(ends).query_ball_point(ends[torn], LOOSE * extent)
        kept = np.unique(np.concatenate([[], *close]).astype(np.int64))
        last, own = ends[torn], point[torn]
        ends, pairs = ends[kept], pairs[kept]
    alone = [k for k in odd if not _in_a_strip(p, last[own == k][0], LOOSE * extent)]
    return len(alone)


def _in_a_strip(p: Partition, point: np.ndarray, distance: float) -> bool:
    """Whether a piece that ends at a point runs along another one.

    Between them a class has a strip as narrow as rounding, which may begin and end anywhere.
    """
    ends = np.linalg.norm(p.boundary - point, axis=2).min(1) <= distance
    size = np.linalg.norm(p.boundary[:, 1] - p.boundary[:, 0], axis=1)
    own = np.flatnonzero(ends & (size > 2 * distance))
    return any(
        (distance_to(np.delete(p.boundary, k, 0), p.boundary[k].mean(0)) <= distance).any()
        for k in own.tolist()
    )


def _at_border(p: Partition, points: np.ndarray, distance: float) -> np.ndarray:
    corners = p.vertices[ConvexHull(p.vertices).vertices]
    found = np.zeros(len(points), bool)
    for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
        along = (b - a) / np.linalg.norm(b - a)
        off = points - a
        found |= np.abs(off[:, 0] * along[1] - off[:, 1] * along[0]) <= distance
    return found


def _across(p: Partition, z: np.ndarray, zero: np.ndarray, whole: np.ndarray) -> int:
    """Edges on whose two sides classes differ without a piece between."""
    edges, far = _changes(p, z, zero, whole)
    middle = p.vertices[p.edges[edges]].mean(1)
    nearest = np.full(len(edges), np.inf)
    left, right = p.edge_faces[edges].T
    where = (p.boundary_region, left), (p.boundary_region, right), (p.boundary_edge, edges)
    for keys, own in where:  # of the pieces in its regions and on itself
        order = np.argsort(keys, kind="stable")
        low = np.searchsorted(keys[order], own)
        count = np.searchsorted(keys[order], own, side="right") - low
        at = np.repeat(np.arange(len(edges)), count)
        place = np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)
        piece = p.boundary[order[np.repeat(low, count) + place]]
        np.minimum.at(nearest, at, distance_to(piece, middle[at]))
    extent = float(np.ptp(p.vertices, axis=0).max())
    return int((nearest > (1 + 1e-6) * far + 1e-12 * extent).sum())


def _changes(
    p: Partition, z: np.ndarray, zero: np.ndarray, whole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Edges across whose middle the class changes, and how far to the sides that was seen."""
    sides, center = p.edge_faces, _as_two(p.centers)
    edges = np.flatnonzero((sides >= 0).all(1) & whole[sides].all(1))
    found, far = [], []
    for own in np.array_split(edges, 1 + len(edges) * z.shape[1] // NUMBERS):
        rows = np.arange(len(own))
        middle, value = p.vertices[p.edges[own]].mean(1), z[p.edges[own]].mean(1)
        faces = sides[own].T
        beside = [value + BESIDE * (center[f] - value) for f in faces]
        top = [b.argmax(1) for b in beside]
        clear = top[0] != top[1]
        slack = zero[top[0]] + zero[top[1]]
        for b, mine, other in zip(beside, top, top[::-1], strict=True):
            clear &= b[rows, mine] - b[rows, other] > slack
        steps = [np.linalg.norm(p.centroid[f] - middle, axis=1) for f in faces]
        found.append(own[clear])
        far.append(BESIDE * np.maximum(*steps)[clear])
    return np.concatenate(found), np.concatenate(far)


def _as_two(z: np.ndarray) -> np.ndarray:
    """A single output beside the constant 0 that it is compared with."""
    return np.concatenate([np.zeros_like(z), z], 1) if z.shape[1] == 1 else z


def _spurious(p: Partition, z: np.ndarray, zero: np.ndarray, whole: np.ndarray) -> int:
    region, edge = p.boundary_region, p.boundary_edge
    pieces = np.flatnonzero(np.where(region >= 0, whole[region], whole[p.edge_faces[edge]].all(1)))
    if len(pieces) > MOST:
        pieces = pieces[:: -(-len(pieces) // MOST)]
    wrong = 0
    for k in pieces.tolist():
        i, j = p.boundary_classes[k].tolist()
        within = int(region[k]) >= 0
        faces = [int(region[k])] * 2 if within else p.edge_faces[edge[k]].tolist()
        middle = p.boundary[k].mean(0, keepdims=True)
        value = _as_two(outputs_within(p, faces[0], middle))[0]
        corners = [z[p.face_vertices[p.face_offsets[f] : p.face_offsets[f + 1]]] for f in faces]
        if within:  # towards the corners on either side of the piece
            gap = corners[0][:, i] - corners[0][:, j]
            to, pairs = [corners[0][gap.argmax()], corners[0][gap.argmin()]], [(i, j)]
        else:
            to, pairs = [c.mean(0) for c in corners], [(i, j), (j, i)]
        beside = [value + BESIDE * (t - value) for t in to]
        wrong += all(
            any(_beaten(value, b, c, zero) for b, c in zip(beside, pair, strict=True))
            for pair in pairs
        )
    return wrong


def _beaten(value: np.ndarray, beside: np.ndarray, c: int, zero: np.ndarray) -> bool:
    """Whether another output is larger than c at a point, or as large and larger next to it."""
    slack = zero + zero[c]
    gap = value - value[c]
    # a strip of that class beside the piece, as narrow as rounding, is no fault
    larger = (gap >= -slack) & (beside - beside[c] > slack / JOINT)
    return bool(((gap > slack) | larger).any())

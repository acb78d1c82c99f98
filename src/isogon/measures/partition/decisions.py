"""The regions cut along the decision boundary: polygons of one class each, and their areas."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from isogon.measures.partition.kernels.contenders import EQUAL

if TYPE_CHECKING:
    from isogon.measures.partition.reading import Partition

SHORT = 1e-12  # part of a line that is a point, to rounding
MOST = 20_000  # regions that are cut at most; beyond, they keep the class of their centroid


class Faces(NamedTuple):
    """Polygons `loops[offsets[i]:offsets[i + 1]]` of one class in one region each."""

    vertices: np.ndarray
    offsets: np.ndarray
    loops: np.ndarray
    label: np.ndarray
    region: np.ndarray

    def areas(self) -> np.ndarray:
        """Area of each polygon."""
        start = np.repeat(self.vertices[self.loops[self.offsets[:-1]]], np.diff(self.offsets), 0)
        last = np.zeros(len(self.loops), bool)
        last[self.offsets[1:] - 1] = True
        here = self.vertices[self.loops] - start  # a fan from the first corner cancels least
        after = np.roll(here, -1, 0)
        after[last] = 0.0
        cross = here[:, 0] * after[:, 1] - here[:, 1] * after[:, 0]
        return 0.5 * np.add.reduceat(cross, self.offsets[:-1]) if len(self.label) else cross


def region_labels(p: Partition) -> np.ndarray:
    """`[R]` the largest output at each centroid, see `Partition.label`."""
    z = p.centers
    if z.shape[1] == 1:
        return np.where(p.finished, z[:, 0] > 0, -1).astype(np.int64)
    best = z.argmax(1)
    rows, size = np.arange(len(z)), np.abs(p.outputs).max(1, initial=0.0)
    largest = np.maximum.reduceat(size[p.face_vertices], p.face_offsets[:-1])
    near = z >= (z[rows, best] - EQUAL * largest)[:, None]
    near &= np.arange(z.shape[1]) < best[:, None]
    for i in np.flatnonzero(near.any(1) & p.finished):  # equal here: on all of the region, too?
        corners = p.face_vertices[p.face_offsets[i] : p.face_offsets[i + 1]]
        own = p.outputs[corners]
        gap = np.abs(own - own[:, [best[i]]]).max(0)
        size = np.maximum(np.abs(own).max(0), np.abs(own[:, best[i]]).max())
        best[i] = np.flatnonzero(gap <= EQUAL * size)[0]  # as `first_of_equals` does
    return np.where(p.finished, best, -1)


def decisions(p: Partition, most: float = MOST) -> Faces:
    """The regions of a partition, those that the boundary crosses cut along it.

    Args:
        p: A partition.
        most: Where the boundary crosses more regions they keep the class of their centroid.
    """
    whole = np.arange(len(p))
    inside = p.boundary_region >= 0
    crossed = np.unique(p.boundary_region[inside])
    if not len(crossed) or len(crossed) > most:
        return Faces(p.vertices, p.face_offsets, p.face_vertices, p.label, whole)
    order = np.argsort(p.boundary_region[inside], kind="stable")
    ends = np.searchsorted(p.boundary_region[inside][order], crossed)[1:]
    outputs = p.outputs
    if outputs.shape[1] == 1:
        outputs = np.concatenate([np.zeros_like(outputs), outputs], 1)
    pieces, labels, source = [], [], []
    for region, pairs in zip(
        crossed, np.split(p.boundary_classes[inside][order], ends), strict=True
    ):
        corners = p.face_vertices[p.face_offsets[region] : p.face_offsets[region + 1]]
        classes = np.unique(pairs)
        z = outputs[corners][:, classes]
        for k, label in enumerate(classes):
            part = clipped(p.vertices[corners], z[:, [k]] - np.delete(z, k, 1))
            if len(part) > 2:
                pieces.append(part)
                labels.append(label)
                source.append(region)
    whole = np.setdiff1d(whole, source)
    sizes = np.diff(p.face_offsets)[whole]
    shift = np.repeat(p.face_offsets[whole] - (np.cumsum(sizes) - sizes), sizes)
    own = p.face_vertices[shift + np.arange(len(shift))]
    more = [len(piece) for piece in pieces]
    return Faces(
        np.concatenate([p.vertices, *pieces]),
        np.concatenate([[0], np.cumsum(np.concatenate([sizes, more]))]).astype(np.int64),
        np.concatenate([own, np.arange(sum(more)) + len(p.vertices)]).astype(np.int32),
        np.concatenate([p.label[whole], labels]).astype(np.int64),
        np.concatenate([whole, source]).astype(np.int64),
    )


def class_areas(p: Partition, most: float = MOST) -> dict[int, float]:
    """Area of each class among the regions that were cut to the end (one output: its signs).

    Exact, as the regions that the boundary crosses are cut along it, see `decisions`.
    """
    faces = decisions(p, most)
    area = np.bincount(faces.label + 1, faces.areas())
    return {int(k) - 1: float(area[k]) for k in np.unique(faces.label + 1) if k > 0}


def class_at(p: Partition, points: np.ndarray) -> np.ndarray:
    """The class at points `[N, 2]`; -1 outside and where a region was not cut to the end."""
    region = p.locate(points)
    found = np.where(region < 0, -1, p.label[region])
    crossed = np.unique(p.boundary_region)
    inside = np.flatnonzero(np.isin(region, crossed[crossed >= 0]))
    order = inside[np.argsort(region[inside], kind="stable")]
    groups = np.split(order, np.flatnonzero(np.diff(region[order])) + 1) if len(order) else []
    for rows in groups:
        z = outputs_within(p, int(region[rows[0]]), points[rows])
        found[rows] = z[:, 0] > 0 if z.shape[1] == 1 else z.argmax(1)
    return found


def outputs_within(p: Partition, region: int, points: np.ndarray) -> np.ndarray:
    """Outputs `[n, C]` at points of one region, from those at its corners."""
    corners = p.face_vertices[p.face_offsets[region] : p.face_offsets[region + 1]]
    known, middle = p.vertices[corners], p.centroid[region]
    size = np.ptp(known)
    # they are affine: the weights of the corners that give a point give its outputs
    system = np.concatenate([(known - middle).T / size, np.ones((1, len(corners)))])
    wanted = np.concatenate([(points - middle).T / size, np.ones((1, len(points)))])
    return np.linalg.lstsq(system, wanted, rcond=None)[0].T @ p.outputs[corners]


def along(start: np.ndarray, end: np.ndarray) -> list[tuple[float, float, int]]:
    """Stretches (from, to, class) of one largest output on a line on which outputs are linear.

    Args:
        start: `[C]` outputs at 0.
        end: `[C]` outputs at 1.
    """
    found = []
    t, c = 0.0, int(start.argmax())
    rate = end - start
    while True:
        ahead = rate > rate[c]
        gap = start[c] - start + t * (rate[c] - rate)
        meets = np.where(ahead, t + np.maximum(gap, 0) / np.where(ahead, rate - rate[c], 1), 2)
        # of those that meet it at one place the highest there goes on (that one may be so
        # large that it does not tell them apart), of equal ones the one that grows fastest
        beside = meets > meets.min() + SHORT
        there = start + min(float(meets.min()), 1.0) * rate
        k = int(np.lexsort((-rate, -there, beside))[0])
        if meets[k] >= 1:
            if t < 1 - SHORT:
                found.append((t, 1.0, c))
            return found
        if meets[k] > t + SHORT:
            found.append((t, float(meets[k]), c))
        t, c = float(meets[k]), k


def clipped(polygon: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The part `[m, 2]` of a convex polygon `[k, 2]` where affine functions are not negative.

    Args:
        polygon: Its corners in order.
        values: `[k, n]` the functions at the corners.
    """
    for column in range(values.shape[1]):
        z = values[:, column]
        if not len(z) or z.min() >= 0:
            continue
        rows = np.column_stack([polygon, values])
        kept = []
        for a, b, p, q in zip(rows, np.roll(rows, -1, 0), z, np.roll(z, -1), strict=True):
            if p >= 0:
                kept.append(a)
            if (p > 0 > q) or (p < 0 < q):
                kept.append(a + p / (p - q) * (b - a))
        rows = np.array(kept).reshape(-1, rows.shape[1])
        polygon, values = rows[:, :2], rows[:, 2:]
    return polygon

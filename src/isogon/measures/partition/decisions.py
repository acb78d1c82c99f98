"""The regions cut along the decision boundary: polygons of one class each, for pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from isogon.measures.partition.reading import Partition

MOST = 20_000  # regions that are cut at most; beyond, they keep the class of their centroid


class Faces(NamedTuple):
    """Polygons `loops[offsets[i]:offsets[i + 1]]` of one class in one region each."""

    vertices: np.ndarray
    offsets: np.ndarray
    loops: np.ndarray
    label: np.ndarray
    region: np.ndarray


def decisions(p: Partition) -> Faces:
    """The regions of a partition, those that the boundary crosses cut along it."""
    whole = np.arange(len(p))
    inside = p.boundary_region >= 0
    crossed = np.unique(p.boundary_region[inside])
    if not len(crossed) or len(crossed) > MOST:
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

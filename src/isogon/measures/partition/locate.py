"""Which region holds a point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isogon.errors import DataError
from isogon.measures.partition.kernels import geometry

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from isogon.measures.partition.reading import Partition


def located(p: Partition, points: ArrayLike) -> np.ndarray:
    """Index of the region that holds each point `[N, 2]` (see `Partition.locate`).

    Raises:
        DataError: Points that are no points of a plane, NaN or infinite.
    """
    points = np.atleast_2d(np.asarray(points, np.float64))
    if points.ndim != 2 or points.shape[1] != 2:
        raise DataError(
            "these are no points of the slice",
            got=f"shape {list(points.shape)}",
            expected="[N, 2], in slice coordinates",
            fix="Call partition.plane.project(inputs) first.",
        )
    wrong = int((~np.isfinite(points)).sum())
    if wrong:
        raise DataError(
            "points hold NaN or infinite values",
            got=f"{wrong} of {points.size} numbers",
            expected="finite slice coordinates",
        )
    found = np.empty(len(points), np.int64)
    geometry.walk_to(
        p.face_offsets,
        p.face_vertices,
        p.face_edges,
        p.edges,
        p.edge_faces,
        p.vertices,
        points,
        starts(p, points),
        inside(p.plane.corners, points),
        found,
    )
    return found


def inside(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`[N]` which points `[N, 2]` lie in a convex polygon, counter-clockwise."""
    found = np.ones(len(points), bool)
    for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
        x, y = b - a
        found &= x * (points[:, 1] - a[1]) >= y * (points[:, 0] - a[0])
    return found


def starts(p: Partition, points: np.ndarray) -> np.ndarray:
    """A region near each point: the one whose centroid fell into the same or a near cell."""
    low, high = p.vertices.min(0), p.vertices.max(0)
    side = int(np.clip(np.sqrt(len(p)), 1, 1024))
    scale = side / np.maximum(high - low, 1e-300)

    def cell(xy: np.ndarray) -> np.ndarray:
        ij = np.clip((xy - low) * scale, 0, side - 1).astype(np.int64)
        return ij[:, 0] * side + ij[:, 1]

    grid = np.full(side * side, -1, np.int64)
    order = np.argsort(p.area, kind="stable")
    grid[cell(p.centroid[order])] = order  # the largest region of a cell wins
    filled = np.maximum.accumulate(np.where(grid >= 0, np.arange(len(grid)), 0))
    grid = grid[filled]
    grid[grid < 0] = grid.max()
    return grid[cell(points)]

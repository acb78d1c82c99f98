"""Where a class may be named on a slice: the middle of each of its larger areas."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from isogon.measures.partition.decisions import class_at
from isogon.measures.partition.reading import Partition

GRID = 96  # points a side at which classes are looked up
ROOM = 0.04  # of the image: half the width from which an area is named in it


class Place(NamedTuple):
    """The middle of an area of one class, in slice coordinates."""

    x: float
    y: float
    radius: float  # of the largest disc around it within the area, as far as the grid tells
    label: int


def class_places(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, marks: np.ndarray, room: float = ROOM
) -> list[Place]:
    """The places where classes may be named, the largest areas first.

    Areas are those of a grid of points, without what lies next to anchors: nothing exact is claimed
    by a name.

    Args:
        image: Class at each point ``[len(y), len(x)]``, -1 outside.
        x: First coordinate of the columns, evenly spaced.
        y: Second coordinate of the rows.
        marks: Anchors ``[m, 2]``, which bear numbers of their own.
        room: Half the width of an area that is named, as a share of the image.
    """
    away = np.ones(image.shape, bool)
    for u, v in marks:
        away &= np.hypot(x[None] - u, y[:, None] - v) > room * np.ptp(x)
    step = float(x[1] - x[0])
    found = []
    for k in np.unique(image[image >= 0]):
        made: Any = ndimage.label(image == k)
        parts, count = made
        deep: Any = ndimage.distance_transform_edt(np.pad((parts > 0) & away, 1))
        depth = deep[1:-1, 1:-1]
        for i, j in ndimage.maximum_position(depth, parts, range(1, count + 1)):
            if depth[i, j] >= room * len(image):
                found.append(Place(float(x[j]), float(y[i]), float(depth[i, j]) * step, int(k)))
    return sorted(found, key=lambda place: -place.radius)


def partition_places(p: Partition) -> list[Place]:
    """The same of a partition's classes."""
    low, high = p.plane.corners.min(0), p.plane.corners.max(0)
    step = float((high - low).max()) / GRID
    x, y = (np.arange(a + step / 2, b, step) for a, b in zip(low, high))
    points = np.stack(np.meshgrid(x, y), -1)
    image = class_at(p, points.reshape(-1, 2)).reshape(points.shape[:2])
    if min(image.shape) < 2:
        return []
    return class_places(image, x, y, p.plane.marks)

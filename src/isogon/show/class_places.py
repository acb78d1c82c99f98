"""Where a class may be named on a slice: the middle of each of its larger areas."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from isogon.measures.partition.reading import Partition

GRID = 96  # points a side at which classes are looked up
LEAST = 3.0  # radius of an area that is named, in steps of the grid


class Place(NamedTuple):
    """The middle of an area of one class, in slice coordinates."""

    x: float
    y: float
    radius: float  # of the largest disc around it within the area, as far as the grid tells
    label: int


def class_places(p: Partition) -> list[Place]:
    """The places where classes may be named, the largest areas first.

    Areas are those of a grid of points: nothing exact is claimed by a name.

    Args:
        p: A partition.
    """
    low, high = p.plane.corners.min(0), p.plane.corners.max(0)
    step = float((high - low).max()) / GRID
    axes = [np.arange(a + step / 2, b, step) for a, b in zip(low, high)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    region = p.locate(points.reshape(-1, 2)).reshape(points.shape[:2])
    label = np.where(region < 0, -1, p.label[region])
    found = []
    for k in np.unique(label[label >= 0]):
        made: Any = ndimage.label(label == k)
        areas, count = made
        deep: Any = ndimage.distance_transform_edt(np.pad(areas > 0, 1))
        depth = deep[1:-1, 1:-1]
        for i, j in ndimage.maximum_position(depth, areas, range(1, count + 1)):
            if depth[i, j] >= LEAST:
                x, y = points[i, j].tolist()
                found.append(Place(x, y, float(depth[i, j]) * step, int(k)))
    return sorted(found, key=lambda place: -place.radius)

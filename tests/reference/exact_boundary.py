"""The decision boundary of a small network on a polygon, in rational arithmetic.

The class of a cell is the first of its largest outputs (also where outputs are equal on all of
it); the boundary is made of the edges between cells of different classes.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from isogon.measures.boundary.scan import GOLDEN
from reference.exact_cells import apply, on_polygon, rational


def exact_boundary(weights, biases, corners):
    """The boundary of a ReLU network of two inputs.

    One output competes with a constant 0, which comes first.

    Args:
        weights: Per layer a nested list `[out, in]`.
        biases: Per layer a list `[out]`.
        corners: Of a convex polygon, counter-clockwise.

    Returns:
        `[B, 2, 2]` ends of pieces and `[B, 2]` the class on the left and on the right of each.
    """
    weights, biases = rational(weights), rational(biases)
    if len(weights[-1]) == 1:
        weights[-1] = [[Fraction(0)] * len(weights[-1][0]), *weights[-1]]
        biases[-1] = [Fraction(0), *biases[-1]]
    layers = []
    for w, b in zip(weights, biases, strict=True):
        layers += [("affine", w, b), ("relu", len(w))]
    return boundary_of(layers[:-1], len(biases[-1]), corners)


def boundary_of(before, outputs, corners):
    """The same of layers as in `exact_cells`, without padding and skips, of so many outputs."""
    layers = [*before, ("max", [list(range(outputs))])]
    cells, _ = on_polygon(layers, rational([list(c) for c in corners]))
    lines: dict[tuple, list] = {}
    for cell in cells:
        middle = [sum(c) / len(cell) for c in zip(*cell, strict=True)]
        value = evaluated(before, middle)
        label = value.index(max(value))
        for a, b in zip(cell, [*cell[1:], cell[0]], strict=True):
            line, place = line_of(a, b)
            start, end = place(a), place(b)
            lines.setdefault(line, []).append(
                (min(start, end), max(start, end), start < end, label)
            )
    ends, pairs = [], []
    for line, own in lines.items():
        for low, high, left, right in changes(own):
            ends.append([point_on(line, low), point_on(line, high)])
            pairs.append([left, right])
    return np.array(ends, float).reshape(-1, 2, 2), np.array(pairs, np.int64).reshape(-1, 2)


def length_of(ends):
    """Of all pieces."""
    return math.fsum(math.dist(a, b) for a, b in ends.tolist())


def evaluated(layers, v):
    """The outputs at a point."""
    for layer in layers:
        v = apply(layer, v, None)
    return v


def line_of(a, b):
    """A line through two points as (steep, slope, intercept), and the place of points on it."""
    steep = int(a[0] == b[0])
    slope = Fraction(0) if steep else (b[1] - a[1]) / (b[0] - a[0])
    return (steep, slope, a[0] if steep else a[1] - slope * a[0]), lambda p: p[steep]


def point_on(line, place):
    """The point at a place of a line."""
    steep, slope, intercept = line
    return (
        [float(intercept), float(place)]
        if steep
        else [float(place), float(slope * place + intercept)]
    )


def changes(edges):
    """Stretches of one line on whose sides different classes lie: low, high, left, right.

    An edge is (low, high, whether its cell is on the left of the way up, class).
    """
    at = sorted({e[0] for e in edges} | {e[1] for e in edges})
    found: list[list] = []
    for low, high in itertools.pairwise(at):
        over = [e for e in edges if e[0] <= low and e[1] >= high]
        left, right = ({e[3] for e in over if e[2] == side} for side in (True, False))
        assert len(left) < 2
        assert len(right) < 2
        if not left or not right or left == right:
            continue
        i, j = left.pop(), right.pop()
        found.append([low, high, i, j])
    return found


def compared(b, ends, pairs):
    """How a traced boundary differs from the exact one, as sets of points with two classes.

    Returns a dictionary of lengths, relative to the larger of the exact one and the slice's
    extent: `spurious` that is not in the exact boundary (or there twice, or of other classes),
    `open`: of the exact boundary that is missing where a line of the grid crosses it, or a part
    of the same component was traced; `closed`: that the grid had to miss.
    """
    extent = float(np.ptp(b.plane.corners, axis=0).max())
    mine, own = b.segments, b.segment_classes
    size, total = lengths(ends), lengths(mine)
    direction = (ends[:, 1] - ends[:, 0]) / size[:, None]
    normal = np.stack([-direction[:, 1], direction[:, 0]], 1)
    covered, found = np.zeros(len(ends)), np.zeros(len(mine))
    for k in range(len(mine)):
        off = mine[k] - ends[:, :1]  # [B, 2, 2]
        beside = np.abs((off * normal[:, None]).sum(2)).max(1) < 1e-9 * extent
        place = np.sort((off * direction[:, None]).sum(2), 1)
        common = np.minimum(place[:, 1], size) - np.maximum(place[:, 0], 0.0)
        fits = beside & (np.sort(pairs, 1) == own[k]).all(1) & (common > 0)
        covered += np.where(fits, common, 0.0)
        found[k] = common[fits].sum()
    least = 1e-10 * extent
    left = size - covered
    missing = left > least
    spurious = np.abs(total - found)[np.abs(total - found) > least].sum()
    spurious += -left[left < -least].sum()  # there twice
    whole = max(float(size.sum()), extent)
    report = {"spurious": float(spurious) / whole, "open": 0.0, "closed": 0.0}
    if missing.any():
        at = ends.reshape(-1, 2)
        touching = cKDTree(at).query_pairs(1e-11 * extent, output_type="ndarray") // 2
        graph = coo_matrix((np.ones(len(touching)), touching.T), (len(ends), len(ends)))
        part = connected_components(graph, directed=False)[1]
        partly = np.isin(part, np.concatenate([part[~missing], met(b, ends, part)]))
        report["open"] = float(left[missing & partly].sum()) / whole
        report["closed"] = float(left[missing & ~partly].sum()) / whole
    return report


def met(b, ends, part):
    """Parts (numbers, with repetitions) that the classes on the lines of either grid must tell.

    Those that cross a line an odd number of times between two of its neighbouring nodes: where
    two crossings lie between nodes, the classes at these may be the same.
    """
    grid = len(b.arrays["image_x"])
    low, size = b.plane.corners.min(0), np.ptp(b.plane.corners, axis=0)
    told = [np.zeros(0, np.int64)]
    for shift in (GOLDEN, GOLDEN + 0.5):
        lines = low + (np.arange(grid)[:, None] + shift) * size / grid
        for axis in (0, 1):
            across, nodes = lines[:, axis], lines[:, 1 - axis]
            a, c = ends[:, 0, axis, None], ends[:, 1, axis, None]
            piece, line = np.nonzero((np.minimum(a, c) < across) & (np.maximum(a, c) > across))
            way = (across[line] - a[piece, 0]) / (c - a)[piece, 0]
            p, q = ends[piece, :, 1 - axis].T
            cell = np.searchsorted(nodes, p + way * (q - p))
            names = np.stack([part[piece], line, cell], 1)
            names, count = np.unique(names, axis=0, return_counts=True)
            told.append(names[count % 2 == 1, 0])
    return np.concatenate(told)


def lengths(ends):
    """Of every piece."""
    return np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)

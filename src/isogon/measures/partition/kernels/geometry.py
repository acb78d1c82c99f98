"""Kernels on the finished mesh: areas, centroids, values there, point location."""

from __future__ import annotations

import numpy as np

from isogon.measures.partition.kernels.jit import costly, inline, kernel

WIDE = 256.0  # times that: how far outside of all faces a point between them may seem
SHORT = 16 * np.finfo(np.float64).eps  # of the largest coordinate: an edge without direction


@kernel
def face_means(offsets, loops, xy, outputs, area, centroid, center):
    """Area, centroid `[F, 2]` and output at the centroid `[F, C]` of every face.

    Sums of triangles around the face's first vertex: differences of nearby coordinates are
    exact, so faces of 1e-18 keep their area. A face without area uses the mean of its vertices.
    """
    classes = outputs.shape[1]
    for i in range(len(offsets) - 1):
        low, high = offsets[i], offsets[i + 1]
        o = loops[low]
        total, mx, my = 0.0, 0.0, 0.0
        for c in range(classes):
            center[i, c] = 0.0
        for h in range(low + 1, high - 1):
            a, b = loops[h], loops[h + 1]
            ax, ay = xy[a, 0] - xy[o, 0], xy[a, 1] - xy[o, 1]
            bx, by = xy[b, 0] - xy[o, 0], xy[b, 1] - xy[o, 1]
            t = 0.5 * (ax * by - ay * bx)
            total += t
            mx += t * (ax + bx) / 3
            my += t * (ay + by) / 3
            for c in range(classes):
                center[i, c] += t * (outputs[o, c] + outputs[a, c] + outputs[b, c]) / 3
        area[i] = total
        if total > 1e-300:
            centroid[i, 0], centroid[i, 1] = xy[o, 0] + mx / total, xy[o, 1] + my / total
            for c in range(classes):
                center[i, c] /= total
        else:
            centroid[i, 0] = centroid[i, 1] = 0.0
            for c in range(classes):
                center[i, c] = 0.0
            for h in range(low, high):
                centroid[i, 0] += xy[loops[h], 0] / (high - low)
                centroid[i, 1] += xy[loops[h], 1] / (high - low)
                for c in range(classes):
                    center[i, c] += outputs[loops[h], c] / (high - low)


@kernel
def convexity(offsets, loops, xy, sense):
    """Largest distance by which a vertex lies on the wrong side of the next edge of its face.

    `sense [F]`: 1 where a face is counter-clockwise, -1 where it is not.
    """
    worst = 0.0
    for i in range(len(offsets) - 1):
        low, n = offsets[i], offsets[i + 1] - offsets[i]
        for k in range(n):
            a = loops[low + k]
            b = loops[low + (k + 1) % n]
            c = loops[low + (k + 2) % n]
            x, y = xy[b, 0] - xy[a, 0], xy[b, 1] - xy[a, 1]
            u, v = xy[c, 0] - xy[b, 0], xy[c, 1] - xy[b, 1]
            longest = max(np.hypot(x, y), np.hypot(u, v))
            if longest > 0:
                worst = max(worst, -sense[i] * (x * v - y * u) / longest)
    return worst


@inline
def _between(offsets, loops, xy, i, c, x):
    """How far x is inside of what coordinate c of face i ranges over."""
    least = most = xy[loops[offsets[i]], c]
    for h in range(offsets[i], offsets[i + 1]):
        least, most = min(least, xy[loops[h], c]), max(most, xy[loops[h], c])
    return min(x - least, most - x)


@inline
def outside(offsets, loops, xy, i, px, py, short, start):
    """How far a point is inside of all edges of face i, and the half-edge where it is least so.

    Edges no longer than `short`, to which rounding gives any direction, say nothing; of a face
    that has such ones, a point is outside, at any edge, that is not between its smallest and
    largest coordinates. `start` only breaks ties.
    """
    low, n = offsets[i], offsets[i + 1] - offsets[i]
    found, least, all_long = low + start % n, np.inf, True
    for s in range(n):
        k = (s + start) % n
        a, b = loops[low + k], loops[low + (k + 1) % n]
        x, y = xy[b, 0] - xy[a, 0], xy[b, 1] - xy[a, 1]
        length = np.hypot(x, y)
        if length <= short:
            all_long = False
        else:
            d = (x * (py - xy[a, 1]) - y * (px - xy[a, 0])) / length
            if d < least:
                least, found = d, low + k
    if all_long or least < 0:
        return least, found
    for c in range(2):
        least = min(least, _between(offsets, loops, xy, i, c, py if c else px) + short)
    return least, low + start % n


@costly(1.0)
def walk_to(offsets, loops, borders, ends, sides, xy, points, starts, inside, found):
    """Region of each point, by walking from a start region across the edges in the way.

    A point outside the domain gets -1. Where a walk is led astray among faces no wider than
    rounding, a point that is `inside` the domain gets the face that it is deepest in of all.
    """
    state, reach = np.uint64(88172645463325252), 0.0
    for v in range(len(xy)):
        reach = max(reach, abs(xy[v, 0]), abs(xy[v, 1]))
    short = SHORT * reach
    for p in range(len(points)):
        px, py = points[p, 0], points[p, 1]
        i, arrived = starts[p], False
        for step in range(200 + 4 * len(offsets)):
            state ^= state << np.uint64(13)
            state ^= state >> np.uint64(7)
            state ^= state << np.uint64(17)
            d, h = outside(offsets, loops, xy, i, px, py, short, int(state & np.uint64(7)))
            if d >= 0:
                arrived = True
                break
            e = borders[h]
            # now and then any other edge in the way, so that no walk goes round in circles
            if step > 50 and step % 3 == 0:
                h = any_outside(offsets, loops, xy, i, px, py, int(state & np.uint64(1023)))
                e = borders[h]
            i = sides[e, 1] if ends[e, 0] == loops[h] else sides[e, 0]
            if i < 0:
                break
        if not arrived and inside[p]:
            i, deepest = -1, -WIDE * SHORT * (abs(px) + abs(py))
            for k in range(len(offsets) - 1):
                d, _ = outside(offsets, loops, xy, k, px, py, short, 0)
                if d > deepest:
                    deepest, i = d, k
        found[p] = i


@inline
def any_outside(offsets, loops, xy, i, px, py, start):
    """The first half-edge of face i, from a given one, that the point is outside of."""
    low, n = offsets[i], offsets[i + 1] - offsets[i]
    for s in range(n):
        k = (s + start) % n
        a, b = loops[low + k], loops[low + (k + 1) % n]
        x, y = xy[b, 0] - xy[a, 0], xy[b, 1] - xy[a, 1]
        if x * (py - xy[a, 1]) - y * (px - xy[a, 0]) < 0:
            return low + k
    return low

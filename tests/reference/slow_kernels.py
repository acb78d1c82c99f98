"""What each kernel of the partition is meant to find, written from its definition in plain Python.

Loops are lists of vertices, functions are rows of values, geometry is in fractions where it is
exact. Nothing here is fast, in place, or shares code with the kernels.
"""

from __future__ import annotations

import itertools
from fractions import Fraction


def rings(offsets, items):
    return [list(items[a:b]) for a, b in itertools.pairwise(offsets)]


def neighbours(ring):
    """Consecutive pairs around a ring."""
    return list(zip(ring, ring[1:] + ring[:1], strict=True))


def crossing_ratios(p, q, functions, tol):
    """Ratios along an edge where functions vanish, ascending; values `p`, `q` at its ends.

    One that is within tol of zero at the point before is taken to pass through that point.
    """
    found = []
    for t, f in sorted((p[f] / (p[f] - q[f]), f) for f in functions):
        if not found or abs(p[f] + found[-1] * (q[f] - p[f])) > tol:
            found.append(t)
    return found


def chord_ends(d, tol):
    """Positions where a ring of values turns from positive to negative, on both ways round.

    From the largest value: of all from the last positive one to the first negative one, the
    value of least size, the first of several. None where either sign or one end is missing.
    """
    top = d.index(max(d))
    found = []
    for step in (1, -1):
        way = [(top + step * k) % len(d) for k in range(len(d) + 1)]
        signs = [(d[h] > tol) - (d[h] < -tol) for h in way]
        if signs[0] <= 0 or -1 not in signs:
            return None
        stop = signs.index(-1)
        start = max(k for k in range(stop) if signs[k] > 0)
        found.append(min(way[start : stop + 1], key=lambda h: abs(d[h])))
    return tuple(sorted(found)) if found[0] != found[1] else None


def alternate(first, second):
    """Whether the ends of two chords alternate around the loop."""
    (a, b), (p, q) = sorted(first), sorted(second)
    return len({a, b, p, q}) == 4 and (a < p < b) != (a < q < b)


def affine(f, point):
    return f[0] * point[0] + f[1] * point[1] + f[2]


def area_and_centroid(polygon):
    """By the shoelace formula, in fractions."""
    polygon = [tuple(map(Fraction, p)) for p in polygon]
    crosses = [(p[0] * q[1] - q[0] * p[1], p, q) for p, q in neighbours(polygon)]
    area = sum(c for c, _, _ in crosses) / 2
    return area, tuple(sum(c * (p[k] + q[k]) for c, p, q in crosses) / (6 * area) for k in (0, 1))


def holds(polygon, point, slack):
    """Whether a counter-clockwise polygon holds a point, within a distance."""
    for p, q in neighbours(polygon):
        side = (q[0] - p[0]) * (point[1] - p[1]) - (q[1] - p[1]) * (point[0] - p[0])
        if side < -slack * ((q[0] - p[0]) ** 2 + (q[1] - p[1]) ** 2) ** 0.5:
            return False
    return True


def shared_maximum(polygon, functions, i, j):
    """The segment inside a polygon on which functions i and j are equal and no other is larger.

    Exact, as two points; None where i - j does not have both signs on the polygon or the
    segment is a point.
    """
    gap = [x - y for x, y in zip(functions[i], functions[j], strict=True)]
    values = [affine(gap, p) for p in polygon]
    if not min(values) < 0 < max(values):
        return None
    ends = []
    for (p, x), (q, y) in neighbours(list(zip(polygon, values, strict=True))):
        if x == 0:
            ends.append(p)
        elif x * y < 0:
            t = x / (x - y)
            ends.append(tuple(a + t * (b - a) for a, b in zip(p, q, strict=True)))
    a, b = ends
    low, high = Fraction(0), Fraction(1)
    for other in functions:
        x, y = (affine(functions[i], e) - affine(other, e) for e in (a, b))
        if x < 0 and y < 0:
            return None
        if x < 0:
            low = max(low, x / (x - y))
        if y < 0:
            high = min(high, x / (x - y))
    if low >= high:
        return None
    return [tuple(p + t * (q - p) for p, q in zip(a, b, strict=True)) for t in (low, high)]


def winners_beside(segment, functions):
    """The first of the largest functions on the left and on the right of a segment."""
    (ax, ay), (bx, by) = segment
    middle, left = ((ax + bx) / 2, (ay + by) / 2), (ay - by, bx - ax)
    values = [affine(f, middle) for f in functions]
    top = [k for k, v in enumerate(values) if v == max(values)]
    rates = {k: functions[k][0] * left[0] + functions[k][1] * left[1] for k in top}
    return max(top, key=rates.get), min(top, key=rates.get)  # of equal ones the first


def boundary_along(start, end, left, right):
    """Parts of an edge on whose sides other outputs win: pairs of winners and stretches of them.

    Args:
        start: Outputs at its first end.
        end: At its other end.
        left: Outputs at all corners of the face on its left.
        right: And on its right.
    """
    start, end = [Fraction(v) for v in start], [Fraction(v) for v in end]
    at = {Fraction(0), Fraction(1)}
    for i, j in itertools.combinations(range(len(start)), 2):
        x, y = start[i] - start[j], end[i] - end[j]
        if x * y < 0:
            at.add(x / (x - y))
    at, found = sorted(at), []
    for low, high in itertools.pairwise(at):
        t = (low + high) / 2
        z = [x + t * (y - x) for x, y in zip(start, end, strict=True)]
        top = [k for k, v in enumerate(z) if v == max(z)]
        pair = tuple(
            max(top, key=lambda k: sum(Fraction(row[k]) for row in face)) for face in (left, right)
        )
        if pair[0] == pair[1]:
            continue
        if found and found[-1][0] == pair and found[-1][2] == low:
            low = found.pop()[1]
        found.append((pair, low, high))
    return found


def winners_along(p, q):
    """The largest of several lines from values `p` to `q`, from end to end, without repeats."""
    p, q = [Fraction(v) for v in p], [Fraction(v) for v in q]
    at = {Fraction(0), Fraction(1)}
    for i, j in itertools.combinations(range(len(p)), 2):
        x, y = p[i] - p[j], q[i] - q[j]
        if x * y < 0:
            at.add(x / (x - y))
    found = []
    for low, high in itertools.pairwise(sorted(at)):
        t = (low + high) / 2
        values = [a + t * (b - a) for a, b in zip(p, q, strict=True)]
        best = values.index(max(values))
        if not found or found[-1] != best:
            found.append(best)
    return found

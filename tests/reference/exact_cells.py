"""Breakpoints on a line and cells on a polygon of small networks, in rational arithmetic.

A network is a list of layers on vectors of `Fraction`s (None: minus infinity, as padding has it):

- `("affine", matrix, bias)`: rows of the matrix times the vector, plus the bias;
- `("relu", n)`: of n entries those below zero, or minus infinity, become zero;
- `("max", groups)`: the largest of each group of entries;
- `("pad", positions, value)`: the vector's entries in their places, a constant where it is None
  (itself None: minus infinity);
- `("keep",)`, `("add",)`: put the vector aside; add it again.
"""

from __future__ import annotations

import itertools
from fractions import Fraction


def rational(rows):
    """Nested lists of floats as fractions, exactly."""
    return [rational(r) for r in rows] if isinstance(rows, list) else Fraction(rows)


def apply(layer, v, kept):
    """A layer on one vector; `kept` is what was put aside."""
    kind = layer[0]
    if kind == "affine":
        pairs = zip(layer[1], layer[2], strict=True)
        return [sum((a * x for a, x in zip(row, v, strict=True) if a), b) for row, b in pairs]
    if kind == "relu":
        return [Fraction(0) if x is None or x < 0 else x for x in v]
    if kind == "max":
        return [max((v[i] for i in g if v[i] is not None), default=None) for g in layer[1]]
    if kind == "pad":
        return [layer[2] if i is None else v[i] for i in layer[1]]
    if kind == "add":
        return [x + y for x, y in zip(v, kept, strict=True)]
    return v


def crossing(p, q):
    """Where an affine function with values p, q at 0 and 1 changes its sign inside; or None."""
    return p / (p - q) if (p < 0 < q) or (q < 0 < p) else None


def bends(layer, p, q):
    """Where, between 0 and 1, a layer bends: (place, unit, slope of what vanishes)."""
    found = []
    if layer[0] == "relu":
        for u, (a, b) in enumerate(zip(p, q, strict=True)):
            t = None if a is None else crossing(a, b)
            if t is not None:
                found.append((t, u, abs(b - a)))
    elif layer[0] == "max":
        for u, group in enumerate(layer[1]):
            own = [i for i in group if p[i] is not None]
            for i, j in itertools.combinations(own, 2):
                t = crossing(p[i] - p[j], q[i] - q[j])
                if t is None:
                    continue
                top = max(p[k] + t * (q[k] - p[k]) for k in own)
                if p[i] + t * (q[i] - p[i]) == top:
                    found.append((t, u, abs(q[i] - p[i] - q[j] + p[j])))
    return found


def between(p, q, t):
    """The vector at t on the way from p to q."""
    return [None if a is None else a + t * (b - a) for a, b in zip(p, q, strict=True)]


def lead(layers, cut, unit, x):
    """What a unit of a bending layer sees at x; of a maximum how far the first is ahead."""
    bending = [n for n, layer in enumerate(layers) if layer[0] in ("relu", "max")][cut]
    v = Before(layers[:bending])[tuple(x)]
    if layers[bending][0] == "relu":
        return v[unit]
    top = sorted(v[i] for i in layers[bending][1][unit] if v[i] is not None)
    return top[-1] - top[-2]


def on_line(layers, start, end):
    """All breakpoints in (0, 1): {place: (number of the bending layer, unit, slope there)}.

    The slope is that of the function that vanishes, per unit of the place.
    """
    at, values, kept = [Fraction(0), Fraction(1)], [start, end], [[], []]
    found, cut = {}, -1
    for layer in layers:
        if layer[0] in ("relu", "max"):
            cut += 1
            new = {}
            for n in range(len(at) - 1):
                width = at[n + 1] - at[n]
                for t, unit, slope in bends(layer, values[n], values[n + 1]):
                    place = at[n] + t * width
                    new[place] = (n, t)
                    known = found.get(place)
                    if known is None or (known[0] == cut and known[2] < slope / width):
                        found[place] = (cut, unit, slope / width)
            for place, (n, t) in new.items():
                at.append(place)
                values.append(between(values[n], values[n + 1], t))
                kept.append(between(kept[n], kept[n + 1], t))
            order = sorted(range(len(at)), key=at.__getitem__)
            at, values, kept = ([column[i] for i in order] for column in (at, values, kept))
        if layer[0] == "keep":
            kept = [list(v) for v in values]
        values = [apply(layer, v, k) for v, k in zip(values, kept, strict=True)]
    return found


def on_polygon(layers, corners):
    """All cells of a polygon with rational corners: lists of corners.

    One cell per pattern. Also what they rest on: every function that cuts a polygon, and every
    one along the edge of a cell, as (number of the bending layer, entry, entry or None, corners,
    how far it reaches, in a split at least on both sides).
    """
    cells, record, cuts = [[tuple(c) for c in corners]], [], []
    for number, layer in enumerate(layers):
        if layer[0] in ("relu", "max"):
            cuts.append((Before(layers[:number]), layer))
            cells = [part for c in cells for part in split(*cuts[-1], c, len(cuts) - 1, record)]
    for cut, (before, layer) in enumerate(cuts):
        for cell in cells:
            for i, j in functions(layer):
                d = along(before, i, j, cell)
                if d is not None and d.count(0) > 1 and any(d):
                    record.append((cut, i, j, cell, max(map(abs, d))))
    return cells, record


def leads(layers, cells):
    """What decides at the cells' corners: `corners`, and how far from zero it is where it isn't.

    `[(number of the bending layer, entry, largest entry of its group or None, corner, size)]`.
    """
    corners = sorted({c for cell in cells for c in cell})
    found, cut = [], -1
    for number, layer in enumerate(layers):
        if layer[0] not in ("relu", "max"):
            continue
        cut, before = cut + 1, Before(layers[:number])
        for n, c in enumerate(corners):
            v = before[c]
            if layer[0] == "relu":
                found += [(cut, u, None, n, abs(x)) for u, x in enumerate(v) if x]
                continue
            for group in layer[1]:
                own = [i for i in group if v[i] is not None]
                top = max(own, key=v.__getitem__)
                found += [(cut, i, top, n, v[top] - v[i]) for i in own if v[i] != v[top]]
    return corners, found


class Before(dict):
    """The vector after some layers at points, each computed once."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def __missing__(self, point):
        v, kept = list(point), []
        for layer in self.layers:
            if layer[0] == "keep":
                kept = list(v)
            v = apply(layer, v, kept)
        self[point] = v
        return v


def split(before, layer, cell, cut, record):
    """The parts of a cell, on which all layers before are affine, along a bending layer."""
    pieces = [cell]
    for i, j in functions(layer):
        pieces = [h for piece in pieces for h in halves(before, i, j, piece, cut, record)]
    if layer[0] == "relu":
        return pieces
    # the parts in which the same entries win belong together: count each once
    seen = {}
    for piece in pieces:
        center = tuple(sum(c) / len(piece) for c in zip(*piece, strict=True))
        v = before[center]
        key = tuple(
            max((v[i], -k) for k, i in enumerate(g) if v[i] is not None)[1] for g in layer[1]
        )
        seen.setdefault(key, []).append(piece)
    return [hull(parts) for parts in seen.values()]


def functions(layer):
    """Entries, or pairs of them, whose (difference's) zeros a bending layer may be cut along."""
    if layer[0] == "relu":
        return [(u, None) for u in range(layer[1])]
    return sorted({pair for g in layer[1] for pair in itertools.combinations(sorted(g), 2)})


def along(before, i, j, polygon):
    """An entry, or a difference of two, at the corners; None where one is minus infinity."""
    values = [before[c] for c in polygon]
    if values[0][i] is None or (j is not None and values[0][j] is None):
        return None
    return [v[i] - (0 if j is None else v[j]) for v in values]


def halves(before, i, j, polygon, cut, record):
    """The parts of a convex polygon on which an entry, or a difference of two, has one sign."""
    d = along(before, i, j, polygon)
    if d is None or not (min(d) < 0 < max(d)):
        return [polygon]
    record.append((cut, i, j, polygon, min(max(d), -min(d))))
    sides = [], []
    for n, (c, p) in enumerate(zip(polygon, d, strict=True)):
        following, q = polygon[(n + 1) % len(polygon)], d[(n + 1) % len(polygon)]
        for side, sign in zip(sides, (1, -1), strict=True):
            if p * sign >= 0:
                side.append(c)
        t = crossing(p, q)
        if t is not None:
            new = tuple(a + t * (b - a) for a, b in zip(c, following, strict=True))
            for side in sides:
                side.append(new)
    return list(sides)


def hull(parts):
    """The convex polygon that some polygons fill together."""
    points = sorted({c for part in parts for c in part})

    def chain(ordered):
        found = []
        for p in ordered:
            while len(found) > 1 and turn(found[-2], found[-1], p) <= 0:
                found.pop()
            found.append(p)
        return found[:-1]

    return chain(points) + chain(points[::-1])


def turn(a, b, c):
    """Twice the signed area of a triangle."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def area(polygon):
    """Of a polygon, counter-clockwise positive."""
    o = polygon[0]
    pairs = itertools.pairwise(polygon[1:])
    return sum((turn(o, a, b) for a, b in pairs), Fraction(0)) / 2

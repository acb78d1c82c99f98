"""Literal twins: partitions in rational arithmetic, and the flat kernels as plain loops."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def rational(weights, biases, corners, slope=Fraction(0)):
    """Regions of a fully connected network on a polygon of its two inputs, exactly.

    Returns the polygons (lists of points of fractions) of all regions.
    """
    corners = [tuple(map(Fraction, c)) for c in corners]
    # the network's state on a face: rows (a, b, c) of a x + b y + c
    faces = [
        (
            corners,
            [(Fraction(1), Fraction(0), Fraction(0)), (Fraction(0), Fraction(1), Fraction(0))],
        )
    ]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        after = []
        for polygon, state in faces:
            z = [
                tuple(
                    sum((Fraction(v) * row[k] for v, row in zip(line, state, strict=True)),
                        Fraction(shift) if k == 2 else Fraction(0))
                    for k in range(3)
                )
                for line, shift in zip(w, b, strict=True)
            ]  # fmt: skip
            pieces = [(polygon, [])]
            for f in z:
                split = []
                for part, signs in pieces:
                    for side in halves(part, f):
                        mean = sum(at(f, p) for p in side)
                        split.append((side, [*signs, mean > 0]))
                pieces = split
            for part, signs in pieces:
                gates = [Fraction(1) if on else slope for on in signs]
                after.append(
                    (part, [tuple(g * v for v in f) for g, f in zip(gates, z, strict=True)])
                )
        faces = after
    return [polygon for polygon, _ in faces]


def at(f, p):
    return f[0] * p[0] + f[1] * p[1] + f[2]


def halves(polygon, f):
    """The parts of a polygon on either side of f = 0 (itself where f keeps its sign)."""
    values = [at(f, p) for p in polygon]
    if min(values) >= 0 or max(values) <= 0:
        return [polygon]
    sides = [], []
    for i, p in enumerate(polygon):
        q, a, b = polygon[(i + 1) % len(polygon)], values[i], values[(i + 1) % len(polygon)]
        if a >= 0:
            sides[0].append(p)
        if a <= 0:
            sides[1].append(p)
        if a * b < 0:
            t = a / (a - b)
            x = (p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1]))
            sides[0].append(x)
            sides[1].append(x)
    return list(sides)


def shoelace(polygon):
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return sum(p[0] * q[1] - q[0] * p[1] for p, q in pairs) / 2


def sign_masks(z, column, offset, tol):
    d = z[:, column] - offset
    words = -(-len(column) // 64)
    found = np.zeros((2, len(z), words), np.uint64)
    for v in range(len(z)):
        for f in range(len(column)):
            for side, holds in enumerate((d[v, f] > tol, d[v, f] < -tol)):
                if holds:
                    found[side, v, f // 64] |= np.uint64(1 << (f % 64))
    return found


def has(mask, f):
    return bool(int(mask[f // 64]) >> (f % 64) & 1)


def crossings(groups, up, down, count):
    """Functions with both signs among the vertices of each group."""
    return [
        [
            f
            for f in range(count)
            if any(has(up[v], f) for v in g) and any(has(down[v], f) for v in g)
        ]
        for g in groups
    ]

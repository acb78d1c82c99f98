"""Kernels on vertices and edges: signs as bit masks, crossings, and cutting every edge once.

A *cut function* f is `z[:, column[f]] - z[:, other[f]] - offset[f]` (without the second term
where `other[f]` is -1): affine on every face and edge of the mesh, its zero set is to be cut
along. A value within `tol` of zero counts as zero.
"""

from __future__ import annotations

import numpy as np

from isogon.measures.partition.jit import inline, kernel


@inline
def value(z, v, f, column, other, offset):
    """Cut function f at vertex v."""
    d = z[v, column[f]] - offset[f]
    if other[f] >= 0:
        d -= z[v, other[f]]
    return d


@inline
def bits(word):
    """Number of set bits of a 64-bit word."""
    count = 0
    while word:
        word &= word - np.uint64(1)
        count += 1
    return count


@inline
def low_bit(word):
    """Position of the lowest set bit of a non-zero word."""
    position = 0
    while not word & np.uint64(0xFF):
        word >>= np.uint64(8)
        position += 8
    while not word & np.uint64(1):
        word >>= np.uint64(1)
        position += 1
    return position


@kernel
def interpolate(rows, source, ratio, start):
    """Fill the rows from `start` on: `(1 - t) rows[p] + t rows[q]`."""
    for n in range(len(ratio)):
        p, q, t = source[n, 0], source[n, 1], ratio[n]
        for c in range(rows.shape[1]):
            rows[start + n, c] = rows[p, c] + t * (rows[q, c] - rows[p, c])


@kernel
def interpolated(rows, source, ratio, found):
    """The rows `(1 - t) rows[p] + t rows[q]` on their own."""
    for n in range(len(ratio)):
        p, q, t = source[n, 0], source[n, 1], ratio[n]
        for c in range(rows.shape[1]):
            found[n, c] = rows[p, c] + t * (rows[q, c] - rows[p, c])


@kernel
def sign_masks(z, column, offset, tol, start, positive, negative):
    """Bit f of a vertex's masks: function f is positive, negative (neither: zero) there."""
    for v in range(start, z.shape[0]):
        for w in range(positive.shape[1]):
            up, down = np.uint64(0), np.uint64(0)
            low = 64 * w
            for k in range(min(64, len(column) - low)):
                d = z[v, column[low + k]] - offset[low + k]
                up |= np.uint64(d > tol) << np.uint64(k)
                down |= np.uint64(d < -tol) << np.uint64(k)
            positive[v, w] = up
            negative[v, w] = down


@kernel
def either(positive, negative, up, down):
    """The union of all rows of the masks: which functions have which sign somewhere."""
    for v in range(len(positive)):
        for w in range(positive.shape[1]):
            up[w] |= positive[v, w]
            down[w] |= negative[v, w]


@kernel
def edge_crossings(ends, positive, negative, first, functions):
    """Which functions change sign along which edge.

    Called twice: with empty `functions` it fills the CSR offsets `first` `[E + 1]`, then it
    fills `functions` in ascending order per edge.
    """
    fill = len(functions) > 0
    at = 0
    for e in range(ends.shape[0]):
        first[e] = at
        a, b = ends[e, 0], ends[e, 1]
        for w in range(positive.shape[1]):
            both = (positive[a, w] & negative[b, w]) | (negative[a, w] & positive[b, w])
            if not fill:
                at += bits(both)
                continue
            while both:
                functions[at] = 64 * w + low_bit(both)
                both &= both - np.uint64(1)
                at += 1
    first[ends.shape[0]] = at


@kernel
def face_functions(offsets, loops, positive, negative, first, functions):
    """Which functions change sign over which face's vertices; called twice as above."""
    fill = len(functions) > 0
    at = 0
    for i in range(len(offsets) - 1):
        first[i] = at
        for w in range(positive.shape[1]):
            up, down = np.uint64(0), np.uint64(0)
            for h in range(offsets[i], offsets[i + 1]):
                up |= positive[loops[h], w]
                down |= negative[loops[h], w]
            both = up & down
            if not fill:
                at += bits(both)
                continue
            while both:
                functions[at] = 64 * w + low_bit(both)
                both &= both - np.uint64(1)
                at += 1
    first[len(offsets) - 1] = at


@inline
def sort_by(keys, items, n):
    """Sort the first n items by their keys, ascending (Shell's method)."""
    gap = 1
    while gap < n // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, n):
            key, item, k = keys[i], items[i], i
            while k >= gap and keys[k - gap] > key:
                keys[k], items[k] = keys[k - gap], items[k - gap]
                k -= gap
            keys[k], items[k] = key, item
        gap //= 3


@kernel
def cut_edges(
    ends, z, column, other, offset, tol, first, functions, source, ratio, chain, keys, items
):
    """New vertices along every edge that functions cross, in order from its first end.

    Crossings that a function sees as one (it is zero within `tol` at the one before) share a
    vertex. Vertex number `len(z) + n` lies at `(1 - ratio[n]) source[n, 0] + ratio[n]
    source[n, 1]`; the vertices of edge e are numbered from `chain[e]` (counted in n) to
    `chain[e + 1]`. Returns how many there are. `keys`, `items`: room for an edge's crossings.
    """
    made = 0
    for e in range(ends.shape[0]):
        chain[e] = made
        n = first[e + 1] - first[e]
        if n == 0:
            continue
        a, b = ends[e, 0], ends[e, 1]
        for k in range(n):
            f = functions[first[e] + k]
            p = value(z, a, f, column, other, offset)
            q = value(z, b, f, column, other, offset)
            keys[k] = p / (p - q)
            items[k] = f
        sort_by(keys, items, n)
        last = -1.0
        for k in range(n):
            f = items[k]
            if last >= 0:
                p = value(z, a, f, column, other, offset)
                q = value(z, b, f, column, other, offset)
                if abs((1 - last) * p + last * q) <= tol:
                    continue
            last = keys[k]
            source[made, 0] = a
            source[made, 1] = b
            ratio[made] = last
            made += 1
    chain[ends.shape[0]] = made
    return made


@kernel
def divide_edges(ends, site, unit, chain, vertex, count):
    """Replace every edge by its pieces: the first keeps the number, the others are appended.

    `count` edges hold the arrays' first rows; vertex `vertex + n` is number n of the chains.
    The pieces after the first of edge e are numbered `count + chain[e]` and up.
    """
    for e in range(count):
        m = chain[e + 1] - chain[e]
        if m == 0:
            continue
        end = ends[e, 1]
        ends[e, 1] = vertex + chain[e]
        for k in range(m):
            piece = count + chain[e] + k
            ends[piece, 0] = vertex + chain[e] + k
            ends[piece, 1] = vertex + chain[e] + k + 1 if k + 1 < m else end
            site[piece] = site[e]
            unit[piece] = unit[e]


@kernel
def divide_loops(offsets, loops, borders, ends, chain, vertex, count, new_offsets, new, borders2):
    """The faces' loops with the new vertices of their edges put in.

    `loops[h]` is a vertex of the face and `borders[h]` the edge from it to the next one. Called
    before `divide_edges`, while `ends` still tells in which direction a face sees its edge.
    """
    at = 0
    for i in range(len(offsets) - 1):
        new_offsets[i] = at
        for h in range(offsets[i], offsets[i + 1]):
            v, e = loops[h], borders[h]
            m = chain[e + 1] - chain[e]
            new[at] = v
            forward = ends[e, 0] == v
            borders2[at] = e if forward or m == 0 else count + chain[e] + m - 1
            at += 1
            for k in range(m):
                if forward:
                    new[at] = vertex + chain[e] + k
                    borders2[at] = count + chain[e] + k
                else:
                    new[at] = vertex + chain[e] + m - 1 - k
                    borders2[at] = count + chain[e] + m - 2 - k if k + 1 < m else e
                at += 1
    new_offsets[len(offsets) - 1] = at


@kernel
def edge_sides(offsets, loops, borders, ends, sides):
    """Left and right face of every edge (-1: outside), from the counter-clockwise loops."""
    sides[:] = -1
    for i in range(len(offsets) - 1):
        for h in range(offsets[i], offsets[i + 1]):
            e = borders[h]
            sides[e, 0 if ends[e, 0] == loops[h] else 1] = i


@kernel
def face_bits(offsets, loops, positive, negative, mixed, found):
    """Pattern bits of every face: bit f is set where function f is positive on the inside.

    Where rounding left both signs on a face's vertices (bit set in `mixed`, and counted in the
    result), the caller decides by the largest value.
    """
    conflicts = 0
    for i in range(len(offsets) - 1):
        for w in range(positive.shape[1]):
            up, down = np.uint64(0), np.uint64(0)
            for h in range(offsets[i], offsets[i + 1]):
                up |= positive[loops[h], w]
                down |= negative[loops[h], w]
            found[i, w] = up
            mixed[i, w] = up & down
            if up & down:
                conflicts += 1
    return conflicts

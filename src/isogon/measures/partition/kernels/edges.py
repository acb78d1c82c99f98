"""Kernels on vertices and edges: signs as bit masks, crossings, and cutting every edge once.

A *cut function* f is `z[:, column[f]] - z[:, other[f]] - offset[f]` (without the second term
where `other[f]` is -1): affine on every face and edge of the mesh, its zero set is to be cut
along. Values at vertices that count as zero *are* zero (`zeros` sets them).
"""

from __future__ import annotations

import numpy as np

from isogon.measures.partition.kernels.jit import inline, kernel

NEAR = 8 * np.finfo(np.float64).eps  # positions along an edge that no rounding tells apart
WIDE = 1024.0  # what is within so many bounds of a decision is looked at with true errors


@inline
def value(z, v, f, column, other, offset):
    """Cut function f at vertex v."""
    d = z[v, column[f]] - offset[f]
    if other[f] >= 0:
        d -= z[v, other[f]]
    return d


@inline
def slack(error, row, v, f, column, other):
    """Largest size of cut function f at vertex v that counts as zero.

    `error[row[v], c]` is that of column c; a difference has the sum of two.
    """
    e = error[row[v], column[f]]
    if other[f] >= 0:
        e += error[row[v], other[f]]
    return e


@inline
def blend(p, q, t):
    """The value at t on the way from p to q; of two equal ones (also infinite) that one.

    It is reckoned from the nearer end: from the other one, rounding would hide what is there.
    """
    if p == q:
        return p
    return p + t * (q - p) if t < 0.5 else q + (1.0 - t) * (p - q)


@inline
def _bits(word):
    """Number of set bits of a 64-bit word."""
    count = 0
    while word:
        word &= word - np.uint64(1)
        count += 1
    return count


@inline
def mark(words, row, f, on):
    """Set or clear bit f of a row of words."""
    w, flag = f >> 6, np.uint64(1) << np.uint64(f & 63)
    words[row, w] = words[row, w] | flag if on else words[row, w] & ~flag


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
def append_between(rows, source, ratio, start):
    """Fill the rows from `start` on: `(1 - t) rows[p] + t rows[q]`."""
    for n in range(len(ratio)):
        p, q, t = source[n, 0], source[n, 1], ratio[n]
        for c in range(rows.shape[1]):
            rows[start + n, c] = blend(rows[p, c], rows[q, c], t)


@kernel
def close_up(rows, gone):
    """Move the rows that stay to the front, in their order."""
    to = 0
    for n in range(len(gone)):
        if gone[n]:
            continue
        if to < n:
            for c in range(rows.shape[1]):
                rows[to, c] = rows[n, c]
        to += 1


@kernel
def interpolated(rows, source, ratio, found):
    """The rows `(1 - t) rows[p] + t rows[q]` on their own."""
    for n in range(len(ratio)):
        p, q, t = source[n, 0], source[n, 1], ratio[n]
        for c in range(rows.shape[1]):
            found[n, c] = blend(rows[p, c], rows[q, c], t)


@kernel
def look(z, column, offset, least, low, high, unclear, positive, negative):
    """All that one reading of the values gives: ranges, signs, and which signs are unclear.

    Args:
        z: `[V, units]`.
        column: `[F]` the unit that each cut function reads ...
        offset: ... and what it subtracts.
        least: `[F]`: farther than this from zero a function has a clear sign.
        low: `[units]`: is lowered to the smallest values ...
        high: ... is raised to the largest.
        unclear: `[V]`: is set where some function is within `least` of zero, and not zero.
        positive: `[V, words]` masks as of `sign_masks` ...
        negative: ... at tolerance 0.
    """
    units = z.shape[1]
    for v in range(len(z)):
        for u in range(units):
            x = z[v, u]
            low[u] = x if x < low[u] else low[u]
            high[u] = x if x > high[u] else high[u]
        found = False
        for w in range(positive.shape[1]):
            up, down = np.uint64(0), np.uint64(0)
            first = 64 * w
            for k in range(min(64, len(column) - first)):
                d = z[v, column[first + k]] - offset[first + k]
                up |= np.uint64(d > 0.0) << np.uint64(k)
                down |= np.uint64(d < 0.0) << np.uint64(k)
                found |= (d != 0.0) & (abs(d) <= least[first + k])
            positive[v, w] = up
            negative[v, w] = down
        unclear[v] = found


@kernel
def sign_masks(z, column, offset, tol, positive, negative):
    """Bit f of a vertex's masks: function f is positive, negative (neither: zero) there."""
    for v in range(z.shape[0]):
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
def put(z, vertex, which, column, offset):
    """Set the columns of functions that vanish at vertices to their offsets."""
    for n in range(len(vertex)):
        z[vertex[n], column[which[n]]] = offset[which[n]]


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
                at += _bits(both)
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
                at += _bits(both)
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
    ends,
    z,
    column,
    other,
    offset,
    error,
    first,
    functions,
    source,
    ratio,
    chain,
    place,
    unclear,
    keys,
    items,
):
    """New vertices along every edge that functions cross, in order from its first end.

    Crossings that rounding can't tell apart share a vertex: those that have a place in common
    within what each position is uncertain by. (Neighbours in pairs would not do: a chain of them
    may be as long as you like, and what is wider than rounding would be lost in it.) Vertex
    number `len(z) + n` lies at `(1 - ratio[n]) source[n, 0] + ratio[n] source[n, 1]`; the
    vertices of edge e are numbered from `chain[e]` (counted in n) to `chain[e + 1]`. Returns how
    many there are.

    Args:
        ends: `[E, 2]` vertices of the edges.
        z: `[V, columns]` values there; `column`, `other`, `offset`: the functions.
        error: `[crossings]` by how much each is uncertain on its edge, as a value.
        first: `[E + 1]` CSR offsets: the functions that cross each edge ...
        functions: ... and their numbers.
        source: Is filled.
        ratio: Is filled.
        chain: Is filled.
        place: `[crossings]`: is filled with the number n of the vertex that each makes.
        unclear: `[E]`: is set where a decision was close: errors should be looked at.
        keys: Room for an edge's crossings ...
        items: ... likewise.
    """
    made = 0
    for e in range(ends.shape[0]):
        chain[e] = made
        unclear[e] = False
        n = first[e + 1] - first[e]
        if n == 0:
            continue
        a, b = ends[e, 0], ends[e, 1]
        for k in range(n):
            f = functions[first[e] + k]
            p = value(z, a, f, column, other, offset)
            q = value(z, b, f, column, other, offset)
            keys[k] = p / (p - q)
            items[k] = first[e] + k
        sort_by(keys, items, n)
        last, low, high, best, doubt = -1.0, 0.0, 0.0, 0.0, 0.0
        for k in range(n):
            f, t = functions[items[k]], keys[k]
            p = value(z, a, f, column, other, offset)
            q = value(z, b, f, column, other, offset)
            own = NEAR + error[items[k]] / abs(p - q)
            gap = t - last
            if last >= 0:
                unclear[e] |= gap > NEAR and gap <= WIDE * (own + doubt)
            if last < 0 or t - own > high:
                source[made, 0] = a
                source[made, 1] = b
                ratio[made] = last = best = t
                low, high, doubt = t - own, t + own, own
                made += 1
            else:  # the best known of what lies in one place, as far as the others allow
                low, high = max(low, t - own), min(high, t + own)
                if own < doubt:
                    best, doubt = t, own
                ratio[made - 1] = last = min(max(best, low), high)
            place[items[k]] = made - 1
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

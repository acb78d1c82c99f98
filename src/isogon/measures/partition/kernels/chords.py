"""Kernels that find, in each face, the chord along which each cut function vanishes."""

from __future__ import annotations

from isogon.measures.partition.kernels.edges import mark, slack, value
from isogon.measures.partition.kernels.jit import inline, kernel


@inline
def change(d, n, start, step):
    """Position on a loop of n values where the sign turns, walking from a positive one.

    The zero between the last positive and the first negative value (the smallest in size if
    there are several); -1 where nothing negative is met.
    """
    best = k = start
    for _ in range(n):
        k += step
        if k == n:
            k = 0
        elif k < 0:
            k = n - 1
        nearer = abs(d[k]) < abs(d[best])
        if d[k] < 0:
            return k if nearer else best
        if d[k] > 0 or nearer:
            best = k
    return -1


@kernel
def find_chords(
    offsets, loops, first, functions, z, column, other, offset, error, row, start, end, above, d
):
    """Ends of each (face, function)'s chord as positions on the face's loop, start < end.

    A function that touches the face in one vertex, or whose sign turns only within rounding
    (`error`, `row` as in `edges.slack`; no rows: zeros are zeros), gets start = -1. The walk starts
    at the function's largest value, so that of several sign changes within rounding the outermost
    two count. `above`: whether the function is positive from the chord's start to its end, as the
    loop runs; without a chord, whether it is in the whole face, as its largest value says. `d`:
    room for the values on a loop.
    """
    for i in range(len(offsets) - 1):
        low, n = offsets[i], offsets[i + 1] - offsets[i]
        for k in range(first[i], first[i + 1]):
            f = functions[k]
            top = bottom = 0
            for h in range(n):
                v = loops[low + h]
                d[h] = value(z, v, f, column, other, offset)
                if len(row) and abs(d[h]) <= slack(error, row, v, f, column, other):
                    d[h] = 0.0
                if d[h] > d[top]:
                    top = h
                elif d[h] < d[bottom]:
                    bottom = h
            start[k] = end[k] = -1
            above[k] = d[top] > -d[bottom]
            if d[top] > 0:
                p, q = change(d, n, top, 1), change(d, n, top, -1)
                if p >= 0 and q >= 0 and p != q:
                    start[k], end[k], above[k] = min(p, q), max(p, q), q < p


@kernel
def count_meetings(first, start, end, limit, meetings):
    """Number of pairs of chords that cross, per face: their ends alternate around the loop.

    Counting stops when the faces so far will give more than `limit` regions; the result is the
    number of chords that keep within it.
    """
    total = 0
    for i in range(len(first) - 1):
        meetings[i] = 0
        total += 1
        for k in range(first[i], first[i + 1]):
            a, b = start[k], end[k]
            if a < 0:
                continue
            found = 0
            for m in range(first[i], k):
                p, q = start[m], end[m]
                found += (a < p < b < q) or (p < a < q < b)
            total += 1 + found
            if total > limit:
                return k
            meetings[i] += found
    return first[len(first) - 1]


@kernel
def keep_chords(first, start, end, above, functions, kept, bits):
    """Drop the empty chords (start -1) in place; fills the offsets of those that stay.

    Their functions' `bits` `[F, words]` become what `above` says of the face (no words: none do).
    """
    at = 0
    low = first[0]
    for i in range(len(first) - 1):
        high = first[i + 1]
        kept[i] = at
        for k in range(low, high):
            if start[k] >= 0:
                start[at], end[at], functions[at] = start[k], end[k], functions[k]
                above[at] = above[k]
                at += 1
            elif bits.shape[1]:
                mark(bits, i, functions[k], above[k])
        low = high
    kept[len(first) - 1] = at
    return at

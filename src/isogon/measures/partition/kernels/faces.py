"""Kernels that split a face by all its chords, by recursion on a middle chord.

Everything lives in a few flat arrays (each array that a kernel touches costs time when it is
compiled), which `meetings` lays out.
"""

from __future__ import annotations

from isogon.measures.partition.kernels.edges import mark, sort_by
from isogon.measures.partition.kernels.jit import costly, inline, unfold
from isogon.measures.partition.kernels.meetings import (
    ABOVE,
    CROSS,
    EDGE,
    ERROR,
    FACE,
    FUNCTION,
    HALF,
    INNER,
    LEFT,
    MEET,
    PLACE,
    SIDE,
    TA,
    TB,
    UA,
    UB,
    UMEET,
    VERTEX,
    ZERO,
    A,
    B,
    P,
    Q,
    classify,
    mend_order,
    place_meetings,
)


@unfold
def _take(room, top):
    """Copy the sub-face on top of the stack to the workplace: its children overwrite it.

    Returns the size of its loop, its number of pieces, and the one that halves the loop best.
    """
    half, piece, span = room.half, room.piece, room.span
    frame = room.frame
    at, n, c_at, k = frame[top, 0], frame[top, 1], frame[top, 2], frame[top, 3]
    for h in range(n):
        half[0, h] = half[0, at + h]
        half[1, h] = half[1, at + h]
    best, found = -1, 0
    for c in range(k):
        for x in range(SIDE):
            piece[c, x] = piece[c_at + c, x]
        span[c, TA], span[c, TB] = span[c_at + c, TA], span[c_at + c, TB]
        span[c, UA], span[c, UB] = span[c_at + c, UA], span[c_at + c, UB]
        span[c, ERROR] = span[c_at + c, ERROR]
        gap = abs(piece[c, B] - piece[c, A])
        gap = min(gap, n - gap)
        if gap > best:
            best, found = gap, c
    for w in range(room.known.shape[1]):
        room.known[0, w] = room.known[top + 1, w]
    return n, k, found


@unfold
def side_pieces(room, k, n, start, size, m, left, to, row):
    """Write the pieces of one side from row `to` on: those wholly there and parts of crossing ones.

    Pieces that would run along an edge of the side's loop, of `size` vertices, are left out: the
    sign of their function there goes to row `row` of `known`, as that of all on the other side.
    """
    piece, span, known = room.piece, room.span, room.known
    kept, words = to, known.shape[1]
    for w in range(words):
        known[row, w] = known[0, w]
    stop = start + size - 1 - m
    for c in range(k):
        side = piece[c, SIDE]
        if side != left and side != CROSS:
            if words:  # the way from A to B leads past this side, or not
                a, b = (piece[c, A] - stop) % n, (piece[c, B] - stop) % n
                mark(known, row, piece[c, FUNCTION], (a > b) == (piece[c, ABOVE] == 1))
            continue
        a, b = piece[c, A] - start, piece[c, B] - start
        a, b = a + n if a < 0 else a, b + n if b < 0 else b
        low, high, low_doubt, high_doubt = span[c, TA], span[c, TB], span[c, UA], span[c, UB]
        if side == CROSS:
            s = piece[c, PLACE]
            s = m + 1 if s < 0 else s
            x = size - s if left else size - (m + 1 - s)  # the path closes the side's loop
            x = 0 if x == size else x
            if (piece[c, INNER] == piece[c, A]) == (left == LEFT):
                b, high, high_doubt = x, span[c, MEET], span[c, UMEET]
            else:
                a, low, low_doubt = x, span[c, MEET], span[c, UMEET]
        gap = abs(a - b)
        if gap > 1 and gap != size - 1:
            for x in range(A):
                piece[kept, x] = piece[c, x]
            piece[kept, A], piece[kept, B] = a, b
            span[kept, TA], span[kept, TB] = low, high
            span[kept, UA], span[kept, UB] = low_doubt, high_doubt
            span[kept, ERROR] = span[c, ERROR]
            kept += 1
        elif words:
            mark(known, row, piece[c, FUNCTION], ((b + 1) % size == a) == (piece[c, ABOVE] == 1))
    return kept - to


@unfold
def side_loop(half, path, n, start, length, m, edge, left, into, to):
    """Write the loop of one side: `length` old edges from position `start`, the path to close it.

    The path's m + 1 edges are numbered from `edge`; on the left they are seen backwards.
    """
    p = start
    for h in range(to, to + length):
        into[0, h], into[1, h] = half[0, p], half[1, p]
        p = p + 1 if p + 1 < n else 0
    into[0, to + length] = half[0, p]
    into[1, to + length] = edge + m if left else edge
    for s in range(1, m + 1):
        into[0, to + length + s] = path[m + 1 - s if left else s]
        into[1, to + length + s] = edge + m - s if left else edge + s


@unfold
def _divide(cut, made, room, base, top, parent):
    """Split the sub-face on top of the stack by one of its pieces; returns the new top."""
    frame, path, count = room.frame, room.path, made.count
    at, c_at = frame[top, 0], frame[top, 2]
    n, k, e = _take(room, top)
    a, b, f = room.piece[e, A], room.piece[e, B], room.piece[e, FUNCTION]
    i, j, sign = min(a, b), max(a, b), 1.0 if a < b else -1.0
    path[0], end = room.half[0, i], room.half[0, j]
    m = classify(cut, room, k, e, n, i, j, sign)
    sort_by(room.key, room.order, m)
    mend_order(room.piece, room.order, room.key, m)
    m = place_meetings(cut, made, room, e, m, sign, parent, path[0], end)
    path[m + 1] = end
    first = count[EDGE]
    count[EDGE] += m + 1
    for s in range(m + 1):
        made.edge[0, first + s], made.edge[1, first + s] = path[s], path[s + 1]
        made.edge[2, first + s] = f
    top -= 1
    for left in range(2):
        start, length = (i, j - i) if left else (j, n - (j - i))
        size = length + 1 + m
        kept = side_pieces(room, k, n, start, size, m, left, c_at, top + 2)
        into, to = (room.half, at) if kept else (made.half, count[HALF])
        side_loop(room.half, path, n, start, length, m, base + first, left, into, to)
        if kept:
            top += 1
            frame[top, 0], frame[top, 1], frame[top, 2], frame[top, 3] = at, size, c_at, kept
            at += size
            c_at += kept
        else:
            finish(made, size, parent, room.known, top + 2)
    return top


@inline
def finish(made, size, parent, bits, row):
    """Count a loop of `size` half-edges that was written to `made` as a face, with its bits."""
    for w in range(bits.shape[1]):
        made.bits[made.count[FACE], w] = bits[row, w]
    made.face[1, made.count[FACE]] = parent
    made.count[FACE] += 1
    made.count[HALF] += size
    made.face[0, made.count[FACE]] = made.count[HALF]


@unfold
def _fits(made, room, top, bottom):
    """Whether splitting the sub-face on top stays within all arrays: so it does by its counts."""
    frame, count = room.frame, made.count
    at, n, c_at, k = frame[top, 0], frame[top, 1], frame[top, 2], frame[top, 3]
    grown = 2 * n + 4 * k + 8
    return (
        count[VERTEX] + k <= len(made.ratio)
        and count[EDGE] + k < made.edge.shape[1]
        and count[FACE] + 2 < made.face.shape[1]
        and count[HALF] + grown <= made.half.shape[1]
        and count[ZERO] + 2 * k <= made.zero.shape[1]
        and at + grown <= room.half.shape[1]
        and c_at + 2 * k < len(room.piece)
        and top + 2 < len(room.frame)
        and n <= bottom
    )


@costly(8.0)
def split_faces(offsets, loops, borders, bits, first, chords, error, cut, made, room, base):
    """Split every face by its chords into `made`; uncut faces are copied.

    Args:
        offsets: `[F + 1]` CSR: loops of the faces ...
        loops: ... their vertices ...
        borders: ... and edges.
        bits: `[F, words]`: bit f is set where function f, without a chord, is positive.
        first: `[F + 1]` CSR: chords of the faces ...
        chords: ... `[K, 4]`: function, positions of both ends on the loop, `above`.
        error: `[K]` by how much each chord's function is uncertain in its face, as a value.
        cut: The functions, a `Cut`.
        made: Is filled, a `Made`.
        room: A `Room`; `frame[0]` says how many rows its workplaces have.
        base: Number of old edges; new ones are numbered from there.

    Returns:
        -1, or the first face for which the room did not suffice.
    """
    bottom, c_bottom = room.frame[0, 0], room.frame[0, 2]
    piece, span = room.piece, room.span
    for i in range(len(offsets) - 1):
        low, n, k = offsets[i], offsets[i + 1] - offsets[i], first[i + 1] - first[i]
        made.unclear[i] = False
        into, to = (room.half, bottom) if k else (made.half, made.count[HALF])
        for h in range(n):
            into[0, to + h], into[1, to + h] = loops[low + h], borders[low + h]
        if k == 0:
            finish(made, n, i, bits, i)
            continue
        for w in range(bits.shape[1]):
            room.known[1, w] = bits[i, w]
        for c in range(k):
            row, x = c_bottom + c, first[i] + c
            a, b = chords[x, 1], chords[x, 2]
            piece[row, FUNCTION], piece[row, ABOVE] = chords[x, 0], chords[x, 3]
            piece[row, A], piece[row, B] = a, b
            piece[row, P], piece[row, Q] = loops[low + a], loops[low + b]
            span[row, TA], span[row, TB], span[row, UA], span[row, UB] = 0.0, 1.0, 0.0, 0.0
            span[row, ERROR] = error[x]
        room.frame[0, 1], room.frame[0, 3] = n, k
        top = 0
        while top >= 0:
            if not _fits(made, room, top, bottom):
                return i
            top = _divide(cut, made, room, base, top, i)
    return -1

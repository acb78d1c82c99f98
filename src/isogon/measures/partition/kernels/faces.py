"""Kernels that split a face by all its chords, by recursion on a middle chord.

Which chords cross is decided by the order of their ends on the face's loop alone; a coordinate
is computed only where two chords do cross, from the values of one function at the two original
ends of the other's chord. Everything lives in a few flat arrays (each array that a kernel
touches costs time when it is compiled): `Made` is what the faces turn into, `Room` holds the
sub-faces still to be split, last in first out, and the one that is being split.
"""

from __future__ import annotations

from collections import namedtuple

from isogon.measures.partition.kernels.edges import NEAR, WIDE, mark, sort_by, value
from isogon.measures.partition.kernels.jit import inline, kernel, unfold

# The cut functions: values at the loops' vertices, how to read them, and the unit of each.
Cut = namedtuple("Cut", "z column other offset unit")
# New vertices (`source [V, 2]`, `ratio [V]`), edges (`edge [3, E]`: ends, function), loops
# (`half [2, H]`: vertex, edge), faces (`face [2, F + 1]`: offset of the loop, parent), which
# function vanishes at which new vertex (`zero [2, Z]`); `count` holds the number of vertices,
# edges, faces, half-edges and zeros, in this order. `unclear [F]`: old faces with a close decision.
# `bits [F, words]`: bit f is set where function f is positive on the face; no words: not wanted.
Made = namedtuple("Made", "source ratio edge half face zero count unclear bits")
VERTEX, EDGE, FACE, HALF, ZERO = range(5)
# Sub-faces: loops (`half [2, ...]`), pieces of chords (`piece`, `span`, a row each) and where
# both lie (`frame`). The sub-face in work is copied to the first rows, which nothing else uses;
# `order`, `key`: its pieces that cross the dividing one, sorted; `path`: vertices along that one.
# `known`: bits of the sub-faces, those of their own pieces' functions yet to be told (row 0: of the
# one in work).
Room = namedtuple("Room", "half piece span frame order key path known")
# Columns of `piece`: the chord's function, whether that is positive from A to B as the loop runs,
# its end vertices, the piece's end positions on the
# loop; found out in work: side, position of the left end, rank of the right end, place on path.
FUNCTION, ABOVE, P, Q, A, B, SIDE, INNER, OUTER, PLACE = range(10)
# Columns of `span`: ratio along the chord at A and B, and where the dividing piece is met; by how
# much each is uncertain; the uncertainty of the chord's function, as a value;
# by how much that function changes along the dividing piece's chord.
TA, TB, UA, UB, ERROR, MEET, UMEET, RISE = range(8)
FINE, FAR = 1e-9, 4e-6  # places less uncertain than FINE are told apart if FAR from each other
RIGHT, LEFT, CROSS, SAME = range(4)


@inline
def _along(cut, piece, c, f):
    """Function f at both ends of piece c's chord."""
    x = value(cut.z, piece[c, P], f, cut.column, cut.other, cut.offset)
    y = value(cut.z, piece[c, Q], f, cut.column, cut.other, cut.offset)
    return x, y


@inline
def meeting(x, y, low, high):
    """Ratio along a chord where a function with these values at its ends vanishes.

    It is kept within the piece, from `low` to `high`.
    """
    return 0.5 * (low + high) if x == y else min(max(x / (x - y), low), high)


@inline
def doubt(span, c):
    """By how much the ratio at which piece c meets the dividing piece is uncertain on that one."""
    return NEAR + span[c, ERROR] / span[c, RISE] if span[c, RISE] > 0 else 1.0


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
def classify(cut, room, k, e, n, i, j, sign):
    """On which side of piece e, from loop position i to j, each piece lies.

    Lists those that cross it, with where they do on either chord, and the ranks of their ends
    as seen along piece e: `INNER` on its left, `OUTER` on its right.
    """
    piece, span = room.piece, room.span
    f = piece[e, FUNCTION]
    m = 0
    for c in range(k):
        a, b = piece[c, A], piece[c, B]
        side_a = 1 if i < a < j else -1 if a < i or a > j else 0
        side_b = 1 if i < b < j else -1 if b < i or b > j else 0
        if side_a * side_b >= 0:
            total = side_a + side_b
            piece[c, SIDE] = LEFT if total > 0 else RIGHT if total < 0 else SAME
            continue
        piece[c, SIDE] = CROSS
        if side_a < 0:
            a, b = b, a
        piece[c, INNER] = a
        piece[c, OUTER] = i - b if b < i else i - b + n
        x, y = _along(cut, piece, c, f)
        span[c, MEET] = meeting(x, y, span[c, TA], span[c, TB])
        span[c, UMEET] = 1.0 if x == y else NEAR + span[e, ERROR] / abs(x - y)
        x, y = _along(cut, piece, e, piece[c, FUNCTION])
        room.key[m] = sign * meeting(x, y, span[e, TA], span[e, TB])
        span[c, RISE] = abs(x - y)
        room.order[m] = c
        m += 1
    return m


@inline
def before(piece, c, d):
    """Whether piece c must meet the chord before d: they don't cross, and c's ends come first."""
    x = piece[c, INNER] - piece[d, INNER]
    y = piece[c, OUTER] - piece[d, OUTER]
    return x <= 0 and y <= 0 and x + y < 0


@unfold
def mend_order(piece, order, key, m):
    """Pieces that don't cross meet the chord in the order of their ends, whatever rounding says."""
    wrong = 0
    for r in range(m - 1):
        wrong += before(piece, order[r + 1], order[r])
    if wrong == 0:
        return
    for r in range(1, m):
        c, t, s = order[r], key[r], 0
        while s < r and not before(piece, c, order[s]):
            s += 1
        for q in range(r, s, -1):
            order[q], key[q] = order[q - 1], key[q - 1]
        order[s], key[s] = c, t


@unfold
def place_meetings(cut, made, room, e, m, sign, parent):
    """Make the vertices where the m crossing pieces meet piece e, from `path[0]` on.

    One whose position rounding can't tell from that of the vertex before (or of the piece's
    end) passes through it. `PLACE` becomes 0 (the start), 1.. (new vertices, listed in `path`)
    or -1 (the end). Returns the number of new vertices.
    """
    piece, span, zero = room.piece, room.span, made.zero
    if sign > 0:
        last, slack, final, slack_end = span[e, TA], span[e, UA], span[e, TB], span[e, UB]
    else:
        last, slack, final, slack_end = -span[e, TB], span[e, UB], -span[e, TA], span[e, UA]
    count, place, previous = 0, 0, -1
    plain = slack <= FINE  # whether the place before is that sure
    for r in range(m):
        c, t = room.order[r], room.key[r]
        f = piece[c, FUNCTION]
        sure = span[c, ERROR] <= FINE * span[c, RISE]
        if place >= 0:
            gap, rest = abs(t - last), abs(final - t)
            new = sure and plain and slack_end <= FINE and gap > FAR and rest > FAR
            if not new:
                own = doubt(span, c)
                if previous >= 0:
                    slack = doubt(span, previous)
                if gap > NEAR and gap <= WIDE * (own + slack):
                    # (three entries of one maximum do meet in a point)
                    known = previous >= 0 and cut.other[f] >= 0
                    known = known and cut.unit[piece[previous, FUNCTION]] == cut.unit[f]
                    made.unclear[parent] |= not (known and gap <= own + slack)
                if gap > own + slack:
                    if rest > NEAR and rest <= WIDE * (own + slack_end):
                        made.unclear[parent] = True
                    new, place = rest > own + slack_end, -1
                elif count > 0 and own < slack:  # the best known of what lies in one place
                    made.ratio[made.count[VERTEX] + count - 1] = sign * t
                    last, plain, previous = t, sure, c
            if new:
                n = made.count[VERTEX] + count
                made.source[n, 0], made.source[n, 1] = piece[e, P], piece[e, Q]
                made.ratio[n] = sign * t
                zero[0, made.count[ZERO]], zero[1, made.count[ZERO]] = n, piece[e, FUNCTION]
                made.count[ZERO] += 1
                count += 1
                place, last, plain, previous = count, t, sure, c
                room.path[count] = len(cut.z) + n
        if place > 0:
            zero[0, made.count[ZERO]] = made.count[VERTEX] + count - 1
            zero[1, made.count[ZERO]] = f
            made.count[ZERO] += 1
        piece[c, PLACE] = place
    made.count[VERTEX] += count
    return count


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
    m = place_meetings(cut, made, room, e, m, sign, parent)
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


@kernel
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

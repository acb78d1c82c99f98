"""Kernels that split a face by all its chords, by recursion on a middle chord.

Which chords cross is decided by the order of their ends on the face's loop alone; a coordinate
is computed only where two chords do cross, from the values of one function at the two original
ends of the other's chord. Everything lives in flat arrays: `Chords` (of all faces), `Made` (what
the faces turn into) and `Stack` (sub-faces still to be split, last in first out).
"""

from __future__ import annotations

from collections import namedtuple

from isogon.measures.partition.edges import sort_by, value
from isogon.measures.partition.jit import inline, kernel

# The cut functions: values at the loops' vertices and how to read them.
Cut = namedtuple("Cut", "z column other offset tol")
# New vertices (two ends and a ratio), new edges (ends, function), faces (CSR loops) and their
# parents; `count` holds the number of vertices, edges, faces and half-edges, in this order.
Made = namedtuple("Made", "source ratio ends function offsets loops borders parent count")
VERTEX, EDGE, FACE, HALF = range(4)
# A chord: its function and the loop vertices (not positions) at its ends.
Chords = namedtuple("Chords", "first start end function p q")
# Sub-faces: loops, edges, and per chord piece its number, end positions and end ratios.
Stack = namedtuple("Stack", "loop border chord a b ta tb frame")
# Copies of the sub-face being split and what is found out about its chords.
Work = namedtuple("Work", "loop border chord a b ta tb side order key place path inner outer")
LEFT, RIGHT, CROSS, SAME = range(4)


@inline
def at_vertex(cut, made, v, f):
    """Function f at a vertex that may have been made in this very split."""
    n = v - len(cut.z)
    if n < 0:
        return value(cut.z, v, f, cut.column, cut.other, cut.offset)
    p = value(cut.z, made.source[n, 0], f, cut.column, cut.other, cut.offset)
    q = value(cut.z, made.source[n, 1], f, cut.column, cut.other, cut.offset)
    return (1 - made.ratio[n]) * p + made.ratio[n] * q


@inline
def meeting(cut, p, q, f, low, high):
    """Ratio along the chord from vertex p to q where f vanishes, kept within its piece."""
    x = value(cut.z, p, f, cut.column, cut.other, cut.offset)
    y = value(cut.z, q, f, cut.column, cut.other, cut.offset)
    t = x / (x - y) if x != y else 0.5 * (low + high)
    return min(max(t, low), high)


@inline
def middle(k, n, a, b):
    """The chord piece whose ends halve a loop of n best."""
    best, found = -1, 0
    for c in range(k):
        span = abs(b[c] - a[c])
        span = min(span, n - span)
        if span > best:
            best, found = span, c
    return found


@inline
def classify(work, k, e, i, j):
    """On which side of the chord from loop position i to j each piece lies; lists the crossing.

    Also notes, for those that cross, their ends' ranks along the chord on either side.
    """
    n_cross = 0
    for c in range(k):
        a, b = work.a[c], work.b[c]
        a_in, b_in = i < a < j, i < b < j
        a_out, b_out = a < i or a > j, b < i or b > j
        if c == e:
            work.side[c] = -1
        elif (a_in and b_out) or (a_out and b_in):
            work.side[c] = CROSS
            work.order[n_cross] = c
            n_cross += 1
        elif a_in or b_in:
            work.side[c] = LEFT
        elif a_out or b_out:
            work.side[c] = RIGHT
        else:
            work.side[c] = SAME
    return n_cross


@inline
def ranks(work, m, n, i, j):
    """Order of the crossing pieces' ends as seen along the chord, on its left and right."""
    for r in range(m):
        c = work.order[r]
        a, b = work.a[c], work.b[c]
        if not i < a < j:
            a, b = b, a
        work.inner[c] = a
        work.outer[c] = i - b if b < i else i - b + n


@inline
def before(work, c, d):
    """Whether piece c must meet the chord before d: they don't cross, and c's ends come first."""
    x = work.inner[c] - work.inner[d]
    y = work.outer[c] - work.outer[d]
    return x <= 0 and y <= 0 and (x < 0 or y < 0)


@inline
def mend_order(work, m):
    """Pieces that don't cross meet the chord in the order of their ends, whatever rounding says."""
    fine = True
    for r in range(m - 1):
        if before(work, work.order[r + 1], work.order[r]):
            fine = False
    if fine:
        return
    for r in range(1, m):
        c = work.order[r]
        key = work.key[r]
        for s in range(r):
            if before(work, c, work.order[s]):
                for t in range(r, s, -1):
                    work.order[t] = work.order[t - 1]
                    work.key[t] = work.key[t - 1]
                work.order[s] = c
                work.key[s] = key
                break


@inline
def place_meetings(cut, made, work, chords, e, m, sign, end):
    """Make the vertices where the m crossing pieces meet chord e, from `path[0]` to `end`.

    A function that vanishes at the vertex before (or at the chord's end) passes through it.
    `place[r]` becomes 0 (the start), 1.. (new vertices, listed in `path`) or -1 (the end).
    Returns the number of new vertices.
    """
    count, at_end = 0, False
    number = work.chord[e]
    for r in range(m):
        f = chords.function[work.chord[work.order[r]]]
        if at_end:
            work.place[r] = -1
        elif abs(at_vertex(cut, made, work.path[count], f)) <= cut.tol:
            work.place[r] = count
        elif abs(at_vertex(cut, made, end, f)) <= cut.tol:
            work.place[r] = -1
            at_end = True
        else:
            n = made.count[VERTEX]
            made.source[n, 0] = chords.p[number]
            made.source[n, 1] = chords.q[number]
            made.ratio[n] = sign * work.key[r]
            made.count[VERTEX] = n + 1
            count += 1
            work.path[count] = len(cut.z) + n
            work.place[r] = count
    return count


@inline
def add_edge(made, base, a, b, f):
    """A new edge from vertex a to b on the zero line of f; `base` old edges come before."""
    n = made.count[EDGE]
    made.ends[n, 0], made.ends[n, 1] = a, b
    made.function[n] = f
    made.count[EDGE] = n + 1
    return base + n


@inline
def push_piece(stack, at, k, n, c, a, b, ta, tb):
    """Give a sub-face with a loop of n a chord piece, unless it runs along one of its edges."""
    gap = abs(a - b)
    if gap <= 1 or gap == n - 1:
        return k
    stack.chord[at + k] = c
    stack.a[at + k], stack.b[at + k] = a, b
    stack.ta[at + k], stack.tb[at + k] = ta, tb
    return k + 1


@inline
def emit(made, stack, at, n, parent):
    """A sub-face without chords is a face."""
    face, half = made.count[FACE], made.count[HALF]
    for h in range(n):
        made.loops[half + h] = stack.loop[at + h]
        made.borders[half + h] = stack.border[at + h]
    made.count[HALF] = half + n
    made.parent[face] = parent
    made.offsets[face + 1] = half + n
    made.count[FACE] = face + 1


@inline
def frame_at(frame, top):
    """Place and size of a sub-face's loop, place and number of its chord pieces."""
    return frame[top, 0], frame[top, 1], frame[top, 2], frame[top, 3]


@inline
def take(stack, work, top):
    """Copy the sub-face on top of the stack to the workplace: children overwrite it."""
    at, n, c_at, k = frame_at(stack.frame, top)
    for h in range(n):
        work.loop[h] = stack.loop[at + h]
        work.border[h] = stack.border[at + h]
    for c in range(k):
        work.chord[c] = stack.chord[c_at + c]
        work.a[c], work.b[c] = stack.a[c_at + c], stack.b[c_at + c]
        work.ta[c], work.tb[c] = stack.ta[c_at + c], stack.tb[c_at + c]


@inline
def order_meetings(cut, work, chords, e, m, n, i, j, sign):
    """Sort the m crossing pieces along chord e, from its end at loop position i."""
    number = work.chord[e]
    for r in range(m):
        f = chords.function[work.chord[work.order[r]]]
        t = meeting(cut, chords.p[number], chords.q[number], f, work.ta[e], work.tb[e])
        work.key[r] = sign * t
    sort_by(work.key, work.order, m)
    ranks(work, m, n, i, j)
    mend_order(work, m)


@inline
def left_loop(stack, work, at, i, j, m, edge):
    """Write the sub-face on the chord's left: loop positions i..j, then the path back."""
    h = at
    for k in range(i, j + 1):
        stack.loop[h] = work.loop[k]
        stack.border[h] = work.border[k] if k < j else edge + m
        h += 1
    for s in range(m, 0, -1):
        stack.loop[h] = work.path[s]
        stack.border[h] = edge + s - 1
        h += 1


@inline
def right_loop(stack, work, at, n, i, j, m, edge):
    """Write the sub-face on the right: loop positions j..i across the start, then the path."""
    h = at
    for k in range(j, n + i + 1):
        position = k if k < n else k - n
        stack.loop[h] = work.loop[position]
        stack.border[h] = work.border[position] if k < n + i else edge
        h += 1
    for s in range(1, m + 1):
        stack.loop[h] = work.path[s]
        stack.border[h] = edge + s
        h += 1


@inline
def push_side(cut, stack, work, chords, e, k, m_cross, n, i, j, m, side, at):
    """Chord pieces of one side: those wholly there, and that side's part of the crossing ones."""
    kept = 0
    span = j - i if side == LEFT else n - (j - i)
    size = span + 1 + m
    shift = i if side == LEFT else j
    for c in range(k):
        if work.side[c] == side:
            a, b = work.a[c] - shift, work.b[c] - shift
            if a < 0:
                a += n
            if b < 0:
                b += n
            kept = push_piece(stack, at, kept, size, work.chord[c], a, b, work.ta[c], work.tb[c])
    f_e = chords.function[work.chord[e]]
    for r in range(m_cross):
        c = work.order[r]
        number = work.chord[c]
        t = meeting(cut, chords.p[number], chords.q[number], f_e, work.ta[c], work.tb[c])
        s = work.place[r]
        if s < 0:
            s = m + 1
        if side == LEFT:
            x = 0 if s == 0 else span + (m + 1 - s)
            own = work.inner[c]
        else:
            x = 0 if s == m + 1 else span + s
            own = work.b[c] if work.inner[c] == work.a[c] else work.a[c]
        own -= shift
        if own < 0:
            own += n
        if (work.inner[c] == work.a[c]) == (side == LEFT):
            kept = push_piece(stack, at, kept, size, number, own, x, work.ta[c], t)
        else:
            kept = push_piece(stack, at, kept, size, number, x, own, t, work.tb[c])
    return kept


@inline
def divide(cut, made, stack, work, chords, base, top, parent):
    """Split the sub-face on top of the stack by one chord; returns the new top."""
    at, n, c_at, k = frame_at(stack.frame, top)
    take(stack, work, top)
    e = middle(k, n, work.a, work.b)
    i, j = min(work.a[e], work.b[e]), max(work.a[e], work.b[e])
    sign = 1.0 if work.a[e] < work.b[e] else -1.0
    crossing = classify(work, k, e, i, j)
    order_meetings(cut, work, chords, e, crossing, n, i, j, sign)
    work.path[0] = work.loop[i]
    m = place_meetings(cut, made, work, chords, e, crossing, sign, work.loop[j])
    work.path[m + 1] = work.loop[j]
    f = chords.function[work.chord[e]]
    edge = base + made.count[EDGE]
    for s in range(m + 1):
        add_edge(made, base, work.path[s], work.path[s + 1], f)
    top -= 1
    for side in (RIGHT, LEFT):
        if side == LEFT:
            size = j - i + 1 + m
            left_loop(stack, work, at, i, j, m, edge)
        else:
            size = n - (j - i) + 1 + m
            right_loop(stack, work, at, n, i, j, m, edge)
        kept = push_side(cut, stack, work, chords, e, k, crossing, n, i, j, m, side, c_at)
        if kept == 0:
            emit(made, stack, at, size, parent)
        else:
            top += 1
            stack.frame[top, 0], stack.frame[top, 1] = at, size
            stack.frame[top, 2], stack.frame[top, 3] = c_at, kept
            at += size
            c_at += kept
    return top


@kernel
def split_faces(offsets, loops, borders, chords, cut, made, stack, work, base):
    """Split every face by its chords into `made`; uncut faces are copied.

    Returns -1, or the first face for which the room in `made` did not suffice.
    """
    for i in range(len(offsets) - 1):
        low, n = offsets[i], offsets[i + 1] - offsets[i]
        first, k = chords.first[i], chords.first[i + 1] - chords.first[i]
        for h in range(n):
            stack.loop[h] = loops[low + h]
            stack.border[h] = borders[low + h]
        if k == 0:
            emit(made, stack, 0, n, i)
            continue
        for c in range(k):
            stack.chord[c] = first + c
            stack.a[c], stack.b[c] = chords.start[first + c], chords.end[first + c]
            stack.ta[c], stack.tb[c] = 0.0, 1.0
            chords.p[first + c] = loops[low + chords.start[first + c]]
            chords.q[first + c] = loops[low + chords.end[first + c]]
        stack.frame[0, 0], stack.frame[0, 1], stack.frame[0, 2], stack.frame[0, 3] = 0, n, 0, k
        top = 0
        while top >= 0:
            if short_of_room(made, stack, top, n):
                return i
            top = divide(cut, made, stack, work, chords, base, top, i)
    return -1


@inline
def short_of_room(made, stack, top, n):
    """Whether splitting the sub-face on top could overrun an array (never, if counts are right)."""
    at, size, c_at, k = frame_at(stack.frame, top)
    grown = 2 * size + 4 * k + 8
    return (
        made.count[VERTEX] + k > len(made.ratio)
        or made.count[EDGE] + k + 1 > len(made.function)
        or made.count[FACE] + 2 >= len(made.offsets)
        or made.count[HALF] + grown > len(made.loops)
        or at + grown > len(stack.loop)
        or c_at + 2 * k + 2 > len(stack.chord)
        or top + 2 >= len(stack.frame)
    )

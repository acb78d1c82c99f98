"""The exact decision boundary: where two outputs share the maximum."""

from __future__ import annotations

import numpy as np

from isogon.measures.partition.kernels.contenders import (
    below,
    better_known,
    chord,
    clip,
    contenders,
    first_of_equals,
    note,
    workplace,
)
from isogon.measures.partition.kernels.edges import WIDE
from isogon.measures.partition.kernels.jit import costly, inline, kernel

POINT = 16 * np.finfo(float).eps  # of the largest coordinate: a shorter piece is a point


@inline
def _for_both(values, error, n, i, j, c, close):
    """Whether column c, equal to i and j on their chord, is what the chord is a boundary of.

    That is where c is above one of them on its side, or cannot be told from it there and comes
    first (the first of the largest counts), and is a chord with the other one too.
    """
    a = b = 0  # the corners farthest on i's side, and on j's
    for k in range(1, n):
        gap = values[k, i] - values[k, j]
        if gap > values[a, i] - values[a, j]:
            a = k
        if gap < values[b, i] - values[b, j]:
            b = k
    above_i = below(values, error, a, i, c, close)
    above_j = below(values, error, b, j, c, close)
    if above_i or above_j:
        return True
    if c < i and not below(values, error, a, c, i, close):
        return below(values, error, a, j, c, close) and below(values, error, b, c, j, close)
    if c < j and not below(values, error, b, c, j, close):
        return below(values, error, b, i, c, close) and below(values, error, a, c, i, close)
    return False


@inline
def _on_chord(values, error, n, own, c, at, ratio, close):
    """Whether column c is equal to column `own` at both ends of its chord, to rounding."""
    equal = wide = True
    for e in range(2):
        k, k2 = at[e], (at[e] + 1) % n
        gap = (1 - ratio[e]) * (values[k, own] - values[k, c])
        gap = abs(gap + ratio[e] * (values[k2, own] - values[k2, c]))
        doubt = max(error[k, own] + error[k, c], error[k2, own] + error[k2, c])
        equal &= gap <= doubt
        wide &= 0 < gap <= WIDE * doubt
    if wide:
        for e in range(2):
            close[at[e]] = close[(at[e] + 1) % n] = True
    return equal


@inline
def rivals(values, error, n, i, j, list_, count, at, ratio, rest, close):
    """Contenders that can be above i and j on a part of their chord, into `rest`: how many.

    -1: the chord is not a boundary of i and j at all, as a third column is equal to them along
    it and stands on one of its sides.
    """
    own, left = better_known(error, n, i, j), 0
    for r in range(count):
        c = list_[r]
        if c == i or c == j:  # noqa: SIM109 (a tuple is slow in a kernel)
            continue
        if not _on_chord(values, error, n, own, c, at, ratio, close):
            rest[left] = c
            left += 1
        elif _for_both(values, error, n, i, j, c, close):
            return -1
    return left


@costly(1.3)
def face_boundary(offsets, loops, xy, outputs, error, row, unclear, segments, classes, faces, room):
    """Segments inside the faces where two outputs share the maximum.

    Fills as many as fit and returns how many there are: call with empty arrays to count.
    `error[row[v], c]` is what counts as zero of output c at vertex v; row 0 holds bounds, and
    `unclear[v]` is set where these don't decide.
    """
    made = 0
    n_classes = outputs.shape[1]
    values, errors, close, list_, at, ratio, interval, rest = room
    for f in range(len(offsets) - 1):
        low, n = offsets[f], offsets[f + 1] - offsets[f]
        for k in range(n):
            for c in range(n_classes):
                values[k, c] = outputs[loops[low + k], c]
                errors[k, c] = error[row[loops[low + k]], c]
        count = contenders(values, errors, n, list_, close)
        for r in range(count if count > 1 else 0):
            first = first_of_equals(values, n, list_[r])
            for s in range(count):
                if list_[s] == first:  # it is there itself
                    first = list_[r]
            list_[r] = first
        for r in range(count):
            for s in range(r):
                i, j = min(list_[r], list_[s]), max(list_[r], list_[s])
                if not chord(values, errors, n, i, j, at, ratio, close):
                    continue
                left = rivals(values, errors, n, i, j, list_, count, at, ratio, rest, close)
                if left < 0:
                    continue
                if not clip(values, errors, n, i, j, rest, left, at, ratio, interval):
                    continue
                if made < len(segments):
                    a, b = loops[low + at[0]], loops[low + (at[0] + 1) % n]
                    c, d = loops[low + at[1]], loops[low + (at[1] + 1) % n]
                    for x in range(2):
                        p = xy[a, x] + ratio[0] * (xy[b, x] - xy[a, x])
                        q = xy[c, x] + ratio[1] * (xy[d, x] - xy[c, x])
                        segments[made, 0, x] = p + interval[0] * (q - p)
                        segments[made, 1, x] = p + interval[1] * (q - p)
                    classes[made, 0], classes[made, 1] = i, j
                    faces[made] = f
                made += 1
        note(loops, low, n, row, close, unclear)
    return made


@kernel
def tied_outputs(outputs, error, row, unclear, tied):
    """`tied[v, c]`: output c is the largest at vertex v, up to rounding (see `face_boundary`)."""
    for v in range(len(outputs)):
        best, least = 0, -np.inf
        for c in range(outputs.shape[1]):
            if outputs[v, c] > outputs[v, best]:
                best = c
            least = max(least, outputs[v, c] - error[row[v], c])
        for c in range(outputs.shape[1]):
            gap = outputs[v, best] - outputs[v, c]
            slack = error[row[v], best] + error[row[v], c]
            tied[v, c] = outputs[v, c] + error[row[v], c] >= least
            if gap > 0 and gap <= WIDE * slack and row[v] == 0:
                unclear[v] = True


@inline
def _largest_for(outputs, error, row, a, b, i, c, interval):
    """Clip the part of an edge from vertex a to b on which column i is not below column c."""
    p, q = outputs[a, i] - outputs[a, c], outputs[b, i] - outputs[b, c]
    if p < 0 and q < 0:
        interval[1] = -1.0
    elif p < 0:
        interval[0] = max(interval[0], p / (p - q))
    elif q < 0:
        interval[1] = min(interval[1], p / (p - q))


@inline
def _equal(outputs, error, row, unclear, a, b, i, c):
    """Whether columns i and c are equal at both ends of an edge, to rounding."""
    equal, wide = True, True
    for v in (a, b):
        gap = abs(outputs[v, i] - outputs[v, c])
        doubt = error[row[v], i] + error[row[v], c]
        equal &= gap <= doubt
        wide &= gap <= WIDE * doubt
    if wide:
        for v in (a, b):
            if row[v] == 0 and outputs[v, i] != outputs[v, c]:
                unclear[v] = True
    return equal


@inline
def _winner(offsets, loops, outputs, error, row, unclear, f, equals):
    """Of columns that are equal on an edge of face f: the largest one next to it in that face.

    That is the one with the larger sum over the corners; the first one, where rounding decides.
    """
    best = -1
    for c in range(outputs.shape[1]):
        if not equals[c]:
            continue
        if best < 0:
            best = c
            continue
        gap = doubt = 0.0
        for h in range(offsets[f], offsets[f + 1]):
            v = loops[h]
            gap += outputs[v, c] - outputs[v, best]
            doubt += error[row[v], c] + error[row[v], best]
        if gap != 0 and abs(gap) <= WIDE * doubt:
            for h in range(offsets[f], offsets[f + 1]):
                if row[loops[h]] == 0:
                    unclear[loops[h]] = True
        if gap > doubt:
            best = c
    return best


@costly(1.3)
def edge_boundary(
    offsets, loops, outputs, error, row, unclear, ends, sides, edges, part, classes, owner, room
):
    """The parts of edges on which several outputs are the largest, and others win on either side.

    Fills as many as fit and returns how many there are: the edge, the part of it (0..1 from its
    first end), the winners on its left and right. `error`, `row`, `unclear`: see `face_boundary`.
    """
    made = 0
    count = outputs.shape[1]
    equals, interval = room
    for n in range(len(edges)):
        e = edges[n]
        a, b = ends[e, 0], ends[e, 1]
        high, low = 0, 0
        for c in range(1, count):
            if outputs[a, c] > outputs[a, high]:
                high = c
            if outputs[b, c] > outputs[b, low]:
                low = c
        for i in range(count):
            # most are below what is the largest at one of the ends
            interval[0], interval[1] = 0.0, 1.0
            for c in (high, low):
                if c != i and not _equal(outputs, error, row, unclear, a, b, i, c):
                    _largest_for(outputs, error, row, a, b, i, c, interval)
            if interval[0] >= interval[1]:
                continue
            several, first, own = False, True, i
            for c in range(count):
                equals[c] = c == i or _equal(outputs, error, row, unclear, a, b, i, c)
                if equals[c] and c != i:
                    several = True
                    first &= c > i
                    if max(error[row[a], c], error[row[b], c]) < max(
                        error[row[a], own], error[row[b], own]
                    ):
                        own = c  # the one that is known best stands for all
            if not several or not first:
                continue
            interval[0], interval[1] = 0.0, 1.0
            for c in range(count):
                if not equals[c]:
                    _largest_for(outputs, error, row, a, b, own, c, interval)
            if interval[0] >= interval[1]:
                continue
            left = _winner(offsets, loops, outputs, error, row, unclear, sides[e, 0], equals)
            right = _winner(offsets, loops, outputs, error, row, unclear, sides[e, 1], equals)
            if left == right:
                continue
            if made < len(owner):
                part[made, 0], part[made, 1] = interval[0], interval[1]
                classes[made, 0], classes[made, 1] = left, right
                owner[made] = e
            made += 1
    return made


def candidates(outputs, table, ends, sides, tied):
    """Edges between two faces on which outputs may be equal all along and the largest somewhere."""
    several, top = tied.sum(1) > 1, outputs.argmax(1)
    a, b = ends.T
    inner = (sides >= 0).all(1)
    whole = several[a] & several[b]
    # another output is the largest at the other end: equal ones may lie below it there
    partly = np.flatnonzero(inner & ~whole & (top[a] != top[b]))
    corners = np.unique(ends[partly])
    order = np.argsort(outputs[corners], 1)
    z = np.take_along_axis(outputs[corners], order, 1)
    error = np.take_along_axis(table.error[table.row[corners]], order, 1)
    pairs = np.zeros(len(outputs), bool)
    # one that is known badly may be equal to any: the largest error stands for all behind it
    doubt = error[:, :-1] + np.maximum(error[:, 1:], error.max(1, keepdims=True))
    pairs[corners] = (np.diff(z, axis=1) <= doubt).any(1)
    return np.concatenate(
        [np.flatnonzero(inner & whole), partly[pairs[a[partly]] & pairs[b[partly]]]]
    )


def boundary_room(offsets, size):
    """Room for `face_boundary`: a `workplace`, and one more list of contenders."""
    room = workplace(offsets, size)
    return *room, np.empty_like(room[3])


def argmax_boundary(offsets, loops, xy, outputs, ends, sides, table, finished=None):
    """All segments `[B, 2, 2]`, their classes `[B, 2]` (ascending), region and edge `[B]`.

    A segment lies within a region, or on an edge; the other number is -1.

    With one output it is the zero set, of classes 0 (negative) and 1. `table` knows what counts
    as zero of the outputs at the vertices (`zeros.Table`). `finished [R]` are the regions on which
    the outputs are affine (default: all); the others have none.
    """
    if outputs.shape[1] == 1:
        outputs = np.concatenate([np.zeros_like(outputs), outputs], 1)
    own = np.arange(len(offsets) - 1)
    inside, corners = offsets, loops
    if finished is not None and not finished.all():
        own = np.flatnonzero(finished)
        sizes = np.diff(offsets)[own]
        inside = np.concatenate([[0], np.cumsum(sizes)])
        corners = loops[np.arange(inside[-1]) + np.repeat(offsets[own] - inside[:-1], sizes)]
        sides = np.where((sides >= 0) & finished[sides], sides, -1)
    nothing = np.empty((0, 2, 2)), np.empty((0, 2), np.int64), np.empty(0, np.int64)
    room = boundary_room(inside, outputs.shape[1])
    beside = np.zeros(outputs.shape[1], np.bool_), np.empty(2)
    tied = np.empty(outputs.shape, np.bool_)

    def count(error, row, unclear):
        tied_outputs(outputs, error, row, unclear, tied)
        mesh = inside, corners, xy, outputs, error, row
        within = face_boundary(*mesh, unclear, *nothing, room)
        edges = candidates(outputs, table, ends, sides, tied)
        mesh = offsets, loops, outputs, error, row
        empty = np.empty((0, 2)), *nothing[1:]
        return within, edges, edge_boundary(*mesh, unclear, ends, sides, edges, *empty, beside)

    total, edges, more = table.settled(count)
    unclear = np.zeros(len(xy), np.bool_)
    segments, classes = np.empty((total, 2, 2)), np.empty((total, 2), np.int64)
    faces = np.empty(total, np.int64)
    mesh = inside, corners, xy, outputs, table.error, table.row
    face_boundary(*mesh, unclear, segments, classes, faces, room)
    part, winners = np.empty((more, 2)), np.empty((more, 2), np.int64)
    owner = np.empty(more, np.int64)
    mesh = offsets, loops, outputs, table.error, table.row
    edge_boundary(*mesh, unclear, ends, sides, edges, part, winners, owner, beside)
    start, end = (xy[ends[owner, k]][:, None] for k in (0, 1))
    along = start + part[:, :, None] * (end - start)
    along[part == 1] = xy[ends[owner, 1]][(part == 1)[:, 1]]
    segments = np.concatenate([segments, along])
    classes = np.concatenate([classes, np.sort(winners, 1)])
    region = np.concatenate([own[faces], np.full(more, -1)])
    edge = np.concatenate([np.full(total, -1), owner])
    # where three outputs tie in one point, what is left of the third pair is rounding
    size = np.abs(segments[:, 1] - segments[:, 0]).max(1)
    kept = size > POINT * np.abs(xy).max(initial=0.0)
    return segments[kept], classes[kept], region[kept], edge[kept]

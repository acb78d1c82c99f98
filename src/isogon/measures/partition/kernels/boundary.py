"""The exact decision boundary: where two outputs share the maximum."""

from __future__ import annotations

import numpy as np

from isogon.measures.partition.kernels.edges import WIDE
from isogon.measures.partition.kernels.jit import costly, inline, kernel


@inline
def _below(values, error, k, i, j, close):
    """Whether column i is below column j at corner k, by more than rounding.

    `error[k, i]` is what counts as zero of column i there; `close[k]` is set where that decides.
    """
    gap, slack = values[k, j] - values[k, i], error[k, i] + error[k, j]
    close[k] |= gap > 0 and gap <= WIDE * slack
    return gap > slack


@inline
def contenders(values, error, n, list_, close):
    """Columns of `values[:n]` (corner by column) that can be the largest somewhere inside.

    The winners at the corners, and those that none of these beats at every corner. One entry
    means that it wins everywhere; returns the number of entries. `error`, `close`: see `_below`.
    """
    classes = values.shape[1]
    count = 0
    for k in range(n):
        best = 0
        for c in range(1, classes):
            if values[k, c] > values[k, best]:
                best = c
        seen = False
        for m in range(count):
            seen = seen or list_[m] == best
        if not seen:
            list_[count] = best
            count += 1
    for m in range(count):  # one that is within rounding of the best at every corner
        holds = True
        for k in range(n):
            for r in range(count):
                holds = holds and not _below(values, error, k, list_[m], list_[r], close)
        if holds:
            list_[0] = list_[m]
            return 1
    winners = count
    for c in range(classes):
        alive = True
        for m in range(winners):
            beaten = True
            for k in range(n):
                if _below(values, error, k, list_[m], c, close):
                    beaten = False
                    break
            if beaten:
                alive = False
                break
        if alive:
            list_[count] = c
            count += 1
    return count


@inline
def chord(values, error, n, i, j, at, ratio, close):
    """Where columns i and j are equal on the loop: two half-edges and ratios along them.

    Returns whether the difference has both signs (beyond rounding) and vanishes in two places.
    """
    count = 0
    up = down = False
    for k in range(n):
        up |= _below(values, error, k, j, i, close)
        down |= _below(values, error, k, i, j, close)
    if not (up and down):
        return False
    for k in range(n):
        m = k + 1 if k + 1 < n else 0
        p, q = values[k, i] - values[k, j], values[m, i] - values[m, j]
        if (p > 0) != (q > 0) and count < 2:
            at[count] = k
            ratio[count] = p / (p - q)
            count += 1
    return count == 2


@inline
def clip(values, error, n, i, j, list_, count, at, ratio, interval):
    """The part of the chord (0..1) where i and j also beat the other contenders.

    They are equal on it: the one that is known better stands for both.
    """
    interval[0], interval[1] = 0.0, 1.0
    own, first, second = i, 0.0, 0.0
    for k in range(n):
        first, second = max(first, error[k, i]), max(second, error[k, j])
    if second < first:
        own = j
    k, m = at[0], at[1]
    k2, m2 = (k + 1) % n, (m + 1) % n
    for r in range(count):
        c = list_[r]
        if c == i or c == j:  # noqa: SIM109 (a tuple is slow in a kernel)
            continue
        p = (1 - ratio[0]) * (values[k, own] - values[k, c]) + ratio[0] * (
            values[k2, own] - values[k2, c]
        )
        q = (1 - ratio[1]) * (values[m, own] - values[m, c]) + ratio[1] * (
            values[m2, own] - values[m2, c]
        )
        if p < 0 and q < 0:
            return False
        if p < 0:
            interval[0] = max(interval[0], p / (p - q))
        elif q < 0:
            interval[1] = min(interval[1], p / (p - q))
    return interval[0] < interval[1]


@inline
def note(loops, low, n, row, close, unclear):
    """Mark the corners of a face at which a close decision rested on a bound; clears `close`."""
    for k in range(n):
        if close[k]:
            close[k] = False
            if row[loops[low + k]] == 0:
                unclear[loops[low + k]] = True


@costly(1.3)
def face_boundary(offsets, loops, xy, outputs, error, row, unclear, segments, classes, faces, room):
    """Segments inside the faces where two outputs share the maximum.

    Fills as many as fit and returns how many there are: call with empty arrays to count.
    `error[row[v], c]` is what counts as zero of output c at vertex v; row 0 holds bounds, and
    `unclear[v]` is set where these don't decide.
    """
    made = 0
    n_classes = outputs.shape[1]
    values, errors, close, list_, at, ratio, interval = room
    for f in range(len(offsets) - 1):
        low, n = offsets[f], offsets[f + 1] - offsets[f]
        for k in range(n):
            for c in range(n_classes):
                values[k, c] = outputs[loops[low + k], c]
                errors[k, c] = error[row[loops[low + k]], c]
        count = contenders(values, errors, n, list_, close)
        for r in range(count):
            for s in range(r):
                i, j = min(list_[r], list_[s]), max(list_[r], list_[s])
                if not chord(values, errors, n, i, j, at, ratio, close):
                    continue
                if not clip(values, errors, n, i, j, list_, count, at, ratio, interval):
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


@kernel
def side_winner(offsets, loops, outputs, ends, sides, edges, tied, winner):
    """For edges on which several outputs share the maximum: which of them wins on either side.

    `winner[n]` is -1, -1 unless both sides exist. On the edge the tied outputs are equal, so
    the one with the larger mean over a face's vertices wins in that face next to the edge.
    """
    for n in range(len(edges)):
        e = edges[n]
        a, b = ends[e, 0], ends[e, 1]
        winner[n, 0] = winner[n, 1] = -1
        if sides[e, 0] < 0 or sides[e, 1] < 0:
            continue
        for s in range(2):
            f = sides[e, s]
            best, most = -1, 0.0
            for c in range(outputs.shape[1]):
                if not (tied[a, c] and tied[b, c]):
                    continue
                mean = 0.0
                for h in range(offsets[f], offsets[f + 1]):
                    mean += outputs[loops[h], c]
                if best < 0 or mean > most:
                    best, most = c, mean
            winner[n, s] = best


def workplace(offsets, size):
    """Room for the kernels: values at a face's corners, contenders, a chord, an interval."""
    longest = int(np.diff(offsets).max(initial=0))
    return (
        np.empty((longest, size)),
        np.empty((longest, size)),
        np.zeros(longest, np.bool_),
        np.empty(2 * size + longest, np.int64),
        np.empty(2, np.int64),
        np.empty(2),
        np.empty(2),
    )


def argmax_boundary(offsets, loops, xy, outputs, ends, sides, table, finished=None):
    """All segments `[B, 2, 2]`, their classes `[B, 2]` (ascending) and region (-1: on an edge).

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
    room = workplace(inside, outputs.shape[1])
    tied = np.empty(outputs.shape, np.bool_)

    def count(error, row, unclear):
        tied_outputs(outputs, error, row, unclear, tied)
        mesh = inside, corners, xy, outputs, error, row
        return face_boundary(*mesh, unclear, *nothing, room)

    total = table.settled(count)
    segments, classes = np.empty((total, 2, 2)), np.empty((total, 2), np.int64)
    faces, unclear = np.empty(total, np.int64), np.zeros(len(xy), np.bool_)
    mesh = inside, corners, xy, outputs, table.error, table.row
    face_boundary(*mesh, unclear, segments, classes, faces, room)
    # edges of regions that lie on the boundary: two outputs tie at both of their ends
    several = tied.sum(1) > 1
    edges = np.nonzero(several[ends[:, 0]] & several[ends[:, 1]])[0]
    winner = np.empty((len(edges), 2), np.int64)
    side_winner(offsets, loops, outputs, ends, sides, edges, tied, winner)
    real = (winner[:, 0] >= 0) & (winner[:, 0] != winner[:, 1])
    segments = np.concatenate([segments, xy[ends[edges[real]]]])
    classes = np.concatenate([classes, np.sort(winner[real], 1)])
    return segments, classes, np.concatenate([own[faces], np.full(real.sum(), -1)])

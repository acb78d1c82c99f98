"""Kernels for maxima: in each face, between which entries the largest one changes.

Only lines along which the upper envelope really bends are cut, not all pairwise bisectors.
"""

from __future__ import annotations

import numpy as np

from isogon.measures.partition.kernels.contenders import chord, clip, contenders, note
from isogon.measures.partition.kernels.edges import WIDE, slack, value
from isogon.measures.partition.kernels.jit import inline, kernel


@inline
def tops(z, entry, error, row, v, g, unclear):
    """Bit k: entry k of group g is the group's largest at vertex v, up to rounding.

    `error[row[v], c]` is what counts as zero of column c there: an entry is the largest unless
    another one is larger by more than both of theirs. (That need not be the largest number: its
    own rounding may hide how far the others are apart.) Row 0 holds bounds: where these don't
    decide, `unclear[v]` is set.
    """
    top, best, least = -np.inf, -1, -np.inf
    for k in range(entry.shape[1]):
        c = entry[g, k]
        if c >= 0 and (best < 0 or z[v, c] > top):
            top, best = z[v, c], k
        if c >= 0:
            least = max(least, z[v, c] - error[row[v], c])
    mask = np.uint64(0)
    for k in range(entry.shape[1]):
        if entry[g, k] < 0:
            continue
        x = z[v, entry[g, k]]
        slack = error[row[v], entry[g, k]] + error[row[v], entry[g, best]]
        if x == top or x + error[row[v], entry[g, k]] >= least:
            mask |= np.uint64(1) << np.uint64(k)
        if x < top and top - x <= WIDE * slack and row[v] == 0:
            unclear[v] = True
    return mask


@kernel
def winner_masks(z, entry, error, row, start, unclear, masks):
    """Bit k of `masks[v, g]`: entry k of group g is the largest at vertex v (see `tops`)."""
    groups = len(entry)
    for v in range(start, len(z)):
        for g in range(groups):
            masks[v, g] = tops(z, entry, error, row, v, g, unclear)


@kernel
def common_winners(z, entry, error, row, unclear, masks):
    """Bit k of `masks[g]`: entry k of group g is the largest at every vertex (see `tops`).

    Vertices that turn out unclear don't count: they are to be looked at again.
    """
    groups = len(entry)
    own = np.uint64(0)
    for v in range(len(z)):
        unclear[v] = False
        for g in range(groups):
            own = tops(z, entry, error, row, v, g, unclear)
            if unclear[v]:
                break
            masks[g] &= own


@kernel
def face_winners(offsets, loops, z, entry, masks, found):
    """The entries of each group that are largest at every vertex of a face, `[F, groups]`.

    Where rounding left none, the one with the largest mean counts; the result is their number.
    """
    open_ = 0
    for i in range(len(offsets) - 1):
        for g in range(masks.shape[1]):
            mask = ~np.uint64(0)
            for h in range(offsets[i], offsets[i + 1]):
                mask &= masks[loops[h], g]
            if not mask:
                open_ += 1
                best, most = 0, -np.inf
                for k in range(entry.shape[1]):
                    mean = 0.0
                    if entry[g, k] < 0:
                        continue
                    for h in range(offsets[i], offsets[i + 1]):
                        mean += z[loops[h], entry[g, k]]
                    if mean > most:
                        best, most = k, mean
                mask = np.uint64(1) << np.uint64(best)
            found[i, g] = mask
    return open_


@inline
def _load(z, entry, error, row, g, offsets, loops, i, values, errors):
    """Values of a group's entries at the corners of a face, and what counts as zero of them.

    Absent entries are far below.
    """
    low, n = offsets[i], offsets[i + 1] - offsets[i]
    for k in range(entry.shape[1]):
        for h in range(n):
            v, c = loops[low + h], entry[g, k]
            values[h, k] = z[v, c] if c >= 0 else -np.inf
            errors[h, k] = error[row[v], c] if c >= 0 else 0.0
    return n


@kernel
def face_pairs(offsets, loops, z, entry, masks, error, row, unclear, pairs, room):
    """(face, group, entry, entry) wherever two entries share the maximum inside a face.

    Fills as many as fit and returns how many there are: call with an empty array to count.
    `error`, `row`, `unclear`: see `tops`.
    """
    made = 0
    values, errors, close, list_, at, ratio, interval = room
    for i in range(len(offsets) - 1):
        for g in range(masks.shape[1]):
            mask = ~np.uint64(0)
            for h in range(offsets[i], offsets[i + 1]):
                mask &= masks[loops[h], g]
            if mask:
                continue
            n = _load(z, entry, error, row, g, offsets, loops, i, values, errors)
            count = contenders(values, errors, n, list_, close)
            for r in range(count):
                for s in range(r):
                    a, b = min(list_[r], list_[s]), max(list_[r], list_[s])
                    if not chord(values, errors, n, a, b, at, ratio, close):
                        continue
                    if not clip(values, errors, n, a, b, list_, count, at, ratio, interval):
                        continue
                    if made < len(pairs):
                        pairs[made, 0], pairs[made, 1] = i, g
                        pairs[made, 2], pairs[made, 3] = a, b
                    made += 1
            note(loops, offsets[i], n, row, close, unclear)
    return made


@kernel
def crossed_edges(
    offsets, loops, borders, first, functions, z, column, other, offset, error, row, found
):
    """(edge, function) for the edges of each face that one of its functions crosses.

    An edge between two faces may come twice. Counts with an empty array, like `face_pairs`.
    """
    made = 0
    for i in range(len(offsets) - 1):
        low, n = offsets[i], offsets[i + 1] - offsets[i]
        for k in range(first[i], first[i + 1]):
            f = functions[k]
            for h in range(n):
                a, b = loops[low + h], loops[low + (h + 1) % n]
                p = value(z, a, f, column, other, offset)
                q = value(z, b, f, column, other, offset)
                if not ((p > 0 and q < 0) or (p < 0 and q > 0)):
                    continue
                if abs(p) <= slack(error, row, a, f, column, other):
                    continue
                if abs(q) <= slack(error, row, b, f, column, other):
                    continue
                if made < len(found):
                    found[made, 0], found[made, 1] = borders[low + h], f
                made += 1
    return made


@kernel
def tie(z, vertex, first, second, error):
    """Set entries that are equal at a vertex to one value, that of the best known.

    `first[n]`, `second[n]` are equal at `vertex[n]`; of three that meet there each pair may be
    listed, or two pairs. `error[c]` is what counts as zero of column c.

    An entry so large that its rounding hides how far others are apart may be equal to several,
    each of another group. It gets the least of them: it is then above none of them in its group.
    """
    for turn in range(5):
        for n in range(len(vertex)):
            v, a, b = vertex[n], first[n], second[n]
            if error[a] > error[b]:
                a, b = b, a
            if turn < 3 or z[v, a] < z[v, b]:
                z[v, b] = z[v, a]


@kernel
def chain(first, starts, ends, order):
    """Order the half-edges of each merged face to a loop: each starts where the last one ended."""
    for i in range(len(first) - 1):
        low, high = first[i], first[i + 1]
        at = low
        for step in range(low, high):
            order[step] = at
            for h in range(low, high):
                if starts[h] == ends[at]:
                    at = h
                    break

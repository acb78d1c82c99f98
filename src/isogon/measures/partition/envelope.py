"""Kernels for maxima: in each face, between which entries the largest one changes.

Only lines along which the upper envelope really bends are cut, not all pairwise bisectors.
"""

from __future__ import annotations

import numpy as np

from isogon.measures.partition.boundary import chord, clip, contenders
from isogon.measures.partition.jit import inline, kernel


@inline
def tops(z, entry, v, g, tol):
    """Bit k: entry k of group g is within tol of the group's largest at vertex v."""
    top = -np.inf
    for k in range(entry.shape[1]):
        if entry[g, k] >= 0 and z[v, entry[g, k]] > top:
            top = z[v, entry[g, k]]
    mask = np.uint64(0)
    for k in range(entry.shape[1]):
        if entry[g, k] >= 0 and z[v, entry[g, k]] >= top - tol:
            mask |= np.uint64(1) << np.uint64(k)
    return mask


@kernel
def winner_masks(z, entry, tol, start, masks):
    """Bit k of `masks[v, g]`: entry k of group g is within tol of the largest at vertex v."""
    groups = len(entry)
    for v in range(start, len(z)):
        for g in range(groups):
            masks[v, g] = tops(z, entry, v, g, tol)


@kernel
def common_winners(z, entry, tol, masks):
    """Bit k of `masks[g]`: entry k of group g is within tol of the largest at every vertex."""
    groups = len(entry)
    masks[:] = ~np.uint64(0)
    for v in range(len(z)):
        for g in range(groups):
            masks[g] &= tops(z, entry, v, g, tol)


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
def load(z, entry, g, offsets, loops, i, values):
    """Values of a group's entries at the corners of a face; absent entries are far below."""
    low, n = offsets[i], offsets[i + 1] - offsets[i]
    for k in range(entry.shape[1]):
        for h in range(n):
            values[h, k] = z[loops[low + h], entry[g, k]] if entry[g, k] >= 0 else -1e300
    return n


@kernel
def face_pairs(offsets, loops, z, entry, masks, tol, pairs, room):
    """(face, group, entry, entry) wherever two entries share the maximum inside a face.

    Fills as many as fit and returns how many there are: call with an empty array to count.
    """
    made = 0
    values, list_, at, ratio, interval = room
    for i in range(len(offsets) - 1):
        for g in range(masks.shape[1]):
            mask = ~np.uint64(0)
            for h in range(offsets[i], offsets[i + 1]):
                mask &= masks[loops[h], g]
            if mask:
                continue
            n = load(z, entry, g, offsets, loops, i, values)
            count = contenders(values, n, tol, list_)
            for r in range(count):
                for s in range(r):
                    a, b = min(list_[r], list_[s]), max(list_[r], list_[s])
                    if not chord(values, n, a, b, tol, at, ratio):
                        continue
                    if not clip(values, n, a, b, list_, count, at, ratio, interval):
                        continue
                    if made < len(pairs):
                        pairs[made, 0], pairs[made, 1] = i, g
                        pairs[made, 2], pairs[made, 3] = a, b
                    made += 1
    return made


@kernel
def crossed_edges(offsets, loops, borders, first, functions, z, column, other, tol, found):
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
                p = z[a, column[f]] - z[a, other[f]]
                q = z[b, column[f]] - z[b, other[f]]
                if (p > tol and q < -tol) or (p < -tol and q > tol):
                    if made < len(found):
                        found[made, 0], found[made, 1] = borders[low + h], f
                    made += 1
    return made


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

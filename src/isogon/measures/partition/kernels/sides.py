"""Kernels on the sides of cut functions on which faces lie, and what vertices say of them."""

from __future__ import annotations

import numpy as np

from isogon.measures.partition.kernels.jit import kernel


@kernel
def face_bits(offsets, loops, positive, found):
    """Bit f of a face is set where function f is positive at one of its vertices."""
    for i in range(len(offsets) - 1):
        for w in range(positive.shape[1]):
            up = np.uint64(0)
            for h in range(offsets[i], offsets[i + 1]):
                up |= positive[loops[h], w]
            found[i, w] = up


@kernel
def both_sides(offsets, loops, stopped, bits, up, down):
    """Which functions are positive on one of a vertex's faces, and which are not on one.

    `bits [F, words]` are the faces' functions that are positive; faces that were left
    (`stopped[i] >= 0`) say nothing. `up`, `down` `[V, words]` are filled.
    """
    up[:] = 0
    down[:] = 0
    for i in range(len(offsets) - 1):
        if stopped[i] >= 0:
            continue
        for h in range(offsets[i], offsets[i + 1]):
            v = loops[h]
            for w in range(bits.shape[1]):
                up[v, w] |= bits[i, w]
                down[v, w] |= ~bits[i, w]


@kernel
def contrary(z, column, offset, up, down, vertex, which):
    """Pairs of a vertex and a function whose sign there is not that of one of its faces.

    `up`, `down` `[V, words]` are those of `both_sides`, for the vertices of `z`. Fills as many as
    fit and returns how many there are: call with empty arrays to count.
    """
    made = 0
    for v in range(len(z)):
        for f in range(len(column)):
            d = z[v, column[f]] - offset[f]
            words = down if d > 0 else up
            if d != 0 and (words[v, f >> 6] >> np.uint64(f & 63)) & np.uint64(1):
                if made < len(vertex):
                    vertex[made], which[made] = v, f
                made += 1
    return made

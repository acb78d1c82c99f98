"""Which columns can be the largest on a face, and where two of them share the maximum."""

from __future__ import annotations

import numpy as np

from isogon.measures.partition.kernels.edges import WIDE
from isogon.measures.partition.kernels.jit import inline

EQUAL = 64 * np.finfo(float).eps  # of their size: two outputs that differ by less are one


@inline
def below(values, error, k, i, j, close):
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
                holds = holds and not below(values, error, k, list_[m], list_[r], close)
        if holds:
            list_[0] = list_[m]
            return 1
    winners = count
    for c in range(classes):
        alive = True
        for m in range(winners):
            beaten = True
            for k in range(n):
                if below(values, error, k, list_[m], c, close):
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
def first_of_equals(values, n, c):
    """The first column that is equal to column c at all corners, to rounding of their size."""
    for m in range(c):
        size = gap = 0.0
        for k in range(n):
            size = max(size, abs(values[k, c]), abs(values[k, m]))
            gap = max(gap, abs(values[k, c] - values[k, m]))
        if gap <= EQUAL * size:
            return m
    return c


@inline
def chord(values, error, n, i, j, at, ratio, close):
    """Where columns i and j are equal on the loop: two half-edges and ratios along them.

    Returns whether the difference has both signs (beyond rounding) and vanishes in two places.
    """
    count = 0
    up = down = False
    for k in range(n):
        up |= below(values, error, k, j, i, close)
        down |= below(values, error, k, i, j, close)
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
def better_known(error, n, i, j):
    """The one of two columns whose largest error at the corners is smaller."""
    first = second = 0.0
    for k in range(n):
        first, second = max(first, error[k, i]), max(second, error[k, j])
    return j if second < first else i


@inline
def clip(values, error, n, i, j, list_, count, at, ratio, interval):
    """The part of the chord (0..1) where i and j also beat the other contenders.

    They are equal on it: the one that is known better stands for both.
    """
    interval[0], interval[1] = 0.0, 1.0
    own = better_known(error, n, i, j)
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

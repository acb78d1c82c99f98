"""Sums of coefficients times powers of scales, and how much of them each scale multiplies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from isogon.measures.alignment.symmetry.symmetries import Weight

Pairs = tuple[tuple[np.ndarray, int], ...]  # numbers of scales (-1: none) and their power


@dataclass(frozen=True)
class Lines:
    """What the scales multiply: the sum over all other axes, for each of theirs.

    Attributes:
        total: The sum of everything.
        parts: Numbers of scales, the power with which they enter, and the sums ``[d]``.
    """

    total: float
    parts: tuple[tuple[np.ndarray, int, np.ndarray], ...]

    def by_scale(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Sums that each scale multiplies (a positive power) and divides, ``[count]`` each."""
        found = np.zeros((2, count))
        for numbers, power, line in self.parts:
            ok = numbers >= 0
            found[0 if power > 0 else 1] += np.bincount(numbers[ok], line[ok], minlength=count)
        return found[0], found[1]


class ScaledSums:
    """Coefficients of several weights, as a function of all scales.

    A weight of one axis with scales is a vector, and all those whose scales enter alike are one
    long vector; a weight of two such axes is a matrix, whose sums are products with vectors.

    Args:
        weights: Weights and their coefficients, along the axes with scales (see `bearing`).
    """

    def __init__(self, weights: Iterable[tuple[Weight, np.ndarray]]) -> None:
        self.constant = 0.0
        self.matrices: list[tuple[Pairs, Pairs, np.ndarray]] = []
        vectors: dict[tuple[int, ...], list[tuple[Pairs, np.ndarray]]] = defaultdict(list)
        for weight, values in weights:
            sides = [_pairs(weight, k) for k in bearing(weight)]
            if not sides:
                self.constant += float(values)
            elif len(sides) == 1:
                vectors[tuple(e for _, e in sides[0])].append((sides[0], values))
            else:
                first, second = sides  # a matrix, see `Labelling.matrix`: never more
                self.matrices.append((first, second, np.ascontiguousarray(values)))
        self.vectors = [_joined(powers, found) for powers, found in vectors.items()]

    def at(self, scale: np.ndarray) -> Lines:
        """The sums at these scales."""
        total, parts = self.constant, []
        padded = np.append(scale, 1.0)  # -1 is the last: no scale
        for pairs, values in self.vectors:
            line = values * _factor(pairs, padded)
            total += line.sum()
            parts += [(n, e, line) for n, e in pairs]
        for first, second, values in self.matrices:
            u, v = _factor(first, padded), _factor(second, padded)
            rows, columns = u * (values @ v), v * (u @ values)
            total += rows.sum()
            parts += [(n, e, rows) for n, e in first] + [(n, e, columns) for n, e in second]
        return Lines(float(total), tuple(parts))


def bearing(weight: Weight) -> list[int]:
    """Axes of a weight that bear scales."""
    return [k for k, s in enumerate(weight.sides) if any((n >= 0).any() for n, _ in s.scales)]


def sums_of(a: np.ndarray, b: np.ndarray, kept: Sequence[int]) -> np.ndarray:
    """``sum a b`` over all axes but some."""
    axes = list(range(a.ndim))
    return np.asarray(np.einsum(a, axes, b, axes, list(kept)))


def _pairs(weight: Weight, axis: int) -> Pairs:
    return tuple(sorted(weight.sides[axis].scales, key=lambda pair: -pair[1]))


def _joined(
    powers: Sequence[int], found: Sequence[tuple[Pairs, np.ndarray]]
) -> tuple[Pairs, np.ndarray]:
    """Vectors whose scales enter alike, as one, entries of the same scales added."""
    numbers = np.stack(
        [np.concatenate([pairs[k][0] for pairs, _ in found]) for k in range(len(powers))]
    )
    values = np.concatenate([v for _, v in found])
    unique, where = np.unique(numbers, axis=1, return_inverse=True)
    added = np.bincount(where.reshape(-1), values, minlength=unique.shape[1])
    return tuple(zip(unique, powers)), added


def _factor(pairs: Pairs, padded: np.ndarray) -> np.ndarray:
    """Product of the scales of each place, at their powers."""
    found = 1.0
    for numbers, power in pairs:
        found = found * padded[numbers] ** power
    return np.asarray(found)

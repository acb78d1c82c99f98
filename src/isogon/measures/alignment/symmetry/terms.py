"""Pairs of weights of two models, and their scales: balanced, or fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from isogon.measures.alignment.symmetry.sums import ScaledSums, bearing, sums_of
from isogon.measures.alignment.symmetry.symmetries import Symmetries, Weight, scaled

ROUNDS = 200  # of balancing and of fitting
CLOSE = 1e-6  # changes of log-scales below it end them
DAMPING = 0.5


@dataclass(frozen=True)
class Term:
    """One weight of a and of b, as the cost takes it.

    Attributes:
        weight: Its axes; of variances the root is taken, so that scales enter as they are.
        a: Numbers of a, float64.
        b: Numbers of b.
    """

    weight: Weight
    a: np.ndarray
    b: np.ndarray


def terms(found: Symmetries, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[Term]:
    """The pairs of all weights that the symmetries reach."""
    made = []
    for weight in found.weights:
        values = [weight.of(a), weight.of(b)]
        if any(e == 2 for s in weight.sides for _, e in s.scales):
            sides = tuple(
                replace(s, scales=[(n, 1 if e == 2 else e) for n, e in s.scales])
                for s in weight.sides
            )
            weight = replace(weight, sides=sides)
            values = [np.sqrt(np.maximum(v, 0)) for v in values]
        made.append(Term(weight, *values))
    return made


# --------------------------------------------------------------------------- balanced


def balanced(pairs: Sequence[Term], a: np.ndarray, b: np.ndarray) -> list[Term]:
    """Both models in coordinates of their own in which free scales don't show.

    Args:
        pairs: The weights.
        a: The balanced scales of a, see `balance`.
        b: Those of b.

    Returns:
        The pairs at those scales, each weight over its root mean square; where no scale is free,
        both over that of a, so that inner products are those of the objective.
    """
    alone = bool((a == 1).all() and (b == 1).all())
    made = []
    for p in pairs:
        mine, theirs = scaled(p.weight, p.a, a), scaled(p.weight, p.b, b)
        size = _rms(mine) or _rms(theirs) or 1.0
        other = size if alone else _rms(theirs) or 1.0
        made.append(Term(p.weight, mine / size, theirs / other))
    return made


def balance(
    weights: Sequence[Weight], values: Sequence[np.ndarray], found: Symmetries
) -> np.ndarray:
    """Scales at which the squares of a unit's incoming and outgoing weights are equal.

    (Of a unit in front of a batch-norm, at which those of the incoming ones are 1.)
    """
    log, free = np.zeros(len(found.facts)), found.free
    if not free.any():
        return np.ones(len(log))
    squares = ScaledSums(
        (w, sums_of(v, v, bearing(w))) for w, v in zip(weights, values, strict=True)
    )
    for _ in range(ROUNDS):
        made, read = squares.at(np.exp(2 * log)).by_scale(len(log))
        live = free & (made > 0)
        both = live & (read > 0)
        step = np.zeros(len(log))
        step[both] = (np.log(read[both]) - np.log(made[both])) / 4
        alone = live & (read == 0)
        step[alone] = -np.log(made[alone]) / 2
        log += DAMPING * step
        if not step.any() or np.abs(step).max() < CLOSE:
            break
    return np.exp(log)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.vdot(values, values) / values.size)) if values.size else 0.0

"""Literal twins of matching: every permutation of two hidden layers, the objective by its words."""

from __future__ import annotations

from itertools import permutations

import torch


def objective(a: dict, b: dict) -> float:
    """Mean squared difference of all weights, each tensor in units of its mean square in a.

    Without the last bias, which no symmetry moves.
    """
    a = {k: v for k, v in a.items() if k != "5.bias"}
    total = sum(float(((a[k] - b[k]) ** 2).sum() / (a[k] ** 2).mean()) for k in a)
    return total / sum(v.numel() for v in a.values())


def best_of_all(a: dict, b: dict, hidden: tuple[int, int]) -> tuple[float, tuple]:
    """The least objective over all orders of the units of an MLP with layers 1, 3, 5."""
    found = (float("inf"), ())
    for p in permutations(range(hidden[0])):
        for q in permutations(range(hidden[1])):
            moved = {
                "1.weight": b["1.weight"][list(p)], "1.bias": b["1.bias"][list(p)],
                "3.weight": b["3.weight"][list(q)][:, list(p)], "3.bias": b["3.bias"][list(q)],
                "5.weight": b["5.weight"][:, list(q)], "5.bias": b["5.bias"],
            }  # fmt: skip
            found = min(found, (objective(a, moved), (p, q)))
    return found


def scale_by_search(made: tuple, read: tuple) -> float:
    """The scale s > 0 of least ``|x - s y|^2 + |u - v / s|^2``, on a fine grid.

    Args:
        made: The pairs (x, y) that the scale multiplies.
        read: The pairs (u, v) that it divides.
    """
    s = torch.logspace(-4, 4, 400_001, dtype=torch.float64)
    (x, y), (u, v) = made, read
    cost = (y @ y) * s**2 - 2 * (x @ y) * s + (v @ v) / s**2 - 2 * (u @ v) / s
    return float(s[cost.argmin()])

"""The Birkhoff polytope: matrices of non-negative entries whose rows and columns sum to 1.

Its vertices are the permutations. Everything is float64, ``[n, n]``.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

CLOSE = 1e-8  # how near to 1 sums are brought before they are repaired
MOST = 50  # rounds of an iteration
FLOOR = -25.0  # the least logarithm of an entry: smaller ones would never come back


def tangent(g: Tensor) -> Tensor:
    """The orthogonal projection on matrices whose rows and columns sum to 0."""
    return g - g.mean(1, keepdim=True) - g.mean(0, keepdim=True) + g.mean()


def nearest(y: Tensor, rounds: int = MOST) -> Tensor:
    """The doubly stochastic matrix of least ``|P - Y|`` (Frobenius).

    ``P = max(0, Y - u 1^T - 1 v^T)``; u and v in turn make all rows, then all columns sum to 1
    (each the projection on a simplex), which is ascent by blocks in the dual problem. What is left
    after so many rounds is repaired.

    Args:
        y: Any real matrix.
        rounds: At most.
    """
    v = y.new_zeros(len(y))
    for _ in range(rounds):
        u = _level(y - v)
        v = _level((y - u[:, None]).T)
        found = (y - u[:, None] - v).clamp(min=0)
        if (found.sum(1) - 1).abs().max() < CLOSE:
            break
    return repaired(found)


def sinkhorn(log: Tensor, rounds: int = MOST) -> Tensor:
    """The doubly stochastic matrix ``diag(r) exp(log) diag(c)``, by scaling rows and columns.

    What is left after so many rounds (many, where entries differ by orders of magnitude) is
    repaired.
    """
    kernel = (log - log.amax(1, keepdim=True)).exp()
    c = kernel.new_ones(len(kernel))
    for _ in range(rounds):
        r = 1 / (kernel @ c)
        c = 1 / (kernel.T @ r)
        if (r * (kernel @ c) - 1).abs().max() < CLOSE:
            break
    return repaired(r[:, None] * kernel * c)


def repaired(p: Tensor) -> Tensor:
    """A doubly stochastic matrix near a non-negative one whose sums are nearly 1.

    Rows, then columns that sum to more than 1 are scaled down; what is missing is added as a matrix
    of rank one (Altschuler, Weed and Rigollet 2017, algorithm 2).
    """
    p = p / p.sum(1, keepdim=True).clamp(min=1)
    p = p / p.sum(0, keepdim=True).clamp(min=1)
    rows, columns = (1 - p.sum(1)).clamp(min=0), (1 - p.sum(0)).clamp(min=0)
    missing = rows.sum()
    return p + torch.outer(rows, columns) / missing if missing > 0 else p


def tangent_step(p: Tensor, gradient: Tensor, length: float) -> Tensor:
    """A step of a length (of ``|P|`` of a permutation) down the tangent, back on the polytope."""
    direction = tangent(gradient)
    size = direction.norm()
    if not size > 0:
        return p
    return nearest(p - length * len(p) ** 0.5 / size * direction)


def mirror_step(p: Tensor, gradient: Tensor, length: float) -> Tensor:
    """A step of mirror descent by entropy: ``P exp(-length G / max |G|)``, rescaled.

    Of the gradient the tangent part counts: the rest is undone by the scaling.
    """
    direction = tangent(gradient)
    size = direction.abs().max()
    if not size > 0:
        return p
    log = p.clamp(min=math.exp(FLOOR)).log()
    return sinkhorn(log - length / size * direction)


def hungarian(p: Tensor) -> Tensor:
    """The permutation of largest ``sum_i P[i, order_i]``: ``order [n]``."""
    _, columns = linear_sum_assignment(p.cpu().numpy(), maximize=True)
    return torch.as_tensor(columns)


def monotone(p: Tensor, generator: torch.Generator, draws: int = 32) -> Tensor:
    """Randomised rounding: the permutation that orders a random vector as ``P`` orders it.

    With g normal, the element of rank k in ``P g`` is given the channel of rank k in ``g``. Of
    several draws the one of largest ``sum_i P[i, order_i]`` is taken.

    Args:
        p: ``[n, n]``.
        generator: Draws vectors.
        draws: How many.

    Returns:
        ``order [n]``.
    """
    g = torch.randn(draws, len(p), dtype=p.dtype, generator=generator)
    ranks, channels = (g @ p.cpu().T).argsort(1), g.argsort(1)
    orders = torch.empty_like(ranks).scatter_(1, ranks, channels)
    values = p.cpu()[torch.arange(len(p)), orders].sum(1)
    return orders[int(values.argmax())]


def permutation_matrix(order: Tensor) -> Tensor:
    """The matrix of ``y_i = x_order(i)``."""
    return torch.eye(len(order), dtype=torch.float64)[order]


def _level(y: Tensor) -> Tensor:
    """Of each row the u with ``sum max(0, y - u) = 1``."""
    down = y.sort(1, descending=True).values
    number = torch.arange(1, y.shape[1] + 1, dtype=y.dtype, device=y.device)
    levels = (down.cumsum(1) - 1) / number
    count = (down > levels).sum(1, keepdim=True).clamp(min=1)
    return levels.gather(1, count - 1)[:, 0]

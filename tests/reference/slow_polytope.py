"""Literal float64 twins of steps on the Birkhoff polytope."""

from __future__ import annotations

import torch


def constraints(n):
    """A row for the sum of each row and each column of an ``[n, n]`` matrix."""
    eye, ones = torch.eye(n, dtype=torch.float64), torch.ones(1, n, dtype=torch.float64)
    return torch.cat([torch.kron(eye, ones), torch.kron(ones, eye)])


def tangent(g):
    """What is left of a matrix off the span of the constraints, by QR."""
    a = constraints(len(g))
    q, r = torch.linalg.qr(a[:-1].T)  # the last one follows from the others
    assert (r.diagonal().abs() > 1e-9).all()
    return (g.flatten() - q @ (q.T @ g.flatten())).reshape(g.shape)


def nearest(y, rounds=20_000):
    """Dykstra's alternating projections on sums of 1 and on non-negative entries."""
    n, p, correction = len(y), y.clone(), torch.zeros_like(y)
    for _ in range(rounds):
        middle = p - (p.sum(1, keepdim=True) - 1) / n
        middle = middle - (middle.sum(0, keepdim=True) - 1) / n
        after = (middle + correction).clamp(min=0)
        correction = middle + correction - after
        p = after
    return p

"""Literal float64 twins of stitching, for matrices x [n, p] and y [n, q] and whole networks."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from isogon.nets.recalibrate import recalibrated


def least_squares(x, y, bias=True):
    """Fitted values of least squares."""
    x = np.c_[x, np.ones(len(x))] if bias else x
    return x @ np.linalg.lstsq(x, y, rcond=None)[0]


def reduced_rank(x, y, rank, bias=True):
    """The fit projected on the leading right singular vectors of its (centred) values."""
    fitted = least_squares(x, y, bias)
    mean = y.mean(0) if bias else 0
    vt = np.linalg.svd(fitted - mean, full_matrices=False)[2][:rank]
    return mean + (fitted - mean) @ vt.T @ vt


def rotation(x, y):
    """Fitted values of a scaled matrix with orthonormal rows or columns."""
    p, q = x.shape[1], y.shape[1]
    wide = max(p, q)
    u, _, vt = np.linalg.svd(
        np.pad(y, ((0, 0), (0, wide - q))).T @ np.pad(x, ((0, 0), (0, wide - p)))
    )
    turned = x @ (u @ vt)[:q, :p].T
    return turned * (turned * y).sum() / (turned * turned).sum()


def cosine(x, y):
    """``[q, p]``."""
    return (y / np.linalg.norm(y, axis=0)).T @ (x / np.linalg.norm(x, axis=0))


def best_order(x, y):
    """The assignment of all there are with the largest sum of cosines; -1 for none."""
    table, (p, q) = cosine(x, y), (x.shape[1], y.shape[1])
    partners = [*range(p), *[-1] * max(0, q - p)]
    value = lambda order: sum(table[i, j] for i, j in enumerate(order) if j >= 0)  # noqa: E731
    return max(set(itertools.permutations(partners, q)), key=value)


def accuracy(model, data):
    right = [(model(x).argmax(1) == y).sum().item() for x, y in data]
    return sum(right) / sum(len(y) for _, y in data)


@torch.no_grad()
def penalties(head_a, between, tail_b, head_b, train, test):
    """Accuracy, penalty and penalty with b's own statistics, each part spelled out."""
    stitched = lambda data: [(between(head_a(x)), y) for x, y in data]  # noqa: E731
    own = lambda data: [(head_b(x), y) for x, y in data]  # noqa: E731
    with_stitch = recalibrated(tail_b, stitched(train))
    alone = recalibrated(tail_b, own(train))
    found = accuracy(with_stitch, stitched(test))
    frozen = accuracy(tail_b, own(test)) - accuracy(tail_b, stitched(test))
    return found, accuracy(alone, own(test)) - found, frozen


@torch.no_grad()
def agreement(head_a, between, tail_b, head_b, train, test):
    """How often the stitched network answers as b, both recalibrated; its loss."""
    tails = [
        recalibrated(tail_b, [(between(head_a(x)), y) for x, y in train]),
        recalibrated(tail_b, [(head_b(x), y) for x, y in train]),
    ]
    x, y = (torch.cat(part) for part in zip(*test))
    z, own = tails[0](between(head_a(x))), tails[1](head_b(x))
    same = (z.argmax(1) == own.argmax(1)).double().mean().item()
    return same, -z.double().log_softmax(1)[torch.arange(len(y)), y].mean().item()

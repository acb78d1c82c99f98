"""Random networks of which one unit is larger than the others by any factor."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from isogon.cpwl.program import Program, mlp
from isogon.measures.partition.slices import Slice


def network(seed: int, factor: float) -> tuple[Program, Slice]:
    """One to three hidden layers of 8 to 40 units, on the square or through three points.

    Of one unit the weights, the bias, or both are huge; in some its outgoing weights make up
    for it.
    """
    rng = np.random.default_rng(seed)
    depth, size = int(rng.integers(1, 4)), int(rng.integers(2, 10))
    widths = [size, *rng.integers(8, 41, depth).tolist(), 3]
    pairs = list(itertools.pairwise(widths))
    w = [rng.standard_normal((o, i)) * np.sqrt(2 / i) for i, o in pairs]
    b = [0.3 * rng.standard_normal(o) for _, o in pairs]
    k = int(rng.integers(depth))
    unit, how = int(rng.integers(widths[k + 1])), rng.integers(4)
    if how in (0, 1, 3):
        w[k][unit] *= factor
    if how in (0, 3):
        b[k][unit] *= factor
    if how == 2:
        b[k][unit] = -factor if rng.random() < 0.5 else factor
    if how == 3 and rng.random() >= 0.5:
        w[k + 1][:, unit] /= factor
    points = torch.from_numpy(rng.standard_normal((3, size)))
    plane = Slice.box2d([-1, -1], [1, 1]) if size == 2 else Slice.through(*points, margin=0.3)
    return mlp([torch.from_numpy(v) for v in w], [torch.from_numpy(v) for v in b]), plane

"""Random chords of a polygon, and how the largest output changes along one."""

from __future__ import annotations

import math

import numpy as np
import torch

TOGETHER = 1e-12  # of a piece: changes at one place


def count(density: float, area: float, perimeter: float) -> float:
    """Regions of a slice through which lines have so many breakpoints per unit of length."""
    return crofton(density, area) + density * perimeter / 2 + 1


def crofton(density, area: float):
    """Vertices inside, of lines at random on which lines have so many breakpoints per length."""
    return math.pi / 4 * density**2 * area


def chord(corners: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """The ends `[2, 2]` of a random chord: any direction and offset that meets the polygon."""
    while True:
        a, b = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        normal = np.array([math.cos(math.pi * a), math.sin(math.pi * a)])
        middle = corners.mean(0)
        reach = float(np.linalg.norm(corners - middle, axis=1).max())
        height = (corners - middle) @ normal - (2 * b - 1) * reach
        after = np.roll(height, -1)
        crosses = (height > 0) != (after > 0)
        if crosses.sum() != 2:
            continue  # beside the polygon
        p, q = corners[crosses], np.roll(corners, -1, 0)[crosses]
        part = (height / np.where(crosses, height - after, 1.0))[crosses]
        ends = p + part[:, None] * (q - p)
        if np.linalg.norm(ends[1] - ends[0]) > 1e-9 * reach:
            return ends


def changes(outputs: np.ndarray) -> int:
    """How often the largest output changes along a line, linear between `outputs [P, C]`."""
    if outputs.shape[1] == 1:
        outputs = np.concatenate([np.zeros_like(outputs), outputs], 1)
    start, rise = outputs[:-1], np.diff(outputs, axis=0)
    rows, own = np.arange(len(start)), start.argmax(1)
    at, total = np.zeros(len(start)), 0
    for _ in range(outputs.shape[1]):
        # the first output that overtakes the largest one behind `at`
        gap = start[rows, own][:, None] - start[rows]
        speed = rise[rows] - rise[rows, own][:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            meets = np.where(speed > 0, gap / speed, np.inf)
        meets = np.where(meets >= at[:, None], meets, np.inf)
        at = meets.min(1)
        with np.errstate(invalid="ignore"):  # of those at one place, the highest there
            there = start[rows] + np.minimum(at, 1.0)[:, None] * rise[rows]
        to = np.where(meets <= at[:, None] + TOGETHER, there, -np.inf).argmax(1)
        on = at < 1
        total += int(on.sum())
        rows, own, at = rows[on], to[on], at[on]
        if not len(rows):
            break
    return total

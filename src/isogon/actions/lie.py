"""The infinitesimal limit of equivariance: the Lie derivative along a family's generators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from isogon.actions.action import Affine
from isogon.actions.family import Family
from isogon.actions.warp import warp
from isogon.errors import OptionError
from isogon.nets.calculus import cast
from isogon.nets.sites import Site
from isogon.nets.tap import tap
from isogon.stats import Moments

REACH = 0.05  # pixels: how far the farthest point moves in a step
CHUNK = 64


def generators(family: Family) -> list[np.ndarray]:
    """Directions ``X`` with ``expm(s X)`` through the affine members of a family.

    Each is scaled to one radian, one pixel or a factor of e, and given once whatever its sign.
    Members that no one-parameter group reaches (mirrors) have none; half turns have that of
    the other turns.

    Raises:
        OptionError: No member has one.
    """
    found: list[np.ndarray] = []
    for action in family:
        if not isinstance(action, Affine):
            continue
        matrix = np.asarray(action.matrix, float)
        values = np.linalg.eigvals(matrix)
        if np.abs(matrix - np.eye(3)).max() < 1e-12 or (
            (np.abs(values.imag) < 1e-9).any()
            and (values.real[np.abs(values.imag) < 1e-9] <= 1e-9).any()
        ):
            continue
        x = np.real(scipy.linalg.logm(matrix))
        turn, shift = np.linalg.norm(x[:2, :2], 2), np.linalg.norm(x[:2, 2])
        x = x / (turn if turn > 1e-9 else shift)
        if not any(min(np.abs(x - y).max(), np.abs(x + y).max()) < 1e-6 for y in found):
            found.append(x)
    if not found:
        raise OptionError(
            "the family has no generators",
            got=repr(family),
            expected="rotations, scales or translations",
            fix='Leave out "lie", or take another family.',
        )
    return found


def lie_derivatives(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    family: Family,
    sites: Sequence[Site],
) -> dict[Site, tuple[Tensor, Tensor]]:
    """``d/ds T_s^-1 a(T_s x)`` at s = 0, by a central difference.

    Args:
        model: Any module.
        batches: Images and labels.
        family: Whose `generators` are used.
        sites: Sites with maps.

    Returns:
        By site, ``[C, h, w]``: mean square of the derivative over samples and generators, and
        the variance of the activation over samples.
    """
    steps = generators(family)
    squares = {site: Moments() for site in sites}
    values = {site: Moments() for site in sites}
    with tap(model, sites) as read:
        for x, _ in batches:
            for part in cast(x, model).split(CHUNK):
                size = part.shape[-2:]
                for site, a in read(part)[1].items():
                    values[site].update(a)
                for step in steps:
                    s = REACH / float(np.linalg.norm(step[:2] @ _corner(size)))
                    ends = []
                    for sign in (1, -1):
                        matrix = scipy.linalg.expm(sign * s * step)
                        moved = read(warp(part, matrix[None])[0])[1]
                        ends.append({site: _back(a, matrix, size) for site, a in moved.items()})
                    for site in sites:
                        derivative = (ends[0][site] - ends[1][site]).double() / (2 * s)
                        squares[site].update(derivative.square())
    return {site: (squares[site].compute().mean, values[site].compute().variance) for site in sites}


def _back(a: Tensor, matrix: np.ndarray, size: Sequence[int]) -> Tensor:
    scale = np.diag([a.shape[-1] / size[-1], a.shape[-2] / size[-2], 1.0])
    return warp(a, (scale @ np.linalg.inv(matrix) @ np.linalg.inv(scale))[None])[0]


def _corner(size: Sequence[int]) -> np.ndarray:
    return np.array([size[-1] / 2, size[-2] / 2, 1.0])


def lie_columns(squares: Tensor, variance: Tensor, aggregate: str) -> dict[str, Tensor]:
    """Root mean square of the derivative, and its quotient by the sd over samples."""
    axes = {"unit": (), "channel": (-2, -1), "site": (-3, -2, -1)}[aggregate]
    if axes:
        squares, variance = squares.mean(axes), variance.mean(axes)
    size, spread = squares.sqrt(), variance.sqrt()
    one = torch.ones_like(size)
    return {
        "lie_derivative": size,
        "lie_normalized": torch.where((size == 0) & (spread == 0), one, size / spread),
    }

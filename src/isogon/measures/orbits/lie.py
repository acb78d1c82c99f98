"""The infinitesimal limit of equivariance: the Lie derivative along a family's generators."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from isogon.actions.action import Affine
from isogon.actions.family import Family
from isogon.actions.warp import warp, warp_each
from isogon.errors import OptionError
from isogon.nets.passes import INPUT, all_passes
from isogon.nets.sites import Site
from isogon.stats import Moments

if TYPE_CHECKING:
    from isogon.nets.watchers import Key


REACH = 0.05  # pixels: how far the farthest point moves in a step


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


class Steps:
    """Small steps both ways along generators, as an orbit of inputs: x, then both ends of each.

    Args:
        steps: The generators.
    """

    def __init__(self, steps: Sequence[np.ndarray]) -> None:
        self.steps = list(steps)

    def __len__(self) -> int:
        return 1 + 2 * len(self.steps)

    def reach(self, size: Sequence[int]) -> list[float]:
        """How far along each generator: the farthest point of an image moves by `REACH`."""
        corner = np.array([size[-1] / 2, size[-2] / 2, 1.0])
        return [REACH / float(np.linalg.norm(step[:2] @ corner)) for step in self.steps]

    def matrices(self, size: Sequence[int]) -> np.ndarray:
        """``[1 + 2 G, 3, 3]``: the identity, then ``expm(s X)`` and ``expm(-s X)`` of each."""
        ends = [
            scipy.linalg.expm(sign * s * step)
            for step, s in zip(self.steps, self.reach(size))
            for sign in (1, -1)
        ]
        return np.stack([np.eye(3), *ends])

    def orbit(self, x: Tensor) -> Tensor:
        """Images ``[n, C, H, W]`` to ``[1 + 2 G, n, C, H, W]``."""
        return warp(x, self.matrices(x.shape[-2:]))


class LieWatcher:
    """``d/ds T_s^-1 a(T_s x)`` at s = 0 of the maps of a site, by central differences.

    Args:
        site: The site.
        steps: The orbit that it is seen under.
        last: Whether its maps are ``[h, w, C]``.
    """

    def __init__(self, site: Site, steps: Steps, last: bool = False) -> None:
        self.site, self.steps, self.sites, self.last = site, steps, (site, INPUT), last
        self.squares, self.values = Moments(), Moments()

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in ``[n, 1 + 2 G, C, h, w]``."""
        a, size = values[self.site].transpose(0, 1), values[INPUT].shape[-2:]
        a = a.movedim(-1, 2) if self.last else a
        self.values.update(a[0])
        scale = np.diag([a.shape[-1] / size[-1], a.shape[-2] / size[-2], 1.0])
        back = scale @ np.linalg.inv(self.steps.matrices(size)) @ np.linalg.inv(scale)
        ends = warp_each(a[1:], back[1:])
        for i, s in enumerate(self.steps.reach(size)):
            derivative = (ends[2 * i] - ends[2 * i + 1]).double() / (2 * s)
            self.squares.update(derivative.square())

    def again(self) -> bool:
        """One pass is enough."""
        return False

    def share(self) -> LieWatcher:
        """The same, empty."""
        return LieWatcher(self.site, self.steps, self.last)

    def merge(self, other: LieWatcher) -> LieWatcher:
        """Take in what another one has seen."""
        self.squares.merge(other.squares)
        self.values.merge(other.values)
        return self

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean square of the derivative, and variance of the activation, ``[C, h, w]``."""
        return self.squares.compute().mean, self.values.compute().variance


def lie_derivatives(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    family: Family,
    sites: Sequence[Site],
    last: Collection[Site] = (),
) -> dict[Site, tuple[Tensor, Tensor]]:
    """`LieWatcher` of every site.

    Args:
        model: Any module.
        batches: Images and labels.
        family: Whose `generators` are used.
        sites: Sites with maps.
        last: Those of them whose maps are ``[h, w, C]``.

    Returns:
        By site, ``[C, h, w]``: mean square of the derivative over samples and generators, and
        the variance of the activation over samples.
    """
    steps = Steps(generators(family))
    watchers = [LieWatcher(site, steps, site in last) for site in sites]
    if watchers:
        all_passes(model, batches, watchers, orbit=steps, what="lie")
    return {site: watcher.result() for site, watcher in zip(sites, watchers)}


def lie_columns(
    squares: Tensor, variance: Tensor, aggregate: str, last: bool = False
) -> dict[str, Tensor]:
    """Root mean square of the derivative, and its quotient by the sd over samples.

    Args:
        squares: Mean squares, ``[C, h, w]``.
        variance: Over samples, ``[C, h, w]``.
        aggregate: ``unit``, ``channel`` or ``site``.
        last: Whether units are in the order ``[h, w, C]``.
    """
    if last and aggregate == "unit":
        squares, variance = squares.permute(1, 2, 0), variance.permute(1, 2, 0)
    axes = {"unit": (), "channel": (-2, -1), "site": (-3, -2, -1)}[aggregate]
    if axes:
        squares, variance = squares.mean(axes), variance.mean(axes)
    size, spread = squares.sqrt(), variance.sqrt()
    one = torch.ones_like(size)
    return {
        "lie_derivative": size,
        "lie_normalized": torch.where((size == 0) & (spread == 0), one, size / spread),
    }

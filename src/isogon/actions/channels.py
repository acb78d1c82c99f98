"""Groups that act on the channels of a layer: O(c), permutations, G_ReLU and the general one.

A group is what a comparison of two layers is taken modulo. It finds the element that brings one
layer closest to another from their second moments, draws random elements, and knows its own.
Those of further activations, and the one of an activation that has no name, are in `intertwiners`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from scipy.linalg import schur
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from isogon import registry
from isogon.actions.action import Action
from isogon.errors import DataError, OptionError

SMALL = 1e-6  # the least scale of a fitted element


class SecondMoments(Protocol):
    """Second moments of x and y, e.g. `isogon.stats.CrossMoments().compute()`."""

    def raw_xx(self) -> Tensor: ...  # noqa: D102
    def raw_xy(self) -> Tensor: ...  # noqa: D102
    def raw_yy(self) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Channels(Action):
    """A linear map of channels: ``y[n, i, ...] = sum_j matrix[i, j] x[n, j, ...]``.

    Attributes:
        matrix: ``[q, p]``, float64; computed in the dtype of what it is applied to.
        label: What figures call it.
        parameters: Facts for the record.
    """

    matrix: Tensor
    label: str = "channels"
    parameters: dict[str, Any] = field(default_factory=dict)

    def __call__(self, x: Tensor) -> Tensor:
        """Activations ``[N, p, ...]`` to ``[N, q, ...]``."""
        if x.ndim < 2 or x.shape[1] != self.matrix.shape[1]:
            raise DataError(
                "another number of channels",
                got=list(x.shape),
                expected=f"[N, {self.matrix.shape[1]}, ...]",
            )
        matrix = self.matrix.to(x.device, x.dtype)
        return torch.einsum("ij,nj...->ni...", matrix, x)

    def inverse(self) -> Channels:
        """The map that undoes it."""
        q, p = self.matrix.shape
        if q != p or torch.linalg.matrix_rank(self.matrix) < p:
            raise OptionError(
                f"{self.label} has no inverse",
                got=f"{q} x {p}, rank {int(torch.linalg.matrix_rank(self.matrix))}",
                expected="a square matrix of full rank",
            )
        return Channels(torch.linalg.inv(self.matrix), f"({self.label})⁻¹", self.parameters)

    def after(self, first: Action) -> Action:
        """Two maps of channels are one: the product of their matrices."""
        if not isinstance(first, Channels):
            return super().after(first)
        return Channels(self.matrix @ first.matrix, f"{self.label} ∘ {first.label}")


class Group:
    """A group of square matrices that act on channels.

    Another package adds one by a subclass and ``isogon.registry.group``.
    """

    name = "group"

    def fit(self, moments: SecondMoments) -> Channels:
        """The element A that brings x closest to y: least ``sum |y - A x|^2``.

        Of layers of different width the narrower is padded with channels of zeros, and the part of
        the element between the channels that are there is returned: partial permutations, matrices
        with orthonormal rows or columns.

        Where a group holds scales, those of pairs that are best scaled to nothing (which no group
        contains) are 1e-6.

        Args:
            moments: Second moments of the rows of x ``[N, p]`` and y ``[N, q]``; nothing is
                centred.

        Returns:
            The map, its matrix ``[q, p]``.
        """
        return Channels(self._best(moments).double(), self.name)

    def sample(self, channels: int, generator: torch.Generator) -> Channels:
        """A random element on so many channels."""
        if channels < 1:
            raise OptionError("a group acts on channels", got=channels, expected="at least 1")
        return Channels(self._draw(channels, generator).double(), self.name)

    def phi(self, element: Channels) -> Channels:
        """What an element in front of the activation becomes behind it: s(A x) = F s(x).

        A itself where the group does not say otherwise.
        """
        return element

    def contains(self, element: Channels | Tensor, *, tolerance: float = 1e-8) -> bool:
        """Whether a square matrix belongs to the group, up to a relative tolerance."""
        a = element.matrix if isinstance(element, Channels) else element
        a = a.double()
        square = a.ndim == 2 and a.shape[0] == a.shape[1] and bool(torch.isfinite(a).all())
        return square and bool(a.abs().max() > 0) and self._holds(a, tolerance)

    def _best(self, moments: SecondMoments) -> Tensor:
        raise TypeError(f"group {self.name} does not say how it is fitted")

    def _draw(self, channels: int, generator: torch.Generator) -> Tensor:
        raise TypeError(f"group {self.name} does not say how it is drawn from")

    def _holds(self, a: Tensor, tolerance: float) -> bool:
        raise TypeError(f"group {self.name} does not say what it contains")


class Permutations(Group):
    """Permutations of channels, by option with signs or positive scales.

    Args:
        name: What records call it.
        signed: Entries may be negative.
        scaled: Entries may have any size (other than zero).
        degree: Power of a scale behind the activation, ``s(a x) = a^degree s(x)`` for a > 0.
        even: Whether a sign is lost there, ``s(-x) = s(x)``; else it stays, ``s(-x) = -s(x)``.
    """

    def __init__(
        self,
        name: str,
        *,
        signed: bool = False,
        scaled: bool = False,
        degree: float = 1.0,
        even: bool = False,
    ) -> None:
        self.name, self.signed, self.scaled = name, signed, scaled
        self.degree, self.even = degree, even

    def phi(self, element: Channels) -> Channels:
        """See `Group.phi`: each entry to the power of ``degree``, without its sign if ``even``."""
        a = element.matrix
        power = torch.where(a == 0, 0.0, a.abs().pow(self.degree))
        return Channels(power if self.even else power * a.sign(), f"phi({element.label})")

    def _best(self, moments: SecondMoments) -> Tensor:
        xy = moments.raw_xy().T  # [q, p]
        size = moments.raw_xx().diagonal().clamp(min=0).expand_as(xy)
        # What matching channel i of y to channel j of x takes off the squared distance.
        gain = xy.abs() if self.signed else xy
        if self.scaled:
            scale = gain.clamp(min=0) / torch.where(size > 0, size, torch.ones_like(size))
            gain = gain.clamp(min=0) * scale
        rows, columns = linear_sum_assignment(gain.numpy(), maximize=True)
        best = torch.zeros_like(xy)
        for i, j in zip(rows, columns):
            value = float(torch.sign(xy[i, j])) or 1.0 if self.signed else 1.0
            if self.scaled:
                found = float(xy[i, j] / size[i, j]) if size[i, j] > 0 else 0.0
                # The best scale of a pair that shares nothing is 0, which no group holds.
                value = found if abs(found) > SMALL and (self.signed or found > 0) else SMALL
            best[i, j] = value
        return best

    def _draw(self, channels: int, generator: torch.Generator) -> Tensor:
        order = torch.randperm(channels, generator=generator)
        values = torch.ones(channels, dtype=torch.float64)
        if self.scaled:
            values = torch.randn(channels, generator=generator, dtype=torch.float64).exp()
        if self.signed:
            values = values * (torch.randint(2, (channels,), generator=generator) * 2 - 1)
        return torch.eye(channels, dtype=torch.float64)[order] * values[:, None]

    def _holds(self, a: Tensor, tolerance: float) -> bool:
        alive = a.abs() > tolerance * a.abs().max()
        if not ((alive.sum(0) == 1).all() and (alive.sum(1) == 1).all()):
            return False
        values = a[alive]
        ones = self.scaled or bool(((values.abs() - 1).abs() <= tolerance).all())
        return ones and (self.signed or bool((values > 0).all()))


class Orthogonal(Group):
    """Rotations and reflections O(c).

    Args:
        power: Random elements are Haar-distributed; with another power than 1 they are this power
            of a Haar-distributed rotation (of determinant 1): near the identity where it is small.
    """

    name = "orthogonal"

    def __init__(self, power: float = 1.0) -> None:
        self.power = power
        if power != 1:
            self.name = f"orthogonal(power={power:g})"

    def _best(self, moments: SecondMoments) -> Tensor:
        u, _, vt = torch.linalg.svd(moments.raw_xy().T.double(), full_matrices=False)
        return u @ vt

    def _draw(self, channels: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(z)
        q = q * r.diagonal().sign()  # without the signs it would not be Haar's measure
        return q if self.power == 1 else _rotated(q, self.power)

    def _holds(self, a: Tensor, tolerance: float) -> bool:
        eye = torch.eye(len(a), dtype=a.dtype)
        return bool(((a @ a.T - eye).abs() <= tolerance * len(a)).all())


def _rotated(q: Tensor, power: float) -> Tensor:
    """A power of a rotation: every plane that it turns is turned by that share of its angle."""
    if torch.linalg.det(q) < 0:
        q = torch.cat([-q[:, :1], q[:, 1:]], 1)
    triangle, basis = schur(q.numpy(), output="complex")[:2]  # diagonal, since q is normal
    turned = np.exp(1j * power * np.angle(np.diag(triangle)))
    return torch.from_numpy(((basis * turned) @ basis.conj().T).real.copy())


class Invertible(Group):
    """All invertible maps GL(c)."""

    name = "invertible"

    def _best(self, moments: SecondMoments) -> Tensor:
        xx, xy = moments.raw_xx().double(), moments.raw_xy().double()
        return (torch.linalg.pinv(xx, hermitian=True) @ xy).T

    def _draw(self, channels: int, generator: torch.Generator) -> Tensor:
        return torch.randn(channels, channels, generator=generator, dtype=torch.float64)

    def _holds(self, a: Tensor, tolerance: float) -> bool:
        s = torch.linalg.svdvals(a)
        return bool(s[-1] > tolerance * s[0])


@registry.group()
def permutations() -> Group:
    """Permutations of channels: symmetries of GELU, sigmoid and SiLU layers."""
    return Permutations("permutations")


@registry.group()
def signed_permutations() -> Group:
    """Permutations with signs: symmetries of tanh, sine and hardtanh layers."""
    return Permutations("signed_permutations", signed=True)


@registry.group("G_relu")
def g_relu(degree: float = 1.0) -> Group:
    """Permutations times positive scales: symmetries of ReLU and leaky ReLU layers.

    Args:
        degree: Power that the activation is raised to (2: squared ReLU), with which scales come
            out behind it.
    """
    name = "G_relu" if degree == 1 else f"G_relu(degree={degree:g})"
    return Permutations(name, scaled=True, degree=degree)


@registry.group("G_abs")
def g_abs(degree: float = 1.0) -> Group:
    """Permutations times scales other than zero: symmetries of layers with absolute values.

    Behind the activation signs are gone: ``|A x| = |A| |x|``.

    Args:
        degree: Of ``|x|^degree``.
    """
    name = "G_abs" if degree == 1 else f"G_abs(degree={degree:g})"
    return Permutations(name, signed=True, scaled=True, degree=degree, even=True)


@registry.group()
def orthogonal(power: float = 1.0) -> Group:
    """Rotations and reflections O(c): what the representation as a whole is often taken modulo.

    Args:
        power: Random elements are this power of a random rotation (1: any rotation or reflection);
            near the identity where it is small.
    """
    return Orthogonal(power)


@registry.group()
def invertible() -> Group:
    """All invertible maps GL(c): symmetries of layers without an activation."""
    return Invertible()

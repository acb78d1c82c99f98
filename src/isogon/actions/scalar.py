"""A scalar activation by its values: whether it is affine, and its ``s(a x) = b s(x)``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from isogon.errors import OptionError
from isogon.nets.hygiene import preserved

SCALES = (0.03, 0.1, 0.5, 2.0, 3.0, math.pi, 17.3, 40.0)
TINY = 1e-12  # of 1 + |x|: values below it are rounding


class ScalarFunction:
    """An activation on 1,001 numbers: dense between -8 and 8, and from 1e-3 to 1e4 either way.

    Args:
        activation: Acts on each number of a tensor alone.

    Raises:
        OptionError: It is random, mixes numbers, has no value somewhere, or is constant.
    """

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        self.activation = activation
        far = torch.logspace(-3, 4, 250, dtype=torch.float64)
        near = torch.linspace(-8, 8, 501, dtype=torch.float64)
        self.x = torch.cat([-far.flip(0), near, far])
        self.tolerance = 1e-9
        self.y = self.of(self.x)
        mixed = torch.cat([self.of(self.x[:1]), self.of(self.x.flip(0))[:-1].flip(0)])
        if not self._same(self.y, self.of(self.x)).all():
            raise _refused("gives other values for the same numbers", "a function of its input")
        if not self._same(self.y, mixed).all():
            raise _refused("mixes the numbers of a tensor", "one that acts on each alone")
        if not bool((self.y - self.y[0]).nan_to_num(1.0).abs().gt(TINY).any()):
            raise _refused("is constant", "one that changes")

    def of(self, x: Tensor) -> Tensor:
        """Its values, float64."""
        module = self.activation if isinstance(self.activation, nn.Module) else nn.Identity()
        with torch.no_grad(), preserved(module):
            try:
                y = self.activation(x.clone())
            except RuntimeError:  # a module whose own weights are float32
                y = self.activation(x.float())
        if not isinstance(y, Tensor) or y.shape != x.shape:
            got = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise _refused(f"turns [{len(x)}] numbers into {got}", "a number for each")
        if y.dtype != torch.float64:
            self.tolerance = 1e-4
        if bool(y.isnan().any()):
            at = float(x[y.isnan()][0])
            raise _refused(f"has no value at {at:g}", "a function of all real numbers")
        return y.double()

    def factor(self, a: float) -> float | None:
        """The b with ``s(a x) = b s(x)`` at every x; None where there is none."""
        scaled = self.of(a * self.x)
        clear = self.y.isfinite() & scaled.isfinite() & (self.y.abs() > TINY * (1 + self.x.abs()))
        if not bool(clear.any()):
            return None
        b = float((scaled[clear] / self.y[clear]).median())
        return b if b and bool(self._same(scaled, b * self.y).all()) else None

    def degree(self) -> float | None:
        """The d with ``s(a x) = a^d s(x)`` for every positive a; None where there is none."""
        found = []
        for a in SCALES:
            b = self.factor(a)
            if b is None or b < 0:
                return None
            found.append(math.log(b) / math.log(a))
        near = round(found[0], 6) + 0.0  # not -0; rounding shows behind the sixth digit
        return near if max(abs(d - near) for d in found) < 1e-5 else None

    @cached_property
    def affine(self) -> bool:
        """Whether it is ``c x``.

        Raises:
            OptionError: It is ``c x + d``.
        """
        zero, one = self.of(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        if not (math.isfinite(zero) and math.isfinite(one)):
            return False
        if not self._same(self.y, zero + (one - zero) * self.x).all():
            return False
        if abs(zero) > TINY:
            raise _refused(
                f"is affine: {one - zero:g} x + {zero:g}",
                "one that is not",
                "Fold scale and offset into the next layer: the group is then invertible.",
            )
        return True

    def _same(self, a: Tensor, b: Tensor) -> Tensor:
        """Whether values agree; what overflows is left out."""
        gap = (a - b).abs()
        close = gap <= self.tolerance * (a.abs() + b.abs()) + TINY * (1 + self.x.abs())
        return close | ~(a.isfinite() & b.isfinite())


def _refused(what: str, expected: str, fix: str | None = None) -> OptionError:
    return OptionError(
        "no group can be found for this activation",
        got=f"one that {what}",
        expected=expected,
        fix=fix or "Name a group: isogon list groups.",
    )

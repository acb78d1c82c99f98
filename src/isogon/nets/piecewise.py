"""A continuous piecewise-linear scalar function given by its knots, as an operation and a layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isogon.errors import OptionError

__all__ = ["PiecewiseLinear", "piecewise_linear"]

_library = torch.library.Library("isogon", "FRAGMENT")
_library.define("piecewise_linear(Tensor x, Tensor knots, Tensor slopes, float value) -> Tensor")


def _piecewise_linear(x: Tensor, knots: Tensor, slopes: Tensor, value: float) -> Tensor:
    knots, slopes = knots.to(x.dtype), slopes.to(x.dtype)
    anchors = torch.cat([knots[:1], knots])
    steps = slopes[1:-1] * (knots[1:] - knots[:-1])
    heights = torch.cat([knots.new_full((2,), value), value + steps.cumsum(0)])
    piece = torch.bucketize(x.detach(), knots).reshape(-1)  # vmap can't index by a single number
    held = [t[piece].reshape(x.shape) for t in (heights, slopes, anchors)]
    return held[0] + held[1] * (x - held[2])


_library.impl("piecewise_linear", _piecewise_linear, "CompositeImplicitAutograd")


def piecewise_linear(x: Tensor, knots: Tensor, slopes: Tensor, value: float) -> Tensor:
    """A continuous piecewise-linear function of every element.

    Args:
        x: Any shape.
        knots: `[K]`, ascending.
        slopes: `[K + 1]`, from the leftmost piece to the rightmost.
        value: Value at the first knot.

    Example:
        >>> hat = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, -1.0, 0.0])
        >>> piecewise_linear(torch.tensor([-2.0, -0.5, 0.0, 0.75]), *hat, 0.0)
        tensor([0.0000, 0.5000, 1.0000, 0.2500])
    """
    return torch.ops.isogon.piecewise_linear(x, knots, slopes, value)


class PiecewiseLinear(nn.Module):
    """A scalar activation given by its knots: a triangle wave, a hat, an interpolant.

    Args:
        knots: Ascending positions, at least one.
        values: Values there, as many.
        left: Slope left of the first knot.
        right: Slope right of the last knot.

    Raises:
        OptionError: Knots not ascending, or values of another number.

    Example:
        >>> triangle = PiecewiseLinear([0.0, 1.0, 2.0], [0.0, 1.0, 0.0])
        >>> triangle(torch.tensor([-1.0, 0.5, 1.5, 3.0]))
        tensor([0.0000, 0.5000, 0.5000, 0.0000])
    """

    def __init__(
        self,
        knots: Sequence[float] | Tensor,
        values: Sequence[float] | Tensor,
        *,
        left: float = 0.0,
        right: float = 0.0,
    ) -> None:
        super().__init__()
        at, of = (torch.as_tensor(t, dtype=torch.float64).flatten() for t in (knots, values))
        steps = at.diff()
        if not len(at) or len(at) != len(of) or not bool((steps > 0).all()):
            raise OptionError(
                "a piecewise-linear function needs ascending knots and a value at each",
                got=f"{len(at)} knots, {len(of)} values",
                expected="knots t_1 < ... < t_K and K values",
                fix="Sort the knots; a jump (two values at one knot) is not continuous.",
            )
        slopes = torch.cat([at.new_tensor([left]), of.diff() / steps, at.new_tensor([right])])
        self.register_buffer("knots", at)
        self.register_buffer("slopes", slopes)
        self.value = float(of[0])

    def forward(self, x: Tensor) -> Tensor:
        """The function of every element."""
        return torch.ops.isogon.piecewise_linear(x, self.knots, self.slopes, self.value)

"""An operation and the rule that lowers it: a triangle, continuous and piecewise linear."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isogon.registry import lowers


@torch.library.custom_op("extending::fold", mutates_args=())
def fold(x: Tensor, width: float) -> Tensor:
    """max(0, width - |x|), element by element."""
    return (width - x.abs()).clamp(min=0)


@fold.register_fake
def _(x: Tensor, width: float) -> Tensor:
    return torch.empty_like(x)


def _setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])
    ctx.width = inputs[1]


def _backward(ctx, grad):
    (x,) = ctx.saved_tensors
    return torch.where(x.abs() < ctx.width, -x.sign(), torch.zeros_like(x)) * grad, None


fold.register_autograd(_backward, setup_context=_setup)


@lowers("extending.fold.default")
def lower_fold(lower, x, width):
    """Three knots; slopes 0, 1, -1, 0 from left to right; 0 at the first knot."""
    return lower.kink(x, knots=[-width, 0.0, width], slopes=[0.0, 1.0, -1.0, 0.0], value=0.0)


class Fold(nn.Module):
    """The operation as a layer."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to every element."""
        return fold(x, self.width)


def fold_net(width: int = 8, *, seed: int = 0) -> nn.Sequential:
    """A small network in the plane with that activation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, width), Fold(), nn.Linear(width, 3))

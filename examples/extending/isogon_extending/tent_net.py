"""An architecture: a small network whose activation folds its input."""

from __future__ import annotations

import math

from torch import Tensor, nn

from isogon.registry import arch


class Tent(nn.Module):
    """max(0, 1 - |x|): zero far away, one at the origin, linear between."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to every element."""
        return (1 - x.abs()).clamp(min=0)


@arch()
def tent_net(
    width: int = 16, *, channels: int = 1, classes: int = 10, size: int = 28
) -> nn.Sequential:
    """Two hidden layers with tent activations; continuous and piecewise linear.

    Args:
        width: Units of each hidden layer.
        channels: Channels of the input images.
        classes: Number of outputs.
        size: Height and width of the input images, in pixels.
    """
    inputs = math.prod((channels, size, size))
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, width),
        Tent(),
        nn.Linear(width, width),
        Tent(),
        nn.Linear(width, classes),
    )

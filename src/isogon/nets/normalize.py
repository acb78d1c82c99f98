"""Normalisation as the first *layer* of a model, so that its inputs stay raw pixels."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isogon.errors import OptionError


class Normalize(nn.Module):
    """Shift and scale each channel: ``(x - mean) / std``.

    Statistics are buffers: they move with the model, are saved with its weights and are not
    trained.

    Args:
        mean: One number, or one per channel.
        std: One positive number, or one per channel.

    Raises:
        OptionError: ``std`` is not positive, or the two differ in length.

    Example:
        >>> Normalize(0.5, 0.25)(torch.ones(1, 1, 2, 2)).unique()
        tensor([2.])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        super().__init__()
        mean_, std_ = _vector(mean), _vector(std)
        if len(mean_) != len(std_) and 1 not in (len(mean_), len(std_)):
            raise OptionError(
                "mean and std differ in length",
                got=f"{len(mean_)} and {len(std_)}",
                expected="one number each, or one per channel",
            )
        if not all(map(math.isfinite, mean_ + std_)) or min(std_, default=0) <= 0:
            raise OptionError(
                "can't normalise", got=f"mean {mean}, std {std}", expected="finite, std > 0"
            )
        self.register_buffer("mean", torch.tensor(mean_))
        self.register_buffer("std", torch.tensor(std_))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise.

        Args:
            x: ``[N, C, ...]`` raw inputs, e.g. pixels in [0, 1].

        Returns:
            ``[N, C, ...]``, in units of standard deviations.
        """
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return (x - self.mean.view(shape)) / self.std.view(shape)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"mean={self.mean.tolist()}, std={self.std.tolist()}"


def normalized(
    model: nn.Module, mean: float | Sequence[float], std: float | Sequence[float]
) -> nn.Sequential:
    """A model on raw inputs from one that was trained on normalised inputs.

    Args:
        model: Takes ``(x - mean) / std``.
        mean: One number, or one per channel.
        std: One number, or one per channel.

    Returns:
        ``Sequential(normalize, model)``; the given module itself is its second part.
    """
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), model=model))


def _vector(value: float | Sequence[float] | Tensor) -> list[float]:
    if isinstance(value, Tensor):
        value = value.flatten().tolist()
    return [float(v) for v in value] if isinstance(value, Sequence) else [float(value)]

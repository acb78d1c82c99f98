"""Maps of channels that a stitch is made of: modules from one layer's activations to another's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Assignment(nn.Module):
    """Channels in another order: ``y_i = scale_i x_order(i)``.

    Args:
        order: ``[q]``; -1 where no channel is taken.
        scale: ``[q]``; by default 1 where a channel is taken, 0 elsewhere.
    """

    order: Tensor
    scale: Tensor

    def __init__(self, order: Tensor, scale: Tensor | None = None) -> None:
        super().__init__()
        scale = (order >= 0).double() if scale is None else scale.double()
        self.register_buffer("order", order.clamp(min=0))
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, p, ...]`` to ``[n, q, ...]``; bits are kept where the scale is 1."""
        found = x.index_select(1, self.order.to(x.device))
        scale = self.scale.to(x.device, x.dtype).reshape(-1, *[1] * (x.dim() - 2))
        return found * scale

    def matrix(self, channels: int) -> Tensor:
        """``[q, p]``, float64."""
        found = self.scale.new_zeros(len(self.order), channels)
        found[torch.arange(len(self.order)), self.order] = self.scale
        return found


class AffineMap(nn.Module):
    """A linear map of channels, by option with an offset: ``y = weight x + bias``.

    Args:
        weight: ``[q, p]``, float64; computed in the dtype of what it is applied to.
        bias: ``[q]`` or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.double())
        self.bias = None if bias is None else nn.Parameter(bias.double())

    def forward(self, x: Tensor) -> Tensor:
        """``[n, p, ...]`` to ``[n, q, ...]``."""
        found = (
            self.weight.to(x.device, x.dtype) @ x.flatten(2)
            if x.dim() > 2
            else (x @ self.weight.T.to(x.device, x.dtype))
        )
        if self.bias is not None:
            found = found + self.bias.to(x.device, x.dtype).reshape(-1, *[1] * (found.dim() - 2))
        return found.reshape(len(x), -1, *x.shape[2:])


class Between(nn.Module):
    """A map of channels between activations of any layout and size.

    Positions are brought to those of the target by the nearest: index i of H reads that at
    ``floor(i h / H)``. A map of every position alone acts where there are fewer of them, before
    they become more or after they became fewer: the same numbers at a part of the cost.

    Args:
        inner: From ``[n, p, ...]`` to ``[n, q, ...]``; its attribute ``positionwise = False``
            says that a position's values depend on others (batch statistics).
        axes: Channel axis of what comes in and of what goes out.
        space: Positions of what goes out.
    """

    def __init__(self, inner: nn.Module, axes: tuple[int, int], space: tuple[int, ...]) -> None:
        super().__init__()
        self.inner, self.axes, self.space = inner, axes, space

    def forward(self, x: Tensor) -> Tensor:
        """Activations of the one layer to those of the other."""
        x_first = x.movedim(self.axes[0], 1)
        grows = math.prod(self.space) > math.prod(x_first.shape[2:])
        if grows and getattr(self.inner, "positionwise", True):
            found = placed(self.inner(x_first), 1, self.space)
        else:
            found = self.inner(placed(x_first, 1, self.space))
        found = found.movedim(1, self.axes[1])
        if found.shape != x.shape or found.stride() == x.stride():
            return found
        # laid out in memory as it came: kernels, and with them the last bits, depend on it
        return torch.empty_like(x).copy_(found)


def placed(x: Tensor, axis: int, space: tuple[int, ...]) -> Tensor:
    """An activation with its channels at axis 1 and so many positions, by the nearest."""
    x = x.movedim(axis, 1)
    for k in reversed(range(2, 2 + len(space))):  # the last first: whole rows are copied then
        old, size = x.shape[k], space[k - 2]
        if size != old and old % size == 0:
            x = x[(*[slice(None)] * k, slice(None, None, old // size))]
        elif size != old and size % old == 0 and k < x.dim() - 1:
            times = size // old
            shape = (*x.shape[: k + 1], times, *x.shape[k + 1 :])
            x = x.unsqueeze(k + 1).expand(shape).flatten(k, k + 1)
        elif size != old:
            x = x.index_select(k, torch.arange(size, device=x.device) * old // size)
    return x

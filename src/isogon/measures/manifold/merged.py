"""Convolutions whose input gradients are one matrix product for a whole batch.

On a CPU a float64 convolution is one matrix product *per sample*. Where a map has few positions
and many channels (the late layers of a VGG: 512 channels, 2 x 2 positions) that product is thin:
it reads the whole weight for every sample and stays far below the machine's peak. Merging the
batch into its columns reads the weight once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    pass


POSITIONS = 16  # of the output map, above which products per sample are wide enough
WIDTH = 512  # weights per output channel, below which moving memory costs more than it saves


class merged(TorchFunctionMode):
    """Inside, float64 convolutions on a CPU with small output maps are computed merged.

    The numbers are those of `torch.nn.functional.conv2d` up to rounding. Gradients reach the
    input and no weight: for use where only gradients in the input are asked for.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Replace convolutions that gain from it."""
        kwargs = kwargs or {}
        if func is torch.conv2d and (z := _convolved(*args, **kwargs)) is not None:
            return z
        return func(*args, **kwargs)


def _convolved(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    plain = input.dtype == torch.float64 and input.device.type == "cpu" and input.dim() == 4
    if not plain or groups != 1 or isinstance(padding, str) or weight[0].numel() < WIDTH:
        return None
    kernel = tuple(weight.shape[2:])
    stride, padding, dilation = (_pair(v) for v in (stride, padding, dilation))
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(input.shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    if not 0 < size[0] * size[1] <= POSITIONS or input.shape[1] != weight.shape[1]:
        return None
    z: Any = _Merged.apply(input, weight, (kernel, dilation, padding, stride), tuple(size))
    return z if bias is None else z + bias[:, None, None]


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    found = tuple(value) if isinstance(value, tuple | list) else (value,)
    return found * 2 if len(found) == 1 else found  # type: ignore[return-value]


class _Merged(Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, window: tuple, size: tuple[int, int]) -> Tensor:
        columns = F.unfold(x, *window).transpose(1, 2)  # [N, positions, channels x kernel]
        n, positions, width = columns.shape
        z = columns.reshape(n * positions, width) @ weight.reshape(len(weight), -1).T
        return z.reshape(n, positions, -1).transpose(1, 2).reshape(n, -1, *size).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, ctx.weight, ctx.window, _ = inputs
        ctx.size = tuple(x.shape[2:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        g = gradients[0]
        g = g.reshape(*g.shape[:2], -1).transpose(1, 2)  # [N, positions, channels]
        n, positions, channels = g.shape
        weight = ctx.weight.reshape(channels, -1)
        columns = g.reshape(n * positions, channels) @ weight
        columns = columns.reshape(n, positions, -1).transpose(1, 2)
        return F.fold(columns, ctx.size, *ctx.window), None, None, None


__all__ = ["merged"]

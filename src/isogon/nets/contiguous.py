"""Norms of one sample whose gradients are right, whatever the strides of what comes back.

On a CPU the backward pass of PyTorch's batch-norm (2.14 and before) is wrong for a batch of one
sample when input and gradient differ in their layout: a map ``[1, C, H, W]`` that goes on as tokens
``x.flatten(2).transpose(1, 2)``, as in LeViT, CvT or PoolFormer, sends back a gradient with the
channels last, whose entries are then taken in another order. Instance-norm, which calls it, too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_ATEN = torch.ops.aten
_NORMS = {
    F.batch_norm,
    torch.batch_norm,
    _ATEN.batch_norm.default,
    F.instance_norm,
    torch.instance_norm,
    _ATEN.instance_norm.default,
}


class contiguous(TorchFunctionMode):
    """Inside, norms of one sample take their input, and its gradient, in the standard layout."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Lay out the input of a norm, and what its output's gradient will be."""
        kwargs = kwargs or {}
        x = args[0] if args else kwargs.get("input")
        if func not in _NORMS or not isinstance(x, Tensor) or x.dim() < 3 or len(x) != 1:
            return func(*args, **kwargs)
        x = x.contiguous()
        z = func(x, *args[1:], **kwargs) if args else func(**{**kwargs, "input": x})
        if z.requires_grad:
            z.register_hook(_laid_out)
        return z


def _laid_out(gradient: Tensor | None) -> Tensor | None:
    # none comes in a second backward pass where the first derivative does not depend on the norm
    return None if gradient is None else gradient.contiguous()


__all__ = ["contiguous"]

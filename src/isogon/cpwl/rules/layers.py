"""Layers with weights: linear, convolutions, batch-norm, products with a constant matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isogon.cpwl.lowering import Lowering, Ref
from isogon.cpwl.rules.arithmetic import sum_of
from isogon.cpwl.stages import Product, with_coefficient
from isogon.registry import lowers

aten = torch.ops.aten


def _weights_are_constant(lower: Lowering, *weights: object) -> None:
    if any(isinstance(w, Ref) for w in weights):
        lower.refuse("has a weight that depends on the input: a product of two branches")


def _weighted(
    lower: Lowering,
    x: Ref,
    weight: Tensor,
    bias: Tensor | None,
    call: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    trailing: int,
    axis: int = 0,
    groups: int = 1,
) -> Ref:
    """A layer `call(x, weight, bias)` that a batch-norm right after it may rescale.

    Args:
        lower: The lowering.
        x: The input.
        weight: The weight, its output units along `axis` (per group).
        bias: `[units]` or None.
        call: The layer.
        trailing: Number of spatial axes after the units.
        axis: Axis of the output units in the weight.
        groups: Groups whose units follow each other (transposed convolutions only).
    """
    _weights_are_constant(lower, weight, bias)
    spread = (-1,) + (1,) * trailing
    terms = weight.numel() // (weight.shape[axis] * (groups if axis else 1))
    product = Product(call, weight, terms=terms)
    ref = lower.affine(
        product,
        x,
        None if bias is None else bias.reshape(spread),
        Product(call, weight, bias, terms=terms),
        weights=product.changed,
    )

    def rescaled(scale: Tensor, shift: Tensor) -> Ref:
        if axis == 0:
            factor = scale.reshape((-1,) + (1,) * (weight.ndim - 1))
            scaled = weight * factor
        else:  # [groups * in, units / group, ...]
            parts = weight.reshape(groups, -1, *weight.shape[1:])
            factor = scale.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))
            scaled = (parts * factor).reshape(weight.shape)
        return _weighted(
            lower,
            x,
            scaled,
            shift if bias is None else bias * scale + shift,
            call,
            trailing,
            axis,
            groups,
        )

    if len(lower.node.users) == 1:
        lower.rescale[ref.name] = rescaled
    return ref


@lowers("aten.linear.default")
def linear(lower: Lowering, x, weight, bias=None):
    """`x W^T + b` along the last axis."""
    _weights_are_constant(lower, weight, bias)
    if len(x.shape) == 1:
        return _weighted(lower, x, weight, bias, torch.nn.functional.linear, 0)
    call, terms = torch.nn.functional.linear, weight.shape[-1]
    product = Product(call, weight, terms=terms)
    return lower.affine(
        product,
        x,
        bias,
        Product(call, weight, bias, terms=terms),
        weights=product.changed,
    )


@lowers("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default")
@lowers("aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.padding")
def convolution_nd(lower: Lowering, x, weight, bias=None, *rest):
    """Convolution over 1 to 3 axes."""
    op = lower.target
    return _weighted(
        lower, x, weight, bias, lambda v, w, b: op(v, w, b, *rest), len(lower.shape) - 1
    )


@lowers("aten.conv_transpose1d.default", "aten.conv_transpose2d.input")
@lowers("aten.conv_transpose3d.input")
def transposed(lower: Lowering, x, weight, bias=None, *rest):
    """Transposed convolution over 1 to 3 axes (stride, padding, output padding, groups, ...)."""
    groups = rest[3] if len(rest) > 3 else 1
    op = lower.target
    return _weighted(
        lower,
        x,
        weight,
        bias,
        lambda v, w, b: op(v, w, b, *rest),
        len(lower.shape) - 1,
        axis=1,
        groups=groups,
    )


@lowers("aten.convolution.default")
def convolution(
    lower: Lowering, x, weight, bias, stride, padding, dilation, transposed, extra, groups
):
    """The general form of all convolutions."""
    rest = (stride, padding, dilation, transposed, extra, groups)
    return _weighted(
        lower,
        x,
        weight,
        bias,
        lambda v, w, b: aten.convolution(v, w, b, *rest),
        len(lower.shape) - 1,
        axis=int(transposed),
        groups=groups,
    )


def _normalize(lower, x, weight, bias, mean, var, eps):
    _weights_are_constant(lower, weight, bias, mean, var)
    scale = (var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    if bias is not None:
        shift = shift + bias
    if x.name in lower.rescale:
        return lower.rescale.pop(x.name)(scale, shift)
    spread = (-1,) + (1,) * (len(x.shape) - 1)
    scale, shift = scale.reshape(spread), shift.reshape(spread)
    return lower.affine(
        lambda v: v * scale,
        x,
        shift,
        lambda v: torch.addcmul(shift, v, scale),
        x.shape,
        weights=with_coefficient(torch.mul, scale),
    )


@lowers("aten.batch_norm.default")
def batch_norm(lower: Lowering, x, weight, bias, mean, var, training, momentum, eps, *_):
    """Batch-norm with its running statistics, folded into the layer before it."""
    if training or mean is None:
        lower.refuse(
            "normalises by the statistics of the batch at hand, also in eval mode",
            "Use track_running_stats=True.",
        )
    return _normalize(lower, x, weight, bias, mean, var, eps)


@lowers("aten._native_batch_norm_legit_no_training.default")
def batch_norm_eval(lower: Lowering, x, weight, bias, mean, var, momentum, eps):
    """The same after decomposition."""
    return (_normalize(lower, x, weight, bias, mean, var, eps), None, None)


@lowers("aten.native_batch_norm.default")
def native_batch_norm(lower: Lowering, x, weight, bias, mean, var, training, momentum, eps):
    """The same after decomposition."""
    return (batch_norm(lower, x, weight, bias, mean, var, training, momentum, eps), None, None)


@lowers("aten.matmul.default", "aten.mm.default", "aten.bmm.default", "aten.mv.default")
def matmul(lower: Lowering, a, b):
    """A product with a constant matrix on either side."""
    if isinstance(a, Ref) and isinstance(b, Ref):
        lower.refuse("multiplies two branches that both depend on the input")
    if isinstance(a, Ref):
        product = Product(lambda v, w, _: torch.matmul(v, w), b, terms=b.shape[max(b.ndim - 2, 0)])
        return lower.affine(product, a, None, weights=product.changed)
    product = Product(lambda v, w, _: torch.matmul(w, v), a, terms=a.shape[-1])
    return lower.affine(product, b, None, weights=product.changed)


@lowers("aten.addmm.default", "aten.baddbmm.default")
def addmm(lower: Lowering, bias, a, b, *, beta=1, alpha=1):
    """`beta * bias + alpha * a b`."""
    product = matmul(lower, a, b)
    if isinstance(bias, Ref):
        return sum_of(lower, bias, product, float(beta), float(alpha))
    if beta == alpha == 1 and bias.ndim == 1:
        return lower.affine(lambda v: v, product, bias, weights=lambda f: lambda v: v)
    return sum_of(lower, product, bias, float(alpha), float(beta))


@lowers("aten.einsum.default")
def einsum(lower: Lowering, equation, operands, **_):
    """A sum of products in which one factor depends on the input."""
    depends = [i for i, t in enumerate(operands) if isinstance(t, Ref)]
    if len(depends) != 1:
        lower.refuse("multiplies two branches that both depend on the input")
    (at,) = depends

    def weights(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        rest = [t if i == at else f(t) for i, t in enumerate(operands)]
        return lambda v: torch.einsum(equation, *[v if i == at else t for i, t in enumerate(rest)])

    return lower.affine(weights(lambda t: t), operands[at], None, weights=weights)

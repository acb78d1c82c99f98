"""Scalar activations: continuous piecewise-linear functions of every element."""

from __future__ import annotations

import torch
from torch import Tensor

from isogon.cpwl.lowering import Lowering, Ref
from isogon.cpwl.rules.arithmetic import broadcast, scaled
from isogon.registry import lowers


def bend(lower: Lowering, x: Ref, low, high, apply=None) -> Ref:
    """`clamp(x, low, high)`; a bound may be None, a number or a tensor."""
    bounds = [
        None if b is None else lower.sample(torch.as_tensor(b, dtype=torch.float64))
        for b in (low, high)
    ]
    if x.shape != lower.shape:
        sizes = lower.shape
        x, apply = lower.affine(lambda v: broadcast(v, sizes), x, None, copies=True), None
    low, high = bounds
    if low is not None and bool(torch.isneginf(low).all()):
        low = None
    if high is not None and bool(torch.isposinf(high).all()):
        high = None
    if low is None or high is None:
        bound = high if low is None else low
        if bound is None:
            return lower.affine(lambda v: v, x, None, copies=True)
        one, zero = torch.ones_like(bound), torch.zeros_like(bound)
        slopes = torch.stack([one, zero] if low is None else [zero, one])
        return lower.kink(x, bound[None], slopes, bound, apply)
    low, high = torch.broadcast_tensors(low, high)
    if bool((low >= high).all()):
        return scaled(lower, x, torch.zeros((), dtype=torch.float64), high)
    if bool((low >= high).any()):
        lower.refuse("clamps some elements between bounds in the wrong order")
    one, zero = torch.ones_like(low), torch.zeros_like(low)
    return lower.kink(x, torch.stack([low, high]), torch.stack([zero, one, zero]), low, apply)


def leaky(lower: Lowering, x: Ref, slope: Tensor | float, apply=None) -> Ref:
    """`x` where positive, else `slope * x`."""
    slope = torch.as_tensor(slope, dtype=torch.float64)
    slopes = torch.stack([slope, torch.ones_like(slope)])
    return lower.kink(x, torch.zeros(1, *slope.shape), slopes, 0.0, apply)


@lowers("aten.relu.default")
def relu(lower: Lowering, x):
    """`max(x, 0)`."""
    return leaky(lower, x, 0.0, torch.relu)


@lowers("aten.leaky_relu.default")
def leaky_relu(lower: Lowering, x, negative_slope=0.01):
    """`x` where positive, else `negative_slope * x`."""
    slope = float(negative_slope)
    return leaky(lower, x, slope, lambda v: torch.nn.functional.leaky_relu(v, slope))


@lowers("aten.prelu.default", "aten._prelu_kernel.default")
def prelu(lower: Lowering, x, weight):
    """Leaky ReLU with a slope per channel."""
    if isinstance(weight, Ref):
        lower.refuse("has a slope that depends on the input")
    if weight.numel() == 1:
        weight = weight.reshape(())
    elif weight.ndim > 1:  # already spread for broadcasting
        weight = lower.sample(weight)
    else:
        weight = weight.reshape(-1, *(1,) * (len(x.shape) - 1))
    return leaky(lower, x, weight, lambda v: torch.where(v > 0, v, v * weight))


@lowers("aten.rrelu.default")
def rrelu(lower: Lowering, x, low=1 / 8, high=1 / 3, training=False, generator=None):
    """Leaky ReLU with the mean of its slopes, as in eval mode."""
    if training:
        lower.refuse("is random in training mode", "Call model.eval() first.")
    return leaky_relu(lower, x, (low + high) / 2)


@lowers("aten.relu6.default")
def relu6(lower: Lowering, x):
    """`min(max(x, 0), 6)`."""
    return bend(lower, x, 0.0, 6.0, torch.nn.functional.relu6)


@lowers("aten.hardtanh.default")
def hardtanh(lower: Lowering, x, low=-1.0, high=1.0):
    """`x` between its bounds, constant outside."""
    return bend(lower, x, low, high, lambda v: torch.clamp(v, low, high))


@lowers("aten.clamp.default", "aten.clamp.Tensor", "aten.clip.default", "aten.clip.Tensor")
def clamp(lower: Lowering, x, min=None, max=None):
    """`x` between its bounds, constant outside."""
    if isinstance(min, Ref) or isinstance(max, Ref):
        lower.refuse("has a bound that depends on the input", "Use torch.maximum or torch.minimum.")
    return bend(lower, x, min, max)


@lowers("aten.clamp_min.default", "aten.clamp_min.Tensor")
def clamp_min(lower: Lowering, x, low):
    """`max(x, low)`."""
    return clamp(lower, x, low, None)


@lowers("aten.clamp_max.default", "aten.clamp_max.Tensor")
def clamp_max(lower: Lowering, x, high):
    """`min(x, high)`."""
    return clamp(lower, x, None, high)


@lowers("aten.hardsigmoid.default")
def hardsigmoid(lower: Lowering, x):
    """`min(max(x + 3, 0), 6) / 6`."""
    return lower.kink(x, [-3.0, 3.0], [0.0, 1 / 6, 0.0], 0.0, torch.nn.functional.hardsigmoid)


@lowers("aten.abs.default")
def absolute(lower: Lowering, x):
    """`|x|`."""
    return lower.kink(x, [0.0], [-1.0, 1.0], 0.0, torch.abs)


@lowers("aten.threshold.default")
def threshold(lower: Lowering, x, bound, value):
    """`x` above the threshold, else `value`: continuous where the two are equal."""
    if bound != value:
        lower.refuse(
            f"is not continuous: it jumps from {value:g} to {bound:g}",
            "Let value == threshold.",
        )
    return bend(lower, x, bound, None)


@lowers("aten.softshrink.default")
def softshrink(lower: Lowering, x, width=0.5):
    """`x` moved towards zero by `width`, zero in between."""
    width = float(width)
    if width == 0:
        return lower.affine(lambda v: v, x, None, copies=True)
    return lower.kink(x, [-width, width], [1.0, 0.0, 1.0], 0.0)


@lowers("isogon.piecewise_linear.default")
def piecewise_linear(lower: Lowering, x, knots, slopes, value):
    """A function given by its knots (`isogon.nets.piecewise.PiecewiseLinear`)."""
    op = lower.target
    return lower.kink(x, knots, slopes, float(value), lambda v: op(v, knots, slopes, value))

"""Sums, differences and multiples of branches and constants; reductions that are linear."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isogon.cpwl.lowering import Condition, Lowering, Ref
from isogon.cpwl.rules.conditions import choose
from isogon.registry import lowers


def _tensor(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def sum_of(lower: Lowering, a, b, scale_a=1.0, scale_b=1.0) -> Ref:
    """`scale_a * a + scale_b * b`, each a branch or a constant (not both constant)."""
    if isinstance(a, Ref) and isinstance(b, Ref):
        if a is b:
            return scaled(lower, a, _tensor(scale_a + scale_b))
        if scale_a == scale_b == 1:
            return lower.linear(torch.add, a, b, weights=lambda f: torch.add)
        first, second = _tensor(scale_a), _tensor(scale_b)
        return lower.linear(
            lambda x, y: scale_a * x + scale_b * y,
            a,
            b,
            weights=lambda f: lambda x, y: f(first) * x + f(second) * y,
        )
    if isinstance(b, Ref):
        return sum_of(lower, b, a, scale_b, scale_a)
    scale, shift = _tensor(scale_a), lower.sample(_tensor(b)) * scale_b
    return scaled(lower, a, scale, shift)


def scaled(lower: Lowering, x: Ref, scale: Tensor, shift: Tensor | None = None) -> Ref:
    """`scale * x + shift`; scale and shift broadcast to one sample."""
    sizes = lower.shape
    same = scale.ndim == 0 and bool(scale == 1)

    def function(v: Tensor) -> Tensor:
        return v if same else v * scale

    def weights(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        factor = f(scale)
        return lambda v: broadcast(v if same else v * factor, sizes)

    copies = shift is None and bool((scale.abs() == 1).all())
    if x.shape == sizes:
        ref = lower.affine(function, x, shift, weights=weights, copies=copies)
        base, factor, offset = lower.form(x)
        total = scale * offset if shift is None else scale * offset + shift
        lower.forms[ref.name] = (base, factor * scale, total)
        return ref
    return lower.affine(
        lambda v: broadcast(function(v), sizes), x, shift, weights=weights, copies=copies
    )


def broadcast(v: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Broadcast samples `[N, ...]` to `[N, *sizes]`."""
    missing = len(sizes) + 1 - v.ndim
    return v.reshape(len(v), *(1,) * missing, *v.shape[1:]).expand(len(v), *sizes)


@lowers("aten.add.Tensor", "aten.add.Scalar")
def add(lower: Lowering, a, b, alpha=1):
    """`a + alpha b`."""
    return sum_of(lower, a, b, 1.0, float(alpha))


@lowers("aten.sub.Tensor", "aten.sub.Scalar")
def sub(lower: Lowering, a, b, alpha=1):
    """`a - alpha b`."""
    return sum_of(lower, a, b, 1.0, -float(alpha))


@lowers("aten.rsub.Scalar", "aten.rsub.Tensor")
def rsub(lower: Lowering, a, b, alpha=1):
    """`b - alpha a`."""
    return sum_of(lower, a, b, -float(alpha), 1.0)


@lowers("aten.neg.default")
def neg(lower: Lowering, x):
    """`-x`."""
    return scaled(lower, x, _tensor(-1.0))


@lowers("aten.mul.Tensor", "aten.mul.Scalar")
def mul(lower: Lowering, a, b):
    """A multiple by a constant; a branch times a comparison where that is continuous."""
    if isinstance(b, Ref) and not isinstance(a, Ref):
        a, b = b, a
    if isinstance(b, Condition):
        if not isinstance(a, Ref | Tensor | float | int):
            lower.refuse("multiplies two comparisons")
        return choose(lower, b, a, 0.0)
    if isinstance(a, Condition):
        return choose(lower, a, b, 0.0)
    if isinstance(b, Ref):
        lower.refuse("multiplies two branches that both depend on the input")
    return scaled(lower, a, lower.sample(_tensor(b)))


@lowers("aten.div.Tensor", "aten.div.Scalar", "aten.true_divide.Tensor")
def div(lower: Lowering, a, b):
    """A multiple by the inverse of a constant."""
    if isinstance(b, Ref):
        lower.refuse("divides by a branch that depends on the input")
    return scaled(lower, a, 1.0 / lower.sample(_tensor(b)))


@lowers("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def div_mode(lower: Lowering, a, b, *, rounding_mode=None):
    """Division without rounding."""
    if rounding_mode is not None:
        lower.refuse("rounds, and jumps")
    return div(lower, a, b)


@lowers("aten.addcmul.default")
def addcmul(lower: Lowering, a, b, c, *, value=1):
    """`a + value b c`, one of b and c constant."""
    product = mul(lower, b, c) if isinstance(b, Ref) or isinstance(c, Ref) else b * c
    return sum_of(lower, a, product, 1.0, float(value))


@lowers("aten.lerp.Scalar", "aten.lerp.Tensor")
def lerp(lower: Lowering, a, b, weight):
    """`(1 - weight) a + weight b` with a constant weight."""
    if isinstance(weight, Ref):
        lower.refuse("has a weight that depends on the input")
    weight = lower.sample(_tensor(weight))
    return lower.linear(
        lambda x, y: torch.lerp(x, y, weight.expand_as(x + y)),
        a,
        b,
        weights=lambda f: lambda x, y: f(1 - weight) * x + f(weight) * y,
    )


# --------------------------------------------------------------------------- reductions and maps
# linear in the first argument, which is the only one that may depend on the input


@lowers("aten.mean.dim", "aten.sum.dim_IntList", "aten.cumsum.default", "aten.diff.default")
@lowers("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default")
@lowers("aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default")
@lowers("aten.adaptive_avg_pool3d.default", "aten._adaptive_avg_pool2d.default")
@lowers("aten._adaptive_avg_pool3d.default", "aten.im2col.default", "aten.col2im.default")
@lowers("aten.upsample_nearest1d.vec", "aten.upsample_nearest2d.vec", "aten.upsample_nearest3d.vec")
@lowers("aten._upsample_nearest_exact1d.vec", "aten._upsample_nearest_exact2d.vec")
@lowers("aten._upsample_nearest_exact3d.vec", "aten.upsample_linear1d.vec")
@lowers("aten.upsample_bilinear2d.vec", "aten.upsample_trilinear3d.vec")
@lowers("aten.upsample_bicubic2d.vec", "aten._upsample_bilinear2d_aa.vec")
@lowers("aten.upsample_nearest1d.default", "aten.upsample_nearest2d.default")
@lowers("aten.upsample_nearest3d.default", "aten.upsample_linear1d.default")
@lowers("aten.upsample_bilinear2d.default", "aten.upsample_trilinear3d.default")
def linear_in_first(lower: Lowering, x, *rest, **options):
    """An operation of PyTorch's that is linear in its first argument."""
    op = lower.target
    if not isinstance(x, Ref) or any(isinstance(r, Ref) for r in rest):
        lower.refuse("is linear in its first argument only, and another depends on the input")
    if isinstance(options.get("dtype"), torch.dtype):
        options = {**options, "dtype": None}

    def function(v: Tensor) -> Tensor:
        return op(v, *rest, **options)

    signed = lower.op in ("diff", "upsample_bicubic2d")
    copies = "nearest" in lower.op or lower.op == "im2col"
    return lower.affine(
        function, x, None, weights=None if signed else lambda f: function, copies=copies
    )


@lowers("aten.grid_sampler.default", "aten.grid_sampler_2d.default")
def grid_sample(lower: Lowering, x, grid, *rest):
    """Values interpolated at constant positions."""
    if isinstance(grid, Ref):
        lower.refuse("samples at positions that depend on the input")
    op = lower.target

    def function(v: Tensor) -> Tensor:
        return op(v, grid.expand(len(v), *grid.shape[1:]), *rest)

    bicubic = bool(rest) and rest[0] == 2
    return lower.affine(function, x, None, weights=None if bicubic else lambda f: function)


@lowers("aten.mean.default", "aten.sum.default")
def reduce_over_samples(lower: Lowering, x, **_):
    """A reduction over the samples too."""
    lower.refuse("mixes the samples of a batch", "Reduce over dimensions from 1 on.")

"""What the layers of networks do to labels: linear maps, normalisations, activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from isogon.measures.alignment.symmetry.labelling import Labelling, operation, rule
from isogon.measures.alignment.symmetry.units import (
    FIXED,
    NORMED,
    POSITIVE,
    ZERO,
    Axis,
    Block,
    Data,
    Held,
    Labels,
)
from isogon.nets.graph import shape

# --------------------------------------------------------------------------- linear maps


@rule("linear", weights=True)
def _linear(walk: Labelling, node: fx.Node, x: Labels, w: Labels, b: Labels | None = None) -> Data:
    if not isinstance(w, Held) or len(w.axes) != 2 or not isinstance(x, Data):
        raise walk.refusal(node, "a weight that is computed from others")
    return _mixed(walk, x, w, (1, 0), b)


def _mixed(
    walk: Labelling, x: Data, w: Held, axes: tuple[int, int], b: Labels | None = None
) -> Data:
    """``x [..., p]`` times a weight with its inputs and outputs on these axes, and a bias."""
    inner = walk.along(x, range(x.units.dim() - 1))
    sides = walk.matrix(w, {axes[0]: -1, axes[1]: 1})
    walk.joined(sides[axes[0]], inner)
    out = sides[axes[1]]
    if b is not None:
        walk.joined(walk.taken(b), out)
    sizes = (*x.units.shape[:-1], len(out.units))
    return Data(out.units.expand(sizes), out.scales.expand(sizes))


@rule("addmm", weights=True)
def _addmm(walk: Labelling, node: fx.Node, b: Labels, x: Labels, w: Labels, **_: Any) -> Data:
    if not isinstance(w, Held) or len(w.axes) != 2 or not isinstance(x, Data):
        raise walk.refusal(node, "a weight that is computed from others")
    return _mixed(walk, x, w, (0, 1), b)


@rule("conv1d", "conv2d", "conv3d", weights=True)
def _convolution(
    walk: Labelling,
    node: fx.Node,
    x: Data,
    w: Labels,
    b: Labels | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Data:
    if not isinstance(w, Held):
        raise walk.refusal(node, "a weight that is computed from others")
    inner = walk.along(x, [0, *range(2, x.units.dim())])
    count, each = walk.tensors[w.name].shape[:2]
    if groups == 1:
        sides = walk.matrix(w, {1: -1, 0: 1})
        walk.joined(sides[1], inner)
        out = sides[0]
    else:
        out = _grouped(walk, w, inner, count, each, groups)
    return _channels(walk, node, out, b)


def _channels(walk: Labelling, node: fx.Node, out: Data, b: Labels | None) -> Data:
    """Labels of channels at all positions, after a bias."""
    if b is not None:
        walk.joined(walk.taken(b), out)
    sizes = tuple(1 if n is None else n for n in shape(node))
    view = (1, -1, *[1] * (len(sizes) - 2))
    return Data(out.units.view(view).expand(sizes), out.scales.view(view).expand(sizes))


def _grouped(walk: Labelling, w: Held, inner: Data, count: int, each: int, groups: int) -> Data:
    """A convolution in groups: one block of weights for each; one channel each: one block."""
    kind = f"groups {groups}"
    if walk.kinds.setdefault(w.name, kind) != kind:
        raise walk.twice(w.name)
    kernel = tuple(walk.tensors[w.name].shape[2:])
    fixed = [Axis(torch.zeros(n, dtype=torch.long), []) for n in kernel]
    per = count // groups
    if w.name not in walk.blocks:
        out, scales = walk.units.fresh(count), walk.scales.fresh(count)
        if each == 1:  # depthwise: a channel and what is made of it move together
            read = walk.scales.fresh(groups).repeat_interleave(per)
            axis = Axis(out, [(scales, 1), (read, -1)])
            single = Axis(torch.zeros(1, dtype=torch.long), [])
            walk.blocks[w.name] = [Block((0, count), (count, 1, *kernel), [axis, single, *fixed])]
        else:
            walk.blocks[w.name] = [
                Block(
                    (k * per, (k + 1) * per),
                    (per, each, *kernel),
                    [
                        Axis(out[k * per : (k + 1) * per], [(scales[k * per : (k + 1) * per], 1)]),
                        Axis(walk.units.fresh(each), [(walk.scales.fresh(each), -1)]),
                        *fixed,
                    ],
                )
                for k in range(groups)
            ]
    blocks = walk.blocks[w.name]
    if each == 1:
        axis = blocks[0].axes[0]
        walk.units.join(axis.units, inner.units.repeat_interleave(per))
        walk.scales.join(axis.scales[1][0], inner.scales.repeat_interleave(per))
        return Data(axis.units, axis.scales[0][0])
    for k, block in enumerate(blocks):
        walk.units.join(block.axes[1].units, inner.units[k * each : (k + 1) * each])
        walk.scales.join(block.axes[1].scales[0][0], inner.scales[k * each : (k + 1) * each])
    return Data(
        torch.cat([b.axes[0].units for b in blocks]),
        torch.cat([b.axes[0].scales[0][0] for b in blocks]),
    )


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", weights=True)
def _transposed(
    walk: Labelling,
    node: fx.Node,
    x: Data,
    w: Labels,
    b: Labels | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Data:
    if not isinstance(w, Held) or groups != 1:
        raise walk.refusal(node, f"a transposed convolution in {groups} groups")
    sides = walk.matrix(w, {0: -1, 1: 1})
    walk.joined(sides[0], walk.along(x, [0, *range(2, x.units.dim())]))
    return _channels(walk, node, sides[1], b)


@rule("embedding", weights=True)
def _embedding(walk: Labelling, node: fx.Node, w: Labels, x: Labels, *_: Any) -> Data:
    if not isinstance(w, Held):
        raise walk.refusal(node, "an embedding that is computed from others")
    sides = walk.matrix(w, {0: 1, 1: 1})
    walk.fix(sides[0])
    sizes = tuple(1 if n is None or n < 0 else n for n in shape(node))
    return Data(sides[1].units.expand(sizes), sides[1].scales.expand(sizes))


@rule("matmul", "bmm", "mm", weights=True)
def _matmul(walk: Labelling, node: fx.Node, a: Labels, b: Labels) -> Data:
    if isinstance(b, Held) and len(b.axes) == 2 and isinstance(a, Data):
        return _mixed(walk, a, b, (0, 1))
    if isinstance(a, Held) or isinstance(b, Held) or min(a.units.dim(), b.units.dim()) < 2:
        raise walk.refusal(node, "a product with a weight that is no linear layer")
    return _product(walk, a, b)


def _product(walk: Labelling, a: Data, b: Data) -> Data:
    """``[..., t, k]`` times ``[..., k, u]`` of two activations."""
    sizes = torch.broadcast_shapes(a.units.shape[:-2], b.units.shape[:-2])
    out = (*sizes, a.units.shape[-2], b.units.shape[-1])
    if _varies(a.units, -1) or _varies(b.units, -2):  # the sum runs over units
        left, right = walk.along(a, [-2]), walk.along(b, [-1])
        walk.units.join(left.units, right.units)
        walk.unscaled(a)
        walk.unscaled(b)
        walk.mark(left.units.reshape(-1, left.units.shape[-1]))
        return walk.blank(out)
    if not bool((a.units <= FIXED).all()):
        walk.units.join(a.units, torch.tensor(FIXED))
    walk.unscaled(a)
    kept = walk.along(b, [-2])
    walk.mark(kept.units.reshape(-1, kept.units.shape[-1]))
    return Data(kept.units[..., None, :].expand(out), kept.scales[..., None, :].expand(out))


@rule("scaled_dot_product_attention")
def _attention(
    walk: Labelling, node: fx.Node, q: Data, k: Data, v: Data, *_: Any, **__: Any
) -> Data:
    weights = _product(walk, q, Data(k.units.mT, k.scales.mT))
    return _product(walk, weights, v)


def _varies(labels: Tensor, axis: int) -> bool:
    first = labels.narrow(axis, 0, 1)
    return bool(((labels != first) & (labels != ZERO) & (first != ZERO)).any())


# --------------------------------------------------------------------------- normalisations


@rule("batch_norm", weights=True)
def _batch_norm(
    walk: Labelling,
    node: fx.Node,
    x: Data,
    weight: Labels | None,
    bias: Labels | None,
    mean: Labels | None,
    var: Labels | None,
    *_: Any,
) -> Data:
    inner = walk.along(x, [0, *range(2, x.units.dim())])
    walk.scales.say(inner.scales, NORMED | POSITIVE)
    for held, exponent in ((mean, 1), (var, 2)):
        if isinstance(held, Held):
            walk.joined(walk.vector(held, exponent, scaled=True), inner)
    return _affine(walk, x, inner, weight, bias, (1, -1, *[1] * (x.units.dim() - 2)))


def _affine(
    walk: Labelling,
    x: Data,
    inner: Data,
    weight: Labels | None,
    bias: Labels | None,
    view: tuple[int, ...],
) -> Data:
    """Weight and bias of a normalisation, which set the scales behind it."""
    scales = torch.zeros_like(inner.units)
    if isinstance(weight, Held):
        found = walk.vector(weight)
        walk.units.join(found.units, inner.units)
        scales = found.scales
    if isinstance(bias, Held):
        found = walk.vector(bias)
        walk.units.join(found.units, inner.units)
        walk.scales.join(found.scales, scales)
    return Data(inner.units.view(view).expand_as(x.units), scales.view(view).expand_as(x.units))


@rule("layer_norm", "rms_norm", weights=True)
def _layer_norm(
    walk: Labelling,
    node: fx.Node,
    x: Data,
    sizes: Sequence[int],
    weight: Labels | None = None,
    bias: Labels | None = None,
    *_: Any,
) -> Data:
    walk.unscaled(x)
    inner = walk.along(x, range(x.units.dim() - len(sizes)))
    bias = bias if operation(node) == "layer_norm" else None
    return _affine(walk, x, inner, weight, bias, tuple(inner.units.shape))


@rule("group_norm", weights=True)
def _group_norm(
    walk: Labelling,
    node: fx.Node,
    x: Data,
    groups: int,
    weight: Labels | None = None,
    bias: Labels | None = None,
    *_: Any,
) -> Data:
    walk.unscaled(x)
    inner = walk.along(x, [0, *range(2, x.units.dim())])
    walk.mark(inner.units.view(groups, -1))
    return _affine(walk, x, inner, weight, bias, (1, -1, *[1] * (x.units.dim() - 2)))


@rule("instance_norm", weights=True)
def _instance_norm(
    walk: Labelling,
    node: fx.Node,
    x: Data,
    weight: Labels | None,
    bias: Labels | None,
    mean: Labels | None,
    var: Labels | None,
    *_: Any,
) -> Data:
    if isinstance(mean, Held):
        return _batch_norm(walk, node, x, weight, bias, mean, var)
    walk.unscaled(x)
    inner = walk.along(x, [0, *range(2, x.units.dim())])
    return _affine(walk, x, inner, weight, bias, (1, -1, *[1] * (x.units.dim() - 2)))

"""Every lowering rule against PyTorch: values, derivatives, and independence of the samples."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from isogon import registry
from isogon.cpwl.lower import lower
from isogon.cpwl.stages import Affine, Kink
from isogon.cpwl.verify import verify
from isogon.nets.trace import trace

A = torch.ops.aten


class Call(nn.Module):
    """A function of one tensor as a module, with some constants to draw from."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@functools.cache
def const(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two(x):
    """Two different branches with kinks in both."""
    return F.relu(x), F.relu(0.3 - x)


MAT, VEC, IMG, SEQ, VOL = (2, 3, 4), (6,), (4, 6, 6), (4, 9), (2, 4, 5, 6)


def _put(x):
    x = F.relu(x)
    x[:, ~torch.tensor([True, False] * 3)] = -0.5
    return x


def _put_branch(x):
    base = torch.zeros_like(x)
    base[:, torch.tensor([4, 1])] = F.relu(x[:, :2])
    return base


# name: (function, sample shape)
LINEAR = {
    "linear": (lambda x: F.linear(x, const(5, 6), const(5)), VEC),
    "linear without bias": (lambda x: F.linear(x, const(5, 6)), VEC),
    "linear on a sequence": (lambda x: F.linear(x, const(5, 9), const(5)), SEQ),
    "matmul": (lambda x: x @ const(6, 3), VEC),
    "matmul from the left": (lambda x: torch.matmul(const(5, 4), x), SEQ),
    "mm": (lambda x: torch.mm(x, const(6, 3)), VEC),
    "mv": (lambda x: A.mv(x, const(6))[:, None], VEC),
    "bmm": (lambda x: torch.bmm(x, const(1, 9, 2).expand(x.shape[0], -1, -1)), SEQ),
    "addmm": (lambda x: torch.addmm(const(3), x, const(6, 3)), VEC),
    "addmm scaled": (lambda x: torch.addmm(const(3), x, const(6, 3), beta=2, alpha=0.5), VEC),
    "addmm of a branch": (lambda x: torch.addmm(F.relu(x), x, const(6, 6)), VEC),
    "baddbmm": (
        lambda x: torch.baddbmm(const(1, 4, 2), x, const(1, 9, 2).expand(x.shape[0], -1, -1)),
        SEQ,
    ),
    "einsum": (lambda x: torch.einsum("nct,tk->nkc", x, const(9, 2)), SEQ),
    "conv1d": (lambda x: F.conv1d(x, const(6, 2, 3), const(6), 2, 1, 1, 2), SEQ),
    "conv2d": (lambda x: F.conv2d(x, const(5, 4, 3, 3), const(5), 2, 1, 2), IMG),
    "conv2d same": (lambda x: F.conv2d(x, const(5, 4, 3, 3), None, 1, "same"), IMG),
    "conv1d same": (lambda x: F.conv1d(x, const(5, 4, 3), None, 1, "same"), SEQ),
    "conv3d same": (lambda x: F.conv3d(x, const(3, 2, 3, 3, 3), None, 1, "same"), VOL),
    "conv2d depthwise": (lambda x: F.conv2d(x, const(8, 1, 3, 3), const(8), 1, 1, 1, 4), IMG),
    "conv3d": (lambda x: F.conv3d(x, const(3, 2, 2, 2, 2), const(3)), VOL),
    "conv transpose 1d": (lambda x: F.conv_transpose1d(x, const(4, 3, 3), const(3), 2), SEQ),
    "conv transpose 2d": (
        lambda x: F.conv_transpose2d(x, const(4, 3, 3, 3), const(6), 2, 1, 1, 2, 2),
        IMG,
    ),
    "conv transpose 3d": (lambda x: F.conv_transpose3d(x, const(2, 3, 2, 2, 2), const(3)), VOL),
    "convolution": (
        lambda x: A.convolution(
            x, const(5, 4, 3, 3), const(5), [1, 1], [1, 1], [1, 1], False, [0, 0], 1
        ),
        IMG,
    ),
    "convolution transposed": (
        lambda x: A.convolution(
            x, const(4, 5, 3, 3), const(5), [2, 2], [1, 1], [1, 1], True, [1, 1], 1
        ),
        IMG,
    ),
    "batch norm": (
        lambda x: F.batch_norm(x, const(4), const(4).abs() + 0.5, const(4, seed=2), const(4)),
        IMG,
    ),
    "batch norm without weights": (
        lambda x: F.batch_norm(x, const(6), const(6).abs() + 0.5),
        VEC,
    ),
    "batch norm in a convolution": (
        lambda x: F.batch_norm(
            F.conv2d(x, const(5, 4, 3, 3), const(5)),
            const(5),
            const(5).abs(),
            const(5, seed=3),
            const(5, seed=4),
        ),
        IMG,
    ),
    "batch norm in a transposed convolution": (
        lambda x: F.batch_norm(
            F.conv_transpose2d(x, const(4, 3, 3, 3), None, groups=2),
            const(6),
            const(6).abs(),
            const(6, seed=3),
        ),
        IMG,
    ),
    "batch norm in a linear layer": (
        lambda x: F.batch_norm(
            F.linear(x, const(5, 6)), const(5), const(5).abs(), const(5, seed=3)
        ),
        VEC,
    ),
    "batch norm beside the layer's other reader": (lambda x: _two_readers(x), VEC),
    "batch norm, decomposed": (
        lambda x: A._native_batch_norm_legit_no_training(
            x, const(4), const(4), const(4), const(4).abs(), 0.1, 1e-5
        )[0],
        IMG,
    ),
    "batch norm, native": (
        lambda x: A.native_batch_norm(
            x, const(4), const(4), const(4), const(4).abs(), False, 0.1, 1e-5
        )[0],
        IMG,
    ),
    "add": (lambda x: sum(two(x)), VEC),
    "add to itself": (lambda x: x + x, VEC),
    "add number": (lambda x: 2 + (x + 1.5), VEC),
    "add scalar": (lambda x: A.add.Scalar(x, 1.5, 2), VEC),
    "add constant, alpha": (lambda x: torch.add(x, const(6), alpha=3), VEC),
    "add constant that broadcasts": (lambda x: x[:, :1] + const(1, 6), VEC),
    "add branches that broadcast": (lambda x: x + F.relu(x[:, :1]), VEC),
    "sub": (lambda x: torch.sub(*two(x), alpha=2), VEC),
    "sub from a number": (lambda x: 1 - x, VEC),
    "sub scalar": (lambda x: A.sub.Scalar(A.rsub.Scalar(x, 1.0, 3), 2, 2), VEC),
    "rsub": (lambda x: torch.rsub(*two(x), alpha=3), VEC),
    "neg": (lambda x: -x, VEC),
    "mul": (lambda x: const(6) * (x * 0.5), VEC),
    "mul scalar": (lambda x: A.mul.Scalar(x, 0.5), VEC),
    "div": (lambda x: (x / const(6)) / 3, VEC),
    "div scalar": (lambda x: A.div.Scalar(A.true_divide.Tensor(x, const(6)), 3), VEC),
    "div without rounding": (
        lambda x: A.div.Scalar_mode(
            torch.div(x, const(6), rounding_mode=None), 2, rounding_mode=None
        ),
        VEC,
    ),
    "div mode": (lambda x: A.div.Tensor_mode(x, const(6), rounding_mode=None), VEC),
    "addcmul": (lambda x: torch.addcmul(x, F.relu(x), const(6), value=0.5), VEC),
    "lerp": (lambda x: torch.lerp(*two(x), 0.3), VEC),
    "lerp tensor": (lambda x: torch.lerp(F.relu(x), const(1, 6), const(6)), VEC),
    "mean": (lambda x: x.mean((2, 3)), IMG),
    "mean keep": (lambda x: x.mean((-1, -2), keepdim=True), IMG),
    "sum": (lambda x: x.sum(1), IMG),
    "cumsum": (lambda x: x.cumsum(1), VEC),
    "diff": (lambda x: x.diff(), VEC),
    "avg pool 1d": (lambda x: F.avg_pool1d(x, 3, 2, 1), SEQ),
    "avg pool 2d": (lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), IMG),
    "avg pool 3d": (lambda x: F.avg_pool3d(x, 2), VOL),
    "adaptive avg pool 1d": (lambda x: F.adaptive_avg_pool1d(x, 4), SEQ),
    "adaptive avg pool 2d": (lambda x: F.adaptive_avg_pool2d(x, (4, 1)), IMG),
    "adaptive avg pool 3d": (lambda x: F.adaptive_avg_pool3d(x, 2), VOL),
    "adaptive avg pool native": (lambda x: A._adaptive_avg_pool2d(x, [2, 2]), IMG),
    "adaptive avg pool native 3d": (lambda x: A._adaptive_avg_pool3d(x, [2, 2, 2]), VOL),
    "unfold (im2col)": (lambda x: F.unfold(x, 3), IMG),
    "fold (col2im)": (lambda x: F.fold(F.unfold(x, 3), (6, 6), 3), IMG),
    "grid sample": (
        lambda x: F.grid_sample(
            x, const(1, 5, 5, 2).expand(x.shape[0], -1, -1, -1), align_corners=False
        ),
        IMG,
    ),
    "grid sample 2d": (
        lambda x: A.grid_sampler_2d(
            x, const(1, 5, 5, 2).expand(x.shape[0], -1, -1, -1), 0, 0, False
        ),
        IMG,
    ),
    **{
        f"upsample {mode} {axes}d by {how}": (
            lambda x, mode=mode, options=options: F.interpolate(x, mode=mode, **options),
            shape,
        )
        for axes, shape, modes in (
            (1, SEQ, ("nearest", "nearest-exact", "linear")),
            (2, IMG, ("nearest", "nearest-exact", "bilinear", "bicubic")),
            (3, VOL, ("nearest", "nearest-exact", "trilinear")),
        )
        for mode in modes
        for how, options in (("factor", {"scale_factor": 2}), ("size", {"size": (7,) * axes}))
    },
    "upsample bilinear corners": (
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
        IMG,
    ),
    "upsample antialias": (
        lambda x: F.interpolate(x, size=(3, 3), mode="bilinear", antialias=True),
        IMG,
    ),
    "upsample native": (
        lambda x: A.upsample_nearest2d.default(
            A.upsample_bilinear2d.default(x, [9, 9], False), [12, 12]
        ),
        IMG,
    ),
    "upsample native 1d": (
        lambda x: A.upsample_nearest1d.default(A.upsample_linear1d.default(x, [9], False), [12]),
        SEQ,
    ),
    "upsample native 3d": (
        lambda x: A.upsample_nearest3d.default(
            A.upsample_trilinear3d.default(x, [5, 5, 5], False), [7, 7, 7]
        ),
        VOL,
    ),
    # entries moved
    "view": (lambda x: x.view(x.shape[0], 3, 2), VEC),
    "reshape": (lambda x: x.reshape(-1, 16, 9), IMG),
    "flatten": (lambda x: x.flatten(1), IMG),
    "flatten inner": (lambda x: x.flatten(2), IMG),
    "unflatten": (lambda x: x.unflatten(1, (2, 3)), VEC),
    "view_as": (lambda x: x.view_as(x) + A.reshape_as(x, x), VEC),
    "_unsafe_view": (
        lambda x: A._reshape_alias(
            A._unsafe_view(x, [x.shape[0], 3, 2]), [x.shape[0], 2, 3], [6, 3, 1]
        ),
        VEC,
    ),
    "squeeze": (lambda x: x.squeeze(1).unsqueeze(-1).squeeze((1, 2)), (1, 1, 5)),
    "squeeze all": (lambda x: x.squeeze(), (1, 5)),
    "identities": (lambda x: A.positive(A.alias(A.detach(x.clone().contiguous()))), VEC),
    "lift": (lambda x: A.lift_fresh_copy(x), VEC),
    "casts": (lambda x: x.to(torch.float64).double().type_as(x).to(x), VEC),
    "casts, other": (
        lambda x: A.to.other(
            A.to.device(A.to.dtype_layout(x, dtype=torch.float64), "cpu", torch.float64), x
        ),
        VEC,
    ),
    "_to_copy": (lambda x: A._to_copy(x, dtype=torch.float64), VEC),
    "dropout": (
        lambda x: F.dropout(
            F.feature_dropout(x, 0.5, False) if hasattr(F, "feature_dropout") else x, 0.5, False
        ),
        VEC,
    ),
    "dropouts": (
        lambda x: A.feature_alpha_dropout(
            A.alpha_dropout(A.feature_dropout(x, 0.5, False), 0.5, False), 0.5, False
        ),
        IMG,
    ),
    "dropout native": (lambda x: A.native_dropout(x, 0.5, False)[0], VEC),
    "permute": (lambda x: x.permute(0, 3, 1, 2), IMG),
    "transpose": (lambda x: x.transpose(1, -1), IMG),
    "mT": (lambda x: x.mT, SEQ),
    "slice": (lambda x: x[:, 1:5:2, :-1], IMG),
    "slice of all samples": (lambda x: x[:], VEC),
    "select": (lambda x: x[:, 1], IMG),
    "narrow": (lambda x: x.narrow(1, 1, 2), IMG),
    "flip": (lambda x: x.flip(1, 2), IMG),
    "roll": (lambda x: x.roll((1, 2), (1, 2)), IMG),
    "movedim": (lambda x: x.movedim(1, -1).swapaxes(1, 2), IMG),
    "movedims": (lambda x: x.movedim((1, 2), (2, 3)), IMG),
    "pixel shuffle": (lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 3), IMG),
    "channel shuffle": (lambda x: F.channel_shuffle(x, 2), IMG),
    "unfold": (lambda x: x.unfold(2, 3, 2), SEQ),
    "index select": (lambda x: x.index_select(1, torch.tensor([2, 0, 0])), VEC),
    "diagonal": (lambda x: x.diagonal(dim1=2, dim2=3), IMG),
    "triu": (lambda x: x.triu() + x.tril(), IMG),
    "repeat interleave": (lambda x: x.repeat_interleave(2, 1), VEC),
    "reflection pad": (lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"), IMG),
    "replication pad 1d": (lambda x: F.pad(x, (1, 2), mode="replicate"), SEQ),
    "circular pad": (lambda x: F.pad(x, (1, 2), mode="circular"), SEQ),
    "reflection pads": (
        lambda x: A.reflection_pad1d(x, [1, 2]) + A.replication_pad1d(x, [1, 2]),
        SEQ,
    ),
    "reflection pads 2d": (
        lambda x: A.reflection_pad2d(x, [1, 2, 0, 1]) + A.replication_pad2d(x, [1, 2, 0, 1]),
        IMG,
    ),
    "reflection pads 3d": (
        lambda x: A.reflection_pad3d(x, [1] * 6) + A.replication_pad3d(x, [1] * 6),
        VOL,
    ),
    "pad": (lambda x: F.pad(x, (1, 2, -1, 1)), IMG),
    "pad by a number": (
        lambda x: A.constant_pad_nd(F.pad(x, (1, 2), value=1.5), [0, 1], -2.0),
        IMG,
    ),
    "expand": (lambda x: x[:, :1].expand(-1, 6) + A.broadcast_to(x[:, 1:2], [x.shape[0], 6]), VEC),
    "expand as": (lambda x: x[:, :1].expand_as(x), VEC),
    "repeat": (lambda x: x.repeat(1, 2) + x.tile(2), VEC),
    "index": (lambda x: x[:, :, torch.tensor([0, 3]), torch.tensor([1, 2])], IMG),
    "index last": (lambda x: x[..., torch.tensor([[0, 3], [1, 1]])], VEC),
    "index by a mask": (
        lambda x: F.linear(F.relu(x)[:, ~torch.tensor([True, False] * 3)], const(4, 3)),
        VEC,
    ),
    "index put": (_put, VEC),
    "index put a branch": (_put_branch, VEC),
    "index put, added": (
        lambda x: A.index_put(x, [None, torch.tensor([0, 0, 3])], x[:, :3], True),
        VEC,
    ),
    "unsafe index": (lambda x: A._unsafe_index(x, [None, torch.tensor([0, 3])]), VEC),
    "gather": (
        lambda x: x.gather(1, torch.tensor([[0, 2, 2]]).expand(x.shape[0], -1)),
        VEC,
    ),
    "cat": (lambda x: torch.cat([x, F.relu(x), x], 1), VEC),
    "cat with a constant": (
        lambda x: A.concatenate([A.concat([x, const(1, 2).expand(x.shape[0], -1)], 1), x], 1),
        VEC,
    ),
    "class token": (
        lambda x: torch.cat([const(1, 1, 9).expand(x.shape[0], -1, -1), x], 1) + const(1, 5, 9),
        SEQ,
    ),
    "stack": (lambda x: torch.stack([x, -x], 2).flatten(1), VEC),
    "hstack": (lambda x: A.hstack([x, -x]), VEC),
    "written into": (lambda x: _write(x), VEC),
    "scatter": (
        lambda x: A.select_scatter(
            A.slice_scatter(x, const(1, 2).expand(x.shape[0], -1), 1, 0, 2), x[:, 0], 1, 3
        ),
        VEC,
    ),
    "copy": (lambda x: A.copy(x, x[:, :1] * 2), VEC),
    "fill": (lambda x: x + A.fill.Scalar(x, 2.0) + A.fill.Tensor(x, torch.tensor(3.0)), VEC),
    "like": (
        lambda x: x + torch.zeros_like(x) + torch.ones_like(x) + torch.full_like(x, 2.0),
        VEC,
    ),
    "empty like": (lambda x: x + torch.empty_like(x).fill_(2.0), VEC),
    "new": (lambda x: x + x.new_zeros(6) + x.new_ones(6) + x.new_full((6,), 2.0), VEC),
    "split": (lambda x: _weave(x.split(4, 1)), VEC),
    "split with sizes": (lambda x: _weave(x.split([1, 2, 3], 1)), VEC),
    "split sizes": (lambda x: _weave(A.split.sizes(x, [1, 2, 3], 1)), VEC),
    "chunk": (lambda x: _weave(x.chunk(4, 1)), VEC),
    "unbind": (lambda x: _weave([c[:, None] for c in x.unbind(1)]), VEC),
    "tensor split": (lambda x: _weave(x.tensor_split(4, 1)), VEC),
}

KINKS = {
    "relu": (F.relu, VEC),
    "relu in place": (lambda x: F.relu(x * 1, inplace=True), VEC),
    "leaky relu": (lambda x: F.leaky_relu(x, 0.2), VEC),
    "leaky relu, steep": (lambda x: F.leaky_relu(x, 2.0), VEC),
    "prelu": (lambda x: F.prelu(x, const(4)), IMG),
    "prelu, one slope": (lambda x: F.prelu(x, const(1)), VEC),
    "prelu kernel": (lambda x: A._prelu_kernel(x, const(1, 4, 1, 1)), IMG),
    "rrelu": (lambda x: F.rrelu(x, 0.1, 0.4), VEC),
    "relu6": (lambda x: F.relu6(3 * x), VEC),
    "relu6 native": (lambda x: A.relu6(3 * x), VEC),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 0.7), VEC),
    "clamp": (lambda x: x.clamp(-0.5, 0.7), VEC),
    "clip": (lambda x: A.clip(x, -0.5, 0.7) + A.clip.Tensor(x, const(6), None), VEC),
    "clamp min": (lambda x: x.clamp(min=0.2) + A.clamp_min(x, 0.1), VEC),
    "clamp max": (lambda x: x.clamp(max=0.2) + A.clamp_max(x, 0.1), VEC),
    "clamp by tensors": (
        lambda x: x.clamp(-const(6).abs(), const(6).abs()) + A.clamp_min.Tensor(x, const(6)),
        VEC,
    ),
    "clamp max by a tensor": (lambda x: A.clamp_max.Tensor(x, const(6)), VEC),
    "clamp to one value": (lambda x: x + x.clamp(0.5, 0.2), VEC),
    "clamp without a bound": (lambda x: x.clamp(min=-float("inf")), VEC),
    "hardsigmoid": (lambda x: F.hardsigmoid(3 * x), VEC),
    "abs": (torch.abs, VEC),
    "threshold": (lambda x: F.threshold(x, 0.3, 0.3), VEC),
    "softshrink": (lambda x: F.softshrink(x, 0.4), VEC),
    "softshrink by nothing": (lambda x: F.softshrink(x, 0.0), VEC),
    "where": (lambda x: torch.where(x > 0, x, 0.1 * x), VEC),
    "where less": (lambda x: torch.where(2 * x + 1 <= 0, -3.0, 4 * x - 1), VEC),
    "where at a constant": (lambda x: torch.where(const(6) < x, 2 * x - const(6), x), VEC),
    "where, downward": (lambda x: torch.where(1 - x >= 0.5, 0.5, x), VEC),
    "where of two numbers": (lambda x: x + torch.where(x > 0, 1.0, 1.0), VEC),
    "where tensors": (
        lambda x: (
            torch.where(A.ge.Tensor(x, const(6)), x, const(6))
            + torch.where(A.le.Tensor(x, const(6)), x, const(6))
            + torch.where(A.lt.Tensor(x, const(6)), x, const(6))
        ),
        VEC,
    ),
    "where not": (lambda x: torch.where(~(x > 0), torch.zeros(()), x), VEC),
    "where logical not": (lambda x: torch.where(torch.logical_not(x < 0), x, 0), VEC),
    "where mask": (lambda x: torch.where(const(6) > 0, x, 2 - x), VEC),
    "where scalars": (
        lambda x: A.where.ScalarOther(x > 0, x, 0.0) + A.where.ScalarSelf(x > 0, 0.0, x),
        VEC,
    ),
    "where both scalars": (lambda x: x + A.where.Scalar(x > 0, 1.0, 1.0), VEC),
    "times its sign": (lambda x: x * (x > 0), VEC),
    "times a mask": (lambda x: (x > 0).to(x.dtype) * x, VEC),
    "masked fill": (lambda x: x.masked_fill(x < 0, 0.0), VEC),
    "masked fill by a constant mask": (lambda x: x.masked_fill(const(6) > 0, 3.0), VEC),
    "masked fill tensor": (lambda x: x.masked_fill(x < 1, torch.tensor(1.0)), VEC),
}

MAXIMA = {
    "maximum": (lambda x: torch.maximum(*two(x)), VEC),
    "max other": (lambda x: torch.max(*two(x)) + torch.fmax(x, -x), VEC),
    "maximum with a constant": (lambda x: torch.maximum(const(6), x), VEC),
    "maximum that broadcasts": (lambda x: torch.maximum(x, x[:, :1]), VEC),
    "minimum": (lambda x: torch.minimum(*two(x)), VEC),
    "minimum with a constant": (lambda x: torch.minimum(const(6), x), VEC),
    "min other": (lambda x: torch.min(*two(x)) + torch.fmin(x, -x), VEC),
    "maxout": (lambda x: x.view(x.shape[0], 2, 3).amax(2), VEC),
    "amax keep": (lambda x: x.amax((1, 3), keepdim=True), IMG),
    "amax of one": (lambda x: x.unsqueeze(2).amax(2), VEC),
    "amin": (lambda x: x.amin(-1), IMG),
    "max over an axis": (lambda x: x.max(1).values, IMG),
    "min over an axis": (lambda x: x.min(1, keepdim=True)[0], IMG),
    "max pool 1d": (lambda x: F.max_pool1d(x, 3, 2, 1), SEQ),
    "max pool 2d": (lambda x: F.max_pool2d(x, 3, 2, 1), IMG),
    "max pool 2d oblong": (lambda x: F.max_pool2d(x, (3, 2), (1, 2), (1, 0)), IMG),
    "max pool 2d ceil": (lambda x: F.max_pool2d(x, 3, 2, 0, ceil_mode=True), (2, 6, 6)),
    "max pool 2d dilated": (lambda x: F.max_pool2d(x, 2, 1, 1, dilation=2), IMG),
    "max pool 3d": (lambda x: F.max_pool3d(x, 2), VOL),
    "max pool with indices": (lambda x: F.max_pool2d(x, 2, return_indices=True)[0], IMG),
    "max pool 3d with indices": (lambda x: F.max_pool3d(x, 2, return_indices=True)[0], VOL),
    "adaptive max pool 1d": (lambda x: F.adaptive_max_pool1d(x, 4), SEQ),
    "adaptive max pool 2d": (lambda x: F.adaptive_max_pool2d(x, (4, 5)), IMG),
    "adaptive max pool 3d": (lambda x: F.adaptive_max_pool3d(x, (2, 2, 4)), VOL),
    "sorted pairs": (lambda x: _max_min(x), VEC),
}  # fmt: skip

CASES = {**LINEAR, **KINKS, **MAXIMA}


def _two_readers(x):
    z = F.linear(x, const(5, 6))
    return F.batch_norm(z, const(5), const(5).abs()) + z


def _write(x):
    y = x * 2
    y[:, 0] = 3.0
    y[:, 1:3] = x[:, 3:5]
    y[:, 4] += x[:, 0]
    return y


def _weave(parts):
    return torch.cat([part * (k + 1) for k, part in enumerate(parts)], 1)


def _max_min(x):
    a, b = x.chunk(2, 1)
    return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], 1)


def points(shape, count=6):
    return torch.randn(
        count, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )


@functools.cache
def built(name):
    """The case's module, called once so that its constants exist before it is traced."""
    function, shape = CASES[name]
    model, x = Call(function), points(shape)
    model(x.clone())
    return model, x


def tangent(program, x, v):
    """Derivative of the program at `x` along `v`, stage by stage through the linear pieces."""
    moves = {program.input: v}
    for stage, arguments, result in program.steps(x):
        along = [moves[name] for name in stage.inputs]
        if isinstance(stage, Affine):
            moved = stage.linear(*along)
        elif isinstance(stage, Kink):
            moved = stage.slope(stage.piece(arguments[0])) * along[0]
        else:
            winner = stage.candidates(*arguments).argmax(-1)
            moved = stage.choose(winner, *along)
        moves[stage.output] = moved.expand_as(result)
    return moves[program.output]


@pytest.mark.parametrize("name", CASES)
def test_rule(name):
    model, x = built(name)
    given = model(x.clone())
    program = lower(model, x)
    torch.testing.assert_close(program.evaluate(x), given, rtol=1e-12, atol=1e-12)
    assert tuple(program.shapes[program.output]) == tuple(given.shape[1:])
    # one sample at a time, and a derivative within the linear pieces
    alone = torch.cat([program.evaluate(row[None]) for row in x])
    torch.testing.assert_close(alone, given, rtol=1e-12, atol=1e-12)
    v = x.flip(0)
    moved = torch.func.jvp(lambda t: model(t.clone()), (x,), (v,))[1] if _has_jvp(name) else None
    if moved is not None:
        torch.testing.assert_close(tangent(program, x, v), moved, rtol=1e-6, atol=1e-7)
    for stage in program.stages:  # the fast call is the same function as the definition
        if isinstance(stage, Affine):
            zero = [torch.zeros(2, *program.shapes[n], dtype=torch.float64) for n in stage.inputs]
            assert not stage.linear(*zero).any()
        elif isinstance(stage, Kink):
            z = torch.randn(64, *program.shapes[stage.output], dtype=torch.float64) * 4
            slow = Kink(**{**vars(stage), "apply": None})
            torch.testing.assert_close(stage(z), slow(z), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(stage(z), stage.on_piece(z, stage.piece(z)))
        else:
            values = [torch.randn(5, *program.shapes[n], dtype=torch.float64) for n in stage.inputs]
            slow = stage.candidates(*values).amax(-1).reshape(-1, *stage.shape)
            assert torch.equal(stage(*values), slow)


# operations without a forward-mode derivative in PyTorch, or cut off from it on purpose
def _has_jvp(name):
    return name not in (
        "identities", "batch norm, native", "upsample antialias", "rrelu", "fold (col2im)",
        "conv3d same", "where not", "copy", "grid sample", "grid sample 2d",
    )  # fmt: skip


REFUSING = ("maximum_over_samples", "reduce_over_samples", "move_samples")


def test_every_rule_is_in_the_table():
    from isogon.cpwl import rules

    used = set()
    for name in CASES:
        used |= {str(n.target) for n in trace(*built(name)).nodes}
    home = rules.__name__
    known = {e.name for e in registry.entries("lowers") if e.build.__module__.startswith(home)}
    refusing = {e.name for e in registry.entries("lowers") if e.build.__name__ in REFUSING}
    elsewhere = {"isogon.piecewise_linear.default", "aten.contiguous.default"}
    missing = sorted(known - used - refusing - elsewhere)
    assert not missing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_verify_on_layers(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(), nn.Linear(36, 5), nn.Hardtanh(), nn.Linear(5, 3),
        nn.LogSoftmax(1),
    ).to(dtype)  # fmt: skip
    certificate = verify(model, torch.rand(2, 1, 8, 8, dtype=dtype))
    assert certificate.passed
    assert certificate["relative error"].value < 1e-13
    assert certificate.facts["precision"] == "float64"
    assert model.training

"""Maxima over groups of entries: max-pooling, maximum of branches, maxima along an axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isogon.cpwl.lowering import Lowering, Opaque, Ref
from isogon.cpwl.rules.arithmetic import broadcast
from isogon.cpwl.rules.kinks import bend
from isogon.registry import lowers


def negative(lower: Lowering, x: Ref) -> Ref:
    """`-x`, in the shape of x."""
    return lower.linear(torch.neg, x, shape=x.shape, copies=True)


# --------------------------------------------------------------------------- two branches


def _entries(x: Ref, sizes: tuple[int, ...], start: int) -> Tensor:
    index = torch.arange(start, start + math.prod(x.shape)).reshape(1, *x.shape)
    return broadcast(index, sizes)[0]


def larger(lower: Lowering, a, b, apply=None) -> Ref:
    """`max(a, b)` element by element."""
    if not isinstance(a, Ref):
        a, b = b, a
    if not isinstance(b, Ref):
        return bend(lower, a, b, None)
    sizes = tuple(torch.broadcast_shapes(a.shape, b.shape))
    first, second = _entries(a, sizes, 0), _entries(b, sizes, math.prod(a.shape))
    return lower.maximum(torch.stack([first, second], -1), a, b, apply=apply, shape=sizes)


@lowers("aten.maximum.default", "aten.max.other", "aten.fmax.default")
def maximum(lower: Lowering, a, b):
    """The larger of two branches, or of a branch and a constant."""
    return larger(lower, a, b, torch.maximum)


@lowers("aten.minimum.default", "aten.min.other", "aten.fmin.default")
def minimum(lower: Lowering, a, b):
    """The smaller of two branches, or of a branch and a constant."""
    if not isinstance(a, Ref):
        a, b = b, a
    if not isinstance(b, Ref):
        return bend(lower, a, None, b)
    return negative(lower, larger(lower, negative(lower, a), negative(lower, b), torch.maximum))


# --------------------------------------------------------------------------- along axes


def _along(lower: Lowering, x: Ref, dims: list[int], keep: bool) -> Ref:
    """The maximum over some axes."""
    axes = sorted(d % x.ndim - 1 for d in dims)
    if not axes or axes[0] < 0:
        lower.refuse("mixes the samples of a batch", "Reduce over dimensions from 1 on.")
    index = torch.arange(math.prod(x.shape)).reshape(x.shape)
    rest = [a for a in range(len(x.shape)) if a not in axes]
    kept = tuple(x.shape[a] for a in rest)
    index = index.permute(*rest, *axes).reshape(*kept, -1)
    sizes = tuple(1 if a in axes else n for a, n in enumerate(x.shape)) if keep else kept
    batched = [a + 1 for a in axes]
    return lower.maximum(
        index.reshape(*sizes, -1), x, apply=lambda v: v.amax(batched, keep), shape=sizes
    )


def _dims(x: Ref, dim) -> list[int]:
    dims = [dim] if isinstance(dim, int) else list(dim)
    return dims or list(range(x.ndim))


@lowers("aten.amax.default")
def amax(lower: Lowering, x, dim=(), keepdim=False):
    """The largest entry along axes (maxout is one of them after a reshape)."""
    return _along(lower, x, _dims(x, dim), keepdim)


@lowers("aten.amin.default")
def amin(lower: Lowering, x, dim=(), keepdim=False):
    """The smallest entry along axes."""
    return negative(lower, _along(lower, negative(lower, x), _dims(x, dim), keepdim))


@lowers("aten.max.dim")
def max_dim(lower: Lowering, x, dim, keepdim=False):
    """The largest entry along an axis; its position can't be used."""
    return _along(lower, x, [dim], keepdim), Opaque("positions of maxima")


@lowers("aten.min.dim")
def min_dim(lower: Lowering, x, dim, keepdim=False):
    """The smallest entry along an axis; its position can't be used."""
    found = negative(lower, _along(lower, negative(lower, x), [dim], keepdim))
    return found, Opaque("positions of minima")


@lowers("aten.max.default", "aten.min.default")
def maximum_over_samples(lower: Lowering, x):
    """A maximum over the samples too."""
    lower.refuse("mixes the samples of a batch", "Reduce over dimensions from 1 on.")


# --------------------------------------------------------------------------- pooling


def _each(value, axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def windows(sizes: tuple[int, ...], positions: list[Tensor]) -> Tensor:
    """Entries of each pooling window, -1 outside.

    Args:
        sizes: Sample shape `(C, *space)`.
        positions: Per spatial axis `[out, k]`: positions that the window covers, -1 outside.

    Returns:
        `[C, *out, K]`.
    """
    spatial = len(positions)
    entry = torch.zeros((), dtype=torch.int64)
    valid = torch.ones((), dtype=torch.bool)
    for axis, position in enumerate(positions):
        shape = [1] * (2 * spatial)
        shape[axis], shape[spatial + axis] = position.shape
        position = position.reshape(shape)
        entry = entry * sizes[1 + axis] + position.clamp(min=0)
        valid = valid & (position >= 0)
    channel = torch.arange(sizes[0]).reshape(-1, *(1,) * (2 * spatial))
    found = torch.where(valid, channel * math.prod(sizes[1:]) + entry, -1)
    return found.reshape(sizes[0], *(p.shape[0] for p in positions), -1)


def _pool(lower: Lowering, x: Ref, size, stride, padding, dilation, out, apply) -> Ref:
    """Max-pooling with regular windows, `out` of them per axis."""
    axes = len(x.shape) - 1
    kernel = _each(size, axes)
    strides = _each(stride, axes) if stride not in (None, [], ()) else kernel
    positions = []
    for n, k, s, p, d, m in zip(
        x.shape[1:], kernel, strides, _each(padding, axes), _each(dilation, axes), out
    ):
        at = torch.arange(m)[:, None] * s - p + torch.arange(k) * d
        positions.append(torch.where((at >= 0) & (at < n), at, -1))
    index = windows(x.shape, positions)
    return lower.maximum(index, x, apply=apply, shape=tuple(index.shape[:-1]))


@lowers("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.max_pool3d.default")
def max_pool(lower: Lowering, x, size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The largest entry in each window."""
    op, rest = lower.target, (size, stride or [], padding, dilation, ceil_mode)
    return _pool(lower, x, size, stride, padding, dilation, lower.shape[1:], lambda v: op(v, *rest))


@lowers("aten.max_pool2d_with_indices.default", "aten.max_pool3d_with_indices.default")
def max_pool_with_indices(
    lower: Lowering, x, size, stride=None, padding=0, dilation=1, ceil_mode=False
):
    """The largest entry in each window; its position can't be used."""
    op, rest = lower.target, (size, stride or [], padding, dilation, ceil_mode)
    out = op(torch.zeros(1, *x.shape), *rest)[0].shape[2:]
    found = _pool(lower, x, size, stride, padding, dilation, out, lambda v: op(v, *rest)[0])
    return found, Opaque("positions of maxima")


@lowers("aten.adaptive_max_pool1d.default", "aten.adaptive_max_pool2d.default")
@lowers("aten.adaptive_max_pool3d.default")
def adaptive_max_pool(lower: Lowering, x, size):
    """The largest entry in each of a given number of windows."""
    op, axes = lower.target, len(x.shape) - 1
    positions = []
    for n, m in zip(x.shape[1:], _each(size, axes)):
        start = [i * n // m for i in range(m)]
        stop = [-(-(i + 1) * n // m) for i in range(m)]
        widest = max(b - a for a, b in zip(start, stop))
        at = torch.tensor(start)[:, None] + torch.arange(widest)
        positions.append(torch.where(at < torch.tensor(stop)[:, None], at, -1))
    index = windows(x.shape, positions)
    found = lower.maximum(index, x, apply=lambda v: op(v, size)[0], shape=tuple(index.shape[:-1]))
    return found, Opaque("positions of maxima")

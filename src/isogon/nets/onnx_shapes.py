"""ONNX operators that move, copy, drop or pad entries, and reductions along axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isogon.errors import UnsupportedOp
from isogon.nets.onnx_operands import Operands

__all__ = ["SHAPES"]


def _reshape(o: Operands):
    target = o.ints("shape", 1)
    x = o.inputs[0]
    assert target is not None
    assert x is not None
    if not o.get("allowzero", 0):
        target = [x.shape[i] if n == 0 else n for i, n in enumerate(target)]
    out = list(torch.empty(x.shape, device="meta").reshape(target).shape)
    keeps = o.depends[0] and x.ndim > 0 and bool(out) and x.shape[0] == out[0] == o.count
    tail = tuple(out[1:])

    def reshape(x: Tensor, *_: Any) -> Tensor:
        return x.reshape(x.shape[0], *tail) if keeps else x.reshape(target)

    return reshape


def _flatten(o: Operands):
    axis = o.get("axis", 1)
    x = o.inputs[0]
    assert x is not None
    axis %= x.ndim + 1
    if axis == 1:
        return nn.Flatten() if o.depends[0] else (lambda x: x.flatten(1))
    return lambda x: x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(o: Operands):
    axes = o.ints("axes", 1)
    if axes is None:
        x = o.inputs[0]
        assert x is not None
        axes = [i for i, n in enumerate(x.shape) if n == 1 and (i or not o.depends[0])]
    return lambda x, *_: x.squeeze(tuple(axes))


def _unsqueeze(o: Operands):
    axes = o.ints("axes", 1) or []
    x = o.inputs[0]
    assert x is not None
    axes = sorted(a % (x.ndim + len(axes)) for a in axes)

    def unsqueeze(x: Tensor, *_: Any) -> Tensor:
        for axis in axes:
            x = x.unsqueeze(axis)
        return x

    return unsqueeze


def _transpose(o: Operands):
    x = o.inputs[0]
    assert x is not None
    order = o.get("perm", list(range(x.ndim))[::-1])
    return lambda x: x.permute(order)


def _split(o: Operands):
    axis, sizes = o.get("axis", 0), o.ints("split", 1)
    x = o.inputs[0]
    assert x is not None
    if sizes is None:
        count = o.outputs
        size = -(-x.shape[axis] // count)
        sizes = [min(size, x.shape[axis] - i * size) for i in range(count)]
    return lambda x, *_: x.split(sizes, axis)


def _slice(o: Operands):
    x = o.inputs[0]
    assert x is not None
    starts, ends = o.ints("starts", 1), o.ints("ends", 2)
    assert starts is not None
    assert ends is not None
    axes = o.ints("axes", 3) or list(range(len(starts)))
    steps = o.ints("steps", 4) or [1] * len(starts)

    def cut(x: Tensor, *_: Any) -> Tensor:
        for start, end, axis, step in zip(starts, ends, axes, steps):
            size = x.shape[axis]
            if axis % x.ndim == 0 and start == 0 and step == 1 and end >= o.count:
                continue  # all samples
            if step < 0:
                first = min(start + size if start < 0 else start, size - 1)
                last = max(end + size if end < 0 else end, -1) if end > -(2**31) else -1
                x = x.index_select(axis, torch.arange(first, last, step))
            else:
                at = [slice(None)] * x.ndim
                at[axis] = slice(start, end if end < 2**31 else None, step)
                x = x[tuple(at)]
        return x

    return cut


def _gather(o: Operands):
    axis, at = o.get("axis", 0), o.inputs[1]
    assert at is not None
    if o.depends[1]:
        return lambda x, i: torch.nn.functional.embedding(i, x)
    o.static.add(1)
    if at.ndim == 0:
        position = int(at)
        return lambda x, _: x.select(axis, position)
    flat = at.flatten()

    def gather(x: Tensor, _: Any) -> Tensor:
        found = x.index_select(axis, flat % x.shape[axis])
        where = axis % x.ndim
        return found.reshape(*x.shape[:where], *at.shape, *x.shape[where + 1 :])

    return gather


def _pad(o: Operands):
    x = o.inputs[0]
    assert x is not None
    pads = o.ints("pads", 1) or []
    value = o.number("value", 2, 0.0)
    axes = o.ints("axes", 3) or list(range(x.ndim))
    both = {a % x.ndim: (pads[i], pads[i + len(axes)]) for i, a in enumerate(axes)}
    order = [n for a in reversed(range(x.ndim)) for n in both.get(a, (0, 0))]
    while len(order) > 2 and order[-2:] == [0, 0]:
        order = order[:-2]
    mode = {"edge": "replicate", "wrap": "circular"}.get(o.get("mode", "constant"), o.get("mode"))
    if mode in (None, "constant"):
        return lambda x, *_: F.pad(x, order, value=value)
    return lambda x, *_: F.pad(x, order, mode)


def _expand(o: Operands):
    sizes = o.ints("shape", 1) or []

    def expand(x: Tensor, *_: Any) -> Tensor:
        wanted = [1] * (x.ndim - len(sizes)) + sizes
        missing = len(wanted) - x.ndim
        now = [1] * missing + list(x.shape)
        if not o.depends[0]:
            return x.expand([max(n, w) for n, w in zip(now, wanted)])
        kept = [w == 1 or (i == 0 and w == o.count) for i, w in enumerate(wanted)]
        return x.expand([n if keep else w for n, w, keep in zip(now, wanted, kept)])

    return expand


def _tile(o: Operands):
    repeats = o.ints("repeats", 1) or []
    return lambda x, *_: x.tile(repeats)


def _resize(o: Operands):
    x = o.inputs[0]
    assert x is not None
    old = o.version < 11
    scales = o.get("scales") or o.read(1 if old else 2, "scales") or None
    sizes = None if old else o.read(3, "sizes")
    o.static.update(range(1, len(o.inputs)))
    mode, place = o.get("mode", "nearest"), o.get("coordinate_transformation_mode", "half_pixel")
    if old:
        place = "asymmetric"
    space = x.ndim - 2
    out = (
        [int(n) for n in sizes[-space:]]
        if sizes
        else [math.floor(n * s) for n, s in zip(x.shape[-space:], (scales or [])[-space:])]
    )
    kind = {1: "linear", 2: "bilinear", 3: "trilinear"}.get(space, "linear")
    if mode == "nearest":
        rounding = o.get("nearest_mode", "floor" if old else "round_prefer_floor")
        whole = all(m % n == 0 for n, m in zip(x.shape[-space:], out))
        if (place, rounding) == ("asymmetric", "floor") or (whole and place == "half_pixel"):
            return lambda x, *_: F.interpolate(x, size=out, mode="nearest")
    elif mode in ("linear", "cubic"):
        how = kind if mode == "linear" else "bicubic"
        if place in ("half_pixel", "pytorch_half_pixel"):
            return lambda x, *_: F.interpolate(x, size=out, mode=how, align_corners=False)
        if place == "align_corners":
            return lambda x, *_: F.interpolate(x, size=out, mode=how, align_corners=True)
    raise UnsupportedOp(f"ONNX Resize with mode {mode!r} and {place!r}", expected="PyTorch's modes")


def _reduce(function: Callable[..., Tensor]) -> Callable[[Operands], Any]:
    def build(o: Operands):
        x = o.inputs[0]
        assert x is not None
        axes = o.ints("axes", 1)
        if not axes:
            if o.get("noop_with_empty_axes", 0):
                return lambda x, *_: x
            axes = list(range(x.ndim))
        keep = bool(o.get("keepdims", 1))
        return lambda x, *_: function(x, tuple(axes), keep)

    return build


def _prod(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


SHAPES: dict[str, Callable[[Operands], Any]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Split": _split,
    "Concat": lambda o: lambda *values: torch.cat(values, o.get("axis")),
    "Expand": _expand,
    "Resize": _resize,
    "Upsample": _resize,
    "Tile": _tile,
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMin": _reduce(torch.amin),
    "ReduceProd": _reduce(_prod),
    "ReduceL1": _reduce(lambda x, a, k: x.abs().sum(a, k)),
    "ReduceL2": _reduce(lambda x, a, k: x.square().sum(a, k).sqrt()),
    "ReduceSumSquare": _reduce(lambda x, a, k: x.square().sum(a, k)),
}

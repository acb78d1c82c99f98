"""What moves, combines and pools numbers, and with them their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from isogon.measures.alignment.symmetry.labelling import Labelling, operation, rule
from isogon.measures.alignment.symmetry.units import FIXED, POSITIVE, ZERO, Data, Held, Labels
from isogon.nets.graph import shape

_COPIES = ("lift_fresh_copy", "to", "_to_copy", "clone", "detach", "alias", "contiguous")

# --------------------------------------------------------------------------- the same numbers


@rule(
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t"),
    *("squeeze", "unsqueeze", "expand", "repeat", "slice", "select", "narrow"),
    *("chunk", "split", "split_with_sizes", "unbind", "tensor_split", "flip", "roll", "movedim"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "swapaxes", "numpy_T", "mT"),
    *("repeat_interleave", "expand_as", "view_as", "unsafe_split", "unsafe_chunk", "moveaxis"),
    *("getitem", "adjoint", "swapdims", "ravel", "squeeze_copy", "tile", "rot90", "unfold"),
    weights=True,
)
def _moved(
    walk: Labelling,
    node: fx.Node,
    x: Labels | list[Labels] | tuple[Labels, ...],
    *args: Any,
    **kwargs: Any,
) -> Labels | list[Data]:
    if isinstance(x, list | tuple):
        return x[args[0]]
    if isinstance(x, Held):
        return _held(walk, node, x, args)
    args = tuple(walk.taken(a).units if isinstance(a, Data | Held) else a for a in args)
    return _both(node, x, args, kwargs)


@rule("index", "index_select", weights=True)
def _indexed(walk: Labelling, node: fx.Node, x: Labels, *args: Any) -> Data | list[Data]:
    """What an index of constants takes; what no constant tells has to stay in place."""

    def known(a: Any) -> Any:
        if isinstance(a, list | tuple):
            return [known(v) for v in a]
        while isinstance(a, fx.Node) and operation(a) in _COPIES:
            a = a.args[0]
        return walk.graph.tensor(a) if isinstance(a, fx.Node) and a.op == "get_attr" else a

    index = known(node.args[1:])
    left = [a for v in index for a in (v if isinstance(v, list) else [v])]
    if not any(isinstance(a, fx.Node) for a in left):
        return _both(node, walk.taken(x), index, {})
    if isinstance(x, Held):
        walk.keep(x)
    elif not x.fixed:
        raise walk.refusal(node, "an index that is computed from the input")
    return walk.blank(shape(node))


def _both(node: fx.Node, x: Data, args: Sequence, kwargs: Mapping[str, Any]) -> Data | list[Data]:
    """The operation on both kinds of labels."""
    target: Any = node.target
    both = (x.units.contiguous(), x.scales.contiguous())  # expanded labels can't be viewed
    units, scales = (target(t, *args, **kwargs) for t in both)
    if isinstance(units, Tensor):
        return Data(units, scales)
    return [Data(u, s) for u, s in zip(units, scales)]


def _held(walk: Labelling, node: fx.Node, x: Held, args: Sequence) -> Labels | list[Data]:
    """Axes of a weight in another order; other views are taken number by number."""
    name, axes = operation(node), list(x.axes)
    if name in ("t", "numpy_T") or (name == "mT" and len(axes) == 2):
        return Held(x.name, tuple(axes[::-1]))
    if name == "transpose":
        i, j = args
        axes[i], axes[j] = axes[j], axes[i]
        return Held(x.name, tuple(axes))
    if name == "permute":
        return Held(x.name, tuple(axes[i] for i in args[0]))
    return _both(node, walk.vector(x), args, node.kwargs)


@rule(
    *("contiguous", "clone", "alias", "detach", "dropout", "feature_dropout", "alpha_dropout"),
    *("to", "_to_copy", "type_as", "identity", "lift_fresh_copy", "requires_grad"),
    weights=True,
)
def _same(walk: Labelling, node: fx.Node, x: Labels, *_: Any, **__: Any) -> Labels:
    return x


@rule("cat", "concat", "concatenate", "stack")
def _joined(walk: Labelling, node: fx.Node, parts: Sequence[Labels], dim: int = 0) -> Data:
    taken = [walk.taken(p) for p in parts]
    target: Any = node.target
    return Data(target([p.units for p in taken], dim), target([p.scales for p in taken], dim))


@rule("pad", "constant_pad_nd", "zero_pad2d")
def _padded(
    walk: Labelling,
    node: fx.Node,
    x: Data,
    pad: Sequence[int],
    mode: Any = "constant",
    value: float | None = None,
) -> Data:
    if operation(node) == "constant_pad_nd":
        mode, value = "constant", 0 if mode == "constant" else mode
    if mode == "constant":
        fill = FIXED if value else ZERO  # a number that is not 0 stays what it is
        found = [
            torch.nn.functional.pad(t, list(pad), "constant", fill) for t in (x.units, x.scales)
        ]
    else:
        found = [
            torch.nn.functional.pad(t.double(), list(pad), mode).long() for t in (x.units, x.scales)
        ]
    return Data(*found)


@rule(
    "zeros_like",
    "ones_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "eq",
    "ne",
    "lt",
    "gt",
    "le",
    "ge",
    "argmax",
    "argmin",
)
def _counted(walk: Labelling, node: fx.Node, x: Labels, *_: Any, **__: Any) -> Data:
    name = operation(node)
    if isinstance(x, Data) and not name.endswith(("_like", "zeros", "ones", "full")):
        walk.fix(x)
    found = walk.blank(shape(node))
    if name in ("zeros_like", "new_zeros"):
        return Data(torch.full_like(found.units, ZERO), torch.full_like(found.scales, ZERO))
    return found


# --------------------------------------------------------------------------- two numbers to one


@rule("add", "sub", "rsub", "subtract", "maximum", "minimum", weights=True)
def _sum(walk: Labelling, node: fx.Node, a: Any, b: Any, **_: Any) -> Data:
    if not _labelled(a) or not _labelled(b):
        x, number = (a, b) if _labelled(a) else (b, a)
        x = walk.taken(x)
        if isinstance(number, int | float) and number == 0:
            return x
        walk.unscaled(x)
        units = torch.where(x.units == ZERO, FIXED, x.units)
        return Data(units, torch.full_like(units, FIXED))
    a, b = _pair(walk, a, b)
    walk.joined(a, b)
    if operation(node) in ("maximum", "minimum"):
        walk.scales.say(a.scales, POSITIVE)
        walk.scales.say(b.scales, POSITIVE)
        return a
    zero = a.units == ZERO
    return Data(torch.where(zero, b.units, a.units), torch.where(zero, b.scales, a.scales))


@rule("mul", "multiply", "div", "divide", "true_divide", weights=True)
def _multiplied(walk: Labelling, node: fx.Node, a: Any, b: Any, **_: Any) -> Data:
    if not _labelled(a) or not _labelled(b):
        x = walk.taken(a if _labelled(a) else b)
        if _labelled(a) or operation(node) in ("mul", "multiply"):
            return x
        return Data(x.units, walk.scales.power(x.scales, -1.0, even=False))  # a number over it
    held = b if isinstance(b, Held) else a if isinstance(a, Held) else None
    first, divided = a, operation(node) not in ("mul", "multiply")
    a, b = _pair(walk, a, b, sum=False)
    if held is not None:  # the weight itself is not scaled
        x, gate = (b, a) if held is first and not divided else (a, b)
        walk.units.join(a.units, b.units)
        walk.unscaled(gate)
        return Data(torch.where(x.units == ZERO, ZERO, gate.units), x.scales)
    walk.units.join(a.units, b.units)
    units = torch.where((a.units == ZERO) | (b.units == ZERO), ZERO, a.units)
    scales = walk.scales.product(a.scales, b.scales, divided=divided)
    if scales is None:  # of two scales that have nothing to do with each other one stays 1
        walk.unscaled(b)
        scales = a.scales
    return Data(units, torch.where(units == ZERO, ZERO, scales))


def _labelled(x: object) -> bool:
    return isinstance(x, Data | Held)


def _pair(walk: Labelling, a: Labels, b: Labels, *, sum: bool = True) -> tuple[Data, Data]:
    """Two operands at their common shape.

    A weight that stands beside several units with one and the same number (a scalar, a mask of
    positions) tells them nothing: it stays, and they can move.
    """
    sides = []
    for mine, other in ((a, b), (b, a)):
        if isinstance(mine, Held) or (isinstance(mine, Data) and mine.fixed):
            labels = walk.vector(mine) if isinstance(mine, Held) else mine
            theirs = walk.taken(other)
            both = torch.broadcast_shapes(labels.units.shape, theirs.units.shape)
            wide = [
                k for k, n in enumerate(both) if n > 1 and _size(labels.units, k, len(both)) == 1
            ]
            units = theirs.units.expand(both)
            if wide and any(_differs(units, k) for k in wide):
                deep = [k for k, n in enumerate(both) if n > 1 and k not in wide]
                if any(_differs(units, k) for k in deep):
                    walk.fix(theirs)
                walk.fix(labels)
                if sum:
                    walk.unscaled(theirs)
                sides.append(Data(units, torch.full_like(units, FIXED)))
                continue
            sides.append(labels)
        else:
            sides.append(walk.taken(mine))
    both = torch.broadcast_shapes(sides[0].units.shape, sides[1].units.shape)
    a, b = (Data(s.units.expand(both), s.scales.expand(both)) for s in sides)
    return a, b


def _size(labels: Tensor, axis: int, dims: int) -> int:
    at = axis - (dims - labels.dim())
    return labels.shape[at] if at >= 0 else 1


def _differs(labels: Tensor, axis: int) -> bool:
    first = labels.narrow(axis, 0, 1)
    return bool(((labels != first) & (labels != ZERO) & (first != ZERO)).any())


# --------------------------------------------------------------------------- many numbers to one


@rule(
    *("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d"),
    *("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"),
    *("adaptive_avg_pool3d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_nearest1d"),
    *("upsample_bicubic2d", "upsample_linear1d", "lp_pool2d"),
)
def _pooled(walk: Labelling, node: fx.Node, x: Data, *args: Any, **_: Any) -> Data | list[Data]:
    spatial = int(next(c for c in operation(node) if c.isdigit()))
    if operation(node).startswith(("max", "adaptive_max", "lp")):
        walk.scales.say(x.scales, POSITIVE)
    last = range(x.units.dim() - spatial, x.units.dim())
    inner, made = walk.along(x, last), shape(node)
    if not made and args and isinstance(args[0], list | tuple):  # of values and places
        made = tuple(args[0])
    sizes = (*x.units.shape[:-spatial], *[int(n or 1) for n in made[-spatial:]])
    view = (*x.units.shape[:-spatial], *[1] * spatial)
    found = Data(inner.units.view(view).expand(sizes), inner.scales.view(view).expand(sizes))
    return found if shape(node) else [found, walk.blank(sizes)]


@rule(
    "mean",
    "sum",
    "amax",
    "amin",
    "var",
    "std",
    "norm",
    "linalg_vector_norm",
    "logsumexp",
    "max",
    "min",
)
def _reduced(
    walk: Labelling, node: fx.Node, x: Data, *args: Any, **kwargs: Any
) -> Data | list[Data]:
    name = operation(node)
    args = args[1:] if name in ("norm", "linalg_vector_norm") else args
    if name in ("max", "min") and args and isinstance(args[0], Data | Held):
        return _sum(walk, node, x, args[0])
    dims = kwargs.get("dim", args[0] if args else None)
    dims = range(x.units.dim()) if dims is None else [dims] if isinstance(dims, int) else dims
    keep = bool(kwargs.get("keepdim", args[1] if len(args) > 1 else False))
    axes = sorted(d % x.units.dim() for d in dims)
    if any(_differs(x.units, d) for d in axes):
        rest = [d for d in range(x.units.dim()) if d not in axes]
        walk.mark(x.units.permute(*rest, *axes).reshape(max(1, _count(x, rest)), -1))
        walk.unscaled(x)
        found = walk.blank([1 if d in axes else n for d, n in enumerate(x.units.shape)])
    else:
        if name not in ("mean", "sum"):
            walk.scales.say(x.scales, POSITIVE)
        if name in ("logsumexp", "var"):
            walk.unscaled(x)
        inner = walk.along(x, axes)
        units, scales = inner.units, inner.scales
        for d in axes:
            units, scales = units.unsqueeze(d), scales.unsqueeze(d)
        found = Data(units, scales)
    if not keep:
        for d in reversed(axes):
            found = Data(found.units.squeeze(d), found.scales.squeeze(d))
    return [found, walk.blank(found.units.shape)] if name in ("max", "min") and args else found


def _count(x: Data, axes: Sequence[int]) -> int:
    count = 1
    for d in axes:
        count *= x.units.shape[d]
    return count

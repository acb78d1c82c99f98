"""Operations that move, copy, drop or pad entries."""

from __future__ import annotations

import torch
from torch import Tensor

from isogon.cpwl.lowering import Condition, Lowering, Ref
from isogon.cpwl.rules.arithmetic import broadcast
from isogon.registry import lowers


def _reshaped(lower: Lowering, x: Ref) -> Ref:
    """The entries of each sample in their order, in the shape of the node's result."""
    sizes = lower.shape
    if sizes == x.shape:
        return x
    return lower.affine(lambda v: v.reshape(len(v), *sizes), x, None, copies=True)


@lowers("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default")
@lowers("aten.flatten.using_ints", "aten.unflatten.int", "aten.squeeze.default")
@lowers("aten.squeeze.dim", "aten.squeeze.dims", "aten.unsqueeze.default", "aten.view_as.default")
@lowers("aten.reshape_as.default", "aten._reshape_alias.default")
def view(lower: Lowering, x, *_, **__):
    """The same entries in another shape, sample by sample."""
    return _reshaped(lower, x)


@lowers("aten.clone.default", "aten.contiguous.default", "aten.alias.default")
@lowers("aten.detach.default", "aten.lift_fresh_copy.default", "aten.positive.default")
def identity(lower: Lowering, x, *_, **__):
    """The tensor itself."""
    return x


@lowers("aten.to.dtype", "aten.to.dtype_layout", "aten.to.device", "aten.to.other")
@lowers("aten._to_copy.default", "aten.type_as.default")
def to(lower: Lowering, x, *rest, **options):
    """The tensor itself: the program is in float64 whatever precision the model passes through."""
    for kind in (*rest, options.get("dtype")):
        if isinstance(kind, torch.dtype) and not kind.is_floating_point:
            if isinstance(x, Condition):
                return x
            lower.refuse("rounds to integers, which jump")
    return x


@lowers("aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default")
@lowers("aten.feature_alpha_dropout.default")
def dropout(lower: Lowering, x, p, train):
    """The tensor itself, as in eval mode."""
    if train and p:
        lower.refuse("is random in training mode", "Call model.eval() first.")
    return x


@lowers("aten.native_dropout.default")
def native_dropout(lower: Lowering, x, p, train):
    """The same after decomposition."""
    return dropout(lower, x, p, train), None


@lowers("aten.permute.default", "aten.transpose.int")
@lowers("aten.slice.Tensor", "aten.select.int", "aten.narrow.default", "aten.flip.default")
@lowers("aten.roll.default", "aten.movedim.int", "aten.swapaxes.default", "aten.mT.default")
@lowers("aten.pixel_shuffle.default", "aten.pixel_unshuffle.default", "aten.unfold.default")
@lowers("aten.channel_shuffle.default")
@lowers("aten.index_select.default", "aten.movedim.intlist", "aten.diagonal.default")
@lowers("aten.triu.default", "aten.tril.default", "aten.repeat_interleave.self_int")
@lowers("aten.reflection_pad1d.default", "aten.reflection_pad2d.default")
@lowers("aten.reflection_pad3d.default", "aten.replication_pad1d.default")
@lowers("aten.replication_pad2d.default", "aten.replication_pad3d.default")
def selection(lower: Lowering, x, *rest, **options):
    """Entries of the first argument, each where it goes (or zero)."""
    op = lower.target
    return lower.affine(lambda v: op(v, *rest, **options), x, None, copies=True)


@lowers("aten.t.default", "aten.numpy_T.default")
def move_samples(lower: Lowering, x):
    """A transposition that moves the samples."""
    lower.refuse(
        "moves the axis of the samples",
        "Keep the samples on the first axis: x.mT or x.transpose(1, 2).",
    )


@lowers("aten.constant_pad_nd.default")
def constant_pad(lower: Lowering, x, pad, value=0):
    """Padding by a constant."""
    return _padded(lower, x, pad, "constant", value)


@lowers("aten.pad.default")
def pad(lower: Lowering, x, pad, mode="constant", value=None):
    """Padding by a constant, by reflection, replication or around."""
    return _padded(lower, x, pad, mode, value or 0)


def _padded(lower: Lowering, x: Ref, pad, mode: str, value: float) -> Ref:
    pad, bias = list(pad), None
    if mode != "constant":
        return lower.affine(lambda v: torch.nn.functional.pad(v, pad, mode), x, None, copies=True)
    if value:
        zeros = torch.zeros(1, *x.shape, dtype=torch.float64)
        bias = torch.nn.functional.pad(zeros, pad, value=value)[0]
    return lower.affine(lambda v: torch.nn.functional.pad(v, pad), x, bias, copies=True)


@lowers("aten.expand.default", "aten.expand_as.default", "aten.broadcast_to.default")
def expand(lower: Lowering, x, *_, **__):
    """Copies along axes of size one."""
    sizes = lower.shape
    if sizes == x.shape:
        return x
    return lower.affine(lambda v: broadcast(v, sizes), x, None, copies=True)


@lowers("aten.repeat.default", "aten.tile.default")
def repeat(lower: Lowering, x, counts):
    """Copies side by side."""
    counts = [1] * (x.ndim - len(counts)) + list(counts)
    if len(counts) > x.ndim or counts[0] != 1:
        lower.refuse("repeats the samples")
    return lower.affine(lambda v: v.repeat(counts), x, None, copies=True)


@lowers("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(lower: Lowering, x, indices):
    """Entries at constant positions."""
    if any(isinstance(i, Ref | Condition) for i in indices) or not isinstance(x, Ref):
        lower.refuse("looks up positions that depend on the input")
    if indices[0] is not None:
        lower.refuse("looks up positions along the axis of the samples")
    where = (slice(None), *(slice(None) if i is None else i for i in indices[1:]))
    return lower.affine(lambda v: v[where], x, None, copies=True)


@lowers("aten.index_put.default")
def index_put(lower: Lowering, base, indices, values, accumulate=False):
    """The base with entries at constant positions replaced (or added to)."""
    if any(isinstance(i, Ref | Condition) for i in indices):
        lower.refuse("writes to positions that depend on the input")
    if indices[0] is not None:
        lower.refuse("writes to positions along the axis of the samples")
    op = lower.target

    def put(x: Tensor, y: Tensor) -> Tensor:
        count = max(len(x), len(y) if isinstance(values, Ref) else 1)
        return op(x.expand(count, *x.shape[1:]), indices, y, accumulate)

    return lower.linear(put, base, values, copies=not accumulate)


@lowers("aten.gather.default")
def gather(lower: Lowering, x, dim, positions, **_):
    """Entries at constant positions along an axis."""
    if not isinstance(x, Ref) or isinstance(positions, Ref) or not isinstance(dim, int):
        lower.refuse("looks up positions that depend on the input")
    return lower.affine(
        lambda v: v.gather(dim, positions.expand(len(v), *positions.shape[1:])),
        x,
        None,
        copies=True,
    )


# --------------------------------------------------------------------------- several tensors


def _batched(values: tuple[Tensor, ...]) -> list[Tensor]:
    """Constants `[1, ...]` repeated for the samples of the others."""
    count = max(len(v) for v in values)
    return [v.expand(count, *v.shape[1:]) if len(v) != count else v for v in values]


@lowers("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def cat(lower: Lowering, tensors, dim=0):
    """Branches and constants side by side."""
    return lower.linear(lambda *values: torch.cat(_batched(values), dim), *tensors, copies=True)


@lowers("aten.stack.default")
def stack(lower: Lowering, tensors, dim=0):
    """Branches and constants along a new axis."""
    return lower.linear(lambda *values: torch.stack(_batched(values), dim), *tensors, copies=True)


@lowers("aten.hstack.default")
def hstack(lower: Lowering, tensors):
    """Branches side by side along the second axis."""
    return lower.linear(lambda *values: torch.hstack(_batched(values)), *tensors, copies=True)


@lowers("aten.slice_scatter.default", "aten.select_scatter.default")
def scatter(lower: Lowering, base, source, *where):
    """The base with some entries replaced by those of the source."""
    op = lower.target
    return lower.linear(lambda x, y: op(*_batched((x, y)), *where), base, source, copies=True)


@lowers("aten.copy.default")
def copy(lower: Lowering, base, source, *_):
    """The source in the shape of the base."""
    if not isinstance(source, Ref):
        lower.refuse("forgets its input")
    return expand(lower, source)


@lowers("aten.fill.Tensor", "aten.fill.Scalar", "aten.zeros_like.default", "aten.ones_like.default")
@lowers("aten.full_like.default", "aten.empty_like.default")
def filled(lower: Lowering, x, value=0, **_):
    """A constant in the shape of the argument."""
    if isinstance(value, Ref):
        lower.refuse("is filled by a value that depends on the input")
    if lower.op in ("ones_like", "zeros_like", "empty_like"):
        value = float(lower.op == "ones_like")
    return torch.full((1, *x.shape), float(value), dtype=torch.float64)


@lowers("aten.new_zeros.default", "aten.new_ones.default", "aten.new_full.default")
def new(lower: Lowering, x, sizes, value=None, **_):
    """A constant of its own shape."""
    value = float(lower.op == "new_ones") if value is None else float(value)
    return torch.full(tuple(sizes), value, dtype=torch.float64)


def _pieces(lower: Lowering, x: Ref, dim: int, sizes: list[int], keep: bool = True) -> list[Ref]:
    axis = dim % x.ndim
    if axis == 0:
        lower.refuse("splits the samples of a batch")
    found, start = [], 0
    for size in sizes:
        shape = list(x.shape)
        shape[axis - 1] = size
        if not keep:
            del shape[axis - 1]
        cut = _Cut(axis, start, size, keep)
        found.append(lower.linear(cut, x, shape=tuple(shape), copies=True))
        start += size
    return found


class _Cut:
    """`size` entries from `start` on along an axis."""

    def __init__(self, axis: int, start: int, size: int, keep: bool) -> None:
        self.axis, self.start, self.size, self.keep = axis, start, size, keep

    def __call__(self, v: Tensor) -> Tensor:
        if not self.keep:
            return v.select(self.axis, self.start)
        return v.narrow(self.axis, self.start, self.size)


@lowers("aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes")
def split(lower: Lowering, x, size, dim=0):
    """Pieces of given sizes along an axis."""
    axis = dim % x.ndim
    if axis == 0:
        lower.refuse("splits the samples of a batch")
    total = x.shape[axis - 1]
    if isinstance(size, int):
        size = [min(size, total - start) for start in range(0, total, size)]
    return _pieces(lower, x, dim, list(size))


@lowers("aten.chunk.default")
def chunk(lower: Lowering, x, count, dim=0):
    """A number of pieces along an axis."""
    total = x.shape[dim % x.ndim - 1]
    return split(lower, x, -(-total // count), dim)


@lowers("aten.unbind.int")
def unbind(lower: Lowering, x, dim=0):
    """The entries along an axis."""
    return _pieces(lower, x, dim, [1] * x.shape[dim % x.ndim - 1], keep=False)


@lowers("aten.tensor_split.sections")
def tensor_split(lower: Lowering, x, count, dim=0):
    """Pieces of nearly equal sizes along an axis."""
    base, extra = divmod(x.shape[dim % x.ndim - 1], count)
    return _pieces(lower, x, dim, [base + (i < extra) for i in range(count)])

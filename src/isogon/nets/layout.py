"""Which axis of an image holds its channels: the model tells.

An image is ``[N, C, H, W]`` here. Networks exported from TensorFlow, and some others, take
``[N, H, W, C]`` and begin by moving the last axis to the front; a rotation of the last two axes
would turn their W x C plane. The shape alone says nothing (``[N, 3, 32, 3]`` exists), what the
model does with it does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from isogon.errors import ModelError
from isogon.nets.hygiene import cast, preserved
from isogon.nets.unwrap import uncompiled, unwrap

AXES = (0, 1, 2, 3)
LAST = (0, 3, 1, 2)  # [N, H, W, C] to [N, C, H, W]


class ChannelsFirst(nn.Module):
    """A model of images ``[N, C, H, W]`` from one that takes ``[N, H, W, C]``.

    Args:
        model: Takes images with the channels last.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        """What the model returns for ``x`` with its channels moved last."""
        return self.model(x.permute(0, 2, 3, 1))


def check_images(model: nn.Module, x: Tensor) -> None:
    """Refuse a model that takes images ``[N, H, W, C]``, where images are warped.

    Raises:
        ModelError: The first convolution gets the input with its last axis as the channels; says
            what to write.
    """
    if x.dim() != 4 or getattr(unwrap(model), "channels_last", None) is False:
        return
    if channels_last(model, x):
        raise ModelError(
            "the model takes images with the channels last",
            got=f"inputs {list(x.shape)} whose last axis goes into the first convolution's "
            "channels",
            expected="images [N, C, H, W]",
            fix="Wrap it: model = isogon.nets.ChannelsFirst(model), or isogon.load('net.onnx', "
            "channels_last=True), on the command line 'channels_first(MODEL)'; and give images "
            "[N, C, H, W]: x.permute(0, 3, 1, 2).",
        )


def channels_last(model: nn.Module, x: Tensor) -> bool:
    """Whether the first convolution reads the last axis of the inputs ``[N, a, b, c]`` as channels.

    Also where there is none, and the model moves that axis to the front. False where it does not
    run.
    """
    model = unwrap(model)
    follow = _Follow()
    try:
        with preserved(model), uncompiled(model), torch.no_grad():
            given = cast(x[:1], model).clone()
            follow.axes[id(given)] = (given, AXES)
            with follow:
                model(given)
    except _Found:
        pass
    except Exception:  # the measure says it in better words
        return False
    return LAST in (follow.seen if follow.first is None else {follow.first})


class _Found(Exception):
    """Ends the forward pass at the first convolution."""


_CONVOLUTIONS = {
    torch.conv2d,
    nn.functional.conv2d,
    torch.convolution,
    torch.ops.aten.conv2d.default,
}
_RESIZE = ("pad", "pool", "interpolate", "upsample")
_WRITES = ("conv", "linear", "matmul", "bmm", "mm", "addmm", "einsum")


class _Follow(TorchFunctionMode):
    """Follows the input through operations that keep or move its axes, to the first convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.axes: dict[int, tuple[Tensor, tuple[int, ...]]] = {}
        self.first: tuple[int, ...] | None = None  # the order in which a convolution reads them
        self.seen: set[tuple[int, ...]] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        known = next((self.axes[id(a)] for a in given if id(a) in self.axes), None)
        name = getattr(func, "__name__", "").strip("_")
        if known is not None and (func in _CONVOLUTIONS or name.startswith("conv2d")):
            self.first = known[1]
            raise _Found
        result = func(*args, **kwargs)
        if known is not None and isinstance(result, Tensor) and result.dim() == 4:
            moved = _moved(*known, result, name)
            if moved is not None:
                self.axes[id(result)] = (result, moved)  # held: its id stays its own
                self.seen.add(moved)
        return result


def _moved(x: Tensor, axes: tuple[int, ...], result: Tensor, name: str) -> tuple[int, ...] | None:
    """Which axis of the input each axis of a result is; None where that can't be said."""
    if any(word in name for word in _WRITES):
        return None
    if result.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
        return _of_view(x, axes, result)
    if result.shape == x.shape:
        return axes  # arithmetic, a copy, a cast
    if sorted(result.shape) == sorted(x.shape) and name in ("reshape", "contiguous", "clone"):
        return _of_view(x, axes, result)
    # padding, pooling and resizing leave the order of the axes, whichever of them they act on
    return axes if any(word in name for word in _RESIZE) else None


def _of_view(x: Tensor, axes: tuple[int, ...], result: Tensor) -> tuple[int, ...] | None:
    """The order of a view's axes: by its strides, and for a reshape by the axes of length 1."""
    from itertools import permutations

    for order in permutations(AXES):
        same = tuple(x.shape[k] for k in order) == tuple(result.shape)
        if not same:
            continue
        strides = [(x.stride(k), result.stride(j)) for j, k in enumerate(order) if x.shape[k] > 1]
        if all(a == b for a, b in strides):
            return tuple(axes[k] for k in order)
    return None

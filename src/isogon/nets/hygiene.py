"""Call hygiene: evaluation mode, device and dtype of a call, and a model left as it came."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from isogon.nets.states import computed_weights_kept
from isogon.nets.unwrap import unwrap

_held: set[tuple[int, int]] = set()  # thread and model of every `preserved` at work


@contextmanager
def preserved(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode inside; the model as it came afterwards, whatever happened.

    That is: mode, ``requires_grad`` and ``grad``, the parameters' storage, and every buffer and
    plain tensor attribute, the very tensors with what they held. (A model whose outputs follow
    from what a call leaves behind is refused by `isogon.nets.behaviour.examine`.)

    Args:
        model: Any module.

    Yields:
        The model, with DataParallel and compile wrappers taken off.
    """
    model = unwrap(model)
    key = (threading.get_ident(), id(model))
    if key in _held:  # an outer one puts everything back
        yield model
        return
    modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    modes = [(m, m.training) for m in modules]
    parameters = [(p, p.requires_grad, p.grad, p.detach()) for p in model.parameters()]
    buffers = [(m._buffers, _contents(m._buffers)) for m in modules if m._buffers]
    bare = [m._buffers for m in modules if not m._buffers]
    _held.add(key)
    try:
        # `Module.eval` may be overridden or forbidden (exported programs): set the flag itself.
        for m, _ in modes:
            if m.training:
                m.training = False
        with computed_weights_kept(modules):
            yield model
    finally:
        _held.discard(key)
        for m, training in modes:
            m.training = training
        for held, contents in buffers:
            _put_back(held, contents)
        for held in bare:
            held.clear()
        for p, requires_grad, grad, data in parameters:
            if p.data_ptr() != data.data_ptr():  # `self.weight.data = ...` in a forward
                p.data = data
            if p.requires_grad != requires_grad:
                p.requires_grad_(requires_grad)
            if p.grad is not grad:
                p.grad = grad


def _contents(buffers: dict[str, Any]) -> dict[str, tuple[Any, Tensor | None]]:
    """Each buffer and a copy of what it holds."""
    return {
        k: (b, b.detach().clone() if isinstance(b, Tensor) else None) for k, b in buffers.items()
    }


@torch.no_grad()
def _put_back(buffers: dict[str, Any], contents: dict[str, tuple[Any, Tensor | None]]) -> None:
    for key in [k for k in buffers if k not in contents]:
        del buffers[key]
    for key, (buffer, copy) in contents.items():
        buffers[key] = buffer
        if copy is not None and not _same_bits(buffer, copy):
            with torch.inference_mode(buffer.is_inference()):
                buffer.copy_(copy)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or torch.equal(a, b):
        return a.shape == b.shape
    return a.is_floating_point() and bool(((a == b) | ((a != a) & (b != b))).all())  # NaN


def device_dtype(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where a model computes: read from its parameters, else buffers, else CPU and float32."""
    first = None
    for tensors in (model.parameters(), model.buffers()):
        for t in tensors:
            if t.is_floating_point():
                return t.device, t.dtype
            first = first if first is not None else t.device
    return first or torch.device("cpu"), torch.float32


def dtypes(model: nn.Module) -> list[torch.dtype]:
    """The types of a model's real weights, that of its inputs (`device_dtype`) first."""
    held = [p.dtype for p in model.parameters() if p.is_floating_point()]
    return list(dict.fromkeys([device_dtype(model)[1], *held]))


def precision(model: nn.Module) -> str:
    """The type of number that a model computes in, e.g. ``float32``; all where weights differ."""
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes(model))


def cast(x: object, model: nn.Module) -> Any:
    """A batch on the model's device; real-valued ones in its dtype, integers untouched.

    Args:
        x: A tensor ``[N, ...]``; anything else is returned as it is.
        model: The model that will take it.
    """
    if not isinstance(x, Tensor):
        return x
    device, dtype = device_dtype(model)
    return x.to(device=device, dtype=dtype if x.is_floating_point() else x.dtype)

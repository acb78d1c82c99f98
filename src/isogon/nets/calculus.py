"""Calculus on a model: logits, input Jacobians; the model is left as it came."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isogon.errors import ModelError, OptionError
from isogon.nets.finite import check_finite, not_finite
from isogon.nets.outputs import logits, output_tensor, outputs
from isogon.nets.states import computed_weights_kept
from isogon.nets.trace import unwrap

__all__ = [
    "cast", "check_finite", "check_outputs", "correct", "device_dtype", "jacobian",
    "logits", "output_tensor", "outputs", "outputs_of", "precision", "preserved",
]  # fmt: skip

# --------------------------------------------------------------------------- the model itself


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


def precision(model: nn.Module) -> str:
    """The type of number that a model computes in, e.g. ``float32`` or ``bfloat16``."""
    return str(device_dtype(model)[1]).removeprefix("torch.")


def cast(x: Any, model: nn.Module) -> Any:
    """A batch on the model's device; real-valued ones in its dtype, integers untouched.

    Args:
        x: A tensor ``[N, ...]``; anything else is returned as it is.
        model: The model that will take it.
    """
    if not isinstance(x, Tensor):
        return x
    device, dtype = device_dtype(model)
    return x.to(device=device, dtype=dtype if x.is_floating_point() else x.dtype)


# --------------------------------------------------------------------------- derivatives


def jacobian(
    model: nn.Module, x: Tensor, *, method: Literal["loop", "vmap"] = "loop"
) -> tuple[Tensor, Tensor]:
    """Logits and their derivatives with respect to the input: J[n, c, ...] = d z[n, c] / d x[n].

    One forward and C backward passes over the batch; samples must not depend on each other,
    which evaluation mode ensures for batch-norm and dropout. The model's mode and the gradients
    of its parameters are left alone.

    Args:
        model: A module from ``[N, *shape]`` to ``[N, C]``; a trailing softmax is skipped.
        x: Inputs ``[N, *shape]``, real-valued.
        method: ``"loop"``: one backward pass per class, works for every model; ``"vmap"``: all
            classes in one vectorised pass, faster for small dense networks, C times the memory.

    Returns:
        Logits ``[N, C]`` and Jacobian ``[N, C, *shape]``, detached, in the model's dtype.

    Raises:
        ModelError: Inputs are integers, or logits don't depend on the input.
        OptionError: Unknown method.

    Example:
        >>> net = nn.Linear(2, 3)
        >>> z, J = jacobian(net, torch.zeros(4, 2))
        >>> torch.equal(J[0], net.weight.detach())
        True
    """
    if method not in ("loop", "vmap"):
        raise OptionError("unknown method", got=repr(method), expected="'loop' or 'vmap'")
    if not x.is_floating_point():
        raise ModelError(
            "no derivative with respect to integer inputs",
            got=str(x.dtype),
            expected="real-valued inputs",
            fix="Measure the part of the model behind its embedding.",
        )
    with torch.inference_mode(False), torch.enable_grad(), preserved(model) as model:
        leaf = cast(x, model).detach().clone().requires_grad_()
        z = logits(model, leaf).flatten(1)
        if not z.requires_grad:
            raise ModelError(
                "logits don't depend on the input by a differentiable path",
                expected="a differentiable model",
                fix="Remove detach(), no_grad() or rounding from its forward pass.",
            )
        classes = z.shape[1]
        if method == "vmap":
            rows = torch.eye(classes, dtype=z.dtype, device=z.device)[:, None].expand(
                -1, len(z), -1
            )
            (J,) = torch.autograd.grad(z, leaf, rows, is_grads_batched=True, allow_unused=True)
            J = z.new_zeros(len(z), classes, *x.shape[1:]) if J is None else J.transpose(0, 1)
        else:
            J = z.new_zeros(len(z), classes, *x.shape[1:])
            for c in range(classes):
                (g,) = torch.autograd.grad(
                    z[:, c].sum(), leaf, retain_graph=c + 1 < classes, allow_unused=True
                )
                if g is not None:
                    J[:, c] = g
        return z.detach(), J.detach()


# --------------------------------------------------------------------------- outputs


def correct(z: Tensor, y: Tensor) -> Tensor:
    """Which samples are classified right: argmax of ``[N, C]``, sign where C = 1 (labels 0, 1).

    Ties go to the first class, as `torch.argmax` does.
    """
    guess = (z[:, 0] > 0).long() if z.shape[1] == 1 else z.argmax(1)
    return guess == y.to(guess.device).reshape(len(guess))


@torch.no_grad()
def outputs_of(model: nn.Module, x: Tensor) -> int | None:
    """Number of outputs of a model per sample; None where it gives no row of logits."""
    with preserved(model) as inner:
        try:
            z = logits(inner, cast(x[:1], inner))
        except (ModelError, RuntimeError, IndexError, ValueError, TypeError):
            return None
    return z.shape[1] if z.dim() == 2 else None


def check_outputs(model: nn.Module, x: Tensor, z: Tensor) -> None:
    """Refuse outputs that are NaN or +inf (-inf is a class that is ruled out).

    Raises:
        DataError: Names the first site where it happens.
    """
    bad = z.isnan() | z.isposinf()
    if bool(bad.any()):
        raise not_finite(model, x, bad.reshape(len(z), -1).any(1), "the model's outputs")

"""Calculus on a model: logits, input Jacobians, accuracy; the model is left as it came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from isogon.errors import DataError, ModelError, OptionError
from isogon.nets.origin import check_classes
from isogon.nets.trace import unwrap
from isogon.nets.watch import uncompiled

# --------------------------------------------------------------------------- the model itself


@contextmanager
def preserved(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode inside; mode, ``requires_grad`` and ``grad`` as they came afterwards.

    Args:
        model: Any module.

    Yields:
        The model, with DataParallel and compile wrappers taken off.
    """
    model = unwrap(model)
    modes = [(m, m.training) for m in model.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    try:
        # `Module.eval` may be overridden or forbidden (exported programs): set the flag itself.
        for m, _ in modes:
            if m.training:
                m.training = False
        yield model
    finally:
        for m, training in modes:
            m.training = training
        for p, requires_grad, grad in parameters:
            if p.requires_grad != requires_grad:
                p.requires_grad_(requires_grad)
            if p.grad is not grad:
                p.grad = grad


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


def check_finite(model: nn.Module) -> None:
    """Refuse weights that are not numbers.

    A buffer may hold infinities, as masks do; running statistics may not.

    Raises:
        ModelError: Naming the first parameter or buffer with a NaN or an infinity.
    """
    masks = {name for name, _ in model.named_buffers() if not name.endswith(("_mean", "_var"))}
    for name, t in [*model.named_parameters(), *model.named_buffers()]:
        wrong = t.isnan() if name in masks else ~t.isfinite()
        if t.is_floating_point() and bool(wrong.any()):
            bad = int(wrong.sum())
            raise ModelError(
                f"weights hold NaN or infinity in {name!r}",
                got=f"{bad} of {t.numel()} values",
                expected="finite weights",
                fix="Retrain, or load an earlier checkpoint.",
            )


# --------------------------------------------------------------------------- logits


def output_tensor(output: Any) -> Tensor:
    """The tensor in a model's output: itself, ``.logits``, or the first of a tuple or dict.

    Raises:
        ModelError: There is no tensor in it.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits
    if isinstance(output, dict):
        output = tuple(output[k] for k in ("logits", "out") if k in output) or (*output.values(),)
    if isinstance(output, list | tuple):
        for item in output:
            if isinstance(item, Tensor):
                return item
    raise ModelError(
        "the model's output is not a tensor",
        got=type(output).__name__,
        expected="a tensor [N, classes], or a tuple or dict that holds one",
        fix="Wrap the model in a module that returns its logits.",
    )


_ATEN = torch.ops.aten
_SOFTMAX = {
    torch.softmax, torch.log_softmax, F.softmax, F.log_softmax, Tensor.softmax,
    Tensor.log_softmax, torch.special.softmax, torch.special.log_softmax,
    _ATEN.softmax.int, _ATEN.log_softmax.int, _ATEN._softmax.default, _ATEN._log_softmax.default,
}  # fmt: skip
_LOG = {torch.log, Tensor.log, _ATEN.log.default}


class _BelowSoftmax(TorchFunctionMode):
    """Remembers what went into each softmax over axis 1, by the tensor that came out.

    Sees modules and functional calls alike; only the last few are kept, since only the one that
    *is* the model's output matters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _SOFTMAX and isinstance(result, Tensor) and result.dim() == 2:
            x = args[0] if args else kwargs.get("input", kwargs.get("self"))
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            if isinstance(x, Tensor) and dim in (1, -1, None):
                self._keep(result, x)
        elif func in _LOG and args and (below := self.below(args[0])) is not None:
            self._keep(result, below)
        return result

    def _keep(self, result: Tensor, x: Tensor) -> None:
        # a softmax of a softmax is not a softmax of the logits: what counts is the last one
        self.seen = [*self.seen[-1:], (result, x)]

    def below(self, output: Any) -> Tensor | None:
        return next((x for result, x in self.seen if result is output), None)


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Outputs before a trailing softmax or log-softmax (module or function), if there is one.

    Runs in the model's own mode; gradients flow if they are enabled.

    Args:
        model: A module from ``[N, ...]`` to ``[N, C]``.
        x: Inputs ``[N, ...]``.

    Returns:
        ``[N, C]``; one output per sample gives ``[N, 1]``.

    Raises:
        ModelError: The output holds no tensor, or its first axis is not the sample axis.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.LogSoftmax(dim=1))
        >>> x = torch.zeros(1, 2)
        >>> torch.equal(logits(net, x), net[0](x))
        True
    """
    model = unwrap(model)
    with uncompiled(model):  # a first layer in place would change the user's data
        return outputs(lambda x: model(x.clone()), x)[1]


def outputs(run: Callable[[Tensor], Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """The tensor in a model's output, and the `logits` behind it, from one forward pass.

    Args:
        run: The forward pass.
        x: Inputs ``[N, ...]``.

    Raises:
        ModelError: As `logits`.
    """
    with _BelowSoftmax() as mode:
        output = output_tensor(run(x))
    below = mode.below(output)
    z = output if below is None else below
    if z.dim() == 1 and len(x) == len(z):
        z = z[:, None]
    if z.dim() == 0 or len(z) != len(x):
        raise ModelError(
            "the model's output does not keep the sample axis first",
            got=f"input {tuple(x.shape)}, output {tuple(z.shape)}",
            expected="[N, ...] to [N, classes]",
            fix="Wrap the model in a module whose outputs have one row per sample.",
        )
    return output, z


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


# --------------------------------------------------------------------------- accuracy


def correct(z: Tensor, y: Tensor) -> Tensor:
    """Which samples are classified right: argmax of ``[N, C]``, sign where C = 1 (labels 0, 1).

    Ties go to the first class, as `torch.argmax` does.
    """
    guess = (z[:, 0] > 0).long() if z.shape[1] == 1 else z.argmax(1)
    return guess == y.to(guess.device).reshape(len(guess))


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Share of samples whose largest logit is their label.

    Args:
        model: A module from ``[N, ...]`` to ``[N, C]``.
        batches: Pairs of inputs ``[n, ...]`` and integer labels ``[n]``.

    Returns:
        A number in [0, 1].

    Raises:
        DataError: No samples, labels that are not classes, or other classes than those that the
            model was trained on.
    """
    check_classes(model, batches)
    right = total = 0
    with preserved(model) as model:
        for x, y in batches:
            y = torch.as_tensor(y)
            if y.is_floating_point() and not bool((y == y.round()).all()):
                raise DataError(
                    "accuracy needs class labels",
                    got="real-valued labels",
                    expected="integers",
                    fix="Use a classification data set.",
                )
            right += int(correct(logits(model, cast(x, model)).flatten(1), y).sum())
            total += len(x)
    if not total:
        raise DataError("no samples", got="0 samples", expected="at least one batch")
    return right / total

"""Whether a model's derivatives in its input are those of its outputs.

A model that rounds, detaches a branch, or gives a made-up gradient has derivatives all the same:
they are about nothing. They are compared with differences of the outputs along random directions,
in the model's own precision and, where it can be had, in float64, whose steps are so short that few
kinks lie within them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from isogon.errors import IsogonError, ModelError
from isogon.nets.hygiene import dtypes
from isogon.nets.outputs import logits
from isogon.nets.states import slots_of, swapped

HALF = (torch.float16, torch.bfloat16)
ASIDE = 0.1  # of an input's size: where derivatives are looked at a second time
LARGEST = 100_000_000  # numbers in a model up to which it is copied to float64
AWAY = "isogon.context.use(check=False) (--no-check) measures it as it is."


class Steps(NamedTuple):
    """How derivatives are compared with differences."""

    length: float  # of the longer of two steps, of an input's size; the other is a quarter of it
    steady: float  # how far the two differences may be apart to be believed, of the smaller one
    off: float  # how far the derivative may be off, of the larger of the two
    most: float  # share of the comparisons that may be off in a model that passes


PLAIN = Steps(1e-2, 0.2, 0.5, 0.99)  # what rounding of float32 leaves
EXACT = Steps(1e-5, 0.01, 0.05, 0.0)


def check(model: nn.Module, x: Tensor) -> None:
    """Refuse a model whose derivatives are not those of its outputs.

    An input may lie on a kink (a black image, where no bias moves a pre-activation off 0): there
    derivative and differences differ by right. So what seems wrong must not be right beside it.

    Args:
        model: In evaluation mode.
        x: A few inputs ``[N, ...]`` of real numbers.

    Raises:
        ModelError: The logits have no gradient, or another one than their differences say.
    """
    generator = torch.Generator().manual_seed(0)
    size = _size(x)
    aside = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) * (ASIDE * size)
    for compare in (_compared, _compared_in_float64):
        verdict = compare(model, x, size, generator)
        if verdict in ("zero", "wrong") and compare(model, x + aside, size, generator) != "right":
            raise no_gradient(model, zero=verdict == "zero")


def _size(x: Tensor) -> Tensor:
    """Root mean square of each input, ``[n, 1, ...]``; 1 where it is 0."""
    size = x.reshape(len(x), -1).square().mean(1).sqrt()
    return torch.where(size > 0, size, torch.ones_like(size)).reshape(-1, *[1] * (x.dim() - 1))


@contextmanager
def _in_float64(model: nn.Module) -> Iterator[None]:
    """The model with copies in double precision of its numbers."""
    slots = {name: held[key] for name, (held, key) in slots_of(model).items()}
    real = {name: t.detach().double() for name, t in slots.items() if t.is_floating_point()}
    with swapped(model, real, cast=False):
        yield


class _Coarser(TorchDispatchMode):
    """Whether any operation gives real numbers of less than double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.any = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for t in found if isinstance(found, tuple | list) else [found]:
            if isinstance(t, Tensor) and t.is_floating_point():
                self.any |= t.dtype != torch.float64
        return found


def _compared_in_float64(
    model: nn.Module, x: Tensor, size: Tensor, generator: torch.Generator
) -> str:
    """The same in double precision, where that works: ``unknown`` elsewhere."""
    if sum(p.numel() for p in model.parameters()) > LARGEST:
        return "unknown"
    try:
        with _in_float64(model):
            with _Coarser() as seen, torch.no_grad():
                logits(model, x.double())
            if seen.any:
                return "unknown"  # what single precision rounds is flat over such short steps
            return _compared(model, x.double(), size.double(), generator, EXACT)
    except (IsogonError, RuntimeError, TypeError, AttributeError, NotImplementedError):
        return "unknown"  # its own precision is written into it


def _compared(
    model: nn.Module,
    x: Tensor,
    size: Tensor,
    generator: torch.Generator,
    steps: Steps = PLAIN,
) -> str:
    """Compare derivatives along random directions with differences of two sizes.

    Returns:
        ``right``, ``zero`` or ``wrong``; ``unknown`` where it can't be told.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.clone().requires_grad_()
            z = logits(model, leaf.clone()).flatten(1)
    except (RuntimeError, IndexError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        if "nference" in str(error):
            raise inference_weights() from error
        return "unknown"
    if not z.requires_grad:
        raise no_gradient(model)
    weights = torch.randn(z.shape[1], generator=generator, dtype=torch.float64).to(z)
    g = _gradient((z * weights).sum(), leaf)
    if coarse(model) and bool(g.any()):
        return "unknown"  # differences are too coarse there to say more
    told = seen = 0
    for _ in range(2):
        v = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) * size
        slope = (g * v).reshape(len(x), -1).sum(1).double()
        wide, noise = _difference(model, x, v, weights, steps.length)
        near, near_noise = _difference(model, x, v, weights, steps.length / 4)
        least = torch.minimum(wide.abs(), near.abs())
        steady = (wide - near).abs() <= steps.steady * least + near_noise
        clear = (near.abs() > 20 * near_noise) & (wide.abs() > 20 * noise) & steady
        # outputs that do not move at all, and a derivative that says they do; rounding inside, of
        # values that cancel, has steps, too: over longer ways it is no more seen
        flat = (torch.maximum(wide.abs(), near.abs()) <= noise) & (slope.abs() > 20 * near_noise)
        if bool(flat.any()):
            far, _ = _difference(model, x, v, weights, PLAIN.length)
            flat &= (slope - far).abs() > PLAIN.steady * torch.maximum(slope.abs(), far.abs())
        wrong = (slope - near).abs() > steps.off * torch.maximum(slope.abs(), near.abs())
        zero = (g.reshape(len(x), -1) == 0).all(1) & (wide.abs() > 20 * noise)
        told += int((clear | flat | zero).sum())
        seen += int((clear & wrong | flat | zero).sum())
    if told < 2:
        return "unknown"
    if seen <= steps.most * told:
        return "right"
    return "wrong" if bool(g.any()) else "zero"


def _gradient(total: Tensor, leaf: Tensor) -> Tensor:
    try:
        (g,) = torch.autograd.grad(total, leaf, allow_unused=True)
    except RuntimeError as error:
        said = str(error).strip().splitlines()[0][:160]
        raise ModelError(
            "the gradient of the logits in the input can't be computed",
            got=said,
            expected="a model that torch.autograd.grad differentiates",
            fix="Call torch.utils.checkpoint with use_reentrant=False."
            if "checkpoint" in str(error)
            else "Make its backward pass run: torch.autograd.grad(model(x).sum(), x).",
        ) from error
    return torch.zeros_like(leaf) if g is None else g


@torch.no_grad()
def _difference(
    model: nn.Module, x: Tensor, v: Tensor, weights: Tensor, step: float
) -> tuple[Tensor, Tensor]:
    """Central difference of the weighted logits along v, and how far rounding reaches."""
    ends = [logits(model, x + sign * step * v).flatten(1) for sign in (1, -1)]
    high, low = ((e * weights).double().sum(1) for e in ends)
    eps = torch.finfo(ends[0].dtype).eps
    size = (ends[0] * weights).abs().double().sum(1)
    return (high - low) / (2 * step), 4 * eps * size / step


def no_gradient(model: nn.Module, *, zero: bool = True) -> ModelError:
    """The error for logits that have no derivative in the input."""
    kinds = sorted({type(m).__name__ for m in model.modules() if is_quantised(m)})
    if kinds:
        return ModelError(
            "a quantised model has no gradient in its input",
            got=", ".join(kinds[:4]),
            expected="a differentiable model",
            fix="Measure the float model that it was made from.",
        )
    if zero:
        return ModelError(
            "the logits have no gradient in the input by a differentiable path",
            got="outputs that change with the inputs, and no gradient",
            expected="a differentiable model",
            fix="Remove detach(), no_grad(), rounding or NumPy from its forward.",
        )
    return ModelError(
        "the gradient that the model gives is not that of its outputs",
        got="derivatives along random directions that differences of the outputs contradict",
        expected="a differentiable model",
        fix="Remove detach() from its branches, and rounding with a made-up gradient. " + AWAY,
    )


def inference_weights() -> ModelError:
    """The error for weights made in inference mode, through which nothing can be differentiated."""
    return ModelError(
        "the model's weights were made in inference mode, which has no gradients",
        got="tensors of torch.inference_mode()",
        expected="a differentiable model",
        fix="Build or load the model outside torch.inference_mode().",
    )


def is_quantised(module: nn.Module) -> bool:
    """Whether a module computes with quantised weights or activations."""
    home = type(module).__module__
    return ".quantized" in home or home.startswith(("torchao.", "bitsandbytes."))


def coarse(model: nn.Module) -> bool:
    """Whether any of the weights are in half precision."""
    return any(dtype in HALF for dtype in dtypes(model))

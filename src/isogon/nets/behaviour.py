"""Whether a model is a function of one sample: not random, not of its batch, and differentiable.

Every definition here speaks of f(x). A model that draws random numbers in evaluation mode, that
counts its calls, whose outputs depend on the other samples of the batch, or whose gradient is not
that of its outputs, gives numbers all the same: they are about nothing. `examine` looks at a few
inputs before a measure begins.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isogon import context
from isogon.errors import ModelError
from isogon.nets import derivatives
from isogon.nets.derivatives import AWAY, HALF, coarse, is_quantised, no_gradient
from isogon.nets.hygiene import cast, preserved
from isogon.nets.outputs import leaves, logits, run_on
from isogon.nets.states import swapped
from isogon.nets.trace import fingerprint
from isogon.nets.unwrap import uncompiled, unwrap

FEW = 4  # inputs that are looked at
TOLERANCE = 1e-3  # of the outputs' spread
COARSE = 3e-2  # the same in half precision
ROUNDING = 3e-2  # of the outputs' size: a smaller spread is not told from rounding
REPEATS = 3  # calls after the first one: rare random events are noticed more often


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Random numbers drawn inside are drawn again outside, on every generator that models use."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def examine(model: nn.Module, x: Tensor, *, gradient: bool = False, softmax: bool = False) -> None:
    """Refuse a model that is random, keeps a state, mixes samples, or has no gradient.

    The same few inputs go in together, together again, beside others and alone, without
    reseeding in between; outputs may differ by a thousandth of their spread (3 % in half
    precision). With ``gradient``, derivatives along random directions are compared with
    differences. `isogon.context.use(check=False)` skips it all, which readings record.

    Args:
        model: Any module; in evaluation mode meanwhile, as it came afterwards.
        x: Inputs ``[N, ...]``; at most 4 are used.
        gradient: Whether the measure takes derivatives in the input.
        softmax: Whether it takes the softmax of the outputs, so that they must not be
            probabilities already (those of a trailing softmax are known, see `logits`).

    Raises:
        ModelError: Says which of these, and by how much.
    """
    if not context.checked() or not len(x):
        return
    model = unwrap(model)
    if gradient and any(map(is_quantised, model.modules())):
        raise no_gradient(model)
    x = cast(x[:FEW], model).detach()
    key, state = (x.shape[1:], x.dtype, x.device), _as_examined(model)
    known = _good.setdefault(model, {})
    asked = [(g, s) for g in {True, gradient} for s in {True, softmax}]
    if any(known.get((*key, *a)) == state for a in asked):
        return  # a walk, a sweep or a notebook asks again and again
    if len(x) < FEW:  # copies in one batch, which have to agree
        x = x.repeat(-(-FEW // len(x)), *[1] * (x.dim() - 1))
    x = x.clone()
    held = {name: p.detach() for name, p in model.named_parameters()}
    weights = {name: p.clone() for name, p in held.items()}
    with preserved(model), uncompiled(model), random_state_kept(x.device):
        with swapped(model, weights), torch.no_grad():
            _samples_apart(model, x)
            _weights_alone(model, held)
            if softmax:
                _no_probabilities(model, x)
        if gradient and x.is_floating_point():
            derivatives.check(model, x[:2])
    known[(*key, gradient, softmax)] = state


_good: weakref.WeakKeyDictionary[nn.Module, dict] = weakref.WeakKeyDictionary()


def _as_examined(model: nn.Module) -> list:
    """What decides how a model behaves, beside its numbers: the same modules, attributes, hooks."""
    state = fingerprint(model)
    for m in model.modules():
        hooks = (*m._forward_hooks.values(), *m._forward_pre_hooks.values())
        state.append((*map(id, hooks), id(m.__dict__.get("forward"))))
        for key, value in m.__dict__.items():
            if key.startswith("_") or isinstance(value, Tensor | bool | int | float | str):
                continue  # of the fingerprint, or of torch
            state.append((key, repr(value), repr(getattr(value, "__dict__", None))))
    return state


# --------------------------------------------------------------------------- one sample, one output


def _samples_apart(model: nn.Module, x: Tensor) -> None:
    """Compare the outputs of the same inputs in several surroundings."""
    try:
        first = _outputs(model, x)
    except (RuntimeError, IndexError, ValueError, AttributeError):
        return  # the measure says what is wrong with these inputs, in better words
    scales = [_scale(t) for t in first]
    for _ in range(REPEATS):
        if (gap := _gap(first, _outputs(model, x), scales)) > _tolerance(model, x):
            raise _unsteady(model, x, gap)
    try:
        beside = [_outputs(model, torch.cat([c, x.flip(0)])) for c in companions(x)]
        alone = _outputs(model, x[:1])
    except (RuntimeError, ValueError, IndexError) as error:
        raise ModelError(
            "the model runs for one number of samples only",
            got=str(error).strip().splitlines()[0][:160],
            expected="any number of samples, one too",
            fix="Remove what fixes the number of samples or needs several of them.",
        ) from error
    scales = [_scale(torch.cat([*t, s])) for s, *t in zip(first, *beside)]
    gap = _gap([t[:1] for t in first], alone, scales)
    for mixed in beside:
        gap = max(gap, _gap(first, [m[-len(x) :].flip(0) for m in mixed], scales))
    if gap > _tolerance(model, x):
        raise ModelError(
            "the output of a sample depends on the other samples in its batch",
            got=f"outputs that differ by {_percent(gap)} of their spread{_batch_norms(model)}",
            expected="the same output alone and in any batch",
            fix=f"Remove what mixes samples, such as x.mean(0) or batch statistics. {AWAY}",
        )


def companions(x: Tensor) -> tuple[Tensor, Tensor]:
    """Other inputs of the same kind, a sample each: one larger, one smaller where there is sign."""
    flat = x[:1].reshape(1, -1).flip(1)
    if not x.is_floating_point() or not x.numel():
        return flat.reshape(x[:1].shape), torch.zeros_like(x[:1])
    spread = x.amax() - x.amin()
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    larger, smaller = flat + spread, flat.roll(1, 1) - spread
    return larger.reshape(x[:1].shape), smaller.reshape(x[:1].shape)


def _outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Every tensor of the output that keeps the sample axis, ``[n, k]`` in float64."""
    found = [t.detach() for _, t in leaves(run_on(model, x.clone()))]
    kept = [t for t in found if t.dim() and len(t) == len(x) and t.numel() and not t.is_complex()]
    return [t.reshape(len(x), -1).double() for t in kept]


def _scale(outputs: Tensor) -> float:
    """Spread of outputs, and not less than what rounding makes of their size."""
    values = outputs[outputs.isfinite()]
    if values.numel() < 2:
        return float("inf")
    return max(float(values.std()), ROUNDING * float(values.abs().max()), 1e-30)


def _gap(a: list[Tensor], b: list[Tensor], scales: list[float]) -> float:
    """Largest difference in units of the spread."""
    worst = 0.0
    for mine, theirs, scale in zip(a, b, scales):
        if mine.shape == theirs.shape:
            gap = (mine - theirs).abs()[mine.isfinite()]
            worst = max(worst, float(gap.nan_to_num(torch.inf).max()) / scale if len(gap) else 0.0)
    return worst


def _tolerance(model: nn.Module, x: Tensor) -> float:
    half = coarse(model) or x.dtype in HALF
    return COARSE if half or torch.is_autocast_enabled(x.device.type) else TOLERANCE


def _unsteady(model: nn.Module, x: Tensor, gap: float) -> ModelError:
    """Two calls that differ: by random numbers, or by what the first one left behind?"""
    with random_state_kept(x.device):
        first = _outputs(model, x)
    with random_state_kept(x.device):
        second = _outputs(model, x)
    got = f"two calls on the same inputs whose outputs differ by {_percent(gap)} of their spread"
    if _gap(first, second, [_scale(t) for t in first]) > _tolerance(model, x):
        return ModelError(
            "the model keeps a state: its outputs change from call to call",
            got=got,
            expected="outputs that follow from the inputs alone",
            fix=f"Do in training mode only (if self.training) what the forward keeps. {AWAY}",
        )
    return ModelError(
        "the model is random in evaluation mode",
        got=got,
        expected="the same outputs for the same inputs",
        fix="Switch its random numbers off in evaluation mode: F.dropout(x, p, self.training), "
        f"no torch.rand. {AWAY}",
    )


def _weights_alone(model: nn.Module, held: dict[str, Tensor]) -> None:
    """Refuse a forward pass that wrote to the copies of the weights that are in the model now."""
    for name, p in model.named_parameters():
        if name in held and not torch.equal(p.detach(), held[name]):
            raise ModelError(
                "a forward pass writes to the model's weights",
                got=repr(name),
                expected="weights that stay as they are in evaluation mode",
                fix="Constrain weights after the optimiser's step, not in the forward. "
                "(No weight of yours was changed.)",
            )


def _batch_norms(model: nn.Module) -> str:
    """Names the most common reasons: a batch-norm without running statistics, quantisation."""
    if any(map(is_quantised, model.modules())):
        return "; quantised layers take their range from the batch"
    for name, m in model.named_modules():
        if isinstance(m, _BatchNorm) and m.running_mean is None:
            return f"; {type(m).__name__} {name!r} has no running statistics"
    return ""


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _no_probabilities(model: nn.Module, x: Tensor) -> None:
    """Means or products of softmaxes: no softmax lies right below the output."""
    try:
        z = logits(model, x)
    except (RuntimeError, IndexError, ValueError, AttributeError):
        return
    if z.dim() < 2 or z.shape[1] < 2 or not bool((z >= 0).all()):
        return
    off = float((z.double().sum(1) - 1).abs().max())
    if off <= (1e-2 if coarse(model) else 1e-5) * z.shape[1]:
        raise ModelError(
            "the outputs are probabilities, which are not those of one last softmax",
            got=f"no negative number, and {z.shape[1]} classes that sum to 1 within {off:.1g}",
            expected="logits",
            fix=f"Return p.log(): log-probabilities are logits. {AWAY}",
        )

"""One traced graph per model: ATen operations, dynamic batch, names of the user's own modules.

`trace` runs `torch.export` once and caches the result by model and input shape. The graph is
functional (in-place operations are rewritten), refers to the model's own parameters and
buffers, and every node knows which call of which module made it (`place`).
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
import weakref
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from isogon.errors import IsogonError, ModelError
from isogon.nets.graph import Graph, Place, functional, place, shape, traced
from isogon.nets.outputs import leaves, output_tensor
from isogon.nets.unwrap import unwrap

__all__ = ["Graph", "Place", "place", "shape", "trace", "undisturbed"]


def trace(model: nn.Module, example: Tensor) -> Graph:
    """The graph of ``model`` in eval mode, for any number of samples.

    Args:
        model: Any module of one tensor. Its mode, weights, buffers, hooks and ``requires_grad``
            are as before when this returns or raises; its hooks don't run and are not traced
            (those of PyTorch's own weight and spectral norm and pruning are).
        example: An input ``[N, ...]``; only its shape, dtype and device matter, and N does not.

    Returns:
        The graph. The same object as long as the model's tensors, modules and plain attributes
        stay the same ones (values may change in place, as by ``load_state_dict``).

    Raises:
        ModelError: The model can't be exported for a dynamic number of samples: it loops over
            the samples, fixes their number as a Python integer, branches on values, or fails.
    """
    model = unwrap(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "a TorchScript module can't be traced",
            got=type(model).__name__,
            expected="the torch.nn.Module that it was made from",
            fix="Pass the original module, or export it with torch.export.",
        )
    if not isinstance(example, Tensor) or example.ndim < 1 or not len(example):
        raise ModelError(
            "an example is needed to trace a model",
            got=f"shape {tuple(example.shape)}" if isinstance(example, Tensor) else type(example),
            expected="a tensor [N, ...] with N >= 1",
            fix="Pass one sample with its sample axis, x[None].",
        )
    known = traced(model, tuple(example.shape[1:]))
    if known is not None:
        return known
    key = (tuple(example.shape[1:]), example.dtype, example.device)
    held = _cache.setdefault(model, {})
    state = fingerprint(model)
    if key in held and held[key][0] == state:
        found = held[key][1]
        if isinstance(found, ModelError):
            raise found.with_traceback(None)
        return found
    try:
        with undisturbed(model), torch.no_grad():
            graph = functional(_export(model, example), model)
    except ModelError as error:
        held[key] = (state, error)
        raise
    held[key] = (state, graph)
    return graph


# --------------------------------------------------------------------------- export

_cache: weakref.WeakKeyDictionary[nn.Module, dict] = weakref.WeakKeyDictionary()
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_hooks_with_kwargs",
    "_global_forward_hooks_always_called",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


@contextlib.contextmanager
def undisturbed(model: nn.Module, *, mute: bool = True) -> Iterator[None]:
    """Eval mode inside; modes, hooks, buffers and plain tensors as before outside.

    Args:
        model: Any module.
        mute: Whether hooks are silent inside, except those by which PyTorch computes weights.
    """
    modules = list(model.modules())
    modes = [m.training for m in modules]
    hooks = [{name: m.__dict__[name] for name in _HOOKS if name in m.__dict__} for m in modules]
    gates = {name: getattr(nn_module, name) for name in _GLOBAL_HOOKS if hasattr(nn_module, name)}
    # old-style weight norm leaves a fresh `weight` behind at every call: put the old one back
    plain = [{k: v for k, v in m.__dict__.items() if isinstance(v, Tensor)} for m in modules]
    buffers = [dict(m._buffers) for m in modules]
    try:
        for m, held in zip(modules, hooks):
            m.training = False
            for name, found in held.items() if mute else ():
                m.__dict__[name] = type(found)(
                    (k, h) for k, h in found.items() if _is_torch_hook(h)
                )
        for name, found in gates.items() if mute else ():
            setattr(nn_module, name, type(found)())
        yield
    finally:
        for name, found in gates.items():
            setattr(nn_module, name, found)
        for m, mode, held, tensors, named in zip(modules, modes, hooks, plain, buffers):
            m.training = mode
            m.__dict__.update(held)
            for key in [k for k, v in m.__dict__.items() if isinstance(v, Tensor)]:
                if key not in tensors:
                    del m.__dict__[key]
            m.__dict__.update(tensors)
            m._buffers.update(named)


def _is_torch_hook(hook: object) -> bool:
    """Hooks by which PyTorch itself computes a weight: without them the graph is another's."""
    return type(hook).__module__.startswith("torch.nn.utils.")


def _export(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    # the stand-in's number of samples differs from all other sizes: where the two are equal,
    # broadcasting would tie them together for good
    taken = {0, 1, *example.shape[1:]}
    for tensor in [*model.parameters(), *model.buffers()]:
        taken.update(tensor.shape)
    count = next(n for n in range(2, 10**6) if n not in taken)
    stand_in = example[:1].detach().expand(count, *example.shape[1:]).contiguous()
    sizes: tuple = ({0: torch.export.Dim("batch")},)
    chosen = model.register_forward_hook(lambda _m, _x, output: _selected(output))
    try:
        if _variadic(model):
            sizes = (sizes,)
        with warnings.catch_warnings(), _quiet():
            warnings.filterwarnings("ignore", ".*assigned during export")  # put back afterwards
            program = torch.export.export(model, (stand_in,), dynamic_shapes=sizes, strict=False)
    except IsogonError:
        raise
    except Exception as error:
        raise _refusal(model, example, error) from error
    finally:
        chosen.remove()
    (placeholder,) = (
        n for n in program.graph.nodes if n.name in program.graph_signature.user_inputs
    )
    if isinstance(placeholder.meta["val"].shape[0], int):  # never silently a fixed batch
        raise _refusal(model, example, ValueError("the number of samples was specialized"))
    return program


def _selected(output: object) -> object:
    """The tensor that is the model's logits; an output of several stays what it is."""
    try:
        return output_tensor(output)
    except ModelError:  # flat: export knows no dataclasses
        return tuple(tensor for _, tensor in leaves(output)) or output


def _variadic(model: nn.Module) -> bool:
    """Whether ``forward`` takes its inputs as ``*args``."""
    return [p.kind for p in _parameters(model)][:1] == [inspect.Parameter.VAR_POSITIONAL]


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return []


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the graph that `torch.export` prints to standard error before it raises."""
    log = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        log.setLevel(level)


def _refusal(model: nn.Module, example: Tensor, error: Exception) -> ModelError:
    """The one-line form of what `torch.export` says in fifty."""
    text = f"{type(error).__name__}: {error}"
    name = type(model).__name__
    quantised = next((m for m in model.modules() if ".quantized" in type(m).__module__), None)
    if quantised is not None:
        return ModelError(
            f"{name} is quantised: it can't be traced, and has no gradients",
            got=type(quantised).__name__,
            expected="a model of real-valued operations",
            fix="Pass the float model that it was made from.",
        )
    if "nference tensor" in text:
        return ModelError(
            f"{name} was made in inference mode, which tracing can't enter",
            got="tensors of torch.inference_mode()",
            expected="ordinary tensors",
            fix="Build or load the model outside torch.inference_mode().",
        )
    wanted = [
        p.name
        for p in _parameters(model)
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    if len(wanted) > 1:
        return ModelError(
            f"{name} takes other inputs than one tensor",
            got=f"forward({', '.join(wanted)})",
            expected="forward(x) with x [N, ...]",
            fix="Wrap it in a module whose forward(x) calls it with the other inputs fixed.",
        )
    if any(sign in text for sign in ("specializ", "ConstraintViolation", "not all values of")):
        return ModelError(
            f"{name} can't be traced for a varying number of samples",
            got="a forward that turns the number of samples into a fixed integer or loops over it",
            expected="one that acts on all samples at once",
            fix="Write x.flatten(1) or x.view(x.shape[0], -1), without int(), len() or a loop "
            "over x; measures that only record activations work as it is.",
        )
    if any(
        sign in text
        for sign in (
            "DataDependent",
            "data-dependent",
            "Dynamic control flow",
            "SymBool",
            "SymFloat",
        )
    ):
        return ModelError(
            f"{name} can't be traced: its forward branches on the values of a tensor",
            got=_first_line(error),
            expected="the same operations for every input",
            fix="Use torch.where instead of `if` or .item(); measures that only record "
            "activations work as it is.",
        )
    return ModelError(
        f"{name} can't be traced ({_first_line(error)})",
        got=f"an example of shape {tuple(example.shape)}, {example.dtype}",
        expected="a model that torch.export accepts",
        fix="Check that model(example) runs and that forward uses tensor operations only.",
    )


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


# --------------------------------------------------------------------------- cache state


class _ById:
    """Equal only to a reference to the same living tensor or module."""

    __slots__ = ("ref", "version")

    def __init__(self, thing: object, version: int = 0) -> None:
        self.ref, self.version = weakref.ref(thing), version

    def __eq__(self, other: object) -> bool:
        mine = self.ref()
        return (
            isinstance(other, _ById)
            and mine is not None
            and mine is other.ref()
            and self.version == other.version
        )

    __hash__ = None  # type: ignore[assignment]


def fingerprint(model: nn.Module) -> list:
    """What the graph depends on: tensors by identity, modules by type, plain attributes."""
    state: list = []
    for path, m in model.named_modules():
        state.append((path, type(m), _ById(m)))
        for kind in (m._parameters, m._buffers):
            state.extend((k, _ById(v), v.shape, v.dtype) for k, v in kind.items() if v is not None)
        for key, value in m.__dict__.items():
            if isinstance(value, Tensor):  # lifted as a constant: its value is part of the graph
                if not any(map(_is_torch_hook, m._forward_pre_hooks.values())):
                    state.append((key, _ById(value, value._version)))
            elif key != "training" and isinstance(value, bool | int | float | str | tuple):
                state.append((key, value))
    return state

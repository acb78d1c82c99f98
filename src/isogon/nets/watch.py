"""Watching a forward pass: which module calls and which operations ran, and what they returned.

Module calls are seen by hooks. Operations that a module's own ``forward`` calls (``F.relu``, the
sum of a residual block) are seen by a `TorchFunctionMode`, under the names that the traced graph
gives them: ``<owner>:relu#0`` is the first ``relu`` in one call of ``<owner>``. Nothing has to be
exported for that.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from isogon.errors import ModelError
from isogon.nets.graph import layer_of
from isogon.nets.unwrap import uncompiled

# Every tap of one forward pass: path, index of the call, operation, output.
Report = Callable[[str, int, str, Tensor], None]

_NONLINEAR = """
relu leaky_relu prelu rrelu relu6 elu selu celu gelu silu mish softplus hardtanh hardswish
hardsigmoid sigmoid log_sigmoid tanh softsign softshrink hardshrink threshold abs sin cos clamp
clamp_min clamp_max maximum minimum glu
"""
NONLINEAR_OPS = frozenset(_NONLINEAR.split())
_OTHER = """
add sub mul cat matmul linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d
conv_transpose3d batch_norm layer_norm group_norm max_pool1d max_pool2d max_pool3d avg_pool1d
avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d softmax log_softmax
scaled_dot_product_attention mean
"""
_OPS = NONLINEAR_OPS | frozenset(_OTHER.split())
_SAME = {"concat": "cat", "concatenate": "cat", "logsigmoid": "log_sigmoid", "absolute": "abs"}
_ARITHMETIC = ("add", "sub", "mul", "matmul")


def _operation(function: Any) -> str | None:
    """The ATen name of a watched function, without the underscore of in-place ones."""
    schema = getattr(function, "_schema", None)
    if schema is not None:
        name = schema.name.split("::")[-1].removesuffix("_")
    else:
        raw = getattr(function, "__name__", "")
        name = raw.strip("_")
        if raw.startswith("__") and name[1:] in _ARITHMETIC:  # __radd__, __iadd__
            name = name[1:]
        name = _SAME.get(name, name)
    return name if name in _OPS else None


def first_tensor(output: Any) -> Tensor | None:
    """The tensor in a module's output: itself or the first of a tuple; None if there is none."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, list | tuple):
        return next((o for o in output if isinstance(o, Tensor)), None)
    return None


_ASIDE = ("", 0, True)


class _Operations(TorchFunctionMode):
    """Reports operations called by modules that are not layers of PyTorch's own."""

    def __init__(self, running: list[tuple[str, int, bool]], report: Report) -> None:
        super().__init__()
        self.running, self.report = running, report
        self.counts: Counter[tuple[str, int, str]] = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = _operation(func)
        if name is not None and self.running:
            path, call, whole = self.running[-1]
            value = first_tensor(result)
            if not whole and value is not None:
                k = self.counts[path, call, name]
                self.counts[path, call, name] += 1
                self.report(f"{path}:{name}#{k}", call, name, value)
        return result


@contextmanager
def watched(
    model: nn.Module,
    report: Report,
    *,
    modules: Iterable[nn.Module] | None = None,
    operations: bool = True,
) -> Iterator[Callable[[Any], Any]]:
    """Report every call of one forward pass, in order of completion.

    Args:
        model: Any module; its hooks are as they were afterwards, whatever happens.
        report: Receives path, index of the call, operation or type, and output.
        modules: The modules to watch; all by default.
        operations: Whether to watch operations too (then all modules are hooked, to know owners).

    Yields:
        A function that runs the model once.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "a TorchScript module can't be watched",
            got=type(model).__name__,
            expected="the torch.nn.Module that it was made from",
            fix="Pass the original module.",
        )
    paths = {
        m: path for path, m in model.named_modules() if not isinstance(m, torch.jit.ScriptModule)
    }
    wanted = set(paths) if modules is None else set(modules) & set(paths)
    calls: Counter[str] = Counter()
    running: list[tuple[str, int, bool]] = []

    def enter(module: nn.Module, _: Any) -> None:
        path = paths[module]
        running.append((path, calls[path], _is_layer(module)))
        calls[path] += 1

    def leave(module: nn.Module, _: Any, output: Any) -> None:
        path, call, _whole = running.pop()
        value = first_tensor(output)
        if module in wanted and value is not None:
            running.append(_ASIDE)  # what the report computes is no operation of the model
            report(path, call, type(module).__name__, value)
            running.pop()

    def run(x: Tensor) -> Any:
        calls.clear()
        running.clear()
        operating = _Operations(running, report) if operations else nullcontext()
        with _step_by_step(), operating:
            return run_on(model, x.clone())  # a first layer in place would change the user's data

    handles: list[Any] = []
    try:
        for module in paths if operations else wanted:
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
        with uncompiled(model):  # dynamo can't compile around these hooks
            yield run
    finally:
        for handle in handles:
            handle.remove()


def run_on(model: nn.Module, x: Tensor) -> Any:
    """``model(x)``; a model that wants further inputs is refused by name.

    Raises:
        ModelError: ``forward`` has other required parameters than one tensor.
    """
    try:
        return model(x)
    except TypeError as error:
        if "argument" not in str(error) or "forward" not in str(error):
            raise
        try:
            wants = str(inspect.signature(model.forward))
        except (TypeError, ValueError):
            raise error from None
        raise ModelError(
            "the model takes other inputs than one tensor",
            got=f"forward{wants}",
            expected="forward(x) with x [N, ...]",
            fix="Wrap it in a module whose forward(x) calls it with the other inputs fixed.",
        ) from error


def misfit(x: Tensor, error: Exception) -> ModelError:
    """What to say where a layer stumbles over the type or the shape of the inputs."""
    expected = "samples of the shape that the model was made for"
    fix = "Give data of that shape, or build the model for this data."
    if not x.is_floating_point():
        expected = "floating-point numbers, scaled as the model was trained"
        fix = "Images of bytes become numbers from 0 to 1 by x.float() / 255."
    elif x.dim() == 4 and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        fix = "If the images are [N, H, W, C], give x.permute(0, 3, 1, 2)."
    return ModelError(
        "the model does not take these inputs",
        got=f"input {list(x.shape)} of {str(x.dtype).removeprefix('torch.')}: "
        f"{str(error).splitlines()[0]}",
        expected=expected,
        fix=fix,
    )


@contextmanager
def _step_by_step() -> Iterator[None]:
    """No fused attention inside: it skips modules, and rounds otherwise than the traced graph."""
    mha = torch.backends.mha
    enabled = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(enabled)


def _is_layer(module: nn.Module) -> bool:
    kind = type(module)
    return layer_of(f"{kind.__module__}.{kind.__qualname__}") is not None

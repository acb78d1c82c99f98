"""ONNX operators as PyTorch layers and functions; one small builder per operator.

A builder takes the node's `Operands` and returns a module (called with the tensors that depend
on the input) or a function of all the node's inputs in order; inputs read at build time (shapes,
axes, bounds) are marked static and arrive as None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isogon.errors import UnsupportedOp
from isogon.nets.onnx_layers import LAYERS
from isogon.nets.onnx_operands import Operands
from isogon.nets.onnx_shapes import SHAPES

__all__ = ["OPS"]


def _plain(function: Callable[..., Any]) -> Callable[[Operands], Any]:
    return lambda o: function


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Operands], Any]:
    def all_of(*values: Tensor) -> Tensor:
        result = values[0]
        for value in values[1:]:
            result = function(result, value)
        return result

    return lambda o: all_of


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _clip(o: Operands):
    low, high = o.number("min", 1, None), o.number("max", 2, None)
    return lambda x, *_: x.clamp(low, high)


def _cast(o: Operands):
    empty = np.zeros(0, onnx.helper.tensor_dtype_to_np_dtype(o.get("to")))
    kind = torch.from_numpy(empty).dtype
    return lambda x: x.to(kind)


def _dropout(o: Operands):
    if o.version < 7:
        training = not o.get("is_test", 0)
    else:
        training = bool((o.read(2, "training_mode") or [False])[0])
    ratio = o.number("ratio", 1, 0.5)
    if training and ratio:
        raise UnsupportedOp(
            "an ONNX Dropout in training mode: the network is random",
            got=f"ratio {ratio:g}",
            expected="a network in evaluation mode",
            fix="Call model.eval(), then export it again.",
        )
    return nn.Identity()


def _constant(o: Operands):
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if name in o.attributes:
            value = o.attributes[name]
            if not isinstance(value, Tensor):
                kind = torch.float32 if "float" in name else torch.int64
                value = torch.tensor(value, dtype=kind)
            return lambda: value
    raise UnsupportedOp("an ONNX Constant of text or of a sparse tensor")


def _filled(o: Operands):
    sizes, value = o.ints("shape", 0) or [], o.get("value", torch.zeros(1))
    filling = value.item()
    return lambda _: torch.full(sizes, filling, dtype=value.dtype)


def _range(o: Operands):
    (start,), (stop,), (step,) = (o.read(i, "bounds") or [0] for i in range(3))
    first = o.inputs[0]
    assert first is not None
    return lambda *_: torch.arange(start, stop, step, dtype=first.dtype)


def _shape(o: Operands):
    x = o.inputs[0]
    assert x is not None
    sizes = list(x.shape)[o.get("start", 0) : o.get("end", None)]
    return lambda *_: torch.tensor(sizes, dtype=torch.int64)


def _softmax(function: Callable[..., Tensor]) -> Callable[[Operands], Any]:
    def build(o: Operands):
        axis, x = o.get("axis", -1 if o.version >= 13 else 1), o.inputs[0]
        assert x is not None
        if o.version < 13 and axis % x.ndim != x.ndim - 1:  # over all axes from `axis` on
            return lambda x: function(x.flatten(axis), -1).reshape(x.shape)
        return lambda x: function(x, axis)

    return build


def _depth_to_space(o: Operands):
    block, mode = o.get("blocksize"), o.get("mode", "DCR")

    def crd(x: Tensor) -> Tensor:
        return F.pixel_shuffle(x, block)

    def dcr(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(n, c // block**2, h * block, w * block)

    return crd if mode == "CRD" else dcr


def _space_to_depth(o: Operands):
    block = o.get("blocksize")

    def gather(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(n, c * block**2, h // block, w // block)

    return gather


def _hard_sigmoid(o: Operands):
    alpha, beta = o.get("alpha", 0.2), o.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return nn.Hardsigmoid()
    return lambda x: (alpha * x + beta).clamp(0, 1)


def _layer_norm(o: Operands):
    axis, eps = o.get("axis", -1), o.get("epsilon", 1e-5)

    def norm(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.layer_norm(x, x.shape[axis:], weight, bias, eps)

    return norm


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def _thresholded(o: Operands):
    alpha = o.get("alpha", 1.0)
    return lambda x: torch.where(x > alpha, x, torch.zeros_like(x))


OPS: dict[str, Callable[[Operands], Any]] = {
    **LAYERS,
    **SHAPES,
    "Identity": lambda o: nn.Identity(),
    "Dropout": _dropout,
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Shape": _shape,
    "Cast": _cast,
    "Size": lambda o: lambda x: torch.tensor(x.numel()),
    "Range": _range,
    "Relu": lambda o: nn.ReLU(),
    "Tanh": lambda o: nn.Tanh(),
    "Sigmoid": lambda o: nn.Sigmoid(),
    "LeakyRelu": lambda o: nn.LeakyReLU(o.get("alpha", 0.01)),
    "Elu": lambda o: nn.ELU(o.get("alpha", 1.0)),
    "Celu": lambda o: nn.CELU(o.get("alpha", 1.0)),
    "Selu": lambda o: nn.SELU(),
    "Softplus": lambda o: nn.Softplus(),
    "Softsign": lambda o: nn.Softsign(),
    "Mish": lambda o: nn.Mish(),
    "HardSwish": lambda o: nn.Hardswish(),
    "HardSigmoid": _hard_sigmoid,
    "Gelu": lambda o: nn.GELU(approximate=o.get("approximate", "none")),
    "PRelu": _plain(_prelu),
    "ThresholdedRelu": _thresholded,
    "Clip": _clip,
    "Softmax": _softmax(F.softmax),
    "LogSoftmax": _softmax(F.log_softmax),
    "Add": _plain(torch.add),
    "Sub": _plain(torch.sub),
    "Mul": _plain(torch.mul),
    "Div": _plain(_divide),
    "Pow": _plain(torch.pow),
    "Neg": _plain(torch.neg),
    "Abs": _plain(torch.abs),
    "Sqrt": _plain(torch.sqrt),
    "Exp": _plain(torch.exp),
    "Log": _plain(torch.log),
    "Erf": _plain(torch.erf),
    "Sin": _plain(torch.sin),
    "Cos": _plain(torch.cos),
    "Tan": _plain(torch.tan),
    "Reciprocal": _plain(torch.reciprocal),
    "Floor": _plain(torch.floor),
    "Ceil": _plain(torch.ceil),
    "Round": _plain(torch.round),
    "Sign": _plain(torch.sign),
    "Not": _plain(torch.logical_not),
    "And": _plain(torch.logical_and),
    "Or": _plain(torch.logical_or),
    "Equal": _plain(torch.eq),
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "Where": _plain(torch.where),
    "Sum": _fold(torch.add),
    "Max": _fold(torch.maximum),
    "Min": _fold(torch.minimum),
    "Mean": lambda o: lambda *values: sum(values[1:], values[0]) / len(values),
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "ArgMax": lambda o: lambda x: x.argmax(o.get("axis", 0), bool(o.get("keepdims", 1))),
    "ArgMin": lambda o: lambda x: x.argmin(o.get("axis", 0), bool(o.get("keepdims", 1))),
    "Einsum": lambda o: lambda *values: torch.einsum(o.get("equation"), *values),
    "LayerNormalization": _layer_norm,
}

"""ONNX operators with weights or windows as PyTorch layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isogon.errors import UnsupportedOp

if TYPE_CHECKING:
    from isogon.nets.onnx_operands import Operands


__all__ = ["LAYERS"]


def _windows(o: Operands, sizes: list[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Strides, dilations, and the padding before and after each axis of a sliding window."""
    x = o.inputs[0]
    space = list(x.shape[2:])
    strides = list(o.get("strides") or [1] * len(sizes))
    dilations = list(o.get("dilations") or [1] * len(sizes))
    pads = list(o.get("pads") or [0] * (2 * len(sizes)))
    before, after = pads[: len(sizes)], pads[len(sizes) :]
    auto = o.get("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        for a, (n, k, s, d) in enumerate(zip(space, sizes, strides, dilations)):
            total = max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
            small, large = total // 2, total - total // 2
            before[a], after[a] = (small, large) if auto == "SAME_UPPER" else (large, small)
    elif auto == "VALID":
        before, after = [0] * len(sizes), [0] * len(sizes)
    return strides, dilations, before, after


def _order(before: list[int], after: list[int]) -> list[int]:
    """Padding as `F.pad` takes it: last axis first."""
    return [n for pair in zip(reversed(before), reversed(after)) for n in pair]


class _Padded(nn.Sequential):
    """A layer after padding that differs on the two sides."""

    def __init__(self, pad: list[int], layer: nn.Module, value: float = 0.0) -> None:
        super().__init__(nn.ZeroPad2d(0), layer)
        self.pad, self.value = pad, value

    def forward(self, input: Tensor) -> Tensor:
        return self[1](F.pad(input, self.pad, value=self.value))


def _put(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer.weight = nn.Parameter(weight, weight.is_floating_point())
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer


def _constant_weights(o: Operands) -> bool:
    return o.depends[0] and not any(o.depends[1:])


def _conv(o: Operands):
    if not _constant_weights(o):
        raise UnsupportedOp("an ONNX convolution whose weights depend on the input")
    weight, bias = o.inputs[1], o.inputs[2] if o.has(2) else None
    axes, groups = weight.ndim - 2, o.get("group", 1)
    strides, dilations, before, after = _windows(o, list(weight.shape[2:]))
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    layer = kind(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        tuple(strides),
        tuple(before) if before == after else 0,
        tuple(dilations),
        groups,
        bias is not None,
        device="meta",
    )
    layer = _put(layer, weight, bias)
    return layer if before == after else _Padded(_order(before, after), layer)


def _conv_transpose(o: Operands):
    if not _constant_weights(o):
        raise UnsupportedOp("an ONNX convolution whose weights depend on the input")
    weight, bias = o.inputs[1], o.inputs[2] if o.has(2) else None
    axes, groups = weight.ndim - 2, o.get("group", 1)
    if o.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or o.get("output_shape"):
        raise UnsupportedOp("an ONNX ConvTranspose with automatic padding")
    strides, dilations, before, after = _windows(o, list(weight.shape[2:]))
    extra = list(o.get("output_padding") or [0] * axes)
    if before != after:
        extra = [e + b - a for e, b, a in zip(extra, before, after)]
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
    layer = kind(
        weight.shape[0],
        weight.shape[1] * groups,
        tuple(weight.shape[2:]),
        tuple(strides),
        tuple(before),
        tuple(extra),
        groups,
        bias is not None,
        tuple(dilations),
        device="meta",
    )
    return _put(layer, weight, bias)


def _gemm(o: Operands):
    alpha, beta = o.get("alpha", 1.0), o.get("beta", 1.0)
    left, right = bool(o.get("transA", 0)), bool(o.get("transB", 0))
    bias = o.inputs[2] if o.has(2) else None
    weight = o.inputs[1]
    if _constant_weights(o) and not left and (bias is None or bias.ndim <= 1):
        weight = (weight if right else weight.T).contiguous() * alpha
        if bias is not None:
            bias = (bias * beta).expand(len(weight)).contiguous()
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        return _put(layer, weight, bias)

    def gemm(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = alpha * ((a.mT if left else a) @ (b.mT if right else b))
        return product if c is None else product + beta * c

    return gemm


def _matmul(o: Operands):
    a, b = o.inputs
    if _constant_weights(o) and b.ndim == 2:
        return _linear(b.T.contiguous())
    if b.ndim == 1 and o.depends == [False, True] and a.ndim <= 2:
        # W x of a single vector x: written as x W^T, which holds along an axis of samples as well
        return _linear(a) if a.ndim == 2 else lambda w, x: torch.matmul(x, w)
    return torch.matmul


def _linear(weight: Tensor) -> nn.Module:
    return _put(nn.Linear(weight.shape[1], len(weight), False, device="meta"), weight, None)


def _batch_norm(o: Operands):
    if not _constant_weights(o):
        raise UnsupportedOp("an ONNX batch-norm whose statistics depend on the input")
    if o.get("training_mode", 0) or o.outputs > 1:  # older files: several outputs say so
        raise UnsupportedOp(
            "an ONNX batch-norm in training mode: a sample's output depends on its batch",
            expected="a network in evaluation mode",
            fix="Call model.eval(), then export it again.",
        )
    x, weight, bias, mean, var = o.inputs[:5]
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[x.ndim]
    layer = kind(len(mean), o.get("epsilon", 1e-5))
    layer.running_mean, layer.running_var = mean.clone(), var.clone()
    return _put(layer, weight, bias)


def _instance_norm(o: Operands):
    eps = o.get("epsilon", 1e-5)
    return lambda x, weight, bias: F.instance_norm(x, weight=weight, bias=bias, eps=eps)


def _max_pool(o: Operands):
    sizes = list(o.get("kernel_shape"))
    strides, dilations, before, after = _windows(o, sizes)
    kind: Any = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[len(sizes) - 1]
    ceil, same = bool(o.get("ceil_mode", 0)), before == after
    layer = kind(
        tuple(sizes), tuple(strides), tuple(before) if same else 0, tuple(dilations), ceil_mode=ceil
    )
    return layer if same else _Padded(_order(before, after), layer, -math.inf)


def _average_pool(o: Operands):
    sizes = list(o.get("kernel_shape"))
    strides, dilations, before, after = _windows(o, sizes)
    if set(dilations) != {1}:
        raise UnsupportedOp("an ONNX AveragePool with dilations")
    counted = bool(o.get("count_include_pad", 0))
    kind: Any = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[len(sizes) - 1]
    if before == after or (counted and not o.get("ceil_mode", 0)):
        same = before == after
        layer = kind(
            tuple(sizes),
            tuple(strides),
            tuple(before) if same else 0,
            bool(o.get("ceil_mode", 0)),
            counted,
        )
        return layer if same else _Padded(_order(before, after), layer)
    pad, pool = _order(before, after), kind(tuple(sizes), tuple(strides))

    def average(x: Tensor) -> Tensor:
        inside = F.pad(torch.ones_like(x[:1, :1]), pad)
        return pool(F.pad(x, pad)) / pool(inside)

    return average


def _global(kind: str) -> Callable[[Operands], nn.Module]:
    def build(o: Operands) -> nn.Module:
        return getattr(nn, f"{kind}{o.inputs[0].ndim - 2}d")(1)

    return build


LAYERS: dict[str, Callable[[Operands], Any]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global("AdaptiveAvgPool"),
    "GlobalMaxPool": _global("AdaptiveMaxPool"),
}

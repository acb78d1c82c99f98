"""The weighted layers of a network: where each stands, and the filters of its units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import Module

from isogon.nets.states import weight_of

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHTED = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
POOLS = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.LPPool1d,
    nn.LPPool2d,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
)


@dataclass(frozen=True)
class Layer:
    """A weighted layer: its path, place and filters [units, inputs] in float64.

    Attributes:
        site: Its path; ``model`` where it is the model.
        stage: Number of pooling modules before it.
        block: Its index within the stage.
        filters: Weights of each unit, batch-norm folded in where that was asked for.
        dtype: Of the weights as they are stored.
        module: The layer itself.
        scale: What was folded in, [units, 1]; None where nothing was.
    """

    site: str
    stage: int
    block: int
    filters: Tensor
    dtype: torch.dtype
    module: Module
    scale: Tensor | None = None

    def __str__(self) -> str:
        return f"{self.site} {list(self.filters.shape)}"


def filters(module: Module) -> Tensor | None:
    """Filters [units, inputs] of a weighted layer in float64; None for any other module.

    Unit o of a transposed convolution with g groups reads the input channels of its own
    group: rows i of ``weight[i, o mod (out / g)]`` with i in that group.
    """
    if not isinstance(module, WEIGHTED):
        return None
    found = weight_of(module)
    assert found is not None
    weight = found.double()
    if isinstance(module, TRANSPOSED):
        g, kernel = module.groups, weight.shape[2:]
        grouped = weight.reshape(g, weight.shape[0] // g, weight.shape[1], *kernel)
        weight = grouped.transpose(1, 2)
        return weight.reshape(g * weight.shape[1], -1)
    return weight.reshape(weight.shape[0], -1)


def layers_of(model: Module, linear: bool, pointwise: bool, fold: bool) -> Iterator[Layer]:
    """The weighted layers in module order.

    Args:
        model: Any module.
        linear: Whether linear layers count.
        pointwise: Whether convolutions with a kernel of size 1 count.
        fold: Whether a batch-norm that directly follows is folded in.
    """
    stage, block = 0, 0
    order = [
        (path, m)
        for path, m in model.named_modules()
        if (isinstance(m, WEIGHTED) or not any(m.children()))
        and "parametrizations" not in path.split(".")
    ]
    for place, (path, module) in enumerate(order):
        if isinstance(module, POOLS):
            stage, block = stage + 1, 0
            continue
        if not isinstance(module, WEIGHTED):
            continue
        if isinstance(module, nn.Linear):
            if not linear:
                continue
        elif not pointwise and set(module.kernel_size) == {1}:
            continue
        w, weight = filters(module), weight_of(module)
        assert w is not None
        assert weight is not None
        scale = None
        if fold and place + 1 < len(order):
            scale = _norm_scale(order[place + 1][1], len(w))
        if scale is not None:
            w = w * scale.to(w)
        yield Layer(path or "model", stage, block, w.cpu(), weight.dtype, module, scale)
        block += 1


def _norm_scale(norm: Module, units: int) -> Tensor | None:
    """Factor [units, 1] by which a batch-norm in evaluation mode multiplies each unit, or None."""
    if not isinstance(norm, NORMS) or norm.num_features != units or norm.running_var is None:
        return None
    scale = (norm.running_var.detach().double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    return scale[:, None]

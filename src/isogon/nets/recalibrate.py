"""Batch-norm recalibration: statistics of other data, in a copy that shares the weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from isogon.errors import DataError
from isogon.nets.hygiene import cast
from isogon.nets.unwrap import unwrap


class GraphNorm(nn.Module):
    """Batch-norm of a traced graph, with statistics of its own.

    Args:
        weight: Scale ``[C]`` or None; shared.
        bias: Shift ``[C]`` or None; shared.
        mean: Running mean ``[C]``; copied.
        var: Running variance ``[C]``; copied.
        eps: Added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor
    weight: Tensor | None
    bias: Tensor | None
    momentum: float | None

    def __init__(
        self, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float
    ) -> None:
        super().__init__()
        self.register_parameter("weight", weight)  # type: ignore[arg-type]
        self.register_parameter("bias", bias)  # type: ignore[arg-type]
        self.register_buffer("running_mean", mean.clone())
        self.register_buffer("running_var", var.clone())
        self.eps, self.momentum = eps, 0.1

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, ...]`` to the same shape."""
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum or 0.0,
            self.eps,
        )


def recalibrated(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> nn.Module:
    """The model with batch-norm statistics of these data: means over batches, weighted by size.

    One pass in which every batch is normalised by its own statistics, as in training.

    Args:
        model: A module, or parts of split models; not changed.
        batches: Inputs ``[n, ...]`` with n >= 2, and labels (not looked at).

    Returns:
        A copy in evaluation mode: parameters shared, batch-norm statistics its own. Without
        batch-norm, the model's output does not change.

    Raises:
        DataError: No samples.
    """
    twin, norms = with_norms(model)
    if not norms:
        return twin
    momenta = [m.momentum for m in norms]
    total = 0
    with torch.no_grad():
        for m in norms:
            m.training = True
        for x, *_ in batches:
            total += len(x)
            for m in norms:
                m.momentum = len(x) / total
            try:
                twin(cast(x, twin))
            except ValueError as error:
                if "more than 1 value" not in str(error):
                    raise
                raise no_variance(x) from error
    for m, momentum in zip(norms, momenta, strict=True):
        m.training, m.momentum = False, momentum
    if not total:
        raise DataError("no samples", got="0 samples", expected="at least one batch")
    return twin


def with_norms(
    model: nn.Module, *, shared: bool = True
) -> tuple[nn.Module, list[GraphNorm | _BatchNorm]]:
    """A copy whose batch-norms are modules with statistics of their own, also of traced graphs.

    Args:
        model: A module, or parts of split models; not changed.
        shared: Whether parameters are the model's own, or copies.

    Returns:
        The copy, in evaluation mode, and those of its modules that keep running statistics.
    """
    model = unwrap(model)
    twin = copy.deepcopy(model, {id(p): p for p in model.parameters()} if shared else None)
    for module in list(twin.modules()):
        if isinstance(module, fx.GraphModule):
            _norms_to_modules(module)
    norms: list[GraphNorm | _BatchNorm] = [
        m
        for m in twin.modules()
        if isinstance(m, GraphNorm) or (isinstance(m, _BatchNorm) and m.running_mean is not None)
    ]
    for m in twin.modules():
        m.training = False
    return twin, norms


def no_variance(x: Tensor) -> DataError:
    """What to say of a batch that is too small for statistics."""
    return DataError(
        "a batch of one sample has no variance",
        got=f"inputs {tuple(x.shape)}",
        expected="two samples or more per batch",
        fix="Choose a batch size that does not leave a single sample over.",
    )


def _norms_to_modules(module: fx.GraphModule) -> None:
    def tensor(node: Any) -> Tensor | None:
        if node is None:
            return None
        found: Any = module
        for part in str(node.target).split("."):
            found = getattr(found, part)
        return found

    for k, node in enumerate(list(module.graph.nodes)):
        if node.target is not torch.ops.aten.batch_norm.default:
            continue
        x, weight, bias, mean, var, _training, _momentum, eps, *_ = node.args
        if tensor(mean) is None:
            continue
        name = f"graph_norm_{k}"
        norm = GraphNorm(tensor(weight), tensor(bias), tensor(mean), tensor(var), eps)  # type: ignore[arg-type]
        module.add_submodule(name, norm)
        with module.graph.inserting_before(node):
            replacement = module.graph.call_module(name, (x,))
        node.replace_all_uses_with(replacement)
        module.graph.erase_node(node)
    module.recompile()

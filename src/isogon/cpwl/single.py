"""A lowered network in single precision, for what is decided by far."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from isogon.cpwl.program import Program

COARSE = float(torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps)
CHUNKS = 2  # single numbers take half the room


class Single(TorchFunctionMode):
    """Every operation sees single numbers where it was given double ones."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation on its arguments, narrowed."""
        return func(*tree_map(_narrow, args), **tree_map(_narrow, kwargs or {}))


def _narrow(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype == torch.float64:
        return value.to(torch.float32)
    return torch.float32 if value is torch.float64 else value


@torch.no_grad()
def evaluate_single(program: Program, x: Tensor) -> Tensor:
    """The network's output `[N, ...]` at `[N, *shape]`, as single numbers.

    Its errors are those of double precision times `COARSE`.
    """
    size, parts = CHUNKS * program.chunk(), []
    with Single():
        for low in range(0, max(len(x), 1), size):
            result = part = x[low : low + size].to(torch.float32)
            for stage, _, value in program.steps(part):
                if stage.output == program.output:
                    result = value
            parts.append(result)
    return parts[0] if len(parts) == 1 else torch.cat(parts)

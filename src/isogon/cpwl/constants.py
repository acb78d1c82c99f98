"""Arguments of operations: nested tuples of tensors and literals, taken to float64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def leaves(tree: Any) -> Iterator[Any]:
    """What nested tuples, lists and dictionaries hold."""
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, tuple | list):
        for branch in tree:
            yield from leaves(branch)
    else:
        yield tree


def mapped(tree: Any, function: Callable[[Any], Any]) -> Any:
    """The same nesting with every leaf replaced by `function(leaf)`."""
    if isinstance(tree, dict):
        return {key: mapped(value, function) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        return type(tree)(mapped(value, function) for value in tree)
    return function(tree)


def in_double(value: Any) -> Any:
    """Floating-point tensors and dtypes as float64, devices as the CPU, the rest as it is."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.float64)
    if isinstance(value, torch.dtype) and value.is_floating_point:
        return torch.float64
    return torch.device("cpu") if isinstance(value, torch.device) else value

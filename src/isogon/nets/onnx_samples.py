"""Whether an ONNX network's input has an axis for samples, found on stand-ins without memory."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)

from isogon.errors import ModelError

UNSAID = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    NotImplementedError,
)


def sample_shape(
    model: nn.Module, name: str, sizes: Sequence[int], open_: bool, dtype: torch.dtype
) -> tuple[int, ...]:
    """The shape of one sample: the input's without its first axis, if that is the samples'.

    A network of single inputs (``[784]``, ``[C, H, W]``) that computes the same along an axis put
    in front takes that one.

    Args:
        model: The network.
        name: What its input is called.
        sizes: The input's sizes in the file, with a stand-in for an open first one.
        open_: Whether the file leaves the first one open.
        dtype: Of the input.

    Raises:
        ModelError: It runs for the sizes of the file and no other number of samples.
    """
    rest = tuple(sizes[1:])
    if open_ or _takes(model, rest, sizes, dtype) is not False:
        return rest
    if _takes(model, tuple(sizes), sizes, dtype):
        return tuple(sizes)
    raise ModelError(
        f"the ONNX network's input {name!r} has no axis for samples",
        got=f"{name} {list(sizes)}, and no other first size works",
        expected="[N, ...] for any N",
        fix="Export it with one: torch.onnx.export(model, x[None], 'net.onnx', "
        f"dynamic_axes={{{name!r}: {{0: 'n'}}}}).",
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the traceback that stand-ins log before they raise what is caught here."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


@torch.no_grad()
def _takes(
    model: nn.Module, shape: tuple[int, ...], sizes: Sequence[int], dtype: torch.dtype
) -> bool | None:
    """Whether ``[N, *shape]`` gives ``[N, ...]`` for two numbers N; None where it can't be told."""
    for count in [n for n in (5, 7, 11, 13, 17, 19) if n not in sizes][:2]:
        try:
            with quiet(), FakeTensorMode(allow_non_fake_inputs=True):
                made: Any = model(torch.zeros((count, *shape), dtype=dtype))
        except UNSAID:
            return None
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False
        for value in made.values() if isinstance(made, dict) else (made,):
            if not value.dim() or len(value) != count:
                return False
    return True

"""Labels and inputs as tensors, whatever they came as; what holds no numbers is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from isogon.errors import DataError

_NUMBERS = "biufc"  # kinds of NumPy's types


def unlabelled(x: Tensor | np.ndarray) -> Tensor:
    """What stands where samples have no labels: NaN, one per sample."""
    return torch.full(np.shape(x)[:1], torch.nan)


def is_unlabelled(y: Tensor) -> bool:
    """Whether labels only stand in for labels that are not there (all of them NaN)."""
    return y.is_floating_point() and y.numel() > 0 and bool(y.isnan().all())


def refuse_unlabelled(y: Tensor, expected: str = "one label per sample") -> None:
    """Refuse labels that only stand in for labels that are not there.

    Raises:
        DataError: They do.
    """
    if is_unlabelled(y):
        raise DataError(
            "the samples have no labels",
            got="inputs alone",
            expected=expected,
            fix="Give batches of (x, y), or y in the .npz file.",
        )


def as_labels(y: Any, *, what: str = "the labels", count: int | None = None) -> Tensor:
    """Labels as a tensor.

    Args:
        y: A tensor, an array, a list or tuple of numbers, or one number.
        what: What they are called in the message.
        count: Number of samples, where ``y`` has to have one label for each.

    Raises:
        DataError: No numbers, or one number for all samples: says what was seen and how to mend it.
    """
    found = numbers(y)
    if found is None:
        raise DataError(
            f"{what} are no numbers",
            got=_seen(y),
            expected="class numbers from 0, one per sample",
            fix=_fix(y),
        )
    if count is not None and found.dim() == 0:
        raise DataError(
            "labels and samples differ in number",
            got=f"the single number {found.item()} as {what}",
            expected=f"{count} labels",
            fix="Give one each.",
        )
    return found


def as_inputs(x: Tensor | np.ndarray, *, what: str = "the inputs") -> Tensor:
    """Inputs as a tensor.

    Raises:
        DataError: An array of text, objects or dates.
    """
    found = numbers(x)
    if found is None:
        raise DataError(
            f"{what} are no numbers",
            got=_seen(x),
            expected="real numbers [N, ...]",
            fix="Convert them, e.g. x.astype('float32').",
        )
    return found


def numbers(values: Any) -> Tensor | None:
    """Values as a tensor, sharing memory where that is possible; None where they are no numbers.

    What torch has no type for is converted: extended precision, the other byte order, objects
    that are numbers.
    """
    if isinstance(values, Tensor):
        return values
    if isinstance(values, list | tuple):
        try:
            if values and all(isinstance(v, Tensor) for v in values):
                return torch.stack(list(values))
            return torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            pass  # tried once more as an array
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O":
            array = np.asarray(array.tolist())
    except (TypeError, ValueError, RuntimeError, OverflowError):  # ragged, or of a user's class
        return None
    if array.dtype.kind not in _NUMBERS:
        return None
    array = standard(array)
    if not array.flags.writeable or any(s < 0 for s in array.strides):
        array = array.copy()
    return torch.as_tensor(array)


def standard(array: np.ndarray) -> np.ndarray:
    """An array of numbers in a type that torch has: native byte order, float64 at most."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and size > 8:
        return array.astype(np.float64)
    if kind == "c" and size > 16:
        return array.astype(np.complex128)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _seen(values: Any) -> str:
    kind = type(values).__name__
    if isinstance(values, str | bytes):
        return repr(values)[:60]
    if isinstance(values, dict):
        return f"a dict with {', '.join(map(repr, list(values)[:4])) or 'nothing'}"
    if isinstance(values, np.ndarray):
        shown = ", ".join(repr(v)[:20] for v in values.ravel()[:3].tolist())
        return f"{values.dtype} {list(values.shape)}: {shown}" + ", ..." * (values.size > 3)
    if isinstance(values, list | tuple):
        shown = ", ".join(_short(v) for v in values[:3])
        return f"a {kind} of {len(values)}: {shown}" + ", ..." * (len(values) > 3)
    return kind


def _short(value: Any) -> str:
    plain = value is None or isinstance(value, str | bytes | int | float | list | tuple)
    return repr(value)[:20] if plain else type(value).__name__


def _fix(values: Any) -> str:
    if isinstance(values, dict):
        return f"Give the labels alone, e.g. y[{next(iter(values), 'label')!r}]."
    while isinstance(values, np.ndarray | list | tuple) and getattr(values, "ndim", 1):
        if not len(values):
            break
        values = values[0]
    if isinstance(values, str | bytes):
        return (
            "Map names to numbers, once for all of the data: names, y = numpy.unique(y, "
            "return_inverse=True); in a data set return names.index(y)."
        )
    return "Give one number per sample, or inputs alone where there are no labels."

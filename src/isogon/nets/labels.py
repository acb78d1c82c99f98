"""Labels: what counts as classes, and what is said where they are something else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from isogon.data.labels import as_labels, refuse_unlabelled
from isogon.errors import DataError


def classes_of(
    y: Any, outputs: int | None = None, *, count: int | None = None, dense: bool = False
) -> Tensor:
    """Labels as classes 0..C-1.

    Args:
        y: Labels of a batch: integers, or real numbers that are whole; ``[n]`` or ``[n, 1]``.
        outputs: The model's number of outputs C; one output tells class 1 from class 0. None:
            not known, then only what can be no class at all is refused.
        count: Number of samples n, where it is known.
        dense: Whether maps of labels ``[n, ...]`` are legal (one class per place).

    Returns:
        int64 ``[n]``, or ``[n, ...]`` of dense labels, on the device of ``y``.

    Raises:
        DataError: No labels, one-hot or multi-hot labels, NaN, real numbers, classes from 1, -1
            or any other number out of 0..C-1; says what was seen and how to mend it.
    """
    y = as_labels(y)
    n = len(y) if count is None and y.dim() else count
    if y.dim() == 2 and y.shape[1] == 1 and y.shape[0] == n:
        y = y[:, 0]
    if y.dim() == 0 or len(y) != n:
        raise _refused("labels and samples differ in number", y, f"{n} labels", "Give one each.")
    if y.is_floating_point():
        refuse_unlabelled(y, _wanted(outputs))
        bad = ~y.isfinite()
        if bool(bad.any()):
            raise DataError(
                "labels hold NaN or infinity",
                got=f"{int(bad.sum())} of {y.numel()} values, the first at sample "
                f"{int(bad.reshape(len(y), -1).any(1).nonzero()[0])}",
                expected=_wanted(outputs),
                fix="Drop the samples that have no label.",
            )
    if y.dim() > 1 and not dense:
        raise _not_one_number(y, outputs)
    if y.is_complex() or (y.is_floating_point() and not bool((y == y.round()).all())):
        raise _refused(
            "the labels are real-valued, no classes",
            y,
            _wanted(outputs),
            "Use a classification data set; for a regression, measures that need no classes.",
        )
    labels = y.long()
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    classes = None if outputs is None else max(2, outputs)
    if low >= 0 and (classes is None or high < classes):
        return labels
    raise _out_of_range(labels, low, high, outputs, classes)


def reported(y: Any, count: int) -> Any:
    """Labels for a column that nothing is computed from: numbers ``[n]``, NaN where there are none.

    Args:
        y: Anything that came with a batch.
        count: Number of samples n.
    """
    y = as_labels(y).detach().cpu()
    if y.dim() == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dim() == 1 and len(y) == count:
        return y.float().numpy() if y.dtype == torch.bfloat16 else y.numpy()
    return torch.full((count,), torch.nan).numpy()


class Classed:
    """Batches whose labels are classes, or it is said why they are not; any other attribute as is.

    Args:
        batches: Re-iterable pairs of inputs and labels.
        classes: Number of classes, where it is known.
    """

    def __init__(self, batches: Iterable[tuple[Tensor, Tensor]], classes: int | None) -> None:
        self._batches, self._classes = batches, classes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._batches, name)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self._batches:
            yield x, classes_of(y, self._classes, count=len(x))


# --------------------------------------------------------------------------- words


def _wanted(outputs: int | None) -> str:
    if outputs is None:
        return "one class per sample, integers from 0"
    if outputs == 1:
        return "0 or 1 per sample (the model has one output)"
    return f"one class per sample, integers 0..{outputs - 1} (the model has {outputs} outputs)"


def _seen(y: Tensor) -> str:
    shown = y.flatten()[:6].tolist()
    values = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in shown)
    return f"{str(y.dtype).removeprefix('torch.')} {list(y.shape)}: {values}" + (
        ", ..." if y.numel() > 6 else ""
    )


def _refused(problem: str, y: Tensor, expected: str, fix: str) -> DataError:
    return DataError(problem, got=f"labels {_seen(y)}", expected=expected, fix=fix)


def _not_one_number(y: Tensor, outputs: int | None) -> DataError:
    if y.dim() == 2 and bool(((y == 0) | (y == 1)).all()):
        if bool((y.sum(1) == 1).all()):
            return _refused(
                "the labels are one-hot", y, _wanted(outputs), "Give classes: y = y.argmax(1)."
            )
        return _refused(
            "the labels are multi-hot",
            y,
            _wanted(outputs),
            "Take one of them at a time, y[:, k], with a model that has that output alone.",
        )
    if y.dim() == 2 and y.is_floating_point() and bool(((y.sum(1) - 1).abs() < 1e-3).all()):
        return _refused(
            "the labels are probabilities", y, _wanted(outputs), "Give classes: y = y.argmax(1)."
        )
    return _refused(
        "the labels are not one number per sample",
        y,
        _wanted(outputs),
        "Give one class per sample.",
    )


def _out_of_range(
    labels: Tensor, low: int, high: int, outputs: int | None, classes: int | None
) -> DataError:
    got = f"labels from {low} to {high}"
    if classes == 2 and outputs == 1 and bool(((labels == -1) | (labels == 1)).all()):
        fix = "Give 0 and 1: y = (y > 0).long()."
    elif low == 1 and high == classes:
        fix = "Count classes from 0: y = y - 1."
    elif low < 0:
        odd = int((labels < 0).sum())
        got += f", {odd} of {labels.numel()} negative"
        fix = "Drop the samples that have no class (often marked -1)."
    else:
        fix = "Give the data that this model was made for, or a model with more outputs."
    return DataError(
        "labels that are no class of the model" if classes else "labels that are no classes",
        got=got,
        expected=_wanted(outputs),
        fix=fix,
    )

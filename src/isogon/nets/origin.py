"""What a loaded model was trained on, and the refusal of data with other classes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from isogon.errors import DataError
from isogon.specs import Spec

_MARK = "isogon_origin"


@dataclass(frozen=True)
class Origin:
    """The training that weights come from.

    Attributes:
        classes: Names of the classes, in the order of the outputs.
        data: Spec of the data that test the model.
        shape: Shape of one sample; None where it is not known.
    """

    classes: tuple[str, ...]
    data: str
    shape: tuple[int, ...] | None = None


def marked(
    model: nn.Module, classes: Any, source: Spec | str | None, shape: Any = None
) -> nn.Module:
    """The model with a note of what it was trained on, where that is known.

    Args:
        model: A model that was just built; the note is an attribute of it.
        classes: Names of the classes, as a checkpoint records them.
        source: The checkpoint's path, or the spec of the trained model; None where it has none.
        shape: Shape of one sample, as a checkpoint records it.
    """
    sized = isinstance(shape, list | tuple) and all(isinstance(n, int) for n in shape)
    known = isinstance(classes, list | tuple) and all(isinstance(c, str) for c in classes)
    if known and classes and source is not None:
        data = Spec("data_of", (source, "test"))
        sizes = tuple(shape) if sized else None
        setattr(model, _MARK, Origin(tuple(classes), str(data), sizes))
    return model


def shape_of(model: nn.Module) -> tuple[int, ...] | None:
    """Shape of one sample of a loaded model's training; None where it is not known."""
    origin = getattr(model, _MARK, None)
    return origin.shape if isinstance(origin, Origin) else None


def check_classes(model: nn.Module, batches: Iterable) -> None:
    """Refuse data whose classes are not those that the model was trained on.

    Labels count only if they stand for the same classes in the same order; data without names
    of classes, and models of unknown training, pass. Samples of another shape than in training
    (padded or upscaled ones, say) are said in a warning.

    Raises:
        DataError: Other classes; names the data of the model's training.
    """
    origin = getattr(model, _MARK, None)
    names = getattr(batches, "classes", None)
    if not isinstance(origin, Origin):
        return
    _compare_shapes(origin, batches)
    if not isinstance(names, list | tuple) or not names:
        return
    theirs = tuple(str(n) for n in names)
    if theirs == origin.classes[: len(theirs)]:
        return
    raise DataError(
        "these data have other classes than the model was trained on",
        got=f"{getattr(batches, 'name', 'data')} with {_shown(theirs)}",
        expected=_shown(origin.classes),
        fix=f'Give the data of its training: "{origin.data}".',
    )


def _compare_shapes(origin: Origin, batches: Iterable) -> None:
    first = getattr(batches, "first", None)
    if origin.shape is None or first is None:
        return
    shape = tuple(first(1)[0].shape[1:])
    if shape != origin.shape:
        warnings.warn(
            f"samples of shape {list(shape)} for a model that was trained on {list(origin.shape)}; "
            f'the data of its training: "{origin.data}"',
            UserWarning,
            stacklevel=3,
        )


def _shown(names: tuple[str, ...]) -> str:
    more = ", ..." if len(names) > 6 else ""
    return f"{len(names)} classes ({', '.join(names[:6])}{more})"

"""Arguments of an architecture that follow from the data it is for."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from isogon.specs import Spec

if TYPE_CHECKING:
    from isogon.data.batches import Batches
    from isogon.data.samples import Samples


_CLASSES = ("classes", "num_classes")  # two names for one argument


def facts(data: Samples | Batches | None, *, classes: int | None = None) -> dict[str, Any]:
    """What data say about an architecture: inputs, channels, size or length, classes.

    Args:
        data: Something with ``shape`` (of one sample) and ``classes`` (names, or their number),
            or with such ``samples``; None says nothing.
        classes: Number of outputs, where it is known better.
    """
    samples = getattr(data, "samples", data)
    shape, names = getattr(samples, "shape", None), getattr(samples, "classes", None)
    found: dict[str, Any] = {}
    if shape is not None:
        shape = tuple(int(n) for n in shape)
        found["inputs"] = math.prod(shape)
        if len(shape) >= 2:
            found["channels"] = shape[0]
        if len(shape) == 3:
            found["size"] = shape[1] if shape[1] == shape[2] else shape[1:]
        if len(shape) == 2:
            found["length"] = shape[1]
    if classes is None and names:
        classes = names if isinstance(names, int) else len(names)
    return found if classes is None else {**found, "classes": classes}


def filled(spec: Spec, builder: Callable[..., Any], known: Mapping[str, Any]) -> Spec:
    """The spec with those of the known arguments that the builder takes and that are not given.

    ``classes`` and ``num_classes`` are one argument by two names: the one that the builder takes.
    """
    signature = inspect.signature(builder)
    takes = signature.parameters
    spec = replace(spec, kwargs={_name(k, takes): v for k, v in spec.kwargs.items()})
    try:
        given = signature.bind_partial(*spec.args, **spec.kwargs).arguments
    except TypeError:
        return spec  # building it says which argument is wrong
    there = {*given, *spec.kwargs}
    extra = {_name(k, takes): v for k, v in known.items()}
    extra = {
        k: v
        for k, v in extra.items()
        if k in takes and k not in there and not (k in _CLASSES and there.intersection(_CLASSES))
    }
    return replace(spec, kwargs={**spec.kwargs, **extra})


def _name(name: str, takes: Mapping[str, Any]) -> str:
    """The name that a builder has for an argument."""
    if name not in _CLASSES or name in takes:
        return name
    other = _CLASSES[1 - _CLASSES.index(name)]
    return other if other in takes else name

"""Data specs that are made out of others: another split, a first part of the samples.

Everything follows from the signature of the builder: ``split`` and ``limit`` where it takes
them, the data set within where its argument is one (``resized(mnist(test), 32)``).
"""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from isogon import nesting, registry
from isogon.errors import SpecError
from isogon.specs import Spec, parse

_READERS = {".npz": "npz", ".zip": "imagefolder"}
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def as_call(spec: str | Spec) -> Spec:
    """A spec as a call; a file or a folder of data becomes the data set that reads it.

    Raises:
        SpecError: Not a data set.
    """
    if isinstance(spec, str) and os.sep in spec and Path(spec).is_dir():
        return Spec("imagefolder", (spec,))
    spec = parse(spec)
    if spec.name is not None and spec.path is not None:
        raise SpecError(
            "a data set has no weights",
            got=str(spec),
            expected="a data set without '@'",
            fix="Give a path as an argument, e.g. imagefolder('photos.zip').",
        )
    if spec.name is not None:
        return spec
    suffix = Path(str(spec.path)).suffix.lower()
    name = "imagefolder" if Path(str(spec.path)).is_dir() else _READERS.get(suffix)
    if name is None:
        raise SpecError(
            "not a data set",
            got=str(spec),
            expected="a data set's name, an .npz, or a .zip or folder of images",
        )
    return Spec(name, (spec.path,), index=spec.index)


def split_of(spec: str | Spec) -> str | None:
    """The split that a spec names, or that its data set takes by default; None: not known."""
    spec = as_call(spec)
    given, parameters = _arguments(spec)
    if "split" in parameters:
        default = parameters["split"].default
        return given.get("split", None if default is inspect.Parameter.empty else default)
    within = _within(spec, parameters, given)
    return None if within is None else split_of(within[1])


def with_split(spec: str | Spec, split: str, *, only_open: bool = False) -> Spec:
    """The spec of another split of the same data; as it is where there are no splits.

    Args:
        spec: A data spec.
        split: The split wanted.
        only_open: Leave a spec that names its split as it is.
    """
    spec = as_call(spec)
    given, parameters = _arguments(spec)
    if "split" in parameters:
        if only_open and "split" in given:
            return spec
        return _rebuilt(spec, parameters, {**given, "split": split})
    if (within := _within(spec, parameters, given)) is None:
        return spec
    name, value = within
    return _rebuilt(
        spec, parameters, {**given, name: with_split(value, split, only_open=only_open)}
    )


def limited(spec: str | Spec, count: int) -> Spec:
    """The spec of the first ``count`` samples (of a seeded subset, where the spec names one)."""
    spec = as_call(spec)
    if spec.index is not None:
        return spec
    given, parameters = _arguments(spec)
    if "limit" not in parameters:
        return Spec("subset", (spec, count))
    known = given.get("limit")
    if isinstance(known, int) and known <= count:
        return spec
    if "split" in parameters and "split" not in given and parameters["split"].default:
        given["split"] = parameters["split"].default
    return _rebuilt(spec, parameters, {**given, "limit": count})


def without_limit(spec: Spec) -> Spec:
    """The spec of all samples: without ``limit``, and without the seed that chooses among them."""
    given, parameters = _arguments(spec)
    if (within := _within(spec, parameters, given)) is not None:
        given[within[0]] = without_limit(as_call(within[1]))
        return _rebuilt(spec, parameters, {k: v for k, v in given.items() if k != "limit"})
    kept = {k: v for k, v in given.items() if k not in ("limit", "seed")}
    return _rebuilt(spec, parameters, kept)


# --------------------------------------------------------------------------- internals


def _arguments(spec: Spec) -> tuple[dict[str, Any], dict[str, inspect.Parameter]]:
    """A spec's arguments by name, and its builder's parameters; both empty for user code."""
    if spec.module is not None or not registry.has("dataset", str(spec.name)):
        return {}, {}
    signature = inspect.signature(registry.get("dataset", str(spec.name)).build)
    try:
        bound = signature.bind_partial(*spec.args, **spec.kwargs).arguments
    except TypeError:
        return {}, {}  # wrong arguments: building it says which
    return dict(bound), dict(signature.parameters)


def _within(
    spec: Spec, parameters: dict[str, inspect.Parameter], given: dict[str, Any]
) -> tuple[str, str | Spec] | None:
    """Name and value of the argument that is a data set itself."""
    if not parameters:
        return None
    nouns = nesting.nouns(registry.get("dataset", str(spec.name)))
    for name in parameters:
        if nouns.get(name) == "Batches" and isinstance(given.get(name), str | Spec):
            return name, given[name]
    return None


def _rebuilt(spec: Spec, parameters: dict[str, inspect.Parameter], given: dict[str, Any]) -> Spec:
    """The spec with these arguments, positional ones first as far as there is no gap."""
    if not parameters:
        return spec
    args, left = [], dict(given)
    for name, parameter in parameters.items():
        if parameter.kind not in _POSITIONAL or name not in left:
            break
        args.append(left.pop(name))
    return replace(spec, args=tuple(args), kwargs=left)

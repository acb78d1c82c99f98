"""Specs inside specs: which arguments of a builder are specs themselves, and of what."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator

from isogon import hints
from isogon.registry import Entry
from isogon.specs import Spec


def nouns(entry: Entry) -> dict[str, str]:
    """Which arguments of a builder are specs themselves, and of which noun.

    Read off the annotations (`isogon.specs.DataSpec` and the like); ``**options`` that a
    dataclass declares (``register(..., options=FitConfig)``) count with its fields.
    """
    found: dict[str, str] = {}
    for source in (entry.extra.get("options"), entry.build):
        for name, hint in ({} if source is None else hints.of(source, extras=True)).items():
            for part in (hint, *typing.get_args(hint)):
                if typing.get_origin(part) is typing.Annotated:
                    found[name] = next((n for n in part.__metadata__ if isinstance(n, str)), "")
    return found


def nested(entry: Entry, spec: Spec) -> Iterator[tuple[str, str | Spec]]:
    """The specs among the arguments of a spec, each with its noun."""
    try:
        bound = inspect.signature(entry.build).bind_partial(*spec.args, **spec.kwargs).arguments
    except TypeError:
        return  # wrong arguments: building it says which
    wanted, kinds = nouns(entry), inspect.signature(entry.build).parameters
    for name, value in bound.items():
        items = {name: value}
        if kinds[name].kind is inspect.Parameter.VAR_KEYWORD:
            items = value
        for key, one in items.items():
            many = one if kinds[name].kind is inspect.Parameter.VAR_POSITIONAL else (one,)
            for item in many:
                if key in wanted and isinstance(item, str | Spec):
                    yield wanted[key], item

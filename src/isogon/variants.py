"""One builder under many names: `variants` registers each row of a table of literals.

The table is written down, not computed, so that the names, their arguments and their summaries
can also be read from the source, without importing what the builder needs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from isogon.registry import register

F = TypeVar("F", bound=Callable[..., Any])
Table = Mapping[str, Mapping[str, Any]]


def variants(kind: str, table: Table | str, **extra: Any) -> Callable[[F], F]:
    """Decorator: register a builder once per row of a table.

    Args:
        kind: What is registered, e.g. ``"arch"``.
        table: Name -> literals by parameter; or names alone, separated by spaces.
        **extra: Facts that every row shares, as in `isogon.registry.register`.

    A parameter of the builder that is positional-only is *fixed* by the row (``name`` by the
    name) and no argument of the variant; any other one that the row gives has it as its default.
    ``{parameter}`` in the docstring is replaced by the row's value.
    """

    def decorate(template: F) -> F:
        for name, build in each(template, table):
            register(kind, name, **extra)(build)
        return template

    return decorate


def each(template: Callable[..., Any], table: Table | str):
    """Yield the name and the builder of each row."""
    rows: Table = {name: {} for name in table.split()} if isinstance(table, str) else table
    for name, row in rows.items():
        yield name, variant(template, name, row)


def variant(template: Callable[..., Any], name: str, row: Mapping[str, Any]) -> Callable[..., Any]:
    """The template with the literals of one row in place, under a name of its own."""
    given = {"name": name, **row}
    whole = inspect.signature(template)
    fixed, open_ = [], []
    for p in whole.parameters.values():
        if p.kind is p.POSITIONAL_ONLY:
            fixed.append(given[p.name])
        else:
            open_.append(p.replace(default=row[p.name]) if p.name in row else p)
    signature = whole.replace(parameters=open_)

    @functools.wraps(template)
    def build(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return template(*fixed, *bound.args, **bound.kwargs)

    text = template.__doc__ or ""
    for key, value in given.items():
        text = text.replace(f"{{{key}}}", str(value))
    build.__name__ = build.__qualname__ = name
    build.__doc__ = text
    build.__signature__ = signature  # type: ignore[attr-defined]
    build.__annotations__ = {
        p: a for p, a in template.__annotations__.items() if p in (*signature.parameters, "return")
    }
    return build

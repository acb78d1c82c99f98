"""Type hints at run time: whether a value fits one, and how messages spell it."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from isogon.specs import Spec


def of(builder: Callable[..., Any], *, extras: bool = False) -> dict[str, Any]:
    """Parameter -> hint; empty where a hint can't be resolved (names under TYPE_CHECKING).

    Args:
        builder: A function, or a class (of options).
        extras: Keep ``Annotated``.
    """
    target = builder.__init__ if inspect.isclass(builder) else builder
    try:
        return typing.get_type_hints(target, include_extras=extras)
    except Exception:  # names that only exist under TYPE_CHECKING: leave the values unchecked
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value from a spec, YAML, JSON or Python is of a type.

    A whole number is a float, a boolean is no number, a list is a tuple, text is a spec.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return True
    if origin is typing.Annotated:
        return fits(value, arguments[0])
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, a) for a in arguments)
    if origin is typing.Literal:
        return any(value == a and type(value) is type(a) for a in arguments)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(fits(v, arguments[0]) for v in value)
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    if origin in (list, dict):
        if not isinstance(value, (list, tuple) if origin is list else dict):
            return False
        parts = [value.keys(), value.values()] if isinstance(value, dict) else [value]
        return all(fits(v, a) for p, a in zip(parts, arguments) for v in p)
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is list:
        return isinstance(value, list | tuple)
    if hint in (bool, str, dict):
        return isinstance(value, hint)
    if hint is Spec:
        return isinstance(value, Spec | str)
    return True


def made(kind: Callable[..., Any], data: Any, **more: Any) -> Any:
    """A dataclass from a dictionary that a file held, every field of its type.

    Args:
        kind: The dataclass.
        data: Fields by name; those with a default may be missing.
        **more: Fields that the caller supplies.

    Raises:
        TypeError: A field is missing, unknown, or of another type.
    """
    found = kind(**data, **more)
    for name, hint in of(kind).items():
        if name in data and not fits(data[name], hint):
            raise TypeError(f"{name} of another kind: {str(data[name])[:60]!r}")
    return found


def shown(hint: Any) -> str:
    """How messages spell a type."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of: " + ", ".join(map(str, typing.get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint)

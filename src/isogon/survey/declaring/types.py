"""Types of options as JSON: what a signature says, kept without importing the measure.

A type is encoded as its name (``"int"``) or as a list ``[constructor, *arguments]``:
``["tuple", "float", "..."]``, ``["union", "int", "none"]``, ``["literal", "unit", "site"]``.
Types that the command line can't spell (callables, tensors) have no encoding.
"""

from __future__ import annotations

import types
import typing
from typing import Any, Literal

from isogon import hints

PLAIN = {"int": int, "float": float, "str": str, "bool": bool, "none": type(None), "any": Any}
_NAMES = {v: k for k, v in PLAIN.items()}


def encode(hint: Any) -> Any:
    """The JSON form of a type, or None where it has none."""
    if hint is None:
        return "none"
    if isinstance(hint, type) and hint in _NAMES:
        return _NAMES[hint]
    if hint is Any:
        return "any"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return encode(arguments[0])
    if origin is Literal:
        return ["literal", *arguments]
    if origin in (typing.Union, types.UnionType):
        # Alternatives without an encoding are dropped: `str | Callable` is typed as `str`.
        parts = [code for a in arguments if (code := encode(a)) is not None]
        return None if not [p for p in parts if p != "none"] else _union(parts)
    if origin in (tuple, list) or getattr(origin, "__name__", "") in ("Sequence", "Iterable"):
        if origin is not tuple:
            arguments = (*arguments, Ellipsis)
        parts = ["..." if a is Ellipsis else encode(a) for a in arguments]
        return None if None in parts else ["tuple", *parts]
    return None


def _union(parts: list) -> Any:
    return parts[0] if len(parts) == 1 else ["union", *parts]


def decode(code: Any) -> Any:
    """The type behind its JSON form."""
    if isinstance(code, str):
        return PLAIN[code]
    head, *rest = code
    if head == "literal":
        return Literal[tuple(rest)]
    if head == "union":
        rest.sort(key=lambda r: r == "str")  # text fits everything: try it last
        return typing.Union[tuple(decode(r) for r in rest)]  # noqa: UP007 (built at run time)
    return tuple[tuple(Ellipsis if r == "..." else decode(r) for r in rest)]


def shown(code: Any) -> str:
    """How help and messages spell a type."""
    if isinstance(code, str):
        return code
    head, *rest = code
    if head == "literal":
        return "one of: " + ", ".join(map(str, rest))
    if head == "union":
        return " or ".join(shown(r) for r in rest)
    if rest[-1:] == ["..."]:
        return f"[{shown(rest[0])}, ...]"
    return "[" + ", ".join(shown(r) for r in rest) + "]"


def is_tuple(code: Any) -> bool:
    """Whether values are lists (possibly or none)."""
    if isinstance(code, list) and code[0] == "union":
        parts = [p for p in code[1:] if p != "none"]
        return len(parts) == 1 and is_tuple(parts[0])
    return isinstance(code, list) and code[0] == "tuple"


def fits_code(value: Any, code: Any) -> bool:
    """Whether a value (from YAML, JSON or Python) is of the encoded type."""
    return hints.fits(value, decode(code))

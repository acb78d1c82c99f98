"""Values of options: what a word, or a value of a configuration file, means for a type."""

from __future__ import annotations

from typing import Any

from isogon import specs
from isogon.errors import IsogonError, SpecError
from isogon.storage.yaml_text import read_yaml
from isogon.survey.declaring import types

NOTHING = ("null", "none", "None")


class Unfit(Exception):
    """A text that is no value of a type."""


def value_of(text: str, code: Any) -> Any:
    """What a word of the command line means.

    Lists are typed with commas, in brackets or without: ``a,f(1,2)``, ``[0.1,1e-2]``. Where a type
    has alternatives, text fits last; a list needs a comma or brackets beside text.

    Args:
        text: The word.
        code: The type, as `isogon.survey.declaring.types` encodes it.

    Raises:
        Unfit: The word is no value of that type.
    """
    if isinstance(code, str):
        return _PLAIN[code](text)
    head, *rest = code
    if head == "literal":
        return _chosen(text, rest)
    if head == "tuple":
        return _listed(text, rest)
    last = {"none": 0, "str": 2}  # a literal may be spelled like anything else: it comes first
    for part in sorted(rest, key=lambda r: -1 if r[0] == "literal" else last.get(str(r), 1)):
        if part[0] == "tuple" and "str" in rest and not _is_list(text):
            continue
        try:
            return value_of(text, part)
        except Unfit:
            continue
    raise Unfit


def read_value(value: Any, code: Any) -> Any:
    """What a value of a configuration file means: lists become tuples, and so on.

    Raises:
        Unfit: The value is not of that type.
    """
    if not types.fits_code(value, code):
        # YAML reads 1e-3 as text, and a date or a spec may look like a number
        if isinstance(value, list) and types.is_tuple(code):
            part = code if code[0] == "tuple" else next(c for c in code[1:] if c != "none")
            kinds = _kinds(len(value), part[1:])
            return tuple(read_value(v, k) for v, k in zip(value, kinds))
        if isinstance(value, str):
            return value_of(value, code)
        raise Unfit
    return _tupled(value)


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def _none(text: str) -> None:
    if text not in NOTHING:
        raise Unfit


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise Unfit
    return text.lower() == "true"


def _number(kind: type) -> Any:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise Unfit from None
        if kind is int and value.bit_length() > 64:
            raise Unfit
        return value

    return read


def _any(text: str) -> Any:
    try:
        return _tupled(read_yaml(text, "value"))
    except IsogonError:
        return text


_PLAIN = {
    "str": str,
    "int": _number(int),
    "float": _number(float),
    "bool": _bool,
    "none": _none,
    "any": _any,
}


def _chosen(text: str, values: list) -> Any:
    for value in values:
        if text == str(value) or (isinstance(value, bool) and text == str(value).lower()):
            return value
    raise Unfit


def _listed(text: str, kinds: list) -> tuple:
    parts = _parts(text)
    return tuple(value_of(p, k) for p, k in zip(parts, _kinds(len(parts), kinds)))


def _kinds(count: int, kinds: list) -> list:
    """The type of each of that many entries of a list."""
    if kinds[-1:] == ["..."]:
        return kinds[:1] * count
    if count != len(kinds):
        raise Unfit
    return kinds


def _is_list(text: str) -> bool:
    return len(_parts(text)) > 1 or text.strip()[:1] == "["


def _parts(text: str) -> list[str]:
    """The entries of a list, in brackets or without; quotes around an entry are dropped."""
    text = text.strip()
    try:
        if text[:1] in ("[", "(") and len(specs.pieces(text)) == 1:
            text = text[1:-1]
        found = specs.pieces(text)
    except SpecError:
        raise Unfit from None
    return [p[1:-1] if p[:1] in ("'", '"') and p[-1:] == p[0] else p for p in found]

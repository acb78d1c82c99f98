"""Spec strings: one line that names something reproducible.

Grammar::

    spec    = path | call ["@" path] ["[" int "]"]
    path    = text that ends in a known file suffix, or a folder that exists (with a separator)
    call    = ["module.path" ":"] name ["(" arguments ")"]

``cnn(width=32)``, ``mnist(test, 512)``, ``trained(cnn, digits, seed=0)``,
``resnet18(num_classes=10)@runs/last.safetensors``, ``mnist(test)[3]``,
``my.pkg:build(3)@w.pt``, ``model.onnx``.

Arguments are literals, bare names and files (taken as strings, or as specs where one is wanted)
and specs of every form: ``through(my.pkg:data()[0], arr.npz[1], 'a folder/of images'[2])``. A
path within a spec stands in quotes where it holds anything but letters, digits and ``_./~-``.
Nothing is ever evaluated.
"""

from __future__ import annotations

import ast
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from isogon.errors import SpecError

PROGRAM_SUFFIXES = (".onnx", ".pt2")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".index.json")
DATA_SUFFIXES = (".npz", ".zip")
SUFFIXES = PROGRAM_SUFFIXES + WEIGHT_SUFFIXES + DATA_SUFFIXES
MAX_LENGTH = 8192  # `ast` recurses: a hostile spec must not exhaust the stack
MAX_DEPTH = 32

# bare words that are values and not names
_WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False, "none": None}
_WORDS |= {"inf": math.inf, "nan": math.nan}
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_NAME = r"[A-Za-z_]\w*"
_HEAD = re.compile(rf"(?:(?P<module>{_NAME}(?:\.{_NAME})*):)?(?P<name>{_NAME})")
_FILE = re.compile(r"[\w./~-]+")  # a path that needs no quotes within a spec


@dataclass(frozen=True)
class Spec:
    """A parsed spec.

    Attributes:
        name: Name of the builder; None for a bare path.
        args: Positional arguments: literals, strings (from bare names) and nested specs.
        kwargs: Keyword arguments, of the same kinds.
        module: Importable module that holds ``name`` (runs user code), or None.
        path: The file of a bare path, or the weights behind ``@``.
        index: The integer in a trailing ``[i]``, or None.
    """

    name: str | None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    module: str | None = None
    path: str | None = None
    index: int | None = None

    def __str__(self) -> str:
        """The canonical text: equal for equal specs, and parses back to the same spec."""
        if self.name is None:
            text = str(self.path)
        else:
            text = (f"{self.module}:" if self.module else "") + self.name
            arguments = [render(a) for a in self.args]
            arguments += [f"{k}={render(v)}" for k, v in sorted(self.kwargs.items())]
            if arguments or self.module:
                text += f"({', '.join(arguments)})"
        if self.index is not None:
            text += f"[{self.index}]"
        if self.name is not None and self.path is not None:
            text += f"@{self.path}"
        return text

    def __hash__(self) -> int:
        return hash(str(self))


# What a builder writes for an argument that is a spec itself, with the noun that it stands for.
ModelSpec = Annotated[Spec, "Module"]
DataSpec = Annotated[Spec, "Batches"]
PointSpec = Annotated[Spec, "Points"]
FamilySpec = Annotated[Spec, "Family"]


def parse(text: str | Spec) -> Spec:
    """Parse a spec string.

    Args:
        text: The spec, or an already parsed one (returned as it is).

    Returns:
        The parsed `Spec`.

    Raises:
        SpecError: The text does not follow the grammar.
    """
    if isinstance(text, Spec):
        return text
    if not isinstance(text, str):
        raise SpecError("a spec must be text", got=type(text).__name__, expected="a string")
    text = text.strip()
    if not text:
        raise SpecError("empty spec", expected="a name such as cnn(width=32), or a file")
    if len(text) > MAX_LENGTH:
        raise SpecError(
            "spec too long",
            got=f"{len(text)} characters",
            expected=f"at most {MAX_LENGTH}",
            fix="Put the value in a file and name the file.",
        )
    if "\x00" in text:
        raise SpecError("spec holds a NUL byte", got=repr(text), expected="printable text")
    folder, part = _split_index(text)
    if os.sep in text and (os.path.isdir(text) or (part is not None and os.path.isdir(folder))):
        whole = os.path.isdir(text)
        return Spec(None, path=text if whole else folder, index=None if whole else part)
    head, path = _split_at(text)
    if path is None and text.lower().endswith(SUFFIXES):
        return Spec(None, path=text)
    if path is not None:
        if not path.strip():
            raise SpecError(
                "no file behind '@'", got=repr(text), expected="SPEC@FILE", fix="Name the file."
            )
        head, index = _split_index(head)
        return _call(head, text, path=path, index=index)
    head, index = _split_index(text)
    if index is not None and head.lower().endswith(SUFFIXES):
        return Spec(None, path=head, index=index)
    return _call(head, text, path=None, index=index)


def names_code(value: Any) -> bool:
    """Whether a spec, at any depth and also inside its strings, names a module or a file."""
    if isinstance(value, Spec):
        inner = (*value.args, *value.kwargs.values())
        return bool(value.module or value.path) or any(map(names_code, inner))
    if isinstance(value, tuple | list):
        return any(map(names_code, value))
    if isinstance(value, dict):
        return any(map(names_code, (*value, *value.values())))
    if not isinstance(value, str) or re.fullmatch(_NAME, value):
        return False
    try:
        return names_code(parse(value))
    except SpecError:
        return any(c in value for c in ":@/\\")


def _top_level(text: str, *, quotes: bool) -> Iterator[tuple[int, str]]:
    """Places and characters outside of brackets and quotes.

    Closing brackets are given, too. Quotes begin at any place, or only within brackets (an
    apostrophe in the path of a file quotes nothing).

    Raises:
        ValueError: A bracket or a quote that is not closed, or not the one that is open.
    """
    open_, quote, escaped = [], "", False
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote and not escaped else quote
            escaped = c == "\\" and not escaped
        elif c in "'\"" and (open_ or quotes):
            quote = c
        elif c in _BRACKETS:
            open_.append(_BRACKETS[c])
        elif c in _BRACKETS.values():
            if not open_ or open_.pop() != c:
                raise ValueError(f"{c!r} closes nothing")
            if not open_:
                yield i, c
        elif not open_:
            yield i, c
    if quote or open_:
        raise ValueError(f"{quote or open_[-1]!r} is missing")


def _split_at(text: str, *, quotes: bool = False) -> tuple[str, str | None]:
    """Split at the last top-level ``@`` behind something that looks like a call."""
    at = -1
    try:
        for i, c in _top_level(text, quotes=quotes):
            at = i if c == "@" else at
    except ValueError:
        pass  # brackets of the path itself: the last `@` outside of them
    while at > 0:
        head = text[:at].strip()
        looks_like_call = _HEAD.match(head) and (
            _HEAD.fullmatch(_split_index(head)[0]) or head.endswith((")", "]"))
        )
        if looks_like_call and not text.lower().endswith(PROGRAM_SUFFIXES):
            return head, text[at + 1 :].strip()
        at = text.rfind("@", 0, at)  # the path itself may hold an '@'
    return text, None


def _split_index(text: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(?P<head>.*?)\s*\[\s*(?P<index>-?\d{1,12})\s*\]", text, re.DOTALL)
    if not match:
        return text, None
    return match["head"], int(match["index"])


def _call(head: str, text: str, *, path: str | None, index: int | None, depth: int = 0) -> Spec:
    match = _HEAD.match(head)
    rest = head[match.end() :].strip() if match else head
    if not match or (rest and not rest.startswith("(")):
        raise SpecError(
            "not a spec",
            got=repr(text),
            expected=f"NAME, NAME(arguments), module:NAME(arguments), SPEC@FILE, SPEC[i] or a "
            f"file ending in {', '.join(SUFFIXES)}",
            fix="Quote the spec in the shell and check brackets and suffix.",
        )
    module, name = match["module"], match["name"]
    if not rest:
        return Spec(name, module=module, path=path, index=index)
    if next((i for i, _ in _places(rest, text)), None) != len(rest) - 1:
        raise SpecError("not a single call", got=repr(text), expected="NAME(value, key=value, ...)")
    args, kwargs = _arguments(rest[1:-1], text, depth)
    return Spec(name, args, kwargs, module=module, path=path, index=index)


def _places(part: str, text: str) -> list[tuple[int, str]]:
    """`_top_level` of a part of a spec; what is wrong is answered."""
    try:
        return list(_top_level(part, quotes=True))
    except ValueError as error:
        raise SpecError(
            f"spec can't be parsed ({error})",
            got=repr(text),
            expected="NAME(value, key=value, ...)",
            fix="Check brackets, commas and quotes.",
        ) from None


def pieces(inner: str, text: str = "") -> list[str]:
    """What stands between the commas of a list, outside brackets and quotes.

    A last comma is allowed.

    Args:
        inner: The list without its brackets.
        text: What it is a part of, for messages.

    Raises:
        SpecError: A bracket or a quote is not closed.
    """
    commas = [i for i, c in _places(inner, text or inner) if c == ","]
    starts = [0, *(i + 1 for i in commas)]
    found = [inner[a:b].strip() for a, b in zip(starts, [*commas, len(inner)])]
    return found[:-1] if not found[-1] else found


def _arguments(inner: str, text: str, depth: int) -> tuple[tuple, dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for piece in pieces(inner, text):
        keyword = re.match(rf"({_NAME})\s*=", piece)
        if keyword is None:
            if kwargs:
                raise SpecError(
                    "positional argument behind a keyword",
                    got=repr(text),
                    expected="NAME(value, key=value, ...)",
                )
            args.append(_value(piece, text, depth))
        elif keyword[1] in kwargs:
            raise SpecError("bad keyword in spec", got=repr(text), expected="each keyword once")
        else:
            kwargs[keyword[1]] = _value(piece[keyword.end() :].strip(), text, depth)
    return tuple(args), kwargs


def _value(piece: str, text: str, depth: int) -> Any:
    """One argument: a literal, a bare name or path (text), a tuple, or a spec."""
    if depth > MAX_DEPTH:
        raise SpecError("spec nested too deeply", got=repr(text), expected=f"depth <= {MAX_DEPTH}")
    if piece in _WORDS:
        return _WORDS[piece]
    if piece == "-inf":
        return -math.inf
    if re.fullmatch(_NAME, piece):
        return piece
    if piece[:1] in ("'", '"'):
        return _quoted(piece, text)
    if piece[:1] in ("(", "[") and [i for i, _ in _places(piece, text)] == [len(piece) - 1]:
        items = tuple(_value(item, text, depth + 1) for item in pieces(piece[1:-1], text))
        alone = piece[0] == "(" and len(items) == 1 and not piece[1:-1].rstrip().endswith(",")
        return items[0] if alone else items
    if piece[:1] in tuple("-0123456789."):
        try:
            value = ast.literal_eval(piece)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            value = None
        if isinstance(value, int) and value.bit_length() > 1024:
            raise SpecError("number too large", got=repr(text), expected="at most 1024 bits")
        if isinstance(value, int | float):
            return value
    return _inner(piece, text, depth)


def _quoted(piece: str, text: str) -> str | Spec:
    """Quoted text, or ``'FILE'[i]``."""
    head, index = _split_index(piece)
    try:
        value = ast.literal_eval(head)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        value = None
    if not isinstance(value, str):
        raise _not_a_value(piece, text)
    if index is None:
        return value
    match = _HEAD.match(value)
    called = match is not None and value[match.end() :].strip()[:1] in ("", "(", "[")
    if called and not value.lower().endswith(SUFFIXES):
        inner = parse(value)
        if inner.index is None:
            return replace(inner, index=index)
        raise _not_a_value(piece, text)
    if not value:
        raise _not_a_value(piece, text)
    return Spec(None, path=value, index=index)


def _inner(piece: str, text: str, depth: int) -> str | Spec:
    """A call, a file or a part of one of them, within a spec."""
    head, path = _split_at(piece, quotes=True)
    if path is None and _FILE.fullmatch(piece) and piece.lower().endswith(SUFFIXES):
        return piece
    if path is not None and path[:1] in ("'", '"'):
        path = _quoted(path, text)
    elif path is not None and not path:
        raise SpecError("no file behind '@'", got=repr(text), expected="SPEC@FILE")
    if isinstance(path, Spec):
        raise _not_a_value(piece, text)
    call, index = _split_index(head)
    if path is None and _FILE.fullmatch(call) and call.lower().endswith(SUFFIXES):
        return Spec(None, path=call, index=index)
    match = _HEAD.match(call)
    rest = call[match.end() :].strip() if match else call
    if not match or (rest and not rest.startswith("(")):
        raise _not_a_value(piece, text)
    return _call(call, text, path=path, index=index, depth=depth + 1)


def _not_a_value(piece: str, text: str) -> SpecError:
    return SpecError(
        "only values, names, files and calls may stand in a spec",
        got=f"{piece!r} in {text!r}" if piece != text else repr(text),
        expected="numbers, strings, True, False, None, (a, b), NAME, NAME(...), FILE, 'A FILE'",
        fix="Specs are never evaluated: write the value itself.",
    )


def render(value: Any) -> str:
    """A value as it is typed within a spec; it is parsed to the same value."""
    if isinstance(value, Spec):
        return _rendered(value)
    if isinstance(value, str):
        return value if re.fullmatch(_NAME, value) and value not in _WORDS else repr(value)
    if isinstance(value, tuple):
        return "(" + ", ".join(map(render, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value)


def _rendered(spec: Spec) -> str:
    """A spec within a spec: f() is a spec, f is a string; paths that could be misread in quotes."""
    index = "" if spec.index is None else f"[{spec.index}]"
    path = None if spec.path is None else str(spec.path)
    if path is not None and not (_FILE.fullmatch(path) and path.lower().endswith(SUFFIXES)):
        path = repr(path)
    if spec.name is None:
        return f"{path}{index}" if index else repr(spec.path)
    inner = str(Spec(spec.name, spec.args, spec.kwargs, module=spec.module))
    call = inner if inner.endswith(")") else f"{inner}()"
    return f"{call}{index}" + ("" if path is None else f"@{path}")

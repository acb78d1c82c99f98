"""Spec strings: one line that names something reproducible.

Grammar::

    spec    = path | call ["@" path] ["[" int "]"]
    path    = text that ends in a known file suffix, or a folder that exists (with a separator)
    call    = ["module.path" ":"] name ["(" arguments ")"]

``cnn(width=32)``, ``mnist(test, 512)``, ``trained(cnn, digits, seed=0)``,
``resnet18(num_classes=10)@runs/last.safetensors``, ``mnist(test)[3]``,
``my.pkg:build(3)@w.pt``, ``model.onnx``.

Arguments are literals, bare names (taken as strings, or as specs where one is wanted) and
nested calls. The text is parsed with `ast` and never evaluated.
"""

from __future__ import annotations

import ast
import math
import os
import re
from dataclasses import dataclass, field
from typing import Any

from isogon.errors import SpecError

PROGRAM_SUFFIXES = (".onnx", ".pt2")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")
DATA_SUFFIXES = (".npz", ".zip")
SUFFIXES = PROGRAM_SUFFIXES + WEIGHT_SUFFIXES + DATA_SUFFIXES
MAX_LENGTH = 8192  # `ast` recurses: a hostile spec must not exhaust the stack
MAX_DEPTH = 32

# bare words that are values and not names
_WORDS = {"true": True, "false": False, "none": None, "inf": math.inf, "nan": math.nan}
_NAME = r"[A-Za-z_]\w*"
_HEAD = re.compile(rf"(?:(?P<module>{_NAME}(?:\.{_NAME})*):)?(?P<name>{_NAME})")


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
            arguments = [_render(a) for a in self.args]
            arguments += [f"{k}={_render(v)}" for k, v in sorted(self.kwargs.items())]
            if arguments or self.module:
                text += f"({', '.join(arguments)})"
        if self.index is not None:
            text += f"[{self.index}]"
        if self.name is not None and self.path is not None:
            text += f"@{self.path}"
        return text

    def __hash__(self) -> int:
        return hash(str(self))


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
    if os.sep in text and os.path.isdir(text):
        return Spec(None, path=text)
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


def _split_at(text: str) -> tuple[str, str | None]:
    """Split at the last top-level ``@`` behind something that looks like a call."""
    depth, quote, at = 0, "", -1
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"" and depth:
            quote = c
        elif c in "([":
            depth += 1
        elif c in ")]":
            depth -= 1
        elif c == "@" and depth == 0:
            at = i
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


def _call(head: str, text: str, *, path: str | None, index: int | None) -> Spec:
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
    try:
        tree = ast.parse(f"{name}{rest}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        detail = getattr(error, "msg", None) or type(error).__name__
        raise SpecError(
            f"spec can't be parsed ({detail})",
            got=repr(text),
            expected="NAME(value, key=value, ...)",
            fix="Check brackets, commas and quotes.",
        ) from None
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise SpecError("not a single call", got=repr(text), expected="NAME(value, key=value, ...)")
    args, kwargs = _arguments(tree, text, 0)
    return Spec(name, args, kwargs, module=module, path=path, index=index)


def _arguments(call: ast.Call, text: str, depth: int) -> tuple[tuple, dict[str, Any]]:
    if depth > MAX_DEPTH:
        raise SpecError("spec nested too deeply", got=repr(text), expected=f"depth <= {MAX_DEPTH}")
    kwargs: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in kwargs:
            raise SpecError(
                "bad keyword in spec", got=repr(text), expected="each keyword once, no '**'"
            )
        kwargs[keyword.arg] = _value(keyword.value, text, depth)
    return tuple(_value(a, text, depth) for a in call.args), kwargs


def _value(node: ast.expr, text: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise SpecError("spec nested too deeply", got=repr(text), expected=f"depth <= {MAX_DEPTH}")
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id="inf")):
            return -math.inf
        case ast.Name(id=name):
            return _WORDS.get(name, name)
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return tuple(_value(item, text, depth + 1) for item in items)
        case ast.Call(func=ast.Name(id=name)):
            args, kwargs = _arguments(node, text, depth + 1)
            return Spec(name, args, kwargs)
        case ast.Subscript(value=inner, slice=index):
            inner, index = _value(inner, text, depth + 1), _value(index, text, depth + 1)
            if isinstance(index, int) and isinstance(inner, str | Spec):
                inner = parse(inner) if isinstance(inner, str) else inner
                return Spec(inner.name, inner.args, inner.kwargs, index=index)
    raise SpecError(
        "only values, names and calls may stand in a spec",
        got=f"{ast.unparse(node)!r} in {text!r}",
        expected="numbers, strings, True, False, None, (a, b), NAME, NAME(...)",
        fix="Specs are never evaluated: write the value itself.",
    )


def _render(value: Any) -> str:
    if isinstance(value, Spec):
        # A call without arguments keeps its brackets: f() is a spec, f is a string.
        text = str(value)
        bare = value.name is not None and not (value.args or value.kwargs or value.module)
        if value.module or (value.path is not None):
            return repr(text)
        return text.replace(value.name or "", f"{value.name}()", 1) if bare else text
    if isinstance(value, str):
        bare = re.fullmatch(_NAME, value) and value not in ("True", "False", "None")
        keyword = value in _WORDS or _is_keyword(value)
        return value if bare and not keyword else repr(value)
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_render, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value)


def _is_keyword(text: str) -> bool:
    import keyword

    return keyword.iskeyword(text)

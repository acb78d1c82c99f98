"""Declarations: what a measure's signature and docstring say, as plain data.

Everything that is derived from a measure (its subcommand and help, the validation of plans,
its section of the report) is derived from its `Declaration`, and a declaration from the
function itself: parameters annotated with a registered noun are *inputs*, other ones are
*options*.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from isogon import registry
from isogon.survey.declaring import types

# Parameters that `run` supplies itself.
SUPPLIED = ("generator", "progress")


@dataclass(frozen=True)
class Input:
    """A parameter typed by a noun: given as a spec."""

    name: str
    noun: str
    required: bool
    help: str = ""


@dataclass(frozen=True)
class Option:
    """A parameter of plain type: given as a value."""

    name: str
    type: Any
    default: Any
    required: bool = False
    help: str = ""


@dataclass(frozen=True)
class Declaration:
    """What a callable asks for and says about itself."""

    name: str
    summary: str
    doc: str
    module: str
    inputs: tuple[Input, ...] = ()
    options: tuple[Option, ...] = ()
    seeded: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The subcommand's name."""
        return self.name.replace("_", "-")

    @property
    def cite(self) -> tuple[str, ...]:
        """Keys of the bibliography."""
        return tuple(self.extra.get("cite", ()))

    def input(self, name: str) -> Input | None:
        """The input of that name."""
        return next((i for i in self.inputs if i.name == name), None)

    def option(self, name: str) -> Option | None:
        """The option of that name."""
        return next((o for o in self.options if o.name == name), None)


def declare(entry: registry.Entry, nouns: Collection[str] | None = None) -> Declaration:
    """The declaration of a registered measure or experiment, from its signature.

    Args:
        entry: The entry; a stand-in of `isogon.survey.declaring.sources` serves as well.
        nouns: Names of types that make a parameter an input; those registered by default.
    """
    build = entry.build
    nouns = registry.names("noun") if nouns is None else nouns
    text = inspect.getdoc(build) or ""
    helps = arguments(text)
    inputs, options, seeded = [], [], False
    for p in inspect.signature(build).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        if p.name in SUPPLIED:
            seeded = seeded or p.name == "generator"
            continue
        note = helps.get(p.name, "")
        if noun := _noun(p.annotation, nouns):
            inputs.append(Input(p.name, noun, p.default is p.empty, note))
            continue
        code = types.encode(_hint(build, p))
        if code is None and p.annotation is p.empty:
            code = "any"
        if code is not None:
            required = p.default is p.empty
            default = None if required else p.default
            if _plain(default):
                options.append(Option(p.name, code, default, required, note))
    extra = {k: v for k, v in entry.extra.items() if _plain(v)}
    module = getattr(build, "__module__", "")
    return Declaration(
        entry.name,
        entry.summary,
        text,
        module,
        tuple(inputs),
        tuple(options),
        seeded,
        extra,
    )


def sections(doc: str) -> dict[str, str]:
    """Split a docstring at its section heads (``Args:``, ``Raises:``, ...); "" is the body."""
    found: dict[str, list[str]] = {"": []}
    current = ""
    for line in doc.splitlines():
        head = re.fullmatch(
            r"(Args|Arguments|Attributes|Returns|Raises|Yields|Example|Examples|Source|References|Note|Notes):",
            line.rstrip(),
        )
        if head:
            current = head[1]
            found[current] = []
        elif current and line.strip() and not line.startswith(" "):
            current = ""
            found[""].append(line)
        else:
            found[current].append(line)
    return {k: inspect.cleandoc("\n".join(v)) for k, v in found.items()}


def dataclass_options(config: type, skip: Container[str] = ()) -> list[Option]:
    """The fields of a dataclass as options, with their help from its ``Attributes:``."""
    helps, hints = arguments(inspect.getdoc(config) or "", "Attributes"), get_type_hints(config)
    found = []
    for f in fields(config):
        code = types.encode(hints[f.name])
        if f.name not in skip and code is not None:
            found.append(Option(f.name, code, f.default, help=helps.get(f.name, "")))
    return found


def arguments(doc: str, section: str = "Args") -> dict[str, str]:
    """Parameter -> its description, from a section of the docstring."""
    text = sections(doc).get(section, "")
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        match = re.match(r"\*{0,2}(\w+)(?: \([^)]*\))?:\s*(.*)", line)
        if match and not line.startswith(" "):
            name = match[1]
            found[name] = match[2]
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


# --------------------------------------------------------------------------- internals


def _noun(annotation: Any, nouns: Collection[str]) -> str | None:
    text = annotation if isinstance(annotation, str) else _spelled(annotation)
    for part in text.split("|"):
        name = part.strip().strip("'\"").split("[")[0].split(".")[-1]
        if name in nouns:
            return name
    return None


def _spelled(annotation: Any) -> str:
    arguments = typing.get_args(annotation)
    if arguments and typing.get_origin(annotation) is not typing.Literal:
        return "|".join(_spelled(a) for a in arguments)
    return getattr(annotation, "__name__", str(annotation))


def _hint(build: Callable, p: inspect.Parameter) -> Any:
    if p.annotation is p.empty:
        return None if p.default is p.empty else type(p.default)
    if not isinstance(p.annotation, str):
        return p.annotation
    target = inspect.unwrap(build)
    scope = {**vars(typing), **getattr(target, "__globals__", {})}
    try:
        return eval(p.annotation, scope)  # the annotation is source of the measure itself
    except Exception:  # a name that only exists under TYPE_CHECKING
        return None if p.default in (p.empty, None) else type(p.default)


def _plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) and _plain(v) for k, v in value.items())
    return value is None or isinstance(value, bool | int | float | str)

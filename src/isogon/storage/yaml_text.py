"""YAML text: plain values only, and no more of them than the text itself could hold.

An alias (``*name``) repeats what its anchor holds; aliases of aliases let a line stand for
billions of values, and an anchor that holds itself for infinitely many. So the text is first
read as a stream of events, which builds nothing: nesting and values are counted, every alias
for all that it repeats, before anything is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from isogon.errors import FileError, IsogonError
from isogon.storage.files import first_line

MAX_BYTES = 2**20  # of a text
MAX_VALUES = 200_000  # values in it, with every alias written out
MAX_CHARACTERS = 2**24  # of all values together, with every alias written out
MAX_SCALAR = 2**16  # characters of one value
MAX_NESTING = 64

_SCALARS = ("bool", "float", "int", "null", "str")


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C, where it was built


class _Loader(_Base):
    """Text, numbers, booleans, null, lists and mappings; dates stay text, other tags fail."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class declares it so
        first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: build
        for tag, build in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rsplit(":", 1)[-1] in (*_SCALARS, "seq", "map", "merge")
    }


def read_yaml(text: str | bytes, what: str, *, source: object = None) -> Any:
    """The value of a YAML text.

    Args:
        text: At most `MAX_BYTES` of it.
        what: What the text is, for messages: ``plan``.
        source: Where it comes from, for messages.

    Returns:
        Text, numbers, booleans, None, lists, and dictionaries whose keys are text (numbers
        become text).

    Raises:
        FileError: Not YAML, too deep, or of more values than the caps of this module.
    """

    def load(text: str | bytes) -> Any:
        return yaml.load(text, Loader=_Loader)

    return parsed_yaml(text, what, load, source=source)


def parsed_yaml(
    text: str | bytes, what: str, load: Callable[[Any], Any], *, source: object = None
) -> Any:
    """What another reader of YAML makes of a text, within the limits of `read_yaml`.

    Args:
        text: As for `read_yaml`.
        what: As for `read_yaml`.
        load: Called with the text once it is known to be harmless.
        source: As for `read_yaml`.

    Raises:
        FileError: As `read_yaml`.
    """
    try:
        if len(text) > MAX_BYTES:
            raise _refused(what, source, f"{len(text)} bytes", f"at most {MAX_BYTES}")
        _count(text, what, source)
        return _keyed(load(text), what, source)
    except IsogonError:
        raise
    except Exception as error:  # besides its own errors, the library lets many through
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or first_line(error)
        raise FileError(
            f"the {what} can't be read ({' '.join(str(reason).split())[:160]}{where})",
            got=source,
            expected="YAML: text, numbers, lists and mappings",
        ) from None


def _count(text: str | bytes, what: str, source: object) -> None:
    """Refuse a text whose values are too many, too deep or too long, aliases written out."""
    values = characters = 0
    sizes: dict[str, tuple[int, int]] = {}  # of finished anchors
    begun: list[tuple[str | None, int, int]] = []  # anchor of an open list or mapping, counts
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise _refused(
                    what,
                    source,
                    f"alias *{event.anchor} inside its own anchor, or without one",
                    "aliases of what stands before them",
                )
            values += sizes[event.anchor][0]
            characters += sizes[event.anchor][1]
            continue
        if getattr(event, "tag", None):
            raise _refused(what, source, f"tag {event.tag}", "values without tags", "Leave it out.")
        if isinstance(event, yaml.ScalarEvent):
            if len(event.value) > MAX_SCALAR:
                raise _refused(
                    what, source, f"a value of {len(event.value)} characters", f"<= {MAX_SCALAR}"
                )
            values += 1
            characters += len(event.value)
            if event.anchor:
                sizes[event.anchor] = (1, len(event.value))
        elif isinstance(event, yaml.CollectionStartEvent):
            sizes.pop(event.anchor, None)
            begun.append((event.anchor, values, characters))
            values += 1
            if len(begun) > MAX_NESTING:
                raise _refused(what, source, "deeper nesting", f"at most {MAX_NESTING} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before, letters = begun.pop()
            if anchor:
                sizes[anchor] = (values - before, characters - letters)
        if values > MAX_VALUES or characters > MAX_CHARACTERS:
            raise _refused(
                what,
                source,
                "more values than allowed, with every alias written out",
                f"at most {MAX_VALUES} values and {MAX_CHARACTERS} characters",
            )


def _keyed(value: Any, what: str, source: object) -> Any:
    """The value with keys of text and numbers that fit into 64 bits."""
    if isinstance(value, int) and abs(value) >= 2**64:
        raise _refused(what, source, f"a number of {value.bit_length()} bits", "at most 64 bits")
    if isinstance(value, list):
        return [_keyed(v, what, source) for v in value]
    if not isinstance(value, dict):
        return value
    made: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(key, bool) or not isinstance(key, str | int | float):
            raise _refused(what, source, f"key {key!r}", "keys of text", "Quote the key.")
        if str(key) in made:
            raise _refused(what, source, f"key {key!r} twice", "each key once")
        made[str(key)] = _keyed(inner, what, source)
    return made


def _refused(
    what: str, source: object, got: str, expected: str, fix: str = "Write it out, and shorter."
) -> FileError:
    where = "" if source is None else f" {str(source)!r}"
    return FileError(f"the {what}{where} can't be read", got=got, expected=expected, fix=fix)

"""What surrounds a call without being part of it: data root, cache, progress, checks, trust.

Values live in context variables, so that nested calls, threads and notebooks see their
own; nothing here enters a spec's identity.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from isogon.errors import SpecError


class Progress(Protocol):
    """Receives ``done`` of ``total`` (None: unknown) units of the work called ``what``."""

    def __call__(self, done: int, total: int | None, what: str) -> None: ...  # noqa: D102


def silent(done: int, total: int | None, what: str) -> None:
    """The default progress callback: does nothing."""


@dataclass(frozen=True)
class _Source:
    """The file whose text is being built, and what it may name beyond pure builders."""

    path: str
    data: bool
    largest: float


_data_root: ContextVar[Path | None] = ContextVar("data_root", default=None)
_cache_root: ContextVar[Path | None] = ContextVar("cache_root", default=None)
_download: ContextVar[bool] = ContextVar("download", default=False)
_check: ContextVar[bool] = ContextVar("check", default=True)
_progress: ContextVar[Progress] = ContextVar("progress", default=silent)
_objects: ContextVar[Mapping[str, Any] | None] = ContextVar("objects", default=None)
_source: ContextVar[_Source | None] = ContextVar("source", default=None)


@contextmanager
def use(
    *,
    data_root: str | os.PathLike | None = None,
    cache_root: str | os.PathLike | None = None,
    download: bool | None = None,
    check: bool | None = None,
    progress: Progress | None = None,
) -> Iterator[None]:
    """Set any of the surroundings for the calls inside; None leaves one as it is."""
    settings: list[tuple[Any, Any]] = [
        (_data_root, None if data_root is None else Path(data_root)),
        (_cache_root, None if cache_root is None else Path(cache_root)),
        (_download, download),
        (_check, check),
        (_progress, progress),
    ]
    tokens = []
    for variable, value in settings:
        if value is not None:
            tokens.append((variable, variable.set(value)))
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)


def data_root() -> Path:
    """Folder of the data sets: ``--data-root``, else ``$ISOGON_DATA``, else ``./data``."""
    return _data_root.get() or Path(os.environ.get("ISOGON_DATA") or "data")


def cache_root() -> Path:
    """Folder of isogon's own cache: ``$ISOGON_CACHE``, else the user's cache folder."""
    if (root := _cache_root.get()) is not None:
        return root
    if env := os.environ.get("ISOGON_CACHE"):
        return Path(env)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "isogon"


@contextmanager
def handing_over(objects: Mapping[str, Any]) -> Iterator[None]:
    """Let specs inside name objects of the calling program: ``given(NAME)``."""
    token = _objects.set({**(_objects.get() or {}), **objects})
    try:
        yield
    finally:
        _objects.reset(token)


def handed(name: str) -> Any:
    """The object of that name that the calling program handed over.

    Raises:
        SpecError: There is none (any more).
    """
    objects = _objects.get() or {}
    if name not in objects:
        raise SpecError(
            f"no object {name!r} was handed over",
            got=f"given({name})",
            expected=", ".join(objects) or "a call of isogon.survey or isogon.compare",
            fix="Call isogon.survey or isogon.compare with the object again.",
        )
    return objects[name]


def download_allowed() -> bool:
    """Whether a missing data set may be downloaded (``--download``; off by default).

    Never while a spec is built that a file brought.
    """
    return _download.get() and _source.get() is None


@contextmanager
def from_file(
    path: str | os.PathLike, *, data: bool = False, largest: float = 65536
) -> Iterator[None]:
    """Build specs that a file brought: text that nobody typed, and that must run nothing.

    Inside, whatever imports code, opens the path of a spec, downloads or trains refuses
    (`typed_only`), and only isogon's own builders may be named.

    Args:
        path: The file, for messages.
        data: Data sets of isogon's own may be named as well, without paths.
        largest: The largest number that may stand in such a spec (seeds apart): most become
            the length of something.
    """
    token = _source.set(_Source(os.fspath(path), data, largest))
    try:
        yield
    finally:
        _source.reset(token)


def brought_by() -> str | None:
    """The file that brought the spec that is being built; None where somebody typed it."""
    source = _source.get()
    return None if source is None else source.path


def may_name(kind: str) -> bool:
    """Whether builders of a kind may be named by the text that is being built."""
    source = _source.get()
    if source is None or kind in ("arch", "family", "group", "metric", "stitch", "slice"):
        return True
    return kind in ("dataset", "concepts") and source.data


def check_numbers(name: str, value: Any, got: object) -> None:
    """Refuse numbers that are too large for an argument on the word of a file.

    Args:
        name: The argument; one that is called a seed may have any number.
        value: A number, text, None, or a tuple of such (specs in it are checked when built).
        got: The spec, for the message.

    Raises:
        SpecError: The spec was brought by a file, and a number in ``value`` is above its limit.
    """
    source = _source.get()
    if source is None or "seed" in name:
        return
    if isinstance(value, tuple | list):
        for part in value:
            check_numbers(name, part, got)
    elif isinstance(value, int | float) and source.largest < abs(value) != math.inf:
        raise SpecError(
            f"a file asks for {name} = {str(value)[:30]}",
            got=f"{str(got)[:160]} in {source.path}",
            expected=f"at most {source.largest}, by what the file holds",
            fix="If you trust it, type the spec yourself, in front of '@'.",
        )


def typed_only(act: str, got: object) -> None:
    """Refuse to do something on the word of a file.

    Called first by each function that imports a user's code, opens a path that a spec names,
    downloads or trains.

    Args:
        act: What would be done, as an infinitive: ``import code``.
        got: The spec or name that asks for it.

    Raises:
        SpecError: The spec was brought by a file.
    """
    source = _source.get()
    if source is not None:
        raise SpecError(
            f"a file may not make isogon {act}",
            got=f"{got} in {source.path}",
            expected="an architecture of isogon's own with plain arguments",
            fix="If you trust it, type the spec yourself: 'SPEC@FILE'.",
        )


def checked() -> bool:
    """Whether models are examined before a measure (``--no-check``: not; readings say so)."""
    return _check.get()


def progress() -> Progress:
    """The progress callback of the current context."""
    return _progress.get()

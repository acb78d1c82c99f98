"""What surrounds a call without being part of its result: data root, cache, progress.

Values live in context variables, so that nested calls, threads and notebooks see their
own; nothing here enters a spec's identity.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol


class Progress(Protocol):
    """Receives ``done`` of ``total`` (None: unknown) units of the work called ``what``."""

    def __call__(self, done: int, total: int | None, what: str) -> None: ...  # noqa: D102


def silent(done: int, total: int | None, what: str) -> None:
    """The default progress callback: does nothing."""


_data_root: ContextVar[Path | None] = ContextVar("data_root", default=None)
_cache_root: ContextVar[Path | None] = ContextVar("cache_root", default=None)
_download: ContextVar[bool] = ContextVar("download", default=False)
_progress: ContextVar[Progress] = ContextVar("progress", default=silent)


@contextmanager
def use(
    *,
    data_root: str | os.PathLike | None = None,
    cache_root: str | os.PathLike | None = None,
    download: bool | None = None,
    progress: Progress | None = None,
) -> Iterator[None]:
    """Set any of the surroundings for the calls inside; None leaves one as it is."""
    settings: list[tuple[Any, Any]] = [
        (_data_root, None if data_root is None else Path(data_root)),
        (_cache_root, None if cache_root is None else Path(cache_root)),
        (_download, download),
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


def download_allowed() -> bool:
    """Whether a missing data set may be downloaded (``--download``; off by default)."""
    return _download.get()


def progress() -> Progress:
    """The progress callback of the current context."""
    return _progress.get()

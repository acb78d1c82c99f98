"""Stamps of files: what tells that one was touched, and which were read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

Stamp = tuple[int, ...]

_noted: ContextVar[dict[str, Stamp] | None] = ContextVar("noted", default=None)


def stamp(path: str | os.PathLike) -> Stamp:
    """What changes with a file: size, times of writing and of change in ns, inode, device.

    Raises:
        OSError: The file can't be looked at.
    """
    facts = os.stat(path)
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_dev


@contextmanager
def noting() -> Iterator[dict[str, Stamp]]:
    """Collects the files and folders that isogon's readers read inside, with their stamps."""
    held: dict[str, Stamp] = {}
    token = _noted.set(held)
    try:
        yield held
    finally:
        _noted.reset(token)
        if (outer := _noted.get()) is not None:
            outer.update(held)


def note_stamp(path: str | os.PathLike) -> Stamp:
    """Say that a file is going to be read; its stamp.

    Raises:
        OSError: The file can't be looked at.
    """
    found = stamp(path)
    if (held := _noted.get()) is not None:
        held.setdefault(os.path.abspath(path), found)
    return found


def forget(path: str | os.PathLike) -> None:
    """Say that isogon itself has written a file: what was read from it before was no input.

    A training that goes on from its own file reads it as it was when the training was killed.
    """
    if (held := _noted.get()) is not None:
        held.pop(os.path.abspath(path), None)


def there(path: str | os.PathLike) -> bool:
    """Whether a file or folder exists; that it does not is noted, too."""
    try:
        note_stamp(path)
    except (OSError, ValueError):
        if (held := _noted.get()) is not None:
            held.setdefault(os.path.abspath(path), ())
        return False
    return True


def note_again(files: Mapping[str, Stamp]) -> None:
    """Say that something is used that was read from these files earlier."""
    if (held := _noted.get()) is not None:
        held.update(files)


def untouched(held: Mapping[str, Stamp]) -> bool:
    """Whether files are still those that were noted, and none has come where there was none."""
    return all(_now(path) == then for path, then in held.items())


def _now(path: str) -> Stamp:
    try:
        return stamp(path)
    except (OSError, ValueError):
        return ()

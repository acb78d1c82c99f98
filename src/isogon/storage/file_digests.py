"""Digests of files: SHA-256 of their bytes, remembered as long as they are not touched."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from isogon import context
from isogon.storage.files import atomic
from isogon.storage.stamps import Stamp, note_stamp, stamp

SETTLED = 2 * 10**9  # ns after which a file's times tell a later change from this one
WORTH = 4 * 2**20  # bytes from which a digest is kept for other processes


def file_digest(path: str | os.PathLike) -> str:
    """SHA-256 of the bytes that a file holds now, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file(path: str | os.PathLike) -> str:
    """The same, remembered as long as the file is not touched."""
    return remembered([Path(path)], (), lambda: file_digest(path))


def remembered(
    paths: Sequence[str | os.PathLike], facts: Iterable[str], compute: Callable[[], str]
) -> str:
    """A digest of what files hold, computed again only after one of them was touched.

    A file that was touched less than two seconds ago is not trusted: a second change within the
    resolution of its times would go unseen.

    Args:
        paths: All files that ``compute`` reads.
        facts: What else decides the result, e.g. which members of an archive.
        compute: Reads them.
    """
    now, stamps = time.time_ns(), []
    mark = hashlib.sha256()
    for path in paths:
        stamps.append(note_stamp(path))
        mark.update(f"{os.path.abspath(path)}\0{stamps[-1]}\0".encode("utf-8", "surrogateescape"))
    for fact in facts:
        mark.update(f"{fact}\0".encode("utf-8", "surrogateescape"))
    key = mark.hexdigest()
    if not all(_changed(s) + SETTLED < now for s in stamps):
        return compute()
    large = sum(s[0] for s in stamps) >= WORTH
    if key not in _memory:
        if large and (kept := _kept(key)) is not None:
            _memory[key] = kept
            return kept
        found = compute()
        if any(stamp(p) != s for p, s in zip(paths, stamps)):
            return found  # written to while it was read: not the last word
        _memory[key] = found
        if large:
            with suppress(OSError), atomic(_place(key)) as temporary:
                temporary.write_text(found)
    return _memory[key]


_memory: dict[str, str] = {}


def _place(key: str) -> Path:
    return context.cache_root() / "digests" / key[:2] / key


def _kept(key: str) -> str | None:
    """What another process has found, if it is the digest that it should be."""
    try:
        with _place(key).open("rb") as file:
            text = file.read(65).decode("ascii")
    except (OSError, ValueError):
        return None
    return text if re.fullmatch("[0-9a-f]{64}", text) else None


def _changed(stamp: Stamp) -> int:
    """When a file was last touched: not even its owner can set this time where there is one."""
    return stamp[2] if os.name == "posix" else max(stamp[1:3])

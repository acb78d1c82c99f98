"""Atomic writes, JSON, and the checks that come before any read."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from isogon.errors import FileError, OptionError
from isogon.storage.stamps import forget, note_stamp

MAX_JSON = 64 * 2**20  # bytes of one JSON file
MAX_DEPTH = 64  # of nesting in JSON
STALE = 3600.0  # seconds after which a killed writer's temporary file is swept away

_FIXES = {
    errno.ENOSPC: "Free some space on that disk, or write to another folder.",
    errno.EDQUOT: "Your quota is used up: free some space, or write to another folder.",
    errno.EFBIG: "Raise the limit on the size of files, or write to another folder.",
    errno.EACCES: "Choose a folder that you may write to.",
    errno.EPERM: "Choose a folder that you may write to.",
    errno.EROFS: "That disk is read-only: choose another folder.",
    errno.ENOTDIR: "A part of that path is a file: choose another folder.",
    errno.EEXIST: "A part of that path is a file: choose another folder.",
    errno.EISDIR: "That is a folder: name a file.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


# --------------------------------------------------------------------------- writing


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Replace a file as a whole: what is written inside the context appears at its end.

    The parent folder is made where it is missing. On leaving, the temporary file (same
    folder) is flushed to the disk and renamed; after an exception it is removed and the old
    file is as it was. A symbolic link is followed, its target is replaced.

    Args:
        path: The file to write.

    Yields:
        Path of an empty file to write to.

    Raises:
        FileError: The folder can't be written, the disk is full, or ``path`` is a folder.
    """
    shown = Path(path)
    target = Path(os.path.realpath(shown))
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(6)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        _sweep(target)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise write_error(shown, error) from error
    try:
        yield temporary
        with suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        _flush(temporary)
        temporary.replace(target)
        forget(shown)
        _flush(target.parent)
    except OSError as error:
        foreign = error.filename is not None and not _same(error.filename, temporary, target)
        if isinstance(error, FileError) or foreign:
            raise
        raise write_error(shown, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_error(path: str | os.PathLike, error: OSError) -> FileError:
    """The one-line error for a write that failed, with the fix for its cause."""
    return FileError(
        f"can't write {str(path)!r}",
        got=error.strerror or str(error),
        expected="a folder that can be written, with room in it",
        fix=_FIXES.get(error.errno or 0, "Check the path and the disk, or choose another folder."),
    )


def write_json(path: str | os.PathLike, value: Any, *, indent: int | None = 1) -> None:
    """Write a JSON file atomically.

    Standard JSON: NaN and infinities become ``{"$float": "nan"}``, which `read_json` turns
    back; tuples become lists, NumPy scalars numbers.

    Args:
        path: The file to write.
        value: Dictionaries with string keys, lists, strings, numbers, booleans, None.
        indent: Spaces per level of nesting; None for one line.

    Raises:
        FileError: The file can't be written.
        OptionError: The value is not made of JSON's types.
    """
    text = json.dumps(_encode(plain(value)), indent=indent, ensure_ascii=False, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", errors="surrogatepass")


def plain(value: Any, depth: int = 0) -> Any:
    """The value in JSON's types: tuples and sets as lists, NumPy scalars and arrays as numbers.

    Raises:
        OptionError: Something in it has no JSON form, or it is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise OptionError("nested too deeply for JSON", expected=f"at most {MAX_DEPTH} levels")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        return {_key(k): plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, depth + 1) for v in value]
    if isinstance(value, set | frozenset):
        return [plain(v, depth + 1) for v in sorted(value, key=str)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist") and getattr(value, "dtype", None) is not None:
        return plain(value.tolist(), depth + 1)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise OptionError(
        "a value has no JSON form",
        got=f"{type(value).__name__} {value!r}",
        expected="dictionaries, lists, strings, numbers, True, False, None",
        fix="Store text or numbers, or put arrays among the arrays.",
    )


# --------------------------------------------------------------------------- reading


def regular(path: str | os.PathLike, what: str = "file") -> Path:
    """The path, if an ordinary file that can be read is there.

    Raises:
        FileError: Nothing there, a folder, or a pipe or device (reading one may never end).
    """
    path = Path(path)
    try:
        note_stamp(path)
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.ENOENT, errno.ELOOP) and path.is_symlink():
            raise FileError(
                f"{str(path)!r} is a link that leads nowhere",
                got=f"a link to {os.readlink(path)!r}, which is not there",
                expected="an ordinary file",
                fix="Repair or remove it.",
            ) from error
        near = _neighbours(path)
        raise FileError(
            f"no {what} {str(path)!r}",
            got=getattr(error, "strerror", None) or str(error),
            expected=f"one of: {near}" if near else "an existing file",
            fix="Check the path.",
        ) from error
    if not stat.S_ISREG(mode):
        got = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise FileError(f"{str(path)!r} is no {what}", got=got, expected="an ordinary file")
    if not os.access(path, os.R_OK):
        raise FileError(
            f"can't read {str(path)!r}",
            got="permission denied",
            expected="a file that you may read",
            fix="Change its permissions.",
        )
    return path


def inside(folder: str | os.PathLike, name: str) -> Path:
    """The file ``name`` of a folder, where a file that was read said so.

    Raises:
        FileError: The name is not a plain one, or a link leads out of the folder.
    """
    folder = Path(folder)
    good = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,200}", name)
    if not good or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise FileError(
            f"a file in {str(folder)!r} names a file outside its folder",
            got=repr(name),
            expected="a plain file name",
            fix="Don't use this folder: it was damaged or made to mislead.",
        )
    return folder / name


def damaged(path: str | os.PathLike, what: str, got: object, expected: object = None) -> FileError:
    """The one-line error for a file that is not what it claims to be."""
    return FileError(
        f"{str(path)!r} is no valid {what}",
        got=got,
        expected=expected,
        fix="It is truncated, damaged or of another kind: get or make it again.",
    )


def read_json(path: str | os.PathLike, *, limit: int = MAX_JSON) -> Any:
    """Read a JSON file of at most ``limit`` bytes.

    Raises:
        FileError: Missing, too large, not JSON, or nested too deeply.
    """
    path = regular(path, "JSON file")
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:  # another process has just removed it
        raise FileError(f"can't read {str(path)!r}", got=str(error.strerror or error)) from error
    if len(data) > limit:
        raise damaged(path, "JSON file", "more bytes than allowed", f"at most {limit} bytes")
    try:
        value = json.loads(data.decode("utf-8", errors="surrogatepass"))
        return _decode(value)
    except (ValueError, RecursionError, MemoryError) as error:
        raise damaged(path, "JSON file", first_line(error), "JSON text in UTF-8") from error


def memory_limit() -> int:
    """Most bytes that one file may unpack to: half of the machine's memory, 8 GiB at most."""
    return min(8 * 2**30, physical_memory() // 2)


def physical_memory() -> int:
    """Bytes of the machine's memory; 2 GiB where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 2 * 2**30


# --------------------------------------------------------------------------- internals


def _flush(path: Path) -> None:
    """Force a file, or a folder's list of names, to the disk."""
    folder = path.is_dir()
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems can't flush a folder; the rename itself has happened.
        if not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _sweep(target: Path) -> None:
    """Remove what writers of the same file left that were killed long ago."""
    pattern = re.compile(rf"\.{re.escape(target.name[:200])}\.[0-9a-f]{{12}}\.part")
    with suppress(OSError):
        for entry in os.scandir(target.parent):
            if pattern.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > STALE:
                with suppress(OSError):
                    os.unlink(entry.path)


def _same(name: Any, *paths: Path) -> bool:
    return any(os.fspath(name) == os.fspath(p) for p in (*paths, paths[-1].parent))


def _neighbours(path: Path) -> str:
    with suppress(OSError, ValueError):
        import difflib

        found = [e.name for e in list(os.scandir(path.parent or "."))[:1000]]
        return ", ".join(difflib.get_close_matches(path.name, found, n=3))
    return ""


def first_line(error: BaseException) -> str:
    """What another library said, on one line; where an object lies in memory tells nobody."""
    text = (str(error) or type(error).__name__).split("\n")[0]
    return re.sub(r" at 0x[0-9a-fA-F]+(?=>)", "", text)[:160]


def _key(key: Any) -> str:
    if isinstance(key, str):
        return str(key)
    if isinstance(key, bool | int | float) or key is None or hasattr(key, "item"):
        return str(key)
    raise OptionError("a key has no JSON form", got=repr(key), expected="a string")


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, dict):
        return {("$" + k if k.startswith("$") else k): _encode(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_encode(v) for v in value]
    return value


def _decode(value: Any, depth: int = 0) -> Any:
    if depth > MAX_DEPTH + 2:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        if value.keys() == {"$float"} and value["$float"] in ("nan", "inf", "-inf"):
            return float(value["$float"])
        return {
            (k[1:] if k.startswith("$") else k): _decode(v, depth + 1) for k, v in value.items()
        }
    if isinstance(value, list):
        return [_decode(v, depth + 1) for v in value]
    return value

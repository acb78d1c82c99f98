"""Files to read data from: those of a folder or of a zip, under one interface.

A zip is only ever read in memory, never unpacked to disk. Names that leave it, links,
encrypted members, and members that would unpack to more than `MAX_MEMBER` bytes are refused.
"""

from __future__ import annotations

import os
import stat
import threading
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from isogon import context
from isogon.errors import FileError
from isogon.storage import digests, file_digests
from isogon.storage.files import damaged, regular
from isogon.storage.stamps import note_stamp

MAX_MEMBER = 256 * 2**20  # bytes of one member once unpacked
MAX_RATIO = 200  # of unpacked to stored bytes, over a whole archive
SLACK = 64 * 2**20  # bytes that any archive may unpack to
MAX_MEMBERS = 5_000_000
MAX_FOLDERS = 200_000  # below one folder
MAX_DEPTH = 64
# Folders that a system adds of itself wherever files lie: macOS, Synology, QNAP, Windows, Linux,
# Python. In lower case.
_SYSTEM = {
    "__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin",
    "system volume information", "lost+found", "__pycache__",
}  # fmt: skip


class Folder:
    """The files below a folder; names are relative, with forward slashes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def tree(self) -> tuple[list[str], list[str]]:
        """All files and all folders, sorted; links are followed, but not into what holds them.

        Raises:
            FileError: A link that leads nowhere, or links that make a tree without end.
        """
        files, folders = [], []
        todo: list[tuple[Path, str, frozenset]] = [(self.path, "", frozenset())]
        while todo:
            here, head, above = todo.pop()
            place = here.stat()
            if (place.st_dev, place.st_ino) in above:
                continue
            above |= {(place.st_dev, place.st_ino)}
            if head:
                folders.append(head[:-1])
            if len(folders) > MAX_FOLDERS or len(above) > MAX_DEPTH:
                raise FileError(
                    f"{str(self.path)!r} holds too many folders",
                    got=f"{len(folders)} so far, {len(above)} deep",
                    expected=f"at most {MAX_FOLDERS}, {MAX_DEPTH} deep",
                    fix="Look for links that lead back and forth.",
                )
            note_stamp(here)  # its time tells when a file comes or goes
            try:
                entries = list(os.scandir(here))
            except OSError as error:
                if hidden(head):  # lost+found, which only the system may read
                    continue
                raise FileError(f"can't read {str(here)!r}", got=error.strerror) from error
            for entry in entries:
                name = head + entry.name
                if entry.is_dir():
                    todo.append((Path(entry.path), f"{name}/", above))
                elif entry.is_symlink() and _leads_nowhere(entry, name):
                    raise FileError(
                        f"link {name!r} in {str(self.path)!r} leads nowhere",
                        got=os.readlink(entry.path),
                        expected="a file or a folder",
                        fix="Repair or remove it.",
                    )
                else:
                    files.append(name)
        return sorted(files), sorted(folders)

    def names(self) -> list[str]:
        """All files, sorted, as `tree`."""
        return self.tree()[0]

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            FileError: Gone, unreadable, too large, or no ordinary file.
        """
        path = regular(self.path / name)
        try:
            if path.stat().st_size > MAX_MEMBER:
                raise _too_large(name, self.path, path.stat().st_size)
            return path.read_bytes()
        except OSError as error:
            if isinstance(error, FileError):
                raise
            raise FileError(f"can't read {str(path)!r}", got=error.strerror) from error

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return regular(self.path / name).stat().st_size

    def digest(self, names: list[str]) -> str:
        """Digest of the bytes of these files, in this order.

        Raises:
            FileError: As `read`.
        """
        paths = [self.path / name for name in names]
        try:
            return file_digests.remembered(paths, (), lambda: _digest(self, names))
        except OSError as error:
            if isinstance(error, FileError):
                raise
            raise FileError(
                f"can't read {str(error.filename or self.path)!r}", got=error.strerror
            ) from error


class Archive:
    """The members of a zip file, checked before any is read.

    The open file is this process's own: it is not pickled, and a forked child opens its own
    (two processes that share a file position read each other's bytes).

    Raises:
        FileError: Not a zip, damaged, or made to do harm.
    """

    def __init__(self, path: Path) -> None:
        self.path = regular(path, "zip file")
        self._handle: zipfile.ZipFile | None = None
        self._owner = -1
        self._lock = threading.Lock()
        self._members = {info.filename: info for info in self._open().infolist()}
        self._check()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.update(_handle=None, _owner=-1)
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def _open(self) -> zipfile.ZipFile:
        if self._handle is None or self._owner != os.getpid():
            try:
                self._handle = zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
                raise damaged(self.path, "zip file", error) from error
            self._owner, self._lock = os.getpid(), threading.Lock()
        return self._handle

    def _check(self) -> None:
        total = 0
        if len(self._members) > MAX_MEMBERS:
            raise damaged(self.path, "zip file", f"{len(self._members)} members", MAX_MEMBERS)
        for name, info in self._members.items():
            odd = name[:1] == "/" or name[1:2] == ":" or "\\" in name or "\0" in name
            if odd or (".." in name and ".." in name.split("/")):
                raise FileError(
                    f"zip {str(self.path)!r} holds a path that escapes",
                    got=repr(name),
                    expected="relative names without '..'",
                    fix="Don't use this file: it was damaged or made to do harm.",
                )
            if stat.S_ISLNK(info.external_attr >> 16):
                raise FileError(
                    f"zip {str(self.path)!r} holds a symbolic link",
                    got=repr(name),
                    expected="files and folders",
                    fix="Make it again without links.",
                )
            if info.flag_bits & 1:
                raise FileError(
                    f"zip {str(self.path)!r} is encrypted",
                    got=repr(name),
                    expected="plain members",
                    fix="Make it again without a password.",
                )
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise FileError(  # the others have no limit on what a few bytes unpack to
                    f"zip {str(self.path)!r} is compressed in a way that is not read",
                    got=f"method {info.compress_type} of {name!r}",
                    expected="stored or deflated members",
                    fix="Make it again with an ordinary zip.",
                )
            total += info.file_size
        stored = self.path.stat().st_size
        if total > MAX_RATIO * stored + SLACK:
            raise FileError(
                f"zip {str(self.path)!r} would unpack to far more than it holds",
                got=f"{total} bytes out of {stored}",
                expected=f"at most {MAX_RATIO} times its size",
                fix="Don't use this file: it was made to exhaust memory.",
            )

    def tree(self) -> tuple[list[str], list[str]]:
        """All members that are files, and all folders, also those that are only in names."""
        files, folders = self.names(), set()
        for name in self._members:
            while (name := name.rpartition("/")[0]) and name not in folders:
                folders.add(name)
        return files, sorted(folders)

    def names(self) -> list[str]:
        """All members that are files, sorted."""
        return sorted(name for name in self._members if not name.endswith("/"))

    def size(self, name: str) -> int:
        """Bytes of a member once unpacked, as its header says."""
        return self._members[name].file_size

    def read(self, name: str) -> bytes:
        """The bytes of one member, its checksum verified.

        Raises:
            FileError: Damaged, too large, or in a compression that is not read.
        """
        handle, info = self._open(), self._members[name]
        if info.file_size > MAX_MEMBER:
            raise _too_large(name, self.path, info.file_size)
        try:
            with self._lock, handle.open(info) as file:
                # so many and no more: without a number, all of the stream is unpacked first
                data = file.read(info.file_size + 1)
            if len(data) != info.file_size:
                raise ValueError(f"{len(data)} bytes instead of {info.file_size}")
            return data
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
            raise damaged(self.path, "zip file", f"{name}: {error}") from error
        except (NotImplementedError, RuntimeError, MemoryError) as error:
            raise damaged(self.path, "zip file", f"{name}: {error}") from error

    def digest(self, names: list[str]) -> str:
        """Digest of the bytes of these members, unpacked, in this order.

        Raises:
            FileError: As `read`.
        """
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._open().fp.fileno()), os.stat(self.path)):  # type: ignore[union-attr]
                return file_digests.remembered([self.path], names, lambda: _digest(self, names))
        return _digest(self, names)  # another file lies there now than the one that is open


Source = Folder | Archive


def open_source(path: str | os.PathLike) -> Source:
    """A folder or a zip file.

    Raises:
        FileError: Neither is there.
    """
    path = Path(path)
    return Folder(path) if path.is_dir() else Archive(path)


def _digest(source: Source, names: list[str]) -> str:
    mark, tell = digests.Digest(), context.progress()
    for i, name in enumerate(names):
        mark.add(source.read(name))
        if i % 250 == 0:
            tell(i, len(names), "reading files")
    return mark.hex()


def suffix(name: str) -> str:
    """The lower-case suffix of a member's name."""
    at = name.rfind(".")  # pathlib takes a second for 60,000 names
    return name[at:].lower() if at > name.rfind("/") else ""


def _leads_nowhere(link: os.DirEntry, name: str) -> bool:
    """Whether a link may have been one to a class; one to a file is refused when it is read."""
    return not suffix(name) and not hidden(name) and not os.path.exists(link.path)


def hidden(name: str) -> bool:
    """Whether a member, or a folder that it lies in, is hidden or added by a system of itself."""
    if name[:1] == "." or "/." in name:
        return True
    lower = name.lower()  # what follows takes a tenth of splitting every name of a million
    return any(n in lower for n in _SYSTEM) and not _SYSTEM.isdisjoint(lower.split("/"))


def _too_large(name: str, path: Path, size: int) -> FileError:
    return FileError(
        f"{name!r} in {str(path)!r} is too large",
        got=f"{size} bytes",
        expected=f"at most {MAX_MEMBER}",
        fix="Remove that file, or shrink it.",
    )

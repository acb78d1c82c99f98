"""Pickles and the zips that ``torch.save`` writes, checked before anything reads them.

Reading either can take far more memory than its file: a pickle names lengths, places in a memo
and parts that were there before, as often as it likes; a zip may be deflated, or name one piece
of the file as many members. Here both are gone through without building anything.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from isogon.errors import FileError
from isogon.storage.files import damaged, first_line
from isogon.storage.kinds import foreign, foreign_archive

MAX_DEPTH = 48  # of containers in containers
TIMES = 64  # what calls in a pickle may copy, over its bytes
FREE = 256 * 2**20  # bytes that any pickle's calls may copy
_MEMO = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_RECALL = ("GET", "BINGET", "LONG_BINGET")
_INTO = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
_CALLS = ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "BUILD")


def check_opcodes(file: Any) -> None:
    """Go through one pickle as `pickletools` lists it, and build nothing.

    Raises:
        ValueError: A length that is not backed by bytes, a place in the memo that was skipped
            (the memo is an array: one large number would fill memory), nesting deeper than
            `MAX_DEPTH` (hashing a deep tuple overflows the stack), or more calls on long texts
            and lists than `FREE` and `TIMES` allow (each may copy what it is given).
    """
    mark = object()
    stack: list[Any] = []  # of the depth of every value, or the mark
    memo: dict[int, Any] = {}
    longest = calls = 0
    for code, given, _ in pickletools.genops(file):
        if isinstance(given, str | bytes):
            longest = max(longest, len(given))
        calls += code.name in _CALLS
        if code.name in _MEMO:
            place = len(memo) if code.name == "MEMOIZE" else int(str(given))
            if not 0 <= place <= len(memo) + 1:
                raise ValueError(f"place {place} in a memo of {len(memo)}")
            memo[place] = stack[-1]
            continue
        if code.name in _RECALL:
            stack.append(memo[int(str(given))])
            continue
        if code.name in ("MARK", "DUP"):
            stack.append(mark if code.name == "MARK" else stack[-1])
            continue
        depth, length = _applied(code, stack, mark)
        longest = max(longest, length)
        if depth > MAX_DEPTH:
            raise ValueError(f"nesting deeper than {MAX_DEPTH}")
        stack += [depth] * len(code.stack_after)
    if calls * longest > FREE + TIMES * file.tell():
        raise ValueError(f"{calls} calls on texts and lists of up to {longest}")


def _applied(code: Any, stack: list[Any], mark: object) -> tuple[int, int]:
    """Take off the stack what an opcode takes; the depth of what it makes, and how many it took."""
    before = [s for s in code.stack_before if s is not pickletools.stackslice]
    taken = held = length = 0
    if pickletools.markobject in before:
        while (item := stack.pop()) is not mark:
            taken, length = max(taken, item), length + 1
        before = before[: before.index(pickletools.markobject)]
    into = code.name in _INTO  # the first one taken is what the others go into
    for i in reversed(range(len(before))):
        item = stack.pop()
        if item is mark:
            raise ValueError("a mark where a value belongs")
        held, taken = (item, taken) if into and not i else (0, max(taken, item))
    return (max(held, taken + 1) if code.stack_before else 0), length


def check_saved(path: Path, what: str) -> None:
    """Go through a file of ``torch.save`` (or ``torch.export.save``), and build nothing.

    Raises:
        FileError: A compressed member, members that overlap, or a pickle that `check_opcodes`
            refuses.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                _check_zip(path, file, what)
            else:  # the format before zips: five pickles, then raw numbers
                file.seek(0)
                for _ in range(5):
                    check_opcodes(file)
                    if file.tell() == path.stat().st_size:
                        break
    except FileError:
        raise
    except Exception as error:  # damaged files fail in any way
        raise foreign(path, what) or damaged(path, what, unread(error)) from error


def unread(error: Exception) -> str:
    """What kept a pickle from being read; of a slip of the reader, its words say nothing."""
    said = f" ({first_line(error)})" if isinstance(error, ValueError | OSError) else ""
    return f"what is no whole pickle{said}"


def _check_zip(path: Path, file: BinaryIO, what: str) -> None:
    size = file.seek(0, 2)
    file.seek(max(0, size - 22))
    end = file.read()
    if end[:4] != b"PK\x05\x06" or end[20:] != b"\0\0":
        # with a comment behind it, two readers could see two ends, and so two files
        raise damaged(path, what, "a zip without its end", "an end of 22 bytes, no comment")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if other := foreign_archive(path, what, archive.namelist()):
            raise other
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise FileError(
                    f"{str(path)!r} is compressed: it could unpack to any size",
                    got=f"member {member.filename[:80]!r}",
                    expected=f"stored members, as in a {what} of torch.save",
                    fix="Unpack it, load and save it again with torch.save.",
                )
        total = sum(m.file_size for m in members)
        if total > size or len({m.filename for m in members}) != len(members):
            raise damaged(path, what, f"members of {total} bytes in {size}", "each its own")
        for member in members:
            if member.filename.endswith(("/data.pkl", ".pkl")):
                with archive.open(member) as pickled:
                    check_opcodes(pickled)

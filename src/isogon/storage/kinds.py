"""What a file is that is not what its name says: by its first bytes, for messages."""

from __future__ import annotations

import codecs
import zipfile
from contextlib import suppress
from pathlib import Path

from isogon.errors import FileError

HEAD = 512  # bytes that are looked at
_AGAIN = "Download it again: what came is {}."
_UNPACK = "Unpack it first."
# first bytes -> what the file is, what to do
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a pointer of git LFS, not the file itself",
        "Fetch the file that it stands for: git lfs pull.",
    ),
    (b"\x1f\x8b", "gzip, a compressed file", _UNPACK),
    (b"BZh", "bzip2, a compressed file", _UNPACK),
    (b"\xfd7zXZ\0", "xz, a compressed file", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "zstd, a compressed file", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "7z, an archive", _UNPACK),
    (b"\x93NUMPY", "a NumPy array (.npy)", "Save the weights as tensors: torch.save(state, path)."),
    (
        b"\x89HDF\r\n\x1a\n",
        "HDF5, as Keras writes",
        "Export the network to ONNX (tf2onnx, for TensorFlow), and load that.",
    ),
)
TORCHSCRIPT = "a TorchScript archive"
# the state's own names are those of the module that was scripted
_TORCHSCRIPT_FIX = (
    "Take its weights: torch.save(torch.jit.load(path).state_dict(), 'weights.pt'), then load "
    "ARCHITECTURE@weights.pt, with the module that it was made from as architecture; or export "
    "that module with torch.export.save (.pt2) or torch.onnx.export."
)
PROGRAM = "an exported program of torch.export"
SAVED, SAFETENSORS, PROGRAM_FILE = "weights file", "safetensors file", "exported program"
_TORCH, _SAFETENSORS = "a file of torch.save", "a safetensors file"
_OTHER = "Give the {what} itself."
_OWN = {SAVED: (_TORCH,), SAFETENSORS: (_SAFETENSORS,), PROGRAM_FILE: (PROGRAM,)}


def foreign(path: Path, what: str) -> FileError | None:
    """The error for a file that is of another kind than it is read as; None where none is told.

    To be asked where reading failed: a pickle may consist of letters, too.

    Args:
        path: Of any kind; a file that can't be read tells nothing.
        what: What it is read as: one of `SAVED`, `SAFETENSORS`, `PROGRAM_FILE`, or other words.
    """
    found = told(path)
    if found is None or found[0] in _OWN.get(what, ()):
        return None
    return _error(path, what, found)


def foreign_archive(path: Path, what: str, names: list[str]) -> FileError | None:
    """As `foreign`, of a zip with members of these names; it need not have failed yet."""
    found = _archive(names)
    return None if found is None or found[0] in _OWN[what] else _error(path, what, found)


def told(path: Path) -> tuple[str, str] | None:
    """What a file is by its first bytes and what to do about it; None where they don't tell."""
    with suppress(OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        with path.open("rb") as file:
            head = file.read(HEAD)
            if not head:
                return "an empty file", "Download or write it again."
            for beginning, what, fix in _BEGINNINGS:
                if head.startswith(beginning):
                    return what, fix
            if head.startswith(b"PK\x03\x04"):
                with zipfile.ZipFile(file) as archive:
                    return _archive(archive.namelist())
        if head[8:9] == b"{" and not any(head[4:8]):
            return _SAFETENSORS, "Let its name end in .safetensors."
        return _text(head)
    return None


def _archive(whole: list[str]) -> tuple[str, str] | None:
    names = {n.partition("/")[2] for n in whole}
    if "constants.pkl" in names and any(n.startswith("code/") for n in names):
        return TORCHSCRIPT, _TORCHSCRIPT_FIX
    if "archive_format" in names or "serialized_exported_program.json" in {*whole, *names}:
        return PROGRAM, "Let its name end in .pt2, and load it alone, without an architecture."
    if "data.pkl" in names:
        return _TORCH, "Let its name end in .pt."
    shown = ", ".join(whole[:3]) + (", ..." if len(whole) > 3 else "")
    return f"a zip with {shown[:120] or 'nothing in it'}", _UNPACK


def _error(path: Path, what: str, found: tuple[str, str]) -> FileError:
    fix, article = found[1].replace("{what}", what), "an" if what[0] in "aeiouAEIOU" else "a"
    return FileError(
        f"{str(path)!r} is no valid {what}", got=found[0], expected=f"{article} {what}", fix=fix
    )


def _text(head: bytes) -> tuple[str, str] | None:
    try:
        decoder = codecs.getincrementaldecoder("utf-8")()  # the bytes may end within a letter
        text = decoder.decode(head, final=len(head) < HEAD).lstrip("\ufeff")
    except UnicodeDecodeError:
        return None
    if any(not (c.isprintable() or c in "\t\r\n\f") for c in text):
        return None
    words = " ".join(text.split())
    if words[:15].lower().startswith(("<!doctype html", "<html")):
        return "a page of HTML", _AGAIN.format("a web page, of an error or a log-in, say")
    shown = repr(words[:40] + ("..." if len(words) > 40 else ""))
    if words[:1] in ("{", "["):
        return f"a JSON text that begins with {shown}", _OTHER
    return f"a text that begins with {shown}", _OTHER

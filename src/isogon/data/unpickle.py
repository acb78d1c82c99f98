"""Pickles of numbers and text, read without running any code.

The published CIFAR files are pickles. They are read by an interpreter of the few opcodes that
such files need, in which the only callables that exist are three stand-ins for NumPy's array
constructors and one for ``_codecs.encode``; any other name, any other opcode, and any length
that is not backed by bytes in the file, is refused. Nothing is imported, nothing is called.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from isogon.errors import FileError
from isogon.storage.files import damaged, first_line, regular

MAX_BYTES = 512 * 2**20
_OPCODES = (
    b"PROTO FRAME STOP MARK EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 LIST DICT "
    b"APPEND APPENDS SETITEM SETITEMS NONE NEWTRUE NEWFALSE INT LONG1 BININT BININT1 BININT2 "
    b"BINFLOAT BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINUNICODE SHORT_BINUNICODE "
    b"PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD"
).split()


class _Array:
    """An array in the making: NumPy's own is built at the end, from checked parts."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _Kind) or not all(type(s) is int and s >= 0 for s in shape):
            raise pickle.UnpicklingError("an array of odd shape or type")
        data = data.encode("latin1") if isinstance(data, str) else data
        if type(data) is not bytes:
            raise pickle.UnpicklingError("an array without bytes")
        count = 1
        for s in shape:
            count *= s
        if count * kind.dtype.itemsize != len(data):
            raise pickle.UnpicklingError("an array whose shape does not fit its bytes")
        order = "F" if fortran else "C"
        self.value = np.frombuffer(data, kind.dtype).reshape(shape, order=order)


class _Kind:
    """A dtype in the making; numbers only."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order in ("<", ">", "="):
            self.dtype = self.dtype.newbyteorder(order)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _ndarray(*_: Any) -> None:
    raise pickle.UnpicklingError("an array built by hand")


def _dtype(text: Any, *_: Any) -> _Kind:
    text = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    if not isinstance(text, str) or text not in ("u1", "i1", "i2", "i4", "i8", "f4", "f8"):
        raise pickle.UnpicklingError(f"numbers of type {text!r}")
    return _Kind(np.dtype(text))


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("an odd encoding")
    return text.encode("latin1")


_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle._Unpickler):  # type: ignore[name-defined]
    """Python's own slow unpickler: its memo is a dictionary, so an index can't fill memory."""

    dispatch = {  # noqa: RUF012 - the base class declares it so
        getattr(pickle, name.decode())[0]: pickle._Unpickler.dispatch[  # type: ignore
            getattr(pickle, name.decode())[0]
        ]
        for name in _OPCODES
    }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; every other name is refused."""
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _NAMES[module, name]

    def load_build(self) -> None:
        """Give a stand-in its state; nothing else has any."""
        stack: list[Any] = self.stack  # type: ignore[attr-defined]
        if not isinstance(stack[-2], _Array | _Kind):
            raise pickle.UnpicklingError("state for an object that has none")
        stack[-2].__setstate__(stack.pop())

    dispatch[pickle.BUILD[0]] = load_build  # type: ignore[assignment]


def read_pickle(path: Path) -> Any:
    """The dictionaries, lists, numbers, texts and arrays in a pickle file.

    All text comes as ``str``, whether it was stored as bytes or as text.

    Raises:
        FileError: Missing, damaged, or it holds anything else (nothing of it has run).
    """
    path = regular(path, "data file")
    if path.stat().st_size > MAX_BYTES:
        raise damaged(path, "data file", f"{path.stat().st_size} bytes", f"at most {MAX_BYTES}")
    try:
        found = _Reader(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        return _plain(found, 0)
    except FileError:
        raise
    except pickle.UnpicklingError as error:
        raise FileError(
            f"{str(path)!r} holds more than numbers and text; nothing of it was run",
            got=first_line(error),
            expected="the published CIFAR file",
            fix="Download it again from its authors.",
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise damaged(path, "data file", f"{type(error).__name__} {first_line(error)}") from error


def _plain(value: Any, depth: int) -> Any:
    if depth > 8:
        raise pickle.UnpicklingError("deep nesting")
    if isinstance(value, _Array):
        if value.value is None:
            raise pickle.UnpicklingError("an array without state")
        return value.value
    if isinstance(value, dict):
        return {
            k.decode("latin1") if isinstance(k, bytes) else str(k): _plain(v, depth + 1)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(v, depth + 1) for v in value]
    if isinstance(value, bytes):
        return value.decode("latin1")
    if value is None or isinstance(value, str | int | float):
        return value
    raise pickle.UnpicklingError(f"an object {type(value).__name__}")

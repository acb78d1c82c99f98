"""Pickles of numbers and text, read without running any code.

The published CIFAR files are pickles. Before one is read its opcodes are listed, which builds
nothing: every length must be backed by bytes of the file, places in the memo must follow each
other, and nesting is counted. Then Python's own unpickler reads it, in which the only names that
exist are stand-ins for NumPy's array constructors and one for ``_codecs.encode``. What comes out
may not be larger than the file: a pickle refers to its parts as often as it likes.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from isogon.errors import FileError
from isogon.storage import kinds
from isogon.storage.files import damaged, first_line, regular
from isogon.storage.saved import check_opcodes, unread

MAX_BYTES = 512 * 2**20
TIMES = 4  # what may come out (values and bytes), over the bytes of the file
_DTYPES = ("u1", "i1", "i2", "i4", "i8", "f4", "f8")


class _Array:
    """An array in the making: NumPy's own is built at the end, from checked parts."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(kind, _Kind) or type(shape) is not tuple or type(data) is not bytes:
            raise pickle.UnpicklingError("an array of odd shape, type or contents")
        order = "F" if fortran else "C"
        self.value = np.frombuffer(data, kind.dtype).reshape(shape, order=order)
        if self.value.shape != shape:  # an axis of -1
            raise pickle.UnpicklingError("an array of odd shape")


class _Kind:
    """A dtype in the making; numbers only."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">", "="):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Name:
    """A callable that stands for a name, and takes no state."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *given: Any) -> Any:
        return self.function(*given)

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("state for an object that has none")


class _Reader(pickle.Unpickler):
    """Python's unpickler, in which five names exist."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self.left = TIMES * len(data)  # bytes that encoding may still make

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; every other name is refused."""
        known = {
            "numpy.core.multiarray _reconstruct": self._reconstruct,
            "numpy._core.multiarray _reconstruct": self._reconstruct,
            "numpy ndarray": self._ndarray,
            "numpy dtype": self._dtype,
            "_codecs encode": self._encode,
        }
        if f"{module} {name}" not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _Name(known[f"{module} {name}"])

    def _reconstruct(self, *_: Any) -> _Array:
        return _Array()

    def _ndarray(self, *_: Any) -> NoReturn:
        raise pickle.UnpicklingError("an array built by hand")

    def _dtype(self, text: Any, *_: Any) -> _Kind:
        text = text.decode("ascii", "replace") if isinstance(text, bytes) else text
        if not isinstance(text, str) or text not in _DTYPES:
            raise pickle.UnpicklingError(f"numbers of type {str(text)[:20]!r}")
        return _Kind(np.dtype(text))

    def _encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError("an odd encoding")
        self.left -= len(text)
        if self.left < 0:
            raise pickle.UnpicklingError(f"over {TIMES} times what the file holds")
        return text.encode("latin1")


def read_pickle(path: Path) -> Any:
    """The dictionaries, lists, numbers, texts and arrays in a pickle file.

    All text comes as ``str``, whether it was stored as bytes or as text.

    Raises:
        FileError: Missing, damaged, larger inside than outside, or it holds anything else
            (nothing of it has run).
    """
    path = regular(path, "data file")
    if path.stat().st_size > MAX_BYTES:
        raise damaged(path, "data file", f"{path.stat().st_size} bytes", f"at most {MAX_BYTES}")
    data = path.read_bytes()
    try:
        check_opcodes(io.BytesIO(data))
        return _plain(_Reader(data).load(), 0, [TIMES * len(data) + 1000])
    except pickle.UnpicklingError as error:
        raise FileError(
            f"{str(path)!r} holds more than numbers and text; nothing of it was run",
            got=first_line(error),
            expected="the published CIFAR file",
            fix="Download it again from its authors.",
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        what = "data file"
        raise kinds.foreign(path, what) or damaged(path, what, unread(error)) from error


def _plain(value: Any, depth: int, left: list[int]) -> Any:
    """The value in Python's and NumPy's types; ``left`` counts down what may still come out."""
    left[0] -= len(value) if isinstance(value, str | bytes) else 1
    if depth > 8 or left[0] < 0:
        what = "deep nesting" if depth > 8 else f"over {TIMES} times what the file holds"
        raise pickle.UnpicklingError(what)
    if isinstance(value, _Array):
        if value.value is None:
            raise pickle.UnpicklingError("an array without state")
        left[0] -= value.value.nbytes
        return value.value
    if isinstance(value, dict):
        return {
            str(_plain(k, 9, left) if isinstance(k, tuple) else _plain(k, depth, left)): _plain(
                v, depth + 1, left
            )
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(v, depth + 1, left) for v in value]
    if isinstance(value, bytes):
        return value.decode("latin1")
    if value is None or isinstance(value, str | int | float):
        return value
    raise pickle.UnpicklingError(f"an object {type(value).__name__}")

"""Arrays and tensors in safetensors files.

The format is a length, a JSON header and raw bytes. It is written here, so that the same tensors
give the same bytes, one by one and atomically; it is read by the library of that name, which
checks every claim of a header against the size of the file before memory is taken.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from isogon.errors import FileError, OptionError
from isogon.storage.files import atomic, damaged, first_line, regular
from isogon.storage.kinds import SAFETENSORS, foreign

MAX_AXES = 32
MAX_HEADER = 100 * 2**20  # bytes; the limit of the format itself

# safetensors name -> (bytes per element, NumPy name, torch name)
_DTYPES: dict[str, tuple[int, str | None, str]] = {
    "F64": (8, "float64", "float64"),
    "F32": (4, "float32", "float32"),
    "F16": (2, "float16", "float16"),
    "BF16": (2, None, "bfloat16"),
    "F8_E4M3": (1, None, "float8_e4m3fn"),
    "F8_E5M2": (1, None, "float8_e5m2"),
    "C64": (8, "complex64", "complex64"),
    "I64": (8, "int64", "int64"),
    "I32": (4, "int32", "int32"),
    "I16": (2, "int16", "int16"),
    "I8": (1, "int8", "int8"),
    "U64": (8, "uint64", "uint64"),
    "U32": (4, "uint32", "uint32"),
    "U16": (2, "uint16", "uint16"),
    "U8": (1, "uint8", "uint8"),
    "BOOL": (1, "bool", "bool"),
}


def write_tensors(
    path: str | os.PathLike,
    tensors: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write named arrays to a safetensors file, atomically.

    Args:
        path: The file to write.
        tensors: NumPy arrays or torch tensors of any device and layout, by name. They are
            written as they are one by one, without a second copy of the whole.
        metadata: Text by key.

    Raises:
        FileError: The file can't be written.
        OptionError: An array of a type that the format does not have (e.g. of objects).
    """
    order = []
    for name, tensor in tensors.items():
        kind, size = _kind(name, tensor)
        order.append((-_DTYPES[kind][0], str(name), kind, size, tensor))
    order.sort(key=lambda item: item[:2])  # wide types first keeps every tensor aligned
    spans: dict[str, list[int]] = {}
    offset = 0
    for _, name, _, size, _ in order:
        spans[name] = [offset, offset + size]
        offset += size
    kinds = {name: kind for _, name, kind, _, _ in order}
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = {str(k): str(v) for k, v in sorted(metadata.items())}
    for name, tensor in tensors.items():  # readers give the tensors back in this order
        shape, key = list(tensor.shape), str(name)
        header[key] = {"dtype": kinds[key], "shape": shape, "data_offsets": spans[key]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for *_, tensor in order:
            file.write(_bytes(tensor))


def read_tensors(
    path: str | os.PathLike,
    *,
    framework: str = "np",
    keep: Callable[[str], bool] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a safetensors file.

    Args:
        path: The file.
        framework: ``"np"`` for NumPy arrays (bfloat16 is widened to float32) or ``"pt"`` for
            torch tensors on the CPU.
        keep: Which names to read; all by default. The others cost nothing.

    Returns:
        The tensors by name, and the metadata.

    Raises:
        FileError: Missing, truncated, or with a header that contradicts itself or the size
            of the file.
    """
    if framework not in ("np", "pt"):
        raise OptionError("unknown framework", got=repr(framework), expected="'np' or 'pt'")
    from safetensors import safe_open

    path = Path(path)
    names, metadata, start = _header(path)
    found: dict[str, Any] = {}
    try:
        with safe_open(path, framework) as file:
            for name, entry in names.items():
                if keep is not None and not keep(name):
                    continue
                if framework == "np" and entry["dtype"] == "BF16":
                    found[name] = _widened(path, start, entry)
                else:  # a copy: the file may change while the numbers are in use
                    tensor = file.get_tensor(name)
                    if framework == "np" and entry["dtype"] == "BOOL":
                        tensor = tensor.view("u1") != 0  # any other byte than 0 and 1 is no bool
                    found[name] = tensor.clone() if framework == "pt" else tensor
    except Exception as error:  # the library's own error and those of the frameworks
        raise damaged(path, "safetensors file", first_line(error)) from error
    return found, metadata


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The metadata alone of a safetensors file; no tensor is read.

    Raises:
        FileError: As `read_tensors`.
    """
    return _header(Path(path))[1]


# --------------------------------------------------------------------------- internals


def _header(path: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """Entries by name in the file's order, metadata, and where the data starts.

    The library checks all of it first: that offsets leave no gap, fit shapes and end the file.
    """
    from safetensors import safe_open

    what = SAFETENSORS
    regular(path, what)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 10 or not 2 <= length <= min(size - 8, MAX_HEADER):
                raise foreign(path, what) or damaged(
                    path, what, f"a header of {length} bytes in a file of {size}", "a whole file"
                )
            with safe_open(path, "np") as checked:
                metadata = dict(checked.metadata() or {})
            header = json.loads(file.read(length).decode("utf-8"))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            if len(entry["shape"]) > MAX_AXES:
                raise ValueError(f"tensor {name!r} has {len(entry['shape'])} axes")
        return header, metadata, 8 + length
    except FileError:
        raise
    except Exception as error:  # the library's own error, which is no ValueError
        raise foreign(path, what) or damaged(path, what, first_line(error)) from error


def _widened(path: Path, start: int, entry: dict[str, Any]) -> Any:
    """A bfloat16 tensor as float32, which NumPy has."""
    import numpy as np

    begin, end = entry["data_offsets"]
    raw = np.fromfile(path, "<u2", count=(end - begin) // 2, offset=start + begin)
    return (raw.astype("<u4") << 16).view(np.float32).reshape(entry["shape"])


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _kind(name: str, tensor: Any) -> tuple[str, int]:
    """Format's name of the dtype, and the number of bytes."""
    column = 2 if _is_torch(tensor) else 1
    dtype = str(getattr(tensor, "dtype", None)).removeprefix("torch.").lstrip("<>=|")
    if column == 1 and hasattr(tensor, "dtype"):
        dtype = tensor.dtype.name
    for kind, names in _DTYPES.items():
        if names[column] == dtype:
            return kind, math.prod(tensor.shape) * names[0]
    raise OptionError(
        f"array {name!r} can't be stored",
        got=dtype if hasattr(tensor, "dtype") else type(tensor).__name__,
        expected="an array of " + ", ".join(str(n[column]) for n in _DTYPES.values() if n[column]),
        fix="Convert it, or put text into the table or the metadata.",
    )


def _bytes(tensor: Any) -> Any:
    """The little-endian bytes, in row-major order."""
    import numpy as np

    if _is_torch(tensor):
        import torch

        flat = tensor.detach().cpu().contiguous().reshape(-1)
        return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else b""
    array: Any = np.asarray(tensor, order="C")
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return memoryview(array.reshape(-1).view(np.uint8)) if array.size else b""

"""Data sets of arrays in .npz files, and of sounds in .wav files."""

from __future__ import annotations

import io
import wave
import zipfile
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from isogon.data.archive import Archive, Source, open_source
from isogon.data.folders import Split, chosen, listed, user_path
from isogon.data.labels import standard, unlabelled
from isogon.data.samples import Samples
from isogon.data.transforms import every_fifth
from isogon.errors import DataError, FileError, OptionError
from isogon.registry import dataset
from isogon.storage.files import damaged, first_line, memory_limit

_INPUTS = ("x", "X", "inputs", "images", "data", "arr_0")
_NAMES = "Map names to numbers: names, y = numpy.unique(y, return_inverse=True)."
_LABELS = ("y", "Y", "labels", "targets", "arr_1")


@dataset()
def npz(
    path: str,
    split: Literal["train", "test", "all"] = "all",
    limit: int | None = None,
    *,
    seed: int | None = None,
) -> Samples:
    """Arrays in a NumPy .npz file: ``x [N, ...]`` and ``y [N, ...]``.

    Inputs are called ``x`` (or ``inputs``, ``images``, ``data``) and labels ``y`` (or
    ``labels``, ``targets``); without labels, measures that read them say so. Where the file
    holds ``x_train`` and ``x_test`` (``y_train``, ``y_test``), the split picks one; where it
    does not, every fifth sample of each class is test. uint8 arrays of images ``[N, H, W]``,
    ``[N, H, W, C]`` or ``[N, C, H, W]`` (C 1 or 3) become ``[C, H, W]`` in [0, 1]; every other
    array passes through as it is: vectors, 1-D signals ``[N, L]``, integer tokens. Object
    arrays are refused, nothing is unpickled.

    Args:
        path: The file; a relative one is looked up here, then under the data root.
        split: ``train``, ``test`` or ``all``.
        limit: The first so many, or a random subset where ``seed`` is given.
        seed: Seed of the random subset.

    Raises:
        FileError: Missing, damaged, no numbers, or a header that lies about its size.
        DataError: No inputs in it, NaN, or another number of labels than of inputs.
    """
    archive = Archive(user_path(path))
    held = {PurePosixPath(name).stem: name for name in archive.names() if name.endswith(".npy")}
    wanted = ("_train", "_test") if split == "all" else (f"_{split}",)
    suffixes = wanted if all(_named(held, _INPUTS, s) for s in wanted) else ("",)
    xs, ys = [], []
    for suffix in suffixes:
        key = _named(held, _INPUTS, suffix)
        if key is None:
            raise DataError(
                f"no inputs in {str(archive.path)!r}",
                got=f"arrays {', '.join(sorted(held)) or 'none'}",
                expected="x and y, or x_train, y_train, x_test, y_test",
                fix="Save it with numpy.savez(path, x=inputs, y=labels).",
            )
        xs.append(_array(archive, held[key]))
        label = _named(held, _LABELS, suffix)
        ys.append(_array(archive, held[label]) if label else unlabelled(xs[-1]).numpy())
    x, y = (a[0] if len(a) == 1 else np.concatenate(a) for a in (xs, ys))
    shown = f"{archive.path.name}({split})"
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError(
            f"{shown}: NaN or infinite inputs",
            expected="finite numbers",
            fix="Clean or drop these samples.",
        )
    x, divisor = _images(x)
    y = y.astype(np.int64) if y.dtype.kind in "iub" else y
    made = Samples(x, y, name=shown, divisor=divisor)
    if suffixes == ("",) and split != "all":
        test = every_fifth(y)
        made = made.subset(np.flatnonzero(test if split == "test" else ~test))
    return made.limited(limit, seed)


@dataset()
def audiofolder(
    path: str,
    split: Split | None = None,
    limit: int | None = None,
    *,
    length: int = 16000,
    seed: int | None = None,
) -> Samples:
    """Sounds sorted into one folder per class, or a zip of such folders.

    Uncompressed .wav files (8, 16, 24 or 32 bits) become one channel ``[1, length]`` in
    [-1, 1]: channels averaged, cut or padded with silence at the end. Classes and splits as
    for ``imagefolder``.

    Args:
        path: Folder or .zip; a relative one is looked up here, then under the data root.
        split: ``train``, ``val``, ``test`` or ``all``; by default ``test`` where there is
            such a folder, else everything.
        limit: The first so many, or a random subset where ``seed`` is given.
        length: Number of values kept of each sound.
        seed: Seed of the random subset.

    Raises:
        FileError: Missing or damaged.
        DataError: No sounds in it.
    """
    if not 1 <= length <= 10_000_000:
        raise OptionError("audiofolder: wrong length", got=length, expected="1 to 1e7")
    source = open_source(user_path(path))
    files, labels, classes, label = listed(source, split, (".wav",))
    order = chosen(labels, limit, seed, label)
    if 4 * length * len(order) > memory_limit():
        raise DataError(
            f"the sounds of {str(source.path)!r} are too large to hold",
            got=f"{len(order)} of {length} values",
            expected=f"at most {memory_limit()} bytes",
            fix="Give a smaller length or a limit.",
        )
    x = np.stack([_sound(source, files[i], length) for i in order])
    name = f"{PurePosixPath(path).name}({label})"
    return Samples(x, labels[order], name=name, classes=classes)


def _named(held: dict[str, str], keys: tuple[str, ...], suffix: str) -> str | None:
    return next((key + suffix for key in keys if key + suffix in held), None)


def _array(archive: Archive, name: str) -> np.ndarray:
    """One member; the header is believed only if it fits the size the archive gives it."""
    try:
        with zipfile.ZipFile(archive.path) as handle, handle.open(name) as file:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read is None:
                raise ValueError(f"version {version} of the format")
            shape, fortran, dtype = read(file, max_header_size=10_000)
            if dtype.hasobject or dtype.kind not in "fiub":
                raise _no_numbers(archive, name, dtype)
            size = dtype.itemsize
            for s in shape:
                size *= s
            held = archive.size(name) - file.tell()
            if size != held or size > memory_limit():
                raise ValueError(f"{held} bytes for an array {list(shape)} of {dtype}")
            data = file.read(size + 1)
            if len(data) != size:
                raise ValueError(f"{len(data)} bytes for an array {list(shape)} of {dtype}")
    except FileError:
        raise
    except Exception as error:  # zip, zlib and header errors come in many types
        raise damaged(archive.path, ".npz file", f"{name}: {first_line(error)}") from error
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    if array.ndim == 0:
        raise damaged(archive.path, ".npz file", f"{name}: a single number", "an array [N, ...]")
    return standard(array)


def _no_numbers(archive: Archive, name: str, dtype: np.dtype) -> FileError:
    kinds = {
        "O": "Save numbers, not objects: nothing is unpickled.",
        "c": "Save real and imaginary parts as channels.",
        "U": _NAMES,
        "S": _NAMES,
    }
    return FileError(
        f"array {PurePosixPath(name).stem!r} in {str(archive.path)!r} holds no real numbers",
        got=f"values of type {dtype}",
        expected="floats, integers or booleans",
        fix=kinds.get(dtype.kind, "Convert them, e.g. x.astype('float32')."),
    )


def _images(x: np.ndarray) -> tuple[np.ndarray, float | None]:
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        return x, None
    if x.ndim == 3:
        return x[:, None], 255.0
    if x.shape[1] in (1, 3):
        return x, 255.0
    if x.shape[3] in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2)), 255.0
    return x, None


def _sound(source: Source, name: str, length: int) -> np.ndarray:
    data = source.read(name)
    try:
        with wave.open(io.BytesIO(data)) as file:
            channels, width = file.getnchannels(), file.getsampwidth()
            raw = file.readframes(length)
        return _mono(raw, channels, width, length)
    except Exception as error:  # the module that reads sounds fails in many ways
        raise FileError(
            f"sound {name!r} in {str(source.path)!r} can't be read",
            got=first_line(error),
            expected="an uncompressed .wav file",
            fix="Replace or remove it.",
        ) from error


def _mono(raw: bytes, channels: int, width: int, length: int) -> np.ndarray:
    """Frames of ``width`` bytes as ``[1, length]`` in [-1, 1]."""
    if width not in (1, 2, 3, 4):
        raise ValueError(f"{8 * width} bits")
    raw = raw[: len(raw) // (width * channels) * width * channels]
    if width == 3:  # NumPy has no 24-bit integers: widen to 32 with a low zero byte
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        values = wide.view("<i4")[:, 0] / 2.0**31
    elif width == 1:
        values = (np.frombuffer(raw, np.uint8) - 128.0) / 128.0
    else:
        values = np.frombuffer(raw, f"<i{width}") / 2.0 ** (8 * width - 1)
    mono = values.reshape(-1, channels).mean(1)[:length]
    return np.pad(mono, (0, length - len(mono))).astype(np.float32)[None]

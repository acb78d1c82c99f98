"""Image files as uint8 arrays: decoded once into a memory map, or on demand.

A decoded data set is one file under `isogon.context.cache_root` that every process maps;
reading it is many times faster than decoding with any number of workers. Where it would be
too large, or the cache can't be written, images are decoded whenever they are taken.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from isogon import context
from isogon.data.archive import Source
from isogon.errors import DataError, FileError, OptionError
from isogon.storage import atomic, digests
from isogon.storage.files import first_line, memory_limit

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff", ".webp")
# Named, since Pillow would also take what hides behind such a suffix: PostScript, which it hands
# to an interpreter.
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "GIF", "TIFF", "WEBP")
MAX_PIXELS = 2**26  # of one image
# No format that is read packs more than so many values into a byte (deflate at its best: 1032
# bytes, eight pixels of one bit each); what any image may have anyway is a cap of its own.
MAX_PACKED = 8300
FREE_PIXELS = 2**20
MAX_CACHE = 16 * 2**30  # bytes of one decoded data set
MAX_GROWTH = 200  # of a decoded data set over its files, where it is kept
FREE_CACHE = 2**30  # bytes that any decoded data set may have
MEMORY = 64 * 2**20  # bytes up to which a decoded data set needs no file
VERSION = 1  # of the decoding: part of the cache's key


class ImageStore:
    """Images ``[N, C, H, W]`` of a folder or zip, decoded when they are taken.

    Args:
        source: Where the files are.
        files: Their names.
        channels: 1 (grey) or 3 (RGB).
        size: Scale the shorter side to ``size * enlarge`` pixels and keep the central square
            of ``size``; None keeps images as they are (all must have one size).
        enlarge: Margin before the central crop (256/224 is the custom for ImageNet).
    """

    def __init__(
        self,
        source: Source,
        files: list[str],
        *,
        channels: int = 3,
        size: int | None = None,
        enlarge: float = 1.0,
    ) -> None:
        if channels not in (1, 3):
            raise OptionError("wrong number of channels", got=channels, expected="1 or 3")
        if size is not None and not 1 <= size <= 8192:
            raise OptionError("wrong image size", got=size, expected="1 to 8192 pixels")
        self.source, self.files = source, files
        self.channels, self.size, self.enlarge = channels, size, enlarge
        shape = (channels, size, size) if size is not None else self._decode(files[0], None).shape
        self.shape: tuple[int, ...] = (len(files), *shape)

    def digest(self) -> str:
        """Digest of all images: the bytes of their files, and how they are decoded."""
        facts = (VERSION, self.channels, self.size, self.enlarge)
        return digests.of("images", *facts, self.source.digest(self.files))

    def __getitem__(self, index: Any) -> np.ndarray:
        files = self.files[index] if isinstance(index, slice) else [self.files[i] for i in index]
        size = len(files) * math.prod(self.shape[1:])
        if size > memory_limit():
            raise DataError(
                f"{len(files)} images of {str(self.source.path)!r} are too large to hold at once",
                got=f"{size} bytes",
                expected=f"at most {memory_limit()}",
                fix="Give a smaller size, e.g. imagefolder(PATH, size=64), or a smaller batch.",
            )
        out = np.empty((len(files), *self.shape[1:]), np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is refused, in one line
            for i, name in enumerate(files):
                out[i] = self._decode(name, self.shape[1:])
        return out

    def _decode(self, name: str, shape: tuple[int, ...] | None) -> np.ndarray:
        """One image ``[C, H, W]``, refused where it is not of ``shape``."""
        from PIL import Image

        data = self.source.read(name)
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
            if image.width * image.height > FREE_PIXELS + MAX_PACKED * len(data):
                raise ValueError(f"{image.width} x {image.height} pixels in {len(data)} bytes")
            image.load()
            mode = "L" if self.channels == 1 else "RGB"
            image = image if image.mode == mode else image.convert(mode)
        except (OSError, ValueError, SyntaxError, MemoryError, EOFError, struct.error) as error:
            raise self._bad(name, error) from error
        except Image.DecompressionBombError as error:
            raise self._bad(name, error) from error
        if self.size is not None:
            image = _central(image, self.size, self.enlarge)
        array = np.asarray(image)
        array = array[None] if self.channels == 1 else array.transpose(2, 0, 1)
        if shape is not None and array.shape != tuple(shape):
            raise DataError(
                f"images of different size in {str(self.source.path)!r}",
                got=f"{array.shape[2]} x {array.shape[1]} in {name!r}, "
                f"{shape[2]} x {shape[1]} in {self.files[0]!r}",
                expected="one size",
                fix="Give a size, e.g. imagefolder(PATH, size=64).",
            )
        return array

    def _bad(self, name: str, error: BaseException) -> FileError:
        return FileError(
            f"image {name!r} in {str(self.source.path)!r} can't be decoded",
            got=first_line(error).replace(str(io.BytesIO), "file"),
            expected=f"one of {', '.join(SUFFIXES)}",
            fix="Replace or remove it.",
        )


class MappedArray:
    """A uint8 array in an .npy file, mapped on first use and never pickled itself.

    Args:
        path: The file.
        shape: Of the array.
        key: Digest of what it was made of.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], key: str) -> None:
        self.path, self.shape, self.key = path, shape, key
        self._array: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None}

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.array()[index]

    def digest(self) -> str:
        """Digest of what the array was made of."""
        return self.key

    def array(self) -> np.ndarray:
        """The mapped array.

        Raises:
            ValueError: The file is not what was written (also where it is truncated).
            OSError: The file can't be read.
        """
        if self._array is None:
            array = np.load(self.path, mmap_mode="r", allow_pickle=False)
            if array.shape != self.shape or array.dtype != np.uint8:
                raise ValueError("another shape")
            self._array = array
            return array
        return self._array


def decoded(store: ImageStore) -> Any:
    """The store's images, decoded once: in memory if small, else in a mapped cache file."""
    size = math.prod(store.shape)
    if size <= MEMORY and store.shape[0] <= 1000:
        return store[:]
    # a few bytes may stand for many pixels: they fill no disk
    most = MAX_GROWTH * sum(map(store.source.size, store.files)) if size > FREE_CACHE else size
    if size > min(most, MAX_CACHE):
        return store
    key = store.digest()
    place = context.cache_root() / "images" / f"{key[:32]}.npy"
    mapped = MappedArray(place, store.shape, key)
    try:
        mapped.array()
        return mapped
    except (OSError, ValueError):
        pass  # not there yet, or left broken by a disk: (re)made below
    try:
        with atomic(mapped.path) as temporary:
            _fill(store, np.lib.format.open_memmap(temporary, "w+", np.uint8, store.shape))
        mapped.array()
        return mapped
    except (FileError, ValueError) as error:
        if isinstance(error, FileError) and "can't write" not in error.problem:
            raise
    if size <= memory_limit() // 4:
        return _fill(store, np.empty(store.shape, np.uint8))
    return store


def _fill(store: ImageStore, out: np.ndarray, step: int = 250) -> np.ndarray:
    tell, n = context.progress(), store.shape[0]
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        out[part] = store[part]
        tell(part.stop, n, "decoding images")
    if isinstance(out, np.memmap):
        out.flush()
    return out


def _central(image: Any, size: int, enlarge: float) -> Any:
    from PIL import Image

    shorter = round(size * enlarge)
    scale = shorter / min(image.size)
    w, h = (max(size, round(s * scale)) for s in image.size)
    if (w, h) != image.size:
        image = image.resize((w, h), Image.Resampling.BILINEAR)
    left, top = (w - size) // 2, (h - size) // 2
    return image.crop((left, top, left + size, top + size))

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
VERSION = 3  # of the decoding: part of the cache's key


class Deeper(DataError):
    """A 16-bit image among 8-bit ones."""


class ImageStore:
    """Images ``[N, C, H, W]`` of a folder or zip, decoded when they are taken.

    Pixels are Pillow's, converted to grey or RGB: the first frame of several, as it lies in the
    file (a camera's note how to turn it is not followed), transparency left out. Grey images of
    16 bits are kept as such, and 8-bit ones beside them scaled. What has no fixed range (32-bit
    integers, floats) is refused.

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
        self.dtype = np.dtype(np.uint8)
        first = self._decode(files[0], None)
        self.dtype = first.dtype
        self.shape: tuple[int, ...] = (len(files), *first.shape)

    def digest(self) -> str:
        """Digest of all images: the bytes of their files, and how they are decoded."""
        facts = (VERSION, self.channels, self.size, self.enlarge)
        return digests.of("images", *facts, self.source.digest(self.files))

    def __getitem__(self, index: Any) -> np.ndarray:
        files = self.files[index] if isinstance(index, slice) else [self.files[i] for i in index]
        size = len(files) * math.prod(self.shape[1:]) * self.dtype.itemsize
        if size > memory_limit():
            raise DataError(
                f"{len(files)} images of {str(self.source.path)!r} are too large to hold at once",
                got=f"{size} bytes",
                expected=f"at most {memory_limit()}",
                fix="Give a smaller size, e.g. imagefolder(PATH, size=64), or a smaller batch.",
            )
        out = np.empty((len(files), *self.shape[1:]), self.dtype)
        for i, name in enumerate(files):
            pixels = self._decode(name, self.shape[1:])
            if pixels.dtype == self.dtype:
                out[i] = pixels
            elif self.dtype == np.uint16:
                out[i] = pixels.astype(np.uint16) * 257  # of 255 becomes of 65535
            else:
                raise Deeper(
                    f"images of 8 and of 16 bits in {str(self.source.path)!r}, which holds "
                    "too many to look at all of them first",
                    got=f"16 bits in {name!r}",
                    expected="one depth",
                    fix="Convert them to one.",
                )
        return out

    def _decode(self, name: str, shape: tuple[int, ...] | None) -> np.ndarray:
        """One image ``[C, H, W]``, uint8 or uint16, refused where it is not of ``shape``."""
        from PIL import Image

        data = self.source.read(name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is wrong is refused, in one line
                array = self._pixels(Image, data)
        except (OSError, ValueError, SyntaxError, MemoryError, EOFError, struct.error) as error:
            raise self._bad(name, error) from error
        except Image.DecompressionBombError as error:
            raise self._bad(name, error) from error
        if array.ndim == 2:
            array = np.broadcast_to(array, (self.channels, *array.shape))
        else:
            array = array.transpose(2, 0, 1)
        if shape is not None and array.shape != tuple(shape):
            raise DataError(
                f"images of different size in {str(self.source.path)!r}",
                got=f"{array.shape[2]} x {array.shape[1]} in {name!r}, "
                f"{shape[2]} x {shape[1]} in {self.files[0]!r}",
                expected="one size",
                fix="Give a size, e.g. imagefolder(PATH, size=64).",
            )
        return array

    def _pixels(self, pillow: Any, data: bytes) -> np.ndarray:
        """Grey or RGB pixels ``[H, W]`` or ``[H, W, 3]`` of an image of the wanted size."""
        image = pillow.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
        if image.width * image.height > FREE_PIXELS + MAX_PACKED * len(data):
            raise ValueError(f"{image.width} x {image.height} pixels in {len(data)} bytes")
        image.load()
        if _is_deep(image):
            array = np.asarray(image).astype(np.uint16)
            if self.size is None:
                return array
            values = pillow.fromarray(array.astype(np.float32))
            scaled = np.asarray(_central(values, self.size, self.enlarge))
            return np.rint(scaled).clip(0, 65535).astype(np.uint16)
        mode = "L" if self.channels == 1 else "RGB"
        image = image if image.mode == mode else image.convert(mode)
        return np.asarray(image if self.size is None else _central(image, self.size, self.enlarge))

    def _bad(self, name: str, error: BaseException) -> FileError:
        return FileError(
            f"image {name!r} in {str(self.source.path)!r} can't be decoded",
            got=first_line(error).replace("<_io.BytesIO object>", repr(name)),
            expected=f"one of {', '.join(SUFFIXES)}",
            fix="Replace or remove it.",
        )


def _is_deep(image: Any) -> bool:
    """Whether an image is grey with values up to 65535.

    Raises:
        ValueError: Its values have no fixed range, or one that is not known here.
    """
    if image.mode == "F":
        raise ValueError("float pixels, which have no fixed range; save it with 8 or 16 bits")
    if image.mode == "I" and image.format == "PPM":
        return True  # Pillow scales all above 8 bits to 65535
    if image.mode == "I":
        raise ValueError("32-bit or signed pixels, which have no fixed range; save it with 16 bits")
    if not image.mode.startswith("I;16"):
        return False
    tags = getattr(image, "tag_v2", {})
    if tags.get(258, (16,)) != (16,):
        raise ValueError(f"{tags[258][0]} bits per pixel; save it with 8 or 16 bits")
    if tags.get(262, 1) == 0:
        raise ValueError("16 bits, of which 0 is white; save it with 0 as black")
    return True


def divisor(images: Any) -> float:
    """What stored pixels are divided by to lie in [0, 1]."""
    return 65535.0 if images.dtype == np.uint16 else 255.0


class MappedArray:
    """A uint8 or uint16 array in an .npy file, mapped on first use and never pickled itself.

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

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels."""
        return self.array().dtype

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
            if array.shape != self.shape or array.dtype not in (np.uint8, np.uint16):
                raise ValueError("another shape")
            self._array = array
            return array
        return self._array


def decoded(store: ImageStore) -> Any:
    """The store's images, decoded once: in memory if small, else in a mapped cache file."""
    try:
        return _decoded(store)
    except Deeper:
        store.dtype = np.dtype(np.uint16)
        return _decoded(store)


def _decoded(store: ImageStore) -> Any:
    size = math.prod(store.shape) * store.dtype.itemsize
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
            _fill(store, np.lib.format.open_memmap(temporary, "w+", store.dtype, store.shape))
        mapped.array()
        return mapped
    except (FileError, ValueError) as error:
        if isinstance(error, FileError) and "can't write" not in error.problem:
            raise
    if size <= memory_limit() // 4:
        return _fill(store, np.empty(store.shape, store.dtype))
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

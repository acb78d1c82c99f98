"""MNIST and Fashion-MNIST: the idx files that torchvision keeps under the data root."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from isogon import context
from isogon.data.samples import Samples
from isogon.errors import FileError
from isogon.registry import dataset
from isogon.storage.files import first_line
from isogon.storage.stamps import note_stamp, there

Split = Literal["train", "test", "all"]
DIGITS = [str(c) for c in range(10)]
CLOTHES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
MAX_BYTES = 2**28  # of the numbers in one idx file; MNIST's largest has 2**25.5


@dataset()
def mnist(split: Split = "test", limit: int | None = None, *, seed: int | None = None) -> Samples:
    """MNIST: handwritten digits, 28 x 28 grey images of ten classes.

    Images ``[1, 28, 28]`` in [0, 1]; 60,000 train, 10,000 test, read from ``MNIST/raw`` under
    the data root (the layout of torchvision; plain or gzipped).

    Args:
        split: ``train``, ``test`` or ``all``.
        limit: The first so many, or a random subset where ``seed`` is given.
        seed: Seed of the random subset.
    """
    return _idx("MNIST", "mnist", DIGITS, split).limited(limit, seed)


@dataset()
def fashion_mnist(
    split: Split = "test", limit: int | None = None, *, seed: int | None = None
) -> Samples:
    """Fashion-MNIST: articles of clothing, 28 x 28 grey images of ten classes.

    Images ``[1, 28, 28]`` in [0, 1]; 60,000 train, 10,000 test, read from
    ``FashionMNIST/raw`` under the data root (the layout of torchvision; plain or gzipped).

    Args:
        split: ``train``, ``test`` or ``all``.
        limit: The first so many, or a random subset where ``seed`` is given.
        seed: Seed of the random subset.
    """
    return _idx("FashionMNIST", "fashion_mnist", CLOTHES, split).limited(limit, seed)


def _idx(folder: str, name: str, classes: list[str], split: Split) -> Samples:
    stems = {"train": ("train",), "test": ("t10k",), "all": ("train", "t10k")}[split]
    raw = context.data_root() / folder / "raw"
    images, labels = [], []
    for stem in stems:
        images.append(read_idx(_find(raw, f"{stem}-images-idx3-ubyte", folder), ndim=3))
        labels.append(read_idx(_find(raw, f"{stem}-labels-idx1-ubyte", folder), ndim=1))
    x, y = np.concatenate(images)[:, None], np.concatenate(labels).astype(np.int64)
    return Samples(x, y, name=f"{name}({split})", classes=classes, divisor=255)


def _find(raw: Path, name: str, folder: str) -> Path:
    for attempt in (False, True):
        for path in (raw / name, raw / f"{name}.gz"):
            if there(path) and path.is_file():
                return path
        if attempt or not context.download_allowed():
            break
        download(folder, raw.parent.parent)
    raise FileError(
        f"{folder} is not under the data root",
        got=f"no file {raw / name}",
        expected=f"{folder}/raw as torchvision lays it out",
        fix="Name the folder that holds it with --data-root, or allow it with --download.",
    )


def download(dataset_name: str, root: Path, **options: object) -> None:
    """Fetch a data set by torchvision into ``root`` (checksums verified by torchvision).

    Raises:
        FileError: The download failed.
    """
    import torchvision

    try:
        getattr(torchvision.datasets, dataset_name)(str(root), download=True, **options)
    except Exception as error:  # network, disk and checksum errors come in many types
        raise FileError(
            f"{dataset_name} can't be downloaded ({type(error).__name__}: {error})",
            got=str(root),
            fix="Check the network, or copy the files there and use --data-root.",
        ) from error


def read_idx(path: Path, *, ndim: int) -> np.ndarray:
    """The uint8 array in an idx file; its header is believed only if the size agrees.

    Raises:
        FileError: Unreadable, truncated, or not an idx file of ``ndim`` axes.
    """
    head = 4 + 4 * ndim
    expected = f"uint8, {ndim} axes, as many bytes as its header says, at most {MAX_BYTES}"
    try:
        note_stamp(path)
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(head)
            shape = struct.unpack(f">{ndim}I", start[4:]) if len(start) == head else ()
            size = math.prod(shape)
            if start[:4] != bytes([0, 0, 8, ndim]) or not shape or size > MAX_BYTES:
                raise ValueError("not an idx file of this kind")
            data = file.read(size + 1)
            if len(data) != size:
                raise ValueError("more or fewer bytes than its header says")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FileError(
            f"not an idx file, or a damaged one ({first_line(error)})",
            got=str(path),
            expected=expected,
            fix="Download it again.",
        ) from error
    return np.frombuffer(data, np.uint8).reshape(shape)

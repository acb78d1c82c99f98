"""CIFAR-10 and CIFAR-100: the published Python files under the data root."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from isogon import context
from isogon.data.idx import download
from isogon.data.samples import Samples
from isogon.data.unpickle import read_pickle
from isogon.errors import FileError
from isogon.registry import dataset
from isogon.storage.files import damaged

Split = Literal["train", "test", "all"]
CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]


@dataset()
def cifar10(split: Split = "test", limit: int | None = None, *, seed: int | None = None) -> Samples:
    """CIFAR-10: 32 x 32 colour images of ten classes.

    Images ``[3, 32, 32]`` in [0, 1]; 50,000 train, 10,000 test, read from
    ``cifar-10-batches-py`` under the data root. These files are pickles; they are read without
    running any code (only numbers, text and byte arrays are accepted).

    Args:
        split: ``train``, ``test`` or ``all``.
        limit: The first so many, or a random subset where ``seed`` is given.
        seed: Seed of the random subset.
    """
    train = [f"data_batch_{i}" for i in range(1, 6)]
    files = {"train": train, "test": ["test_batch"], "all": [*train, "test_batch"]}[split]
    x, y = _read("CIFAR10", "cifar-10-batches-py", files, "labels", 10)
    name = f"cifar10({split})"
    return Samples(x, y, name=name, classes=CLASSES, divisor=255).limited(limit, seed)


@dataset()
def cifar100(
    split: Split = "test",
    limit: int | None = None,
    *,
    seed: int | None = None,
    labels: Literal["fine", "coarse"] = "fine",
) -> Samples:
    """CIFAR-100: 32 x 32 colour images of 100 classes in 20 groups.

    Images ``[3, 32, 32]`` in [0, 1]; 50,000 train, 10,000 test, read from
    ``cifar-100-python`` under the data root, without running any code (see ``cifar10``).

    Args:
        split: ``train``, ``test`` or ``all``.
        limit: The first so many, or a random subset where ``seed`` is given.
        seed: Seed of the random subset.
        labels: ``fine`` for the 100 classes, ``coarse`` for their 20 groups.
    """
    files = {"train": ["train"], "test": ["test"], "all": ["train", "test"]}[split]
    count = 100 if labels == "fine" else 20
    x, y = _read("CIFAR100", "cifar-100-python", files, f"{labels}_labels", count)
    meta = context.data_root() / "cifar-100-python" / "meta"
    found = read_pickle(meta).get(f"{labels}_label_names") if meta.is_file() else None
    classes = [str(c) for c in (found or range(count))]
    name = f"cifar100({split})"
    return Samples(x, y, name=name, classes=classes, divisor=255).limited(limit, seed)


def _read(
    title: str, folder: str, files: list[str], key: str, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    root = context.data_root()
    if not all((root / folder / f).is_file() for f in files) and context.download_allowed():
        download(title, root)
    missing = [f for f in files if not (root / folder / f).is_file()]
    if missing:
        raise FileError(
            f"{title} is not under the data root",
            got=f"no file {root / folder / missing[0]}",
            expected=f"{folder} as its authors publish it",
            fix="Name the folder that holds it with --data-root, or allow it with --download.",
        )
    parts = [_part(root / folder / f, key, classes) for f in files]
    x = np.concatenate([p[0] for p in parts]).reshape(-1, 3, 32, 32)
    return x, np.concatenate([p[1] for p in parts])


def _part(path: Path, key: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    found: Any = read_pickle(path)
    x = found.get("data") if isinstance(found, dict) else None
    y = found.get(key) if isinstance(found, dict) else None
    if isinstance(x, np.ndarray) and isinstance(y, list):
        images = x.dtype == np.uint8 and x.shape[1:] == (3072,) and len(x) == len(y)
        if images and all(type(c) is int and 0 <= c < classes for c in y):
            return x, np.array(y, np.int64)
    raise damaged(path, "CIFAR file", "other contents", f"data [N, 3072] uint8 and {key} [N]")

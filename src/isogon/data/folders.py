"""Data sets of image files: any ImageFolder or zip of one, Tiny ImageNet, ImageNet."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from isogon import context
from isogon.data.archive import Source, hidden, open_source, suffix
from isogon.data.images import SUFFIXES, ImageStore, decoded, divisor
from isogon.data.samples import Samples
from isogon.data.transforms import every_fifth
from isogon.errors import DataError, FileError, SpecError
from isogon.registry import dataset
from isogon.storage.stamps import there

Split = Literal["train", "val", "test", "all"]
# The folder of a split, by the names that are in use; the first that exists is taken.
_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing", "val", "valid", "validation"),
}
_SPLITS = {name for names in _FOLDERS.values() for name in names}
_LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini"}  # what Windows adds beside pictures
_NOTES = {".txt", ".json", ".csv", ".xml", ".md"}  # what people keep beside pictures


@dataset()
def imagefolder(
    path: str,
    split: Split | None = None,
    limit: int | None = None,
    *,
    seed: int | None = None,
    size: int | None = None,
    channels: int = 3,
) -> Samples:
    """Images sorted into one folder per class, or a zip of such folders.

    Images ``[channels, H, W]`` in [0, 1], in the order of class and file name; the classes
    are the folders' names, sorted, over all splits, empty ones too; links to folders are
    followed, what a system adds of itself (``__MACOSX``, ``@eaDir``) is none. Files of other
    kinds are left out with a warning, notes beside images (``.txt``, ``.json``, ``.csv``,
    ``.xml``, ``.md``) without one. Pixels are Pillow's (see `isogon.data.images.ImageStore`).

    Where the top holds folders called ``train``, ``test`` or ``val``, the split picks one of
    them (``test`` falls back to ``val``); where it does not, every fifth image of each class is
    test and the others are train. Images are decoded once into a cache file; the zip is never
    unpacked.

    Args:
        path: Folder or .zip; a relative one is looked up here, then under the data root.
        split: ``train``, ``val``, ``test`` or ``all``; by default ``test`` where there is
            such a folder, else everything.
        limit: The first so many, or a random subset where ``seed`` is given.
        seed: Seed of the random subset.
        size: Scale the shorter side to so many pixels and take the central square; needed
            where the images differ in size.
        channels: 3 (RGB) or 1 (grey).

    Raises:
        FileError: Nothing there, damaged, or a zip made to do harm.
        DataError: No images, or images of different size.
        SpecError: No folder of that split.
    """
    source = open_source(user_path(path))
    files, labels, classes, label = listed(source, split)
    shown = f"{PurePosixPath(path.replace(os.sep, '/')).name}({label})"
    order = chosen(labels, limit, seed, shown)
    store = ImageStore(source, [files[i] for i in order], channels=channels, size=size)
    return _images(store, labels[order], shown, classes)


@dataset()
def tiny_imagenet(
    split: Literal["train", "val", "test"] = "test",
    limit: int | None = None,
    *,
    seed: int | None = None,
) -> Samples:
    """Tiny ImageNet: 64 x 64 colour images of 200 classes.

    Images ``[3, 64, 64]`` in [0, 1]; 100,000 train and 10,000 validation, read from the
    folder ``tiny-imagenet-200`` (or ``tiny-imagenet-200.zip``) under the data root. The
    validation images lie in one folder with their labels in ``val_annotations.txt``; ``test``
    means these, as the labels of the test images were never published.

    Args:
        split: ``train``, or ``val`` (also called ``test``).
        limit: The first so many, or a random subset where ``seed`` is given.
        seed: Seed of the random subset.
    """
    source = open_source(_under_root("tiny-imagenet-200", "Tiny ImageNet"))
    names = source.names()
    prefix = "tiny-imagenet-200/" if any(n.startswith("tiny-imagenet-200/") for n in names) else ""
    images = [n for n in names if suffix(n) in SUFFIXES and not hidden(n)]
    table = f"{prefix}val/val_annotations.txt"
    try:
        text = source.read(table).decode("utf-8", "replace") if table in names else ""
        rows = [line.split("\t")[:2] for line in text.splitlines() if line.strip()]
        wnids = sorted({wnid for _, wnid in rows} | {_folder(n, f"{prefix}train/") for n in images})
        wnids = [w for w in wnids if w]
        number = {wnid: i for i, wnid in enumerate(wnids)}
        if split == "train":
            files = [n for n in images if _folder(n, f"{prefix}train/")]
            labels = [number[_folder(n, f"{prefix}train/")] for n in files]
        else:
            files = [f"{prefix}val/images/{file}" for file, _ in rows]
            labels = [number[wnid] for _, wnid in rows]
            absent = set(files) - set(images)
            if absent or not rows:
                raise KeyError(min(absent, default="val/val_annotations.txt"))
    except (KeyError, ValueError) as error:
        raise FileError(
            "Tiny ImageNet is not laid out as published",
            got=f"{source.path}: {error}",
            expected="train/<class>/images/*.JPEG, val/images, val/val_annotations.txt",
            fix="Unpack tiny-imagenet-200.zip again.",
        ) from error
    order = chosen(np.array(labels, np.int64), limit, seed, f"tiny_imagenet({split})")
    store = ImageStore(source, [files[i] for i in order], size=64)
    labels = np.array(labels, np.int64)[order]
    return _images(store, labels, f"tiny_imagenet({split})", wnids)


@dataset()
def imagenet(
    split: Literal["train", "val", "test"] = "test",
    limit: int | None = None,
    *,
    seed: int | None = None,
    size: int = 224,
) -> Samples:
    """ImageNet (ILSVRC 2012): colour photographs of 1,000 classes.

    Images ``[3, size, size]`` in [0, 1]: the shorter side is scaled to 8/7 of ``size`` (256
    for 224, bilinear) and the central square kept. Read from ``imagenet/train/<class>`` and
    ``imagenet/val/<class>`` under the data root; it can't be downloaded without an account.

    Args:
        split: ``train``, or ``val`` (also called ``test``).
        limit: The first so many, or a random subset where ``seed`` is given.
        seed: Seed of the random subset.
        size: Height and width, in pixels.
    """
    source = open_source(_under_root("imagenet", "ImageNet"))
    files, labels, classes, _ = listed(source, split)
    order = chosen(labels, limit, seed, f"imagenet({split})")
    store = ImageStore(source, [files[i] for i in order], size=size, enlarge=8 / 7)
    return _images(store, labels[order], f"imagenet({split})", classes)


# --------------------------------------------------------------------------- shared


def _images(store: ImageStore, labels: np.ndarray, name: str, classes: list[str]) -> Samples:
    pixels = decoded(store)
    return Samples(pixels, labels, name=name, classes=classes, divisor=divisor(pixels))


def _folder(name: str, above: str) -> str:
    """The folder right below another one that a file lies in; empty where it lies elsewhere."""
    return name[len(above) :].partition("/")[0] if name.startswith(above) else ""


def user_path(path: str) -> Path:
    """A user's path: as given, else under the data root.

    Raises:
        FileError: Neither exists.
        SpecError: The path was not typed but brought by a file.
    """
    context.typed_only("open a file", path)
    for candidate in (Path(path).expanduser(), context.data_root() / path):
        if there(candidate):
            return candidate
    raise FileError(
        f"no file or folder {path!r}",
        got=f"nothing at {Path(path).absolute()} nor under {context.data_root()}",
        expected="an existing path",
        fix="Check the path, or name the folder that holds it with --data-root.",
    )


def listed(
    source: Source, split: str | None, suffixes: tuple[str, ...] = SUFFIXES
) -> tuple[list[str], np.ndarray, list[str], str]:
    """Files of a split in the order of class and name, labels, class names, and its name.

    The classes are the folders of *all* splits, also those without files in this one, or with
    files of other kinds alone: a label must not depend on what can be read.
    """
    files, folders = source.tree()
    files = [n for n in files if not hidden(n)]
    wanted = [n for n in files if suffix(n) in suffixes]
    depth = _wrapping([tuple(n.split("/")) for n in wanted])
    wrapping = "".join(f"{part}/" for part in wanted[0].split("/")[:depth]) if wanted else ""
    parts = [(tuple(n.split("/")[depth:]), n) for n in wanted]
    empty = _empty(wanted, [n for n in folders if not hidden(n)])
    bare = [tuple(n[len(wrapping) :].split("/")) for n in empty if n.startswith(wrapping)]
    tops = {p[0].lower(): p[0] for p, _ in parts if len(p) > 2 and p[0].lower() in _SPLITS}
    if tops:
        bare = [p[1:] for p in bare if p[0].lower() in _SPLITS]
        of_splits = [(p, name) for p, name in parts if p[0].lower() in tops]
        parts = [(p[1:], name) for p, name in of_splits]
        classes, full = _classes(parts, bare)
        if split != "all":
            top = next((tops[f] for f in _FOLDERS[split or "test"] if f in tops), None)
            if top is None and split is None:
                top = tops[min(tops)]
            if top is None:
                raise SpecError(
                    f"no folder with images for split {split!r} in {str(source.path)!r}",
                    got=f"folders {', '.join(sorted(tops.values()))}",
                    expected=f"one of {', '.join(_FOLDERS[str(split)])}",
                    fix="Choose a split that is there.",
                )
            split = split or top
            parts = [(p[1:], name) for p, name in of_splits if p[0] == top]
    else:
        classes, full = _classes(parts, bare)
    parts = sorted((p, name) for p, name in parts if len(p) > 1)
    others = [n[len(wrapping) :] for n in files if n.startswith(wrapping)]
    others = [n for n in others if suffix(n) not in suffixes]
    others = list(_in_classes(others, bool(tops)))
    if not parts:
        found = f", {_counted(Counter(kind for _, kind in others))}" if others else ""
        raise DataError(
            f"no images in class folders in {str(source.path)!r}",
            got=f"0 samples{found}",
            expected=f"CLASS/NAME with a suffix among {', '.join(suffixes)}",
            fix="Check the path and the layout.",
        )
    _tell_unread(source, others, full, suffixes)
    number = {c: i for i, c in enumerate(classes)}
    chosen = [name for _, name in parts]
    labels = np.array([number[p[0]] for p, _ in parts], np.int64)
    if not tops and split in ("train", "test", "val"):
        held = every_fifth(labels)
        keep = np.flatnonzero(~held if split == "train" else held)
        chosen, labels = [chosen[i] for i in keep], labels[keep]
    return chosen, labels, classes, split or "all"


def _classes(
    parts: list[tuple[tuple[str, ...], str]], bare: list[tuple[str, ...]]
) -> tuple[list[str], set[str]]:
    """Names of class folders, sorted, and which of them hold files that are read."""
    full = {p[0] for p, _ in parts if len(p) > 1}
    return sorted(full | {p[0] for p in bare if len(p) == 1}), full


def _in_classes(files: list[str], splits: bool) -> Iterator[tuple[str, str]]:
    """Class and suffix of files that lie in class folders, litter left out."""
    for name in files:
        *above, file = name.split("/")
        if splits and above:
            above = above[1:] if above[0].lower() in _SPLITS else []
        if above and file.lower() not in _LITTER:
            yield above[0], PurePosixPath(file).suffix.lower()


def _tell_unread(
    source: Source,
    others: list[tuple[str, str]],
    full: set[str],
    suffixes: tuple[str, ...],
) -> None:
    """Warn of classes whose files are all of other kinds, and of such files beside others."""
    lone: dict[str, Counter[str]] = {}
    beside: Counter[str] = Counter()
    for name, kind in others:
        if name not in full:
            lone.setdefault(name, Counter())[kind] += 1
        elif kind not in _NOTES:
            beside[kind] += 1
    told = []
    if lone:
        shown = [f"{name!r} ({_counted(kinds)})" for name, kinds in sorted(lone.items())]
        more = f" and {len(shown) - 6} more" if len(shown) > 6 else ""
        told.append(f"classes without one file that is read: {', '.join(shown[:6])}{more}")
    if beside:
        told.append(f"{beside.total()} files in other classes are left out: {_counted(beside)}")
    if told:
        warnings.warn(
            f"{source.path}: {'; '.join(told)}. Read are {', '.join(suffixes)}: convert the "
            "others, or remove them and the folders that are no classes.",
            stacklevel=2,
        )


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{n} {kind or 'without suffix'}" for kind, n in kinds.most_common(6))


def _empty(files: list[str], folders: list[str]) -> list[str]:
    """Folders without one of these files anywhere below them."""
    full = set()
    for name in files:
        while (name := name.rpartition("/")[0]) and name not in full:
            full.add(name)
    return [n for n in folders if n not in full]


def chosen(labels: np.ndarray, limit: int | None, seed: int | None, name: str) -> np.ndarray:
    """Positions that a limit and a seed leave, so that only these files are read."""
    positions = Samples(np.arange(len(labels)), labels, name=name).limited(limit, seed)
    return positions.take(slice(None))[0].numpy()


def _under_root(name: str, title: str) -> Path:
    for path in (context.data_root() / name, context.data_root() / f"{name}.zip"):
        if there(path):
            return path
    raise FileError(
        f"{title} is not under the data root",
        got=f"no folder {context.data_root() / name} and no {name}.zip",
        expected=f"{name} or {name}.zip",
        fix="Name the folder that holds it with --data-root.",
    )


def _wrapping(parts: list[tuple[str, ...]]) -> int:
    """How many folders only wrap the others (photos.zip that holds photos/class/...)."""
    depth = 0
    while parts:
        tops = {p[depth] for p in parts}
        inner = all(len(p) > depth + 2 for p in parts)
        if len(tops) > 1 or not inner or min(tops).lower() in _SPLITS:
            break
        depth += 1
    return depth

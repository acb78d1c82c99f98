"""The Broden data set, and any other in the layout that Network Dissection published it in."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch

from isogon.data.archive import Source, open_source
from isogon.data.folders import user_path
from isogon.data.images import ImageStore, divisor
from isogon.errors import DataError, FileError, OptionError
from isogon.measures.dissection.concepts import Concepts
from isogon.registry import register
from isogon.storage import digests

FACTS = ("image", "split", "ih", "iw", "sh", "sw")  # other columns of the index are categories
MOST = 64  # concepts of one category at one pixel


@register("concepts", cite="bau2017")
def broden(
    path: str,
    split: Literal["train", "val", "all"] = "all",
    limit: int | None = None,
    *,
    batch_size: int = 32,
) -> Concepts:
    """Broden: images with maps or labels in several categories; a folder or a zip.

    ``index.csv`` has a row per image (``image``, ``split``, sizes, then a column per category:
    names of maps or numbers of labels, several with ``;`` between them, empty for none),
    ``category.csv`` the categories, ``label.csv`` the ``number`` and ``name`` of each concept;
    ``images/`` holds the images and their maps, RGB files of which a pixel stands for the number
    R + 256 G. All images have one size, and so have all maps.

    Args:
        path: Folder or .zip; a relative one is looked up here, then under the data root.
        split: ``train``, ``val`` or ``all``.
        limit: The first so many.
        batch_size: Images per batch.

    Raises:
        FileError: Nothing there, damaged, or not in this layout.
        DataError: No images of that split, or images or maps of different sizes.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise OptionError(
            "broden: wrong option",
            got=f"limit={limit}, batch_size={batch_size}",
            expected="at least 1",
        )
    index = _Index(open_source(user_path(path)))
    rows = [r for r in index.rows if split in ("all", r["split"])][:limit]
    if not rows:
        held = sorted({r["split"] for r in index.rows})
        raise DataError(
            f"no images of split {split!r}", got=", ".join(held) or "none", expected="a row each"
        )
    reader = _Reader(index, rows, batch_size)
    files = [*reader.images.files, *(reader.maps.files if reader.maps else [])]

    def digest() -> str:
        facts = (rows, index.names, [list(layer) for layer in reader.depth.items()])
        return digests.of("broden", *facts, index.source.digest(files))

    name = f"broden({split})"
    return Concepts(reader.read, index.names, count=len(rows), name=name, digest=digest)


class _Index:
    """The tables of a Broden folder.

    Args:
        source: Its files.

    Attributes:
        rows: Of the index: column to text.
        categories: Their names.
        names: Of the concepts, by number.
        prefix: What stands before the names of images and maps.

    Raises:
        FileError: A table is missing, or not as it should be.
    """

    def __init__(self, source: Source) -> None:
        self.source, self.files = source, frozenset(source.names())
        tops = sorted((f for f in self.files if f.split("/")[-1] == "index.csv"), key=len)
        top = tops[0].removesuffix("index.csv") if tops else ""
        self.prefix = f"{top}images/"
        self.rows = self._table(f"{top}index.csv", ("image", "split"))
        named = [r["name"] for r in self._table(f"{top}category.csv", ("name",))]
        columns = [c for c in (self.rows[0] if self.rows else {}) if c not in FACTS]
        self.categories = [c for c in named if c in columns]
        if not self.categories:
            raise self.wrong(f"categories {named[:6]}, columns {columns[:6]}")
        try:
            labels = self._table(f"{top}label.csv", ("number", "name"))
            self.names = {int(r["number"]): r["name"] for r in labels}
        except ValueError as error:
            raise self.wrong(f"label.csv: {error}") from error

    def _table(self, name: str, needed: tuple[str, ...]) -> list[dict[str, str]]:
        if name not in self.files:
            raise self.wrong(f"no {name}")
        try:
            text = self.source.read(name).decode("utf-8-sig")
            found = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise self.wrong(f"{name}: {error}") from error
        for i, row in enumerate(found):
            lacking = [c for c in needed if not row.get(c)]
            if lacking or None in row or None in row.values():
                raise self.wrong(f"{name}, row {i + 1}: {lacking[0] if lacking else 'length'}")
        return found

    def wrong(self, got: str) -> FileError:
        """The error for tables that are not in the layout."""
        return FileError(
            f"{str(self.source.path)!r} is not laid out as Broden",
            got=got,
            expected="index.csv (image, split, categories), category.csv (name), label.csv "
            "(number, name), images/",
        )

    def entries(self, row: dict[str, str], category: str) -> list[str | int]:
        """What a row says of a category: names of maps, numbers of labels.

        Raises:
            FileError: A map that is not there, or something else.
        """
        found: list[str | int] = []
        for text in filter(None, (t.strip() for t in row[category].split(";"))):
            if text.isascii() and text.isdigit() and len(text) < 10:
                found.append(int(text))
            elif self.prefix + text in self.files:
                found.append(self.prefix + text)
            else:
                raise self.wrong(f"{text!r} as {category} of {row['image']!r}")
        if len(found) > MOST:
            raise self.wrong(f"{len(found)} entries as {category} of {row['image']!r}")
        return found


class _Reader:
    """Reads images and maps of some rows, a batch at a time.

    Args:
        index: The tables.
        rows: Which rows.
        batch_size: Images per batch.

    Attributes:
        depth: Most concepts at a pixel, by category.
    """

    def __init__(self, index: _Index, rows: list[dict[str, str]], batch_size: int) -> None:
        self.batch_size, self.index = batch_size, index
        images = [index.prefix + r["image"] for r in rows]
        absent = next((n for n in images if n not in index.files), None)
        if absent is not None:
            raise index.wrong(f"no {absent}")
        self.entries = [{c: index.entries(r, c) for c in index.categories} for r in rows]
        self.depth = {c: max(len(e[c]) for e in self.entries) for c in index.categories}
        self.depth = {c: k for c, k in self.depth.items() if k}
        if not self.depth:
            raise index.wrong("rows without a concept")
        named = {n for e in self.entries for held in e.values() for n in held}
        files = sorted(n for n in named if isinstance(n, str))
        self.place = {n: i for i, n in enumerate(files)}
        self.images = ImageStore(index.source, images)
        self.maps = ImageStore(index.source, files) if files else None
        self.mapped = {
            c for c in self.depth if any(isinstance(n, str) for e in self.entries for n in e[c])
        }

    def read(self) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """Images ``[n, 3, H, W]`` in [0, 1] and maps ``[n, k, h, w]`` or labels ``[n, k]``."""
        for start in range(0, len(self.entries), self.batch_size):
            part = slice(start, start + self.batch_size)
            pixels = self.images[part]
            x = torch.from_numpy(pixels.astype(np.float32) / divisor(pixels))
            yield x, {c: self._category(c, self.entries[part]) for c in self.depth}

    def _category(self, category: str, entries: list[dict[str, Any]]) -> torch.Tensor:
        size = self.maps.shape[2:] if self.maps is not None and category in self.mapped else ()
        found = torch.zeros(len(entries), self.depth[category], *size, dtype=torch.int32)
        for i, held in enumerate(entries):
            for k, entry in enumerate(held[category]):
                found[i, k] = entry if isinstance(entry, int) else self._map(entry)
        return found

    def _map(self, name: str) -> torch.Tensor:
        assert self.maps is not None
        red, green, blue = self.maps[[self.place[name]]][0].astype(np.int32)
        if blue.any() or self.maps.dtype != np.uint8:
            raise self.index.wrong(f"{name!r} with blue in it: the number is R + 256 G")
        return torch.from_numpy(red + 256 * green)

"""Which concepts there are in the images, and how many pixels each has."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from isogon.measures.dissection.concepts import Concepts
from isogon.nets.watchers import Key, Once


class Labels(Once):
    """A watcher of labels alone: pixels of every concept, images that carry a category.

    An image carries a category if one of its concepts is in it.

    Args:
        concepts: The data.
    """

    sites = ()

    def __init__(self, concepts: Concepts) -> None:
        self.concepts = concepts
        empty = torch.zeros(0, dtype=torch.int64)
        self.pixels: list[Tensor] = [empty for _ in concepts.categories]  # by number
        self.images = [0 for _ in concepts.categories]

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in maps ``[n, L, h, w]``."""
        for c, held in enumerate(self.pixels):
            part = labels[:, [i for i, k in enumerate(self.concepts.layers) if k == c]]
            more = torch.bincount(part.flatten().long(), minlength=len(held)).cpu()
            more[: len(held)] += held
            self.pixels[c] = more
            self.images[c] += int((part != 0).flatten(1).any(1).sum())

    def share(self) -> Labels:
        """The same, empty."""
        return Labels(self.concepts)

    def merge(self, other: Labels) -> Labels:
        """Take in what another one has seen."""
        for c, (a, b) in enumerate(zip(self.pixels, other.pixels, strict=True)):
            longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
            found = longer.clone()
            found[: len(shorter)] += shorter
            self.pixels[c] = found
            self.images[c] += other.images[c]
        return self

    def result(self) -> Columns:
        """The concepts that are there, each a column of a table."""
        return Columns(self)


class Columns:
    """The concepts that are in the images, in the order of category and number.

    Args:
        seen: What was seen of all images.

    Attributes:
        pixels: Of each concept ``[K]``, int64.
        category: Which one each is of ``[K]``, int64.
        names: Of the concepts.
        lookup: By category, the column + 1 of each number; 0 where there is none.
    """

    def __init__(self, seen: Labels) -> None:
        pixels, category = [], []
        self.names: list[str] = []
        self.lookup: list[Tensor] = []
        for c, held in enumerate(seen.pixels):
            there = held > 0
            there[:1] = False
            numbers = there.nonzero()[:, 0]
            table = torch.zeros(len(held), dtype=torch.int64)
            table[numbers] = torch.arange(len(numbers)) + len(category) + 1
            self.lookup.append(table)
            named = seen.concepts.categories[c]
            self.names += [seen.concepts.concept(named, int(k)) for k in numbers]
            pixels += held[numbers].tolist()
            category += [c] * len(numbers)
        self.pixels = torch.tensor(pixels, dtype=torch.int64)
        self.category = torch.tensor(category, dtype=torch.int64)
        self.layers = seen.concepts.layers
        self.categories = seen.concepts.categories

    def __len__(self) -> int:
        return len(self.names)

    def columns(self, labels: Tensor, layer: int) -> Tensor:
        """Columns + 1 of numbers of a layer; 0 for none."""
        table = self.lookup[self.layers[layer]].to(labels.device)
        return table[labels.long()]

    def carried(self, labels: Tensor) -> Tensor:
        """Which images carry which categories, int64 ``[n, categories]``."""
        found = torch.zeros(
            len(labels), len(self.categories), dtype=torch.int64, device=labels.device
        )
        for layer, c in enumerate(self.layers):
            found[:, c] |= (labels[:, layer] != 0).flatten(1).any(1).long()
        return found

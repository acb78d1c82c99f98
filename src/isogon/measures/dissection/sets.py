"""Sets of concepts that need no file."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from isogon.data.shapes import COLOURS, SCENES, SHAPES, drawn
from isogon.measures.dissection.concepts import Concepts
from isogon.registry import register
from isogon.storage import digests

STREAM = 2  # train and test images of the data set are 0 and 1


@register("concepts")
def shapes(
    n: int = 200, *, size: int = 32, seed: int = 0, grey: bool = False, batch_size: int = 50
) -> Concepts:
    """Coloured shapes on patterned grounds: colour and shape by pixel, scene by image.

    Independent draws of what the data set ``shapes`` holds.

    Args:
        n: Number of images.
        size: Height and width, in pixels.
        seed: Seed of the draw.
        grey: One channel, the mean of the three; there is no colour then.
        batch_size: Images per batch.
    """
    made = drawn(n, size, seed, stream=STREAM)
    images = torch.from_numpy(made.images)
    images = images.mean(1, keepdim=True) if grey else images
    maps = {"colour": made.colour, "shape": made.shape, "scene": made.scene}
    names = {"colour": tuple(COLOURS), "shape": SHAPES, "scene": SCENES}
    held = {c: torch.from_numpy(m) for c, m in maps.items() if not (grey and c == "colour")}

    def read() -> Iterator:
        for i in range(0, n, batch_size):
            part = slice(i, i + batch_size)
            yield images[part], {c: m[part] for c, m in held.items()}

    mark = digests.of("shapes", images, held, names)
    return Concepts(read, names, count=n, name=f"shapes({n})", digest=lambda: mark)

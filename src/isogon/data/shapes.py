"""Coloured shapes on patterned grounds, drawn from a seed: images with maps of what is where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from isogon.data.samples import Samples
from isogon.errors import OptionError
from isogon.registry import dataset

COLOURS = {
    "red": (0.85, 0.15, 0.15),
    "green": (0.15, 0.7, 0.2),
    "blue": (0.15, 0.25, 0.85),
    "yellow": (0.9, 0.85, 0.15),
}
SHAPES = ("disc", "square", "triangle", "cross")
SCENES = ("plain", "stripes", "checks")
LARGEST = 2**31  # numbers in all images of one draw


@dataclass(frozen=True)
class Drawn:
    """Images and what is in them.

    Attributes:
        images: ``[N, 3, H, W]``, float32 in [0, 1].
        colour: ``[N, H, W]``, int64: 0 for the ground, else 1 + the place in `COLOURS`.
        shape: The same by `SHAPES`.
        scene: ``[N]``, int64: 1 + the place in `SCENES`.
        label: ``[N]``, int64: colour and shape of the object in front, by `CLASSES`.
    """

    images: np.ndarray
    colour: np.ndarray
    shape: np.ndarray
    scene: np.ndarray
    label: np.ndarray


CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)


def drawn(n: int, size: int, seed: int, *, stream: int = 0) -> Drawn:
    """``n`` images of ``size`` x ``size`` pixels.

    On a grey ground (plain, striped or checked, at random places and of random brightness) stand
    up to two small objects and one large one in front of them; every object is of one of four
    colours and four shapes. Gaussian noise of 0.03 is added.

    Args:
        n: Number of images.
        size: Height and width, at least 8.
        seed: Of the draw.
        stream: Independent draws of one seed.

    Raises:
        OptionError: An argument out of range.
    """
    if n < 1 or not 8 <= size <= 1024 or not 0 <= seed < 2**32 or 3 * n * size**2 > LARGEST:
        raise OptionError(
            "shapes: wrong option",
            got=f"n={n}, size={size}, seed={seed}",
            expected=f"n >= 1, 8 <= size <= 1024, 0 <= seed < 2**32, 3 n size^2 <= {LARGEST}",
        )
    # RandomState: the one generator of NumPy whose streams never change.
    rng = np.random.RandomState([seed, stream])
    y, x = np.mgrid[:size, :size] + 0.5
    images = np.empty((n, 3, size, size), np.float32)
    colour, shape = (np.zeros((n, size, size), np.int64) for _ in range(2))
    scene, label = rng.randint(len(SCENES), size=n) + 1, rng.randint(len(CLASSES), size=n)
    palette = np.array(list(COLOURS.values()))
    for i in range(n):
        image = np.repeat(_ground(scene[i], x, y, size, rng)[None], 3, 0)
        front = divmod(label[i], len(SHAPES))
        small = [(rng.randint(len(COLOURS)), rng.randint(len(SHAPES))) for _ in range(2)]
        objects = [(c, s, (0.1, 0.15)) for c, s in small[: rng.randint(3)]]
        for c, s, sizes in (*objects, (*front, (0.2, 0.3))):
            radius = size * rng.uniform(*sizes)
            centre = rng.uniform(radius, size - radius, 2)
            inside = _inside(s, x - centre[0], y - centre[1], radius)
            image[:, inside] = (palette[c] * rng.uniform(0.8, 1.0))[:, None]
            colour[i][inside], shape[i][inside] = c + 1, s + 1
        images[i] = np.clip(image + rng.normal(0, 0.03, image.shape), 0, 1)
    return Drawn(images, colour, shape, scene.astype(np.int64), label.astype(np.int64))


def _ground(scene: int, x: np.ndarray, y: np.ndarray, size: int, rng) -> np.ndarray:
    low, step = rng.uniform(0.35, 0.6), size / rng.uniform(4, 8)
    a, b = ((x + rng.uniform(size)) // step % 2, (y + rng.uniform(size)) // step % 2)
    pattern = {1: np.zeros_like(x), 2: a, 3: (a + b) % 2}[int(scene)]
    return low + 0.25 * pattern


def _inside(shape: int, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Where an object around the origin is; all have about the same area."""
    if SHAPES[shape] == "disc":
        return x**2 + y**2 <= radius**2
    if SHAPES[shape] == "square":
        return np.maximum(np.abs(x), np.abs(y)) <= 0.87 * radius
    if SHAPES[shape] == "triangle":
        return (np.abs(y) <= radius) & (2 * np.abs(x) <= 0.95 * (y + radius))
    return (np.minimum(np.abs(x), np.abs(y)) <= 0.4 * radius) & (
        np.maximum(np.abs(x), np.abs(y)) <= radius
    )


@dataset()
def shapes(
    split: Literal["train", "test", "all"] = "test",
    limit: int | None = None,
    *,
    n: int = 1000,
    size: int = 32,
    seed: int = 0,
) -> Samples:
    """Coloured shapes on patterned grounds; the class is colour and shape of the one in front.

    Images ``[3, size, size]`` in [0, 1]; 16 classes (four colours, four shapes); drawn from the
    seed, see `isogon.data.shapes.drawn`. The concepts of the same name are further draws, with
    maps of what is where.

    Args:
        split: ``train`` and ``test`` are independent draws of ``n`` images each.
        limit: The first so many.
        n: Images per split.
        size: Height and width, in pixels.
        seed: Seed of the draw.
    """
    streams = {"train": (0,), "test": (1,), "all": (0, 1)}[split]
    parts = [drawn(n, size, seed, stream=k) for k in streams]
    x = np.concatenate([p.images for p in parts])
    y = np.concatenate([p.label for p in parts])
    return Samples(x, y, name=f"shapes({split})", classes=CLASSES).limited(limit)

"""Rotated and cluttered MNIST, made from MNIST on the fly, the same every time."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from isogon.data.augment import turned
from isogon.data.idx import mnist
from isogon.data.samples import Samples
from isogon.errors import OptionError
from isogon.registry import dataset

Split = Literal["train", "test"]


@dataset()
def rotated_mnist(
    split: Split = "test",
    limit: int | None = None,
    *,
    degrees: float = 180.0,
    seed: int = 0,
) -> Samples:
    """MNIST with every digit turned by its own random angle.

    Images ``[1, 28, 28]`` in [0, 1]; the angle of each is uniform on [-degrees, degrees],
    counter-clockwise as seen, bilinear with black outside, and always the same for the same
    seed.

    Args:
        split: ``train`` or ``test``.
        limit: The first so many.
        degrees: Largest angle, in degrees.
        seed: Seed of the angles.
    """
    plain = mnist(split)
    rng = np.random.RandomState([_seed(seed), split == "test"])
    angles = torch.from_numpy(rng.uniform(-degrees, degrees, plain.loaded).astype(np.float32))

    def turn(x: Tensor, index: Tensor) -> Tensor:
        return turned(x, torch.deg2rad(angles[index])).clamp_(0, 1)

    made = plain.limited(limit).mapped(turn, key=("turned", angles))
    made.name = f"rotated_mnist({split})"
    return made


@dataset()
def cluttered_mnist(
    split: Split = "test",
    limit: int | None = None,
    *,
    size: int = 60,
    clutter: int = 8,
    patch: int = 8,
    seed: int = 0,
) -> Samples:
    """MNIST digits at random places among pieces of other digits.

    Images ``[1, size, size]`` in [0, 1]: the digit stands at a random place, and ``clutter``
    square pieces of ``patch`` pixels, cut at random from other digits of the split, are added
    at random places (values are clipped at 1). Always the same for the same seed.

    Args:
        split: ``train`` or ``test``.
        limit: The first so many.
        size: Height and width, in pixels, at least 28.
        clutter: Number of pieces.
        patch: Height and width of a piece, in pixels.
        seed: Seed of places and pieces.
    """
    if not 28 <= size <= 1024 or not 0 <= clutter <= 1000 or not 1 <= patch <= 28:
        raise OptionError(
            "cluttered_mnist: wrong option",
            got=f"size={size}, clutter={clutter}, patch={patch}",
            expected="size 28 to 1024, clutter 0 to 1000, patch 1 to 28",
        )
    plain = mnist(split)
    n, base = plain.loaded, [_seed(seed), split == "test"]
    rng = np.random.RandomState(base)
    place = rng.randint(0, size - 28 + 1, (n, 2))
    piece = rng.randint(0, n, (n, clutter))
    cut = rng.randint(0, 28 - patch + 1, (n, clutter, 2))
    put = rng.randint(0, size - patch + 1, (n, clutter, 2))

    def scatter(x: Tensor, index: Tensor) -> Tensor:
        out = torch.zeros(len(x), 1, size, size)
        rows = index.numpy()
        others = plain.take(piece[rows].ravel())[0].reshape(len(rows), clutter, 28, 28)
        for k, i in enumerate(rows):
            top, left = place[i]
            out[k, 0, top : top + 28, left : left + 28] = x[k, 0]
            for j in range(clutter):
                (r, c), (t, m) = cut[i, j], put[i, j]
                out[k, 0, t : t + patch, m : m + patch] += others[
                    k, j, r : r + patch, c : c + patch
                ]
        return out.clamp_(0, 1)

    made = plain.limited(limit).mapped(
        scatter, key=("cluttered", plain, size, clutter, patch, seed)
    )
    made.name = f"cluttered_mnist({split})"
    return made


def _seed(seed: int) -> int:
    if not 0 <= seed < 2**32:
        raise OptionError("seed out of range", got=seed, expected="0 to 2**32 - 1")
    return seed

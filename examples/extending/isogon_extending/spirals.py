"""A data set: interleaving spirals in the plane."""

from __future__ import annotations

from typing import Literal

import numpy as np

from isogon.data import Samples
from isogon.registry import dataset


@dataset()
def spirals(
    split: Literal["train", "test"] = "test",
    limit: int | None = None,
    *,
    arms: int = 2,
    n: int = 400,
    seed: int = 0,
) -> Samples:
    """Spirals around the origin: points [2], one class per arm.

    Arm k is t (cos(3 pi t + 2 pi k / arms), sin(...)), t uniform on [0, 1].

    Args:
        split: ``train`` and ``test`` are independent draws.
        limit: The first so many.
        arms: Number of spirals.
        n: Points per split.
        seed: Seed of the draw.
    """
    rng = np.random.RandomState([seed, split == "test"])
    y = rng.permutation(np.arange(n) % arms)
    t = rng.uniform(size=n)
    angle = 3 * np.pi * t + 2 * np.pi * y / arms
    x = t[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    name, classes = f"spirals({split})", [str(k) for k in range(arms)]
    return Samples(x.astype(np.float32), y, name=name, classes=classes).limited(limit)

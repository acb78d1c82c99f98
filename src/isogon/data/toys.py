"""Data sets that need no file: digits from scikit-learn and three problems in the plane."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from isogon.data.samples import Samples
from isogon.data.transforms import every_fifth
from isogon.errors import OptionError
from isogon.registry import dataset

Split = Literal["train", "test", "all"]


@dataset()
def digits(split: Split = "test", limit: int | None = None, *, seed: int | None = None) -> Samples:
    """Handwritten digits, 8 x 8 grey images of ten classes; embedded in scikit-learn.

    1,797 images ``[1, 8, 8]`` in [0, 1] (the 17 grey levels divided by 16). The test split is
    stratified and fixed: within each class, in file order, every fifth image is test (355
    images) and the others are train (1,442).

    Args:
        split: ``train``, ``test`` or ``all``.
        limit: The first so many, or a random subset where ``seed`` is given.
        seed: Seed of the random subset.
    """
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    labels = found.target.astype(np.int64)
    held = every_fifth(labels)
    keep = {"all": held | ~held, "test": held, "train": ~held}[split]
    images = found.images[keep][:, None].astype(np.uint8)
    names = [str(c) for c in range(10)]
    made = Samples(images, labels[keep], name=f"digits({split})", classes=names, divisor=16)
    return made.limited(limit, seed)


@dataset()
def two_moons(
    split: Split = "test",
    limit: int | None = None,
    *,
    n: int = 1000,
    noise: float = 0.1,
    seed: int = 0,
) -> Samples:
    """Two interleaving half circles in the plane: points ``[2]``, two classes.

    Class 0 is ``(cos t, sin t)``, class 1 is ``(1 - cos t, 1/2 - sin t)``, t uniform on
    [0, pi], plus Gaussian noise; float32.

    Args:
        split: ``train`` and ``test`` are independent draws of ``n`` points each.
        limit: The first so many.
        n: Points per split.
        noise: Standard deviation of the noise, in the plane's units.
        seed: Seed of the draw.
    """

    def curve(label: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        t = np.pi * rng.uniform(size=len(label))
        upper = np.stack([np.cos(t), np.sin(t)], 1)
        lower = np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1)
        return np.where(label[:, None] == 0, upper, lower)

    return _planar("two_moons", curve, ("upper", "lower"), split, limit, n, noise, seed)


@dataset()
def two_circles(
    split: Split = "test",
    limit: int | None = None,
    *,
    n: int = 1000,
    noise: float = 0.05,
    factor: float = 0.5,
    seed: int = 0,
) -> Samples:
    """Two concentric circles in the plane: points ``[2]``, two classes.

    Class 0 has radius 1, class 1 radius ``factor``, the angle is uniform, plus Gaussian
    noise; float32.

    Args:
        split: ``train`` and ``test`` are independent draws of ``n`` points each.
        limit: The first so many.
        n: Points per split.
        noise: Standard deviation of the noise, in the plane's units.
        factor: Radius of the inner circle, in (0, 1).
        seed: Seed of the draw.
    """
    if not 0 < factor < 1:
        raise OptionError("two_circles: wrong factor", got=factor, expected="between 0 and 1")

    def curve(label: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        t = 2 * np.pi * rng.uniform(size=len(label))
        radius = np.where(label == 0, 1.0, factor)
        return radius[:, None] * np.stack([np.cos(t), np.sin(t)], 1)

    return _planar("two_circles", curve, ("outer", "inner"), split, limit, n, noise, seed)


@dataset()
def blobs(
    split: Split = "test",
    limit: int | None = None,
    *,
    n: int = 1000,
    centers: int = 3,
    noise: float = 0.3,
    seed: int = 0,
) -> Samples:
    """Gaussian blobs in the plane: points ``[2]``, one class per blob.

    The centres stand evenly on the unit circle, the first at (1, 0); float32.

    Args:
        split: ``train`` and ``test`` are independent draws of ``n`` points each.
        limit: The first so many.
        n: Points per split.
        centers: Number of blobs.
        noise: Standard deviation of each blob, in the plane's units.
        seed: Seed of the draw.
    """
    if not 1 <= centers <= 1000:
        raise OptionError("blobs: wrong number of centers", got=centers, expected="1 to 1000")

    def curve(label: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        t = 2 * np.pi * label / centers
        return np.stack([np.cos(t), np.sin(t)], 1)

    names = [str(c) for c in range(centers)]
    return _planar("blobs", curve, names, split, limit, n, noise, seed)


def _planar(name, curve, classes, split, limit, n, noise, seed) -> Samples:
    if not 0 <= n <= 10_000_000 or noise < 0 or not 0 <= seed < 2**32:
        raise OptionError(
            f"{name}: wrong option",
            got=f"n={n}, noise={noise}, seed={seed}",
            expected="0 <= n <= 1e7, noise >= 0, 0 <= seed < 2**32",
        )
    parts = []
    for i in {"train": (0,), "test": (1,), "all": (0, 1)}[split]:
        # RandomState: the one generator of NumPy whose streams never change.
        rng = np.random.RandomState([seed, i])
        label = rng.permutation(np.arange(n) % len(classes))
        x = curve(label, rng) + noise * rng.standard_normal((n, 2))
        parts.append((x.astype(np.float32), label.astype(np.int64)))
    x, y = (np.concatenate(p) for p in zip(*parts))
    return Samples(x, y, name=f"{name}({split})", classes=classes).limited(limit)

"""Data sets made out of another one: part of its samples or classes, other sizes, mixed pixels.

They repeat, for any split, what the options of training of the same names do to the data that a
model learns from: ``classes(mnist(test), 3)`` are the test samples of a model that was trained
with ``classes=3`` (`data_of` reads all such options from a checkpoint at once).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from isogon.data import transforms
from isogon.data.derived import split_of, with_split
from isogon.data.load import samples
from isogon.data.samples import Samples
from isogon.errors import IsogonError
from isogon.registry import dataset
from isogon.specs import DataSpec


@dataset()
def subset(data: DataSpec, limit: int | None = None, *, seed: int | None = None) -> Samples:
    """The first samples of any data, or a random subset of them.

    Args:
        data: Spec of the data.
        limit: The first so many, or a random subset where ``seed`` is given.
        seed: Seed of the random subset.
    """
    return samples(data).limited(limit, seed)


@dataset()
def classes(data: DataSpec, keep: int, limit: int | None = None, *, seed: int = 42) -> Samples:
    """A seeded choice of the classes of any data, relabelled 0, 1, ...

    The same classes for every split, and the same as training chooses with ``classes=keep,
    classes_seed=seed``.

    Args:
        data: Spec of the data.
        keep: Number of classes.
        limit: The first so many samples of these classes.
        seed: Seed of the choice.
    """
    found = samples(data)
    chosen = transforms.class_subset(_classes(data, found), keep, seed=seed)
    return _named(transforms.keep_classes(found, chosen).limited(limit), f"{keep} classes of")


@dataset()
def resized(
    data: DataSpec,
    size: int,
    limit: int | None = None,
    *,
    how: Literal["bilinear", "nearest", "pad"] = "bilinear",
) -> Samples:
    """Any images, brought to a square of ``size`` pixels as training does with ``size=``.

    Args:
        data: Spec of images ``[C, H, W]``.
        size: Height and width, in pixels.
        limit: The first so many samples.
        how: ``bilinear`` (antialiased), ``nearest``, or ``pad`` with black.
    """
    found = transforms.resized(samples(data).limited(limit), size, how=how)
    return _named(found, f"{size} x {size}")


@dataset()
def shuffled(
    data: DataSpec,
    how: Literal["one", "each"] = "one",
    limit: int | None = None,
    *,
    seed: int = 12345,
) -> Samples:
    """Any data with its pixels permuted as training does with ``pixel_shuffle=how``.

    Args:
        data: Spec of images ``[C, H, W]`` or vectors ``[D]``.
        how: ``one`` permutation for all images of all splits, or one for ``each`` image (where
            the spec names another split than ``train``, from the stream that training gives to
            these).
        limit: The first so many samples.
        seed: Seed of the permutations: the ``noise_seed`` of training.
    """
    own = how == "each"
    stream = seed + (own and split_of(data) not in (None, "train", "all"))
    found = transforms.shuffled_pixels(samples(data), seed=stream, each=own).limited(limit)
    return _named(found, "shuffled")


def _classes(data: DataSpec, found: Samples) -> int:
    """Number of classes: where they have no names, of all splits that the data have."""
    count = transforms.class_count(found)
    if found.classes is None and split_of(data) not in (None, "train"):
        with suppress(IsogonError):  # no such split
            count = max(count, transforms.class_count(samples(with_split(data, "train"))))
    return count


def _named(found: Samples, prefix: str) -> Samples:
    found.name = f"{prefix} {found.name}"
    return found

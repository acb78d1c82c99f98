"""Splits, noise and transformations that make one training set out of another.

Everything random is drawn from ``numpy.random.RandomState(seed)``, whose streams are frozen:
a split or a corrupted label is the same on every machine and in every version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isogon.data.labels import refuse_unlabelled
from isogon.data.load import samples as load_samples
from isogon.data.samples import Samples
from isogon.errors import DataError, OptionError
from isogon.specs import Spec

# --------------------------------------------------------------------------- indices


def split_indices(
    n: int, fraction: float, *, seed: int | None = 42, labels: Tensor | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of a training and a validation part of ``n`` samples.

    The validation part holds ``floor(fraction n)`` samples: the last ones of
    ``RandomState(seed).permutation(n)``, or of the given order where ``seed`` is None. With
    ``labels`` it is stratified: the same rule within each class, so that the class shares of
    both parts differ by less than one sample per class.

    Args:
        n: Number of samples.
        fraction: Share of the validation part, in [0, 1).
        seed: Seed of the permutation; None keeps the order.
        labels: Class labels ``[n]``, for a stratified split.

    Returns:
        Two integer arrays without common element whose union is ``range(n)``.

    Raises:
        OptionError: A fraction outside [0, 1), or one that leaves a part empty.
    """
    if not 0 <= fraction < 1:
        raise OptionError(
            "validation fraction out of range", got=fraction, expected="at least 0, less than 1"
        )
    order = np.arange(n) if seed is None else _rng(seed).permutation(n)
    if labels is None:
        held = int(np.floor(fraction * n))
        train, validation = order[: n - held], order[n - held :]
    else:
        refuse_unlabelled(torch.as_tensor(labels))
        of_class = np.asarray(labels)[order]
        last = np.zeros(n, bool)
        for c in np.unique(of_class):
            places = np.flatnonzero(of_class == c)
            held = int(np.floor(fraction * len(places)))
            last[places[len(places) - held :]] = True
        train, validation = order[~last], order[last]
    if fraction != 0 and not (len(train) and len(validation)):
        raise OptionError(
            "split leaves a part empty",
            got=f"{len(train)} for training, {len(validation)} for validation",
            expected="at least one sample in each",
            fix="Choose a larger fraction or more samples.",
        )
    return train, validation


def every_fifth(labels: np.ndarray) -> np.ndarray:
    """Mask ``[n]`` of a fixed test part: every fifth sample of each class, in the given order.

    Float labels are taken as one class.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        return np.arange(len(labels)) % 5 == 4
    rank = np.empty(len(labels), np.int64)
    for c in np.unique(labels):
        places = np.flatnonzero(labels == c)
        rank[places] = np.arange(len(places))
    return rank % 5 == 4


def class_subset(classes: int, keep: int, *, seed: int) -> list[int]:
    """``keep`` of ``classes`` class indices, sorted: the first of a seeded permutation.

    Raises:
        OptionError: More classes wanted than there are, or none.
    """
    if not 1 <= keep <= classes:
        raise OptionError(
            "class subset of the wrong size", got=keep, expected=f"1 to {classes} classes"
        )
    return sorted(int(c) for c in _rng(seed).permutation(classes)[:keep])


def wrong_labels(labels: Tensor, ratio: float, *, classes: int, seed: int) -> Tensor:
    """Labels ``[n]`` of which a share of ``ratio`` is replaced by *another* class.

    Each label is replaced with probability ``ratio``, independently: ``y -> (y + k) mod C``
    with k uniform on 1 .. C-1, so that a replaced label is never the true one.

    Raises:
        OptionError: A ratio outside [0, 1], or fewer than two classes.
        DataError: Labels that are not classes.
    """
    if not 0 <= ratio <= 1:
        raise OptionError("label noise out of range", got=ratio, expected="0 to 1")
    _refuse_targets(labels)
    if ratio == 0:
        return labels.clone()
    if classes < 2:
        raise OptionError(
            "label noise needs two classes", got=classes, expected="at least 2 classes"
        )
    rng = _rng(seed)
    hit = np.flatnonzero(rng.uniform(size=len(labels)) <= ratio)
    noisy = labels.clone()
    shift = torch.from_numpy(rng.randint(1, classes, size=len(hit)).astype(np.int64))
    noisy[hit] = (labels[hit] + shift.to(labels.dtype)) % classes
    return noisy


def pixel_orders(count: int, pixels: int, *, seed: int) -> np.ndarray:
    """``count`` permutations of ``pixels`` positions, drawn one after the other."""
    rng = _rng(seed)
    dtype = np.uint16 if pixels <= 1 << 16 else np.int64
    return np.stack([rng.permutation(pixels).astype(dtype) for _ in range(count)])


# --------------------------------------------------------------------------- samples


def keep_classes(data: Samples, kept: Sequence[int]) -> Samples:
    """The samples of some classes, relabelled 0, 1, ... in the order of ``kept``."""
    _refuse_targets(data.labels)
    labels = data.labels
    where = torch.full((int(max(labels.max(), max(kept))) + 1,), -1)
    where[list(kept)] = torch.arange(len(kept))
    chosen = (where[labels] >= 0).nonzero()[:, 0]
    names = None if data.classes is None else [data.classes[c] for c in kept]
    part = data.subset(chosen)
    return part.relabelled(where[labels[chosen]], names)


def corrupted(data: Samples, ratio: float, *, seed: int) -> Samples:
    """The same inputs, a share of the labels replaced by wrong ones (`wrong_labels`)."""
    classes = class_count(data)
    return data.relabelled(wrong_labels(data.labels, ratio, classes=classes, seed=seed))


def shuffled_pixels(data: Samples, *, seed: int, each: bool = False) -> Samples:
    """The same labels, the positions of every image permuted (channels move together).

    Args:
        data: Images ``[C, H, W]`` or vectors ``[D]``.
        seed: Seed of the permutations.
        each: One permutation per image; by default one for all of them.

    Raises:
        DataError: Images ``[H, W, C]``.
    """
    _refuse_channels_last(data)
    channels = data.shape[0] if len(data.shape) > 1 else 1
    pixels = int(np.prod(data.shape)) // channels
    # Permutations belong to positions in the data set as loaded, so that subsets keep theirs.
    table = pixel_orders(data.loaded if each else 1, pixels, seed=seed)

    def shuffle(x: Tensor, index: Tensor) -> Tensor:
        flat = x.reshape(len(x), channels, pixels)
        order = torch.from_numpy(table[index.numpy() if each else 0].astype(np.int64))
        return flat.gather(2, order.reshape(-1, 1, pixels).expand_as(flat)).reshape(x.shape)

    return data.mapped(shuffle, key=("shuffled_pixels", seed, each))


def resized(
    data: Samples, size: int, *, how: Literal["bilinear", "nearest", "pad"] = "bilinear"
) -> Samples:
    """Square images of ``size`` pixels: interpolated, or centred on black.

    Args:
        data: Images ``[C, H, W]``.
        size: Height and width, in pixels.
        how: ``bilinear`` (antialiased, align_corners=False), ``nearest``, or ``pad``.

    Raises:
        DataError: Not images, or images ``[H, W, C]``.
        OptionError: ``pad`` to less than the image's size.
    """
    if len(data.shape) != 3:
        raise DataError(
            "only images can be resized",
            got=f"inputs of shape {list(data.shape)}",
            expected="[C, H, W]",
        )
    _refuse_channels_last(data)
    if size < 1 or (how == "pad" and size < max(data.shape[1:])):
        raise OptionError(
            "wrong image size",
            got=size,
            expected=f"at least {max(data.shape[1:]) if how == 'pad' else 1} pixels",
        )

    def resize(x: Tensor, index: Tensor) -> Tensor:
        if how == "pad":
            rest = [size - s for s in x.shape[:1:-1]]
            return F.pad(x, [p for r in rest for p in (r // 2, r - r // 2)])
        if how == "nearest":
            return F.interpolate(x, size=(size, size), mode="nearest")
        return F.interpolate(x, (size, size), mode="bilinear", antialias=True).clamp_(0, 1)

    return data.mapped(resize, key=("resized", size, how))


def class_count(data: Samples) -> int:
    """Number of classes: of the names where there are any, else one above the top label."""
    _refuse_targets(data.labels)
    return int(data.labels.max()) + 1 if data.classes is None else len(data.classes)


# --------------------------------------------------------------------------- training


def altered(
    train: Samples,
    *others: Samples | None,
    classes: int | None = None,
    classes_seed: int = 42,
    pixel_shuffle: Literal["none", "one", "each"] = "none",
    noise_seed: int = 12345,
    size: int | None = None,
    resize: Literal["bilinear", "nearest", "pad"] = "bilinear",
    pad: int | None = None,
) -> list[Samples | None]:
    """A training set and others after choice of classes, pixel permutation, resizing and padding.

    The training set's classes are the ones chosen from; with a permutation per image the others
    draw theirs from another stream.
    """
    parts = [train, *others]
    if classes is not None:
        kept = class_subset(class_count(train), classes, seed=classes_seed)
        parts = [part and keep_classes(part, kept) for part in parts]
    if pixel_shuffle != "none":
        own = pixel_shuffle == "each"
        seeds = [noise_seed, *[noise_seed + own] * len(others)]
        parts = [part and shuffled_pixels(part, seed=s, each=own) for part, s in zip(parts, seeds)]
    if size is not None:
        parts = [part and resized(part, size, how=resize) for part in parts]
    if pad is not None:
        parts = [part and resized(part, pad, how="pad") for part in parts]
    return parts


@dataclass(frozen=True)
class Splits:
    """What one training run sees; ``validation`` is None where none was asked for."""

    train: Samples
    validation: Samples | None
    test: Samples


def splits(
    spec: str | Spec,
    *,
    classes: int | None = None,
    classes_seed: int = 42,
    label_noise: float = 0.0,
    pixel_shuffle: Literal["none", "one", "each"] = "none",
    noise_seed: int = 12345,
    validation: float = 0.0,
    stratified: bool = False,
    split_seed: int | None = 42,
    size: int | None = None,
    resize: Literal["bilinear", "nearest", "pad"] = "bilinear",
    pad: int | None = None,
) -> Splits:
    """The train, validation and test parts of a data set, transformed alike.

    Args:
        spec: A data spec; where it names no split, its ``train`` and ``test`` are taken, else
            both are the one it names.
        classes: Keep so many classes (relabelled, the same ones in every split).
        classes_seed: Seed of the choice of classes.
        label_noise: Share of training labels replaced by wrong ones; validation and test
            labels stay true.
        pixel_shuffle: ``one`` permutation for all images of all splits, or one for ``each``
            image (of the test set from another stream).
        noise_seed: Seed of label noise and pixel permutations.
        validation: Share of the training samples held out.
        stratified: Hold out the same share of every class.
        split_seed: Seed of the held-out samples; None takes the last ones.
        size: Height and width of the images, in pixels; None leaves them.
        resize: How to reach ``size``.
        pad: Height and width that images are brought to afterwards, centred on black.
    """
    train, test = load_samples(spec, split="train"), load_samples(spec, split="test")
    train, test = altered(
        train,
        test,
        classes=classes,
        classes_seed=classes_seed,
        pixel_shuffle=pixel_shuffle,
        noise_seed=noise_seed,
        size=size,
        resize=resize,
        pad=pad,
    )
    assert train is not None
    assert test is not None
    held = None
    if validation != 0:
        labels = train.labels if stratified else None
        kept, rest = split_indices(len(train), validation, seed=split_seed, labels=labels)
        train, held = train.subset(kept), train.subset(rest)
    if label_noise != 0:
        train = corrupted(train, label_noise, seed=noise_seed)
    return Splits(train, held, test)


def _rng(seed: int) -> np.random.RandomState:
    if not 0 <= seed < 2**32:
        raise OptionError("seed out of range", got=seed, expected="0 to 2**32 - 1")
    return np.random.RandomState(seed)


def _refuse_channels_last(data: Samples) -> None:
    """Refuse what looks like ``[H, W, C]``: no model is there to tell which axis its channels are.

    Maps of many channels that are 3 x 3 or 4 x 4 pixels are none of these: they are square.
    """
    shape, few = data.shape, (1, 3, 4)
    if len(shape) == 3 and shape[2] in few and shape[0] not in few and shape[1] != shape[2]:
        raise DataError(
            f"the images of {data.name} seem to have the channels last",
            got=f"inputs of shape {list(shape)}",
            expected="[C, H, W]",
            fix="Give them as [N, C, H, W]: x.transpose(0, 3, 1, 2) of an array, "
            "x.permute(0, 3, 1, 2) of a tensor.",
        )


def _refuse_targets(labels: Tensor) -> None:
    refuse_unlabelled(labels, "one class per sample, integers from 0")
    if labels.ndim != 1 or labels.is_floating_point() or (len(labels) and labels.min() < 0):
        raise DataError(
            "labels are not classes",
            got=f"{labels.dtype} of shape {list(labels.shape)}",
            expected="one non-negative integer per sample",
        )

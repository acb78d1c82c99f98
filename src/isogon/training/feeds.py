"""What a run is fed: its data sets, the constants of its first layer, the order of its batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from isogon.actions import family
from isogon.data import Samples, as_batches, derived, samples, transforms
from isogon.data.augment import augmentation
from isogon.errors import OptionError
from isogon.specs import Spec, parse
from isogon.training import draws
from isogon.training.config import FitConfig
from isogon.training.posing import Posed, members, posed

if TYPE_CHECKING:
    from isogon.data.batches import DataLike


# Published per-channel mean and standard deviation of the training images, pixels in [0, 1].
KNOWN: dict[str, tuple[list[float], list[float]]] = {
    "mnist": ([0.1307], [0.3081]),
    "fashion_mnist": ([0.2860], [0.3530]),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "imagefolder": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "tiny_imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}

MEASURED = 100_000  # samples that mean and standard deviation are taken from, at most


@dataclass
class Sets:
    """The data sets of a run; ``spec`` is the canonical spec of the training set, if it has one."""

    train: Samples
    validation: Samples | None = None
    test: Samples | None = None
    spec: str | None = None


def resolve(
    data: DataLike,
    config: FitConfig,
    *,
    validation: DataLike | None = None,
    test: DataLike | None = None,
) -> Sets:
    """The data sets of a run.

    A spec without a split means its training split to learn from; the test split of the same
    data set, where there is one, is measured after each epoch. `Samples`, batches and tensors
    are learned from as they are.
    """
    spec = None
    if isinstance(data, str | Spec):
        spec = parse(data)
        train = samples(data, split="train")
        if test is None and (other := _test_spec(spec)) is not None:
            test = other
    else:
        train = _samples(data)
    held = None if validation is None else _samples(validation)
    train, held, test = _changed(train, held, None if test is None else _samples(test), config)
    if config.predict == "transformation":
        turns = family(config.family)
        train = Posed(train, turns, config.seed)
        held = None if held is None else Posed(held, turns, config.seed)
        test = None if test is None else Posed(test, turns, config.seed)
    return Sets(train, held, test, None if spec is None else str(spec))


def _changed(
    train: Samples, held: Samples | None, test: Samples | None, config: FitConfig
) -> tuple[Samples, Samples | None, Samples | None]:
    """The data sets after class choice, pixel permutation, resizing, split and label noise."""
    changed, held, test = transforms.altered(
        train,
        held,
        test,
        classes=config.classes,
        classes_seed=config.classes_seed,
        pixel_shuffle=config.pixel_shuffle,
        noise_seed=config.noise_seed,
        size=config.size,
        resize=config.resize,
    )
    assert changed is not None
    train = changed
    if config.validation:
        if held is not None:
            raise OptionError(
                "validation data given twice",
                got=f"data and validation={config.validation}",
                expected="one of them",
            )
        labels = train.labels if config.stratified else None
        part, rest = transforms.split_indices(
            len(train), config.validation, seed=config.split_seed, labels=labels
        )
        train, held = train.subset(part), train.subset(rest)
    if config.label_noise:
        train = transforms.corrupted(train, config.label_noise, seed=config.noise_seed)
    return train, held, test


def constants(train: Samples, config: FitConfig, spec: str | None) -> dict[str, Any] | None:
    """Mean and standard deviation per channel for the first layer; None where there is none.

    Raises:
        OptionError: Known constants wanted for a data set without any.
    """
    x, _ = train.take(range(1))
    if config.normalize == "none" or not x.is_floating_point():
        return None
    if config.normalize == "known":
        name = parse(spec).name if spec else None
        if name not in KNOWN or len(KNOWN[name][0]) != x.shape[1]:
            raise OptionError(
                "no published normalisation for this data set",
                got=f"{spec or train.name} with {x.shape[1]} channels",
                expected=f"one of: {', '.join(sorted(KNOWN))}",
                fix="Use normalize=data.",
            )
        mean, std = KNOWN[name]
        return {"mean": list(mean), "std": list(std)}
    return _measure(train)


def _measure(train: Samples) -> dict[str, Any]:
    total = square = torch.zeros(1, dtype=torch.float64)
    count = 0
    stride = -(-len(train) // MEASURED)
    for start in range(0, len(train), 1000 * stride):
        x = train.take(slice(start, start + 1000 * stride, stride))[0].double()
        x = x.transpose(0, 1).flatten(1)  # [C, n * space]
        total, square = total + x.sum(1), square + x.square().sum(1)
        count += x.shape[1]
    mean = total / count
    std = (square / count - mean.square()).clamp_min(0).sqrt()
    # a channel that never varies carries nothing: shifting it is enough
    std = torch.where(std > 1e-6, std, torch.ones_like(std))
    # through float32, so that the constants in a file are those of the layer
    return {"mean": mean.float().tolist(), "std": std.float().tolist()}


class Feed:
    """Batches of one epoch, from any batch on; every draw is keyed, so no state is kept.

    Args:
        train: The training samples.
        config: Batch size, shuffling, augmentation, seed, workers.
        rank: Number of this process.
        world: Number of processes; each takes every ``world``-th sample of a batch.
    """

    def __init__(self, train: Samples, config: FitConfig, *, rank: int = 0, world: int = 1) -> None:
        self.train, self.config, self.rank, self.world = train, config, rank, world
        self.augment = augmentation(config.augment) if config.augment else None
        self.family = None if config.family is None else family(config.family)
        self.table = train.table if isinstance(train, Posed) else None
        self.source = train.raw if isinstance(train, Posed) else train
        every = self.family is not None and config.family_mode == "all"
        self.copies = len(self.family) if self.family is not None and every else 1
        self.count = len(train) * self.copies
        self.batches = -(-self.count // config.batch_size)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor, int, int]]:
        """Batches: inputs, labels, how many of them count, and how many in all processes.

        Where a last batch is too small to give every process a sample, a process gets one that
        counts nothing: it must take part in the exchange of gradients.

        Args:
            epoch: Number of the epoch, from 0.
            first: Number of the first batch wanted.
        """
        size, config = self.config.batch_size, self.config
        order = (
            draws.random_order(self.count, seed=config.seed, epoch=epoch)
            if config.shuffle
            else np.arange(self.count)
        )
        wanted = [
            (epoch, batch, order[batch * size : (batch + 1) * size])
            for batch in range(first, self.batches)
        ]
        if config.workers == 0:
            yield from map(self.__getitem__, wanted)
            return
        yield from torch.utils.data.DataLoader(
            self,  # type: ignore[arg-type] - indexed by what the sampler gives
            batch_size=None,
            sampler=wanted,
            num_workers=config.workers,
            # the default draws a seed from the global generator: a continued epoch would differ
            generator=torch.Generator().manual_seed(config.seed),
        )

    def __getitem__(self, wanted: tuple[int, int, np.ndarray]) -> tuple[Tensor, Tensor, int, int]:
        """One batch: number of the epoch, of the batch, and the samples in it."""
        epoch, batch, whole = wanted
        mine = whole[self.rank :: self.world]
        counted = len(mine)
        mine = mine if counted else whole[:1]
        x, y = self.source.take(mine // self.copies)
        seed = self.config.seed
        if self.family is not None:
            member = mine % self.copies
            if self.copies == 1:
                member = members(mine, len(self.family), seed=seed, epoch=epoch)
            x = posed(x, member, self.family)
            y = y if self.table is None else self.table[member]
        if self.augment is not None:
            place = np.array([batch * self.world + self.rank])
            word = draws.bits(place, seed=seed, epoch=epoch, purpose=draws.AUGMENT)[0, 0]
            x = self.augment(x, torch.Generator().manual_seed(int(word >> np.uint64(1))))
        return x, y, counted, len(whole)


def _samples(data: DataLike) -> Samples:
    if isinstance(data, Samples):
        return data
    if isinstance(data, str | Spec):
        return samples(data)
    return as_batches(data).samples


def _test_spec(spec: Spec) -> Spec | None:
    """The test split of the data set whose training split ``spec`` names."""
    whole = derived.with_split(spec, "train", only_open=True)
    if whole.index is not None or derived.split_of(whole) != "train":
        return None
    # a subset of the training samples is still measured on the whole test split
    return derived.with_split(derived.without_limit(whole), "test")

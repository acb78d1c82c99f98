"""Random subsets of the samples, and the same comparison on each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from isogon import context
from isogon.data import Batches
from isogon.errors import OptionError
from isogon.measures.alignment.representations import Features, Rows


def check_subsets(repeats: int, subset: int | None, count: int) -> int:
    """Size of the subsets that were asked for; half of the samples where nothing is said.

    Raises:
        OptionError: A size without repeats, too few repeats for a spread, or a size out of range.
    """
    if repeats == 1 or repeats < 0 or (subset is not None and not repeats):
        raise OptionError(
            "a spread is that of several subsets",
            got=f"repeats={repeats}, subset={subset}",
            expected="repeats >= 2, or neither",
        )
    size = count // 2 if subset is None else subset
    if repeats and not 1 <= size < count:
        raise OptionError(
            "a subset is smaller than the whole",
            got=f"subset={size} of {count} samples",
            expected=f"1 to {count - 1}",
        )
    return size


def random_subsets(
    sides: list[nn.Module],
    data: Batches | Rows,
    size: int,
    repeats: int,
    generator: torch.Generator,
) -> Iterator[tuple[list[nn.Module], Batches | Rows]]:
    """Both sides and the data of each subset, its samples in the order in which they were.

    Args:
        sides: Models, or features.
        data: What they are compared on, `Batches` or `Rows`.
        size: Samples in each subset, drawn without replacement.
        repeats: Number of subsets.
        generator: Draws them.
    """
    for _ in range(repeats):
        rows = torch.randperm(data.count, generator=generator)[:size].sort().values
        if isinstance(data, Rows):
            yield [_taken(s, rows) for s in sides], Rows(size, data.size)
        else:
            yield sides, Batches(data.samples.subset(rows.tolist()), data.batch_size)


def _taken(side: nn.Module, rows: torch.Tensor) -> nn.Module:
    assert isinstance(side, Features)
    return Features({name: array[rows.numpy()] for name, array in side.arrays.items()})


def over_subsets(
    parts: Iterator[tuple[list[nn.Module], Batches | Rows]],
    repeats: int,
    values: Callable[[list[nn.Module], Batches | Rows], list[np.ndarray]],
) -> list[dict[str, np.ndarray]]:
    """Mean and standard deviation over subsets of each array of values, and every one of them.

    Args:
        parts: See `random_subsets`.
        repeats: How many there are.
        values: Compares both sides on the data of one subset.

    Returns:
        For each array its ``mean``, ``sd`` (with n - 1), and ``values`` ``[repeats, ...]``.
    """
    report, found = context.progress(), []
    for k, part in enumerate(parts):
        report(k, repeats, "subsets")
        found.append(values(*part))
    report(repeats, repeats, "subsets")
    columns = [np.stack(column) for column in zip(*found, strict=True)]
    return [{"mean": c.mean(0), "sd": c.std(0, ddof=1), "values": c} for c in columns]

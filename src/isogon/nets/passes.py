"""One pass over data, for any number of models and any number of statistics at once.

Whatever reads activations is a *watcher*: it names the sites that it wants, takes them in chunk by
chunk, says whether it wants another pass, merges with a watcher of another share of the data and
gives its result. `one_pass` is the loop: each model runs once per chunk, every watcher is given
its sites as soon as the last of them was reached (most of them one site, while it is still in the
cache), and nothing is kept that nobody waits for. A zoo of n models is n forward passes, not n^2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isogon import context
from isogon.data.finite import check_inputs
from isogon.data.labels import as_labels, unlabelled
from isogon.errors import DataError, OptionError
from isogon.nets import elsewhere
from isogon.nets.delivery import Delivery
from isogon.nets.watchers import (
    INPUT,
    LOGITS,
    OUTPUT,
    Models,
    Of,
    Orbit,
    PerSample,
    Viewer,
    Watcher,
)

__all__ = [
    "INPUT",
    "LOGITS",
    "OUTPUT",
    "Of",
    "PerSample",
    "Viewer",
    "Watcher",
    "all_passes",
    "one_pass",
]

CHUNK = 128  # most transformed inputs per forward pass
VALUES = 2**20  # and about as many numbers in them, except that
WHOLE = 128  # an orbit of at most so many members is never taken apart


def one_pass(
    models: Models,
    batches: Iterable[tuple[Tensor, Tensor]],
    watchers: Sequence[Viewer],
    *,
    orbit: Orbit | None = None,
    shard: tuple[int, int] = (0, 1),
    chunk: int | None = None,
    what: str | None = None,
    before: tuple[int, int] = (0, 1),
    numbers: bool = True,
) -> int:
    """Show every watcher the activations of all data, or of a share of it, once.

    Models are in evaluation mode inside and as they came afterwards, also after an exception. A
    value that a later operation overwrites in place before its watcher could take it is noticed;
    the chunk is then repeated with a copy there.

    Args:
        models: A module, or several by name.
        batches: Re-iterable pairs of inputs ``[n, ...]`` and labels ``[n]``.
        watchers: Who watches; they see the samples in their order.
        orbit: Transformations under which each sample is seen. The orbit of a sample comes as a
            whole, and how the samples are grouped depends on its size, not on that of batches.
        shard: ``(k, n)``: batches k, k + n, k + 2n, ... of the data only.
        chunk: Most inputs in one forward pass; by default a batch, under an orbit so many that
            sums are fetched once for several samples.
        what: What progress calls the work; None for no progress.
        before: Number of this pass and of all passes, for progress.
        numbers: Whether NaN is refused.

    Returns:
        Number of samples seen.

    Raises:
        ModelError: A site that is not reached, or without a row per sample, or with NaN in it.
        DataError: No samples, or NaN in them.
        OptionError: Watchers that don't say which model, or no such share.
    """
    k, n = shard
    if not 0 <= k < n:
        raise OptionError("no such share", got=f"({k}, {n})", expected="(k, n) with 0 <= k < n")
    named = dict(models) if isinstance(models, Mapping) else {"": models}
    report = context.silent if what is None else context.progress()
    done, total = 0, None
    if report is not context.silent:  # of a user's source, to count is to read all
        total = getattr(batches, "count", None)
        total = total and -(-total // n)
    with Delivery(named, watchers, orbit, numbers) as run:
        for start, x, y in _share(batches, k, n):
            y = unlabelled(x) if y is None else as_labels(y, count=len(x))
            if numbers:
                check_inputs(x, first=start)
            size = chunk if chunk is not None and orbit is None else len(x)
            if orbit is not None:
                most = chunk or _together(x[:1].numel(), len(orbit))
                size = max(1, most // len(orbit))
                run.most = most
            for first in range(0, len(x), max(1, size)):
                part = slice(first, first + size)
                rows = torch.arange(start + first, start + first + len(x[part]))
                run.chunk(x[part], y[part], rows)
                done += len(rows)
                report(before[0] * (total or 0) + done, total and total * before[1], what or "")
    if not done and n == 1:
        raise DataError("no samples", got="an empty data set", expected="at least one batch")
    return done


def all_passes(
    models: Models,
    batches: Iterable[tuple[Tensor, Tensor]],
    watchers: Sequence[Watcher],
    *,
    shards: int = 1,
    passes: int = 1,
    **options: Any,
) -> int:
    """Passes over the data until no watcher wants another one.

    Args:
        models: A module, or several by name.
        batches: Re-iterable pairs of inputs and labels.
        watchers: Who watches.
        shards: In how many shares the data is seen, each by watchers of its own, which are merged
            before the next pass: what is shared out over processes, done by one.
        passes: How many passes are expected, for progress.
        **options: Others of `one_pass`.

    Returns:
        Number of samples seen in each pass.
    """
    other = elsewhere.current()
    if other is not None:

        def run(own: Sequence[Watcher], shard: tuple[int, int], k: int) -> int:
            at = (k, max(k + 1, passes))
            return one_pass(models, batches, own, shard=shard, before=at, **options)

        asked = elsewhere.Asked(models, batches, watchers, {**options, "passes": passes}, run)
        if (seen := other.all_passes(asked)) is not None:
            return seen
    left, seen, k = list(watchers), 0, 0
    while left:
        at = (k, max(k + 1, passes))
        parts = [left, *([w.share() for w in left] for _ in range(shards - 1))]
        seen = sum(
            one_pass(models, batches, share, shard=(i, shards), before=at, **options)
            for i, share in enumerate(parts)
        )
        for share in parts[1:]:
            for watcher, other in zip(left, share, strict=True):
                watcher.merge(other)
        left, k = [w for w in left if w.again()], k + 1
    return seen


def _share(batches: Iterable, k: int, n: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Index of its first sample, inputs and labels of each batch of a share."""
    if n > 1 and hasattr(batches, "share"):
        yield from batches.share(k, n)  # type: ignore[attr-defined]
        return
    start = 0
    for i, (x, y) in enumerate(batches):
        if i % n == k:
            yield start, x, y
        start += len(x)


def _together(size: int, members: int) -> int:
    """Inputs in one pass: many, so that sums are fetched once for several; fewer large ones."""
    most = min(CHUNK, max(16, VALUES // max(1, size)))
    return max(most, members) if members <= WHOLE else most

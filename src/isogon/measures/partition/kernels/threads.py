"""Work shared out over as many threads as torch may use.

Kernels and torch's operations hold no interpreter lock. What runs in a thread here uses one core:
torch's own threads would be in each other's way. Parts are cut so that no row depends on another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from itertools import pairwise
from threading import Event, Lock
from typing import TypeVar

import numpy as np
import torch

T = TypeVar("T")

LEAST = 1 << 17  # numbers for which another thread saves more than it costs


def by_rows(count: int, width: int, work: Callable[[slice], T]) -> list[T]:
    """What `work` gives for consecutive parts of `count` rows of `width` numbers, in order.

    There are as many parts as `torch.get_num_threads()`, fewer where rows are few.
    """
    parts = max(1, min(torch.get_num_threads(), count * width // LEAST))
    bounds = pairwise(count * k // parts for k in range(parts + 1))
    return by_parts([slice(low, high) for low, high in bounds], work)


def shared(before: np.ndarray) -> list[slice]:
    """Consecutive parts of rows of different cost, of about the same each.

    Args:
        before: `[rows + 1]` how many numbers are touched before each row, and in all.
    """
    total = int(before[-1])
    parts = max(1, min(torch.get_num_threads(), total // LEAST))
    inside = np.searchsorted(before, [total * k // parts for k in range(1, parts)])
    bounds = sorted({0, *inside.tolist(), len(before) - 1})
    return [slice(low, high) for low, high in pairwise(bounds)]


def by_parts(own: Sequence[slice], work: Callable[[slice], T]) -> list[T]:
    """What `work` gives for each part, in order, one in each thread."""
    if len(own) <= 1:
        return [work(part) for part in own]
    others = [_pool().submit(work, part) for part in own[1:]]
    try:
        return [work(own[0]), *(other.result() for other in others)]
    finally:
        wait(others)  # also where one fails: no call outlives this one


def each(work: Callable[[T], object], parts: Iterable[T]) -> None:
    """Call `work` with every part, in any order.

    Raises:
        BaseException: The first that a call raised; no other call is running then.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        for part in parts:
            work(part)
        return
    source, turn, over = iter(parts), Lock(), Event()

    def some() -> None:
        try:
            while not over.is_set():
                with turn:
                    part = next(source, source)
                if part is source:
                    return
                work(part)  # type: ignore[arg-type]
        except BaseException:
            over.set()
            raise

    begun = [_pool().submit(some) for _ in range(threads)]
    try:
        for one in begun:
            one.result()
    finally:
        over.set()
        wait(begun)


def _pool() -> ThreadPoolExecutor:
    return _threads(os.getpid(), torch.get_num_threads())  # threads do not survive a fork


@lru_cache(maxsize=1)
def _threads(process: int, count: int) -> ThreadPoolExecutor:
    """Threads in which torch uses one core each, and no gradients."""

    def start() -> None:
        torch.get_num_threads()  # it settles a thread's number when it is first asked: not later
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)

    pool = ThreadPoolExecutor(count, "isogon", start)
    wait([pool.submit(int) for _ in range(count)])
    torch.set_num_threads(count)  # what torch tells threads that begin later
    return pool

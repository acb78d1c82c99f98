"""Passes over data that are not run where they are asked for: shared out, or run with others'."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from isogon.nets.watchers import Models, Watcher


@dataclass(frozen=True)
class Asked:
    """What a measure asks of its data: the arguments of `isogon.nets.passes.all_passes`.

    Attributes:
        models: A module, or several by name.
        batches: Pairs of inputs and labels.
        watchers: Who watches.
        options: Those of `isogon.nets.passes.one_pass`.
        run: One pass: ``run(watchers, shard, number of the pass)``.
    """

    models: Models
    batches: Iterable[tuple[Tensor, Tensor]]
    watchers: Sequence[Watcher]
    options: Mapping[str, Any]
    run: Callable[[Sequence[Watcher], tuple[int, int], int], int]


class Elsewhere(Protocol):
    """Who runs passes in place of the one who asks."""

    def all_passes(self, asked: Asked) -> int | None:
        """Number of samples seen, the watchers as after their last pass; None: run it yourself."""
        ...


class TurnOver(BaseException):
    """Ends a measure whose pass is not there yet; no `except Exception` keeps it."""


_current: ContextVar[Elsewhere | None] = ContextVar("elsewhere", default=None)


def current() -> Elsewhere | None:
    """Who runs passes here, if somebody else does."""
    return _current.get()


@contextmanager
def run_by(other: Elsewhere) -> Iterator[None]:
    """Inside, passes over data are run by somebody else."""
    token = _current.set(other)
    try:
        yield
    finally:
        _current.reset(token)

"""Bars of progress, for terminals, notebooks and the command line."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Any

from isogon import context

AT_ONCE = 4  # bars; the work of long ago makes room


class Bars:
    """Draws what isogon's functions tell of their work.

    A context in which every call draws bars, or the ``progress=`` of a single call; the bars
    go when the context ends, or with the last work that they were told of.
    """

    def __init__(
        self, file: IO[str] | None = None, *, callback: context.Progress | None = None
    ) -> None:
        self.file, self.callback = file, callback
        self._drawn: Any = None
        self._tasks: dict[str, Any] = {}
        self._inside: ExitStack | None = None

    def __enter__(self) -> Bars:
        self._inside = ExitStack()
        self._inside.enter_context(context.use(progress=self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._inside is not None:
            self._inside.close()
            self._inside = None
        self.close()

    def __call__(self, done: int, total: int | None, what: str) -> None:
        """Take notice of ``done`` of ``total`` (None: unknown) units of the work ``what``."""
        if self.callback is not None:
            self.callback(done, total, what)
            return
        from rich.markup import escape

        if self._drawn is None:
            self._drawn = self._bars()
            self._drawn.start()
        if what not in self._tasks:
            if len(self._tasks) >= AT_ONCE:
                self._drawn.remove_task(self._tasks.pop(next(iter(self._tasks))))
            self._tasks[what] = self._drawn.add_task(escape(what), total=total)
        self._drawn.update(self._tasks[what], completed=done, total=total)
        if total is not None and done >= total:
            self._drawn.remove_task(self._tasks.pop(what))
            if not self._tasks and self._inside is None:  # nobody else will end it
                self.close()

    def close(self) -> None:
        """Take the bars away; they come back with the next work."""
        if self._drawn is not None:
            self._drawn.stop()
        self._drawn = None
        self._tasks.clear()

    def _bars(self) -> Any:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        notebook = self.file is None and Console().is_jupyter
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=Console() if notebook else Console(file=self.file or sys.stderr),
            transient=True,
            refresh_per_second=8,
        )


def progress(*, callback: context.Progress | None = None, file: IO[str] | None = None) -> Bars:
    """Bars of progress, in a terminal (on standard error) or in a notebook.

    isogon is silent unless it is asked: ``with ig.progress():`` draws bars for every call
    inside, ``ig.partition(model, plane, progress=ig.progress())`` for that call alone. Where
    standard error is neither a terminal nor a notebook nothing moves.

    Args:
        callback: Called with ``(done, total, what)`` instead: units done, of how many (None where
            that is not known), of which work.
        file: Where to draw; standard error, or the output of the notebook's cell.

    Returns:
        A context manager that is also the callback itself.
    """
    return Bars(file, callback=callback)

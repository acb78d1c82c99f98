"""What the command line draws: progress, tables, paths."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from isogon.bars import Bars

if TYPE_CHECKING:
    import pandas as pd

ROWS, COLUMNS = 12, 9


def out() -> Console:
    """The console on standard output; wide where it goes to a file or a pipe."""
    return Console(
        file=sys.stdout,
        highlight=False,
        width=None if sys.stdout.isatty() else 120,
        soft_wrap=not sys.stdout.isatty(),
    )


def say(text: str, style: str = "") -> None:
    """One line on standard output, never wrapped, never read as markup."""
    out().print(escape(text), style=style or None, soft_wrap=True)


@contextmanager
def progress(quiet: bool) -> Iterator[None]:
    """Draw isogon's progress as bars on standard error, where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    with Bars(sys.stderr):
        yield


def counted(count: int, noun: str) -> str:
    """A number with its noun: ``1 job``, ``1,200 jobs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def print_table(frame: pd.DataFrame, title: str = "", *, rows: int = ROWS) -> None:
    """A compact table: a dozen rows, as many columns as stay readable."""
    columns = list(frame.columns)[:COLUMNS]
    drawn = Table(title=escape(title) or None, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        right = frame[name].dtype.kind in "iuf"
        drawn.add_column(escape(str(name)), justify="right" if right else "left", style=None)
    for row in frame[columns].head(rows).itertuples(index=False):
        drawn.add_row(*(escape(cell(v)) for v in row))
    _print(drawn)
    left = [counted(len(frame) - rows, "more row")] if len(frame) > rows else []
    if (more := len(frame.columns) - COLUMNS) > 0:
        left.append(counted(more, "more column"))
    if left:
        say(f"  ... {', '.join(left)}", "dim")


def cell(value: Any) -> str:
    """A value as text: four significant digits for floats."""
    if isinstance(value, float) or getattr(getattr(value, "dtype", None), "kind", "") == "f":
        return f"{value:.4g}"
    return str(value)


def listing(rows: list[tuple[str, str]], title: str = "") -> None:
    """Names and what they are."""
    drawn = Table(title=escape(title) or None, title_justify="left", box=None, pad_edge=False)
    drawn.show_header = False
    drawn.add_column(style="bold", overflow="fold", max_width=60)
    drawn.add_column(overflow="fold")
    for name, text in rows:
        drawn.add_row(escape(name), escape(text))
    _print(drawn)


def _print(drawn: Table) -> None:
    """Print without the blanks that pad the last column."""
    console = out()
    with console.capture() as captured:
        console.print(drawn)
    text = "\n".join(line.rstrip() for line in captured.get().splitlines())
    sys.stdout.write(text + "\n")

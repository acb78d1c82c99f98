"""Errors: every message says what was got, what was expected and what to do.

The command line prints ``str(error)`` on one line and exits with ``error.exit_code``
(1: failed, 2: usage).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class IsogonError(Exception):
    """Base of all errors that isogon raises on purpose.

    Args:
        problem: What went wrong, as a clause without a full stop.
        got: What was received (shown as given; keep it short).
        expected: What would have been accepted.
        fix: What the user can do now, as an imperative sentence.
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        got: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        self.problem, self.got, self.expected, self.fix = problem, got, expected, fix
        super().__init__(self._message())

    def _message(self) -> str:
        parts = []
        if self.got is not None:
            parts.append(f"got {_short(self.got)}")
        if self.expected is not None:
            parts.append(f"expected {_short(self.expected, 4000)}")
        text = self.problem + (": " + ", ".join(parts) if parts else "")
        if self.fix:
            text += ". " + self.fix
        return " ".join(text.split())

    def __str__(self) -> str:
        """Its own words: graph interpreters write theirs into ``args``."""
        return self._message()

    def __reduce__(self):
        """Pickle by fields, so that an error crosses a process border unchanged."""
        return _rebuild, (type(self), self.problem, self.got, self.expected, self.fix)


class SpecError(IsogonError, ValueError):
    """A spec string that can't be parsed or names something that does not exist."""

    exit_code = 2


class OptionError(IsogonError, ValueError):
    """An option outside its domain."""

    exit_code = 2


class NoSuchSite(OptionError):
    """A selector that matches no site of a model."""


class ModelError(IsogonError, ValueError):
    """A model that can't be measured: NaN weights, wrong output shape, wrong input."""


class DataError(IsogonError, ValueError):
    """Data that can't be used: empty, wrong shape, different on a second pass."""


class FileError(IsogonError, OSError):
    """A file that can't be read or written, or that is not what it claims to be."""

    def __str__(self) -> str:
        """The message alone: OSError would prepend an errno that is not there."""
        return self._message()


class UnsupportedOp(IsogonError):
    """An operation that has no lowering rule or is not continuous piecewise linear."""


class NotACut(IsogonError, ValueError):
    """A site that does not separate the inputs of the graph from its outputs."""


class DependencyError(IsogonError, ImportError):
    """An optional dependency that is not installed."""


class IncompleteWarning(UserWarning):
    """A result that stopped before its end: a part of it is missing, and says so."""


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names most like ``name``, best first (case-insensitive)."""
    lower = {n.lower(): n for n in names}
    return [lower[m] for m in difflib.get_close_matches(name.lower(), lower, n=count, cutoff=0.5)]


def unknown(
    what: str, name: str, names: Iterable[str], *, error: type[IsogonError] = SpecError
) -> IsogonError:
    """An error for a name that is not among ``names``: lists them, nearest match first."""
    names = sorted(names)
    close = nearest(name, names)
    listed = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    fix = f"Did you mean {close[0]!r}?" if close else "Use one of the names listed."
    return error(f"unknown {what}", got=repr(name), expected=f"one of: {listed or 'none'}", fix=fix)


def _short(value: object, limit: int = 200) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _rebuild(cls, problem, got, expected, fix):
    return cls(problem, got=got, expected=expected, fix=fix)

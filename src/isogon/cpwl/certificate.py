"""A certificate: what was checked, the number that was found, and the limit it was held to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from isogon.errors import IsogonError

__all__ = ["Certificate", "CertificateError", "Check"]


class CertificateError(IsogonError):
    """A result that claims exactness failed one of its checks."""


@dataclass(frozen=True)
class Check:
    """One line of a certificate: it passes where `value <= limit`.

    Args:
        name: What was checked, e.g. ``relative error``.
        value: The number that was found.
        limit: The largest number that passes.
        note: What the number is, or why it failed.
    """

    name: str
    value: float
    limit: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the number is within its limit (NaN is not)."""
        return bool(self.value <= self.limit)


@dataclass(frozen=True)
class Certificate:
    """Checks of one result; true where all of them passed.

    Args:
        subject: What was certified.
        checks: The checks, in the order in which they were made.
        facts: Further numbers: sizes, tolerances, counts that decide nothing.
    """

    subject: str
    checks: tuple[Check, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def __bool__(self) -> bool:
        return self.passed

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __getitem__(self, name: str) -> Check:
        """The check of that name."""
        return next(check for check in self.checks if check.name == name)

    def to_frame(self) -> pd.DataFrame:
        """One row per check: check, value, limit, passed, note."""
        rows = [(c.name, c.value, c.limit, c.passed, c.note) for c in self.checks]
        return pd.DataFrame(rows, columns=["check", "value", "limit", "passed", "note"])

    def require(self) -> Certificate:
        """This certificate, if every check passed.

        Raises:
            CertificateError: One did not; the message names it with its numbers.
        """
        for check in self.checks:
            if not check.passed:
                raise CertificateError(
                    f"{self.subject}: {check.name} is not as it must be"
                    + (f" ({check.note})" if check.note else ""),
                    got=f"{check.value:.3g}",
                    expected=f"at most {check.limit:.3g}",
                )
        return self

    def __str__(self) -> str:
        lines = [f"{self.subject}: {'passed' if self.passed else 'FAILED'}"]
        for c in self.checks:
            mark = "ok    " if c.passed else "FAILED"
            lines.append(
                f"  {mark} {c.name}: {c.value:.3g} (limit {c.limit:.3g}) {c.note}".rstrip()
            )
        lines += [f"         {key}: {value}" for key, value in self.facts.items()]
        return "\n".join(lines)

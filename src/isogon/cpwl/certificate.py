"""A certificate: what was checked, the number that was found, and the limit it was held to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from isogon.errors import IsogonError

__all__ = ["Certificate", "CertificateError", "Check", "Ledger"]


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
        whole: Whether all of the result was looked at; False where time was short.
        remarks: What can't be decided, in words; also of a result that passes.
    """

    subject: str
    checks: tuple[Check, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    whole: bool = True
    remarks: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def verdict(self) -> str:
        """One line: whether the result is certified, by how many checks, else what failed.

        With what could not be decided.
        """
        return "; ".join([self._sum, *self.remarks])

    @property
    def _sum(self) -> str:
        """The verdict without remarks."""
        failed = [c for c in self.checks if not c.passed]
        good = f"{len(self.checks) - len(failed)} of {len(self.checks)} checks"
        seen = []
        for kind, every in (("corners", "vertices"), ("pieces", "every piece"), ("points", "")):
            if kind in self.facts:
                of = "" if self.whole or not every else f"of {int(self.facts[every]):,} "
                seen.append(f"{int(self.facts[kind]):,} {of}{kind}")
        if not failed:
            what = "certified" if self.whole else "certified in part"
            return f"{what}: {', '.join([good, *(seen[-1:] if self.whole else seen)])}"
        reasons = ", ".join(c.name for c in failed)
        if [c.name for c in failed] == ["finished"]:
            reasons = f"{failed[0].value:,.0f} {failed[0].note}"
        return f"NOT certified: {reasons} ({good} passed)"

    def to_json(self) -> dict[str, Any]:
        """In JSON's types; `from_json` reads it."""
        rows = [[c.name, _number(c.value), _number(c.limit), c.note] for c in self.checks]
        facts = {key: _number(value) for key, value in self.facts.items()}
        return {
            "verdict": self.verdict,
            "passed": self.passed,
            "whole": self.whole,
            "subject": self.subject,
            "checks": rows,
            "facts": facts,
            "remarks": list(self.remarks),
        }

    @classmethod
    def from_json(cls, data: Any) -> Certificate | None:
        """The certificate that `to_json` wrote; None where the data are none."""
        try:
            checks = tuple(
                Check(str(name), float(value), float(limit), str(note))
                for name, value, limit, note in data["checks"]
            )
            facts = {str(k): float(v) for k, v in data["facts"].items()}
            remarks = tuple(str(text) for text in data.get("remarks", []))
            return cls(str(data["subject"]), checks, facts, data["whole"] is True, remarks)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

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
        lines = [f"{self.subject}: {self._sum}"]
        for c in self.checks:
            mark = "ok    " if c.passed else "FAILED"
            lines.append(
                f"  {mark} {c.name}: {c.value:.3g} (limit {c.limit:.3g}) {c.note}".rstrip()
            )
        lines += [f"         {key}: {value}" for key, value in self.facts.items()]
        lines += [f"         {text}" for text in self.remarks]
        return "\n".join(lines)


class Ledger:
    """Collects the checks and facts of a certificate."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.facts: dict[str, float] = {}
        self.remarks: list[str] = []

    def check(self, name: str, value: float, limit: float, note: str, **facts: float) -> None:
        """Add a check that passes where `value <= limit`."""
        self.checks.append(Check(name, float(value), float(limit), note))
        self.facts |= {key: float(v) for key, v in facts.items()}

    def more(self, name: str, value: float) -> None:
        """Add to the number of a check that was made."""
        at = next(k for k, check in enumerate(self.checks) if check.name == name)
        self.checks[at] = replace(self.checks[at], value=self.checks[at].value + value)

    def remark(self, text: str) -> None:
        """Add a sentence on what can't be decided."""
        self.remarks.append(text)

    def certificate(self, subject: str, *, whole: bool = True) -> Certificate:
        """Of all that was collected."""
        return Certificate(subject, tuple(self.checks), self.facts, whole, tuple(self.remarks))


def _number(value: float) -> float | str:
    """A number that JSON can hold; infinite and undefined ones as text."""
    return float(value) if math.isfinite(value) else str(float(value))

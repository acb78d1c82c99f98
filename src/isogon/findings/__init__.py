"""What a reading says, in sentences: findings, each with its number and what it stands against."""

from __future__ import annotations

from isogon.findings.finding import Finding, Names, Number
from isogon.findings.found import differences, findings, numbers, ordered

__all__ = ["Finding", "Names", "Number", "differences", "findings", "numbers", "ordered"]

"""Findings of a match: how many units change places, how much closer the weights come."""

from __future__ import annotations

from isogon.findings.finding import Finding, Names, Number, described, nothing
from isogon.findings.words import count, number, percent
from isogon.readings import Reading
from isogon.registry import finds

CLOSER = 0.01  # part of the squared difference that has to go for a match to have brought closer


def match_numbers(reading: Reading) -> list[Number]:
    """Distance of the weights after the match, and the share of units that moved."""
    moved, total = _moved(reading)
    return [
        Number("the squared difference of the weights once matched", _objective(reading)),
        Number("the share of units that change places", moved / max(total, 1), "%", 1.0),
    ]


@finds("match", numbers=match_numbers)
def finds_match(reading: Reading, names: Names) -> list[Finding]:
    """Units moved, weights' distance before and after."""
    moved, total = _moved(reading)
    after, before = _objective(reading), reading.meta.get("objective_before")
    text = f"{moved:,} of {count(total, 'unit')} of {names.b} change places to match {names.a}"
    value = f"{moved:,} of {total:,}"
    if before is None:
        return [described(f"{text}.", value, "exact count of units", moved / max(total, 1))]
    less = 1 - after / before if before else 0.0
    ends = f"from {number(before)} to {number(after)}"
    against = "mean squared difference over the mean square of the weights; 0 is the same network"
    if less < CLOSER:
        text += f", which brings the weights no closer ({ends})."
        return [nothing(text, value, against, less)]
    text += f"; the squared difference of the weights falls by {percent(less)}, {ends}."
    return [described(text, percent(less), against, less)]


def _moved(reading: Reading) -> tuple[int, int]:
    return int(reading.table["moved"].sum()), int(reading.table["channels"].sum())


def _objective(reading: Reading) -> float:
    return float(reading.meta.get("objective", reading.table["objective"].mean()))

"""Findings of readings that have none of their own: what their numbers are, and no more."""

from __future__ import annotations

from typing import Any

import numpy as np

from isogon.findings.finding import Finding, Names, Number, described
from isogon.findings.words import count, number, span
from isogon.readings import Reading
from isogon.readings.columns import quantities


def finds_generic(reading: Reading, names: Names | None = None) -> list[Finding]:
    """Median and range of the first numbers of the table."""
    found = []
    for name, values in _columns(reading)[:2]:
        low, high = float(values.min()), float(values.max())
        words = str(name).replace("_", " ")
        rows = count(len(values), reading.row)
        text = f"The {words} has the median {number(float(np.median(values)))} over {rows}"
        found.append(
            described(
                f"{text}, between {number(low)} and {number(high)}.",
                number(float(np.median(values))),
                f"range {span(low, high)}; no null",
                0.1,
            )
        )
    return found


def numbers_generic(reading: Reading) -> list[Number]:
    """The median of each number of the table."""
    return [
        Number(f"median {str(name).replace('_', ' ')}", float(np.median(values)))
        for name, values in _columns(reading)[:3]
    ]


def _columns(reading: Reading) -> list[tuple[str, np.ndarray]]:
    table: Any = reading.table
    found = []
    for name in quantities(table):
        values = table[name].to_numpy(float)
        values = values[np.isfinite(values)]
        if len(values):
            found.append((name, values))
    return found

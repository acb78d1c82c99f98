"""Findings of segments: linear pieces on a line, and which layer bends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from isogon.findings.finding import Finding, Names, Number, described
from isogon.findings.partition import verdict_of
from isogon.findings.words import count, number, percent, trimmed
from isogon.readings import Reading
from isogon.registry import finds

if TYPE_CHECKING:
    from isogon.measures.segments import Segments


def segments_numbers(reading: Reading) -> list[Number]:
    """Pieces, their density, and changes of class."""
    table: Any = reading.table
    length = float(reading.meta["length"])
    density = (len(table) - 1) / length if length else 0.0
    return [
        Number("the number of linear pieces on the line", float(len(table))),
        Number("the breakpoints per unit of length", density),
        Number("the changes of class on the line", float(_changes(reading))),
    ]


@finds("segments", numbers=segments_numbers)
def finds_segments(reading: Reading, names: Names) -> list[Finding]:
    """Pieces with the verdict, changes of class, the layer with most breakpoints."""
    table, length = reading.table, float(reading.meta["length"])
    changes = _changes(reading)
    text = f"The line of length {number(length)} has {count(len(table), 'linear piece')}, and the "
    text += f"class changes {_times(changes)} along it."
    found = [described(text, count(len(table), "piece"), verdict_of(reading), 0.3)]
    bends = table[table["unit"] >= 0]["site"]
    if len(bends) and bends.nunique() > 1:
        share = bends.value_counts(normalize=True)
        name = trimmed(list(reading.meta["sites"]))[share.index[0]]
        text = f"{percent(float(share.iloc[0]))} of its breakpoints come from {name}."
        even = 1 / len(share)
        size = (float(share.iloc[0]) - even) / (1 - even)
        against = f"exact count of {len(bends):,}; {percent(even)} if even over its layers"
        found.append(described(text, percent(float(share.iloc[0])), against, 0.5 * size))
    return found


def _changes(reading: Reading) -> int:
    return len(cast("Segments", reading).classes()) - 1


def _times(n: int) -> str:
    return {0: "nowhere", 1: "once", 2: "twice"}.get(n, f"{n} times")

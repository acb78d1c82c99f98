"""Findings of decision boundaries: their length, and between which classes it runs."""

from __future__ import annotations

from typing import Any

from isogon.findings.finding import Finding, Names, Number, described
from isogon.findings.partition import verdict_of
from isogon.findings.words import count, number, percent
from isogon.readings import Reading
from isogon.registry import finds


def boundary_numbers(reading: Reading) -> list[Number]:
    """Length, curves and pieces; nothing of a boundary that was not traced to its end."""
    if not reading.complete:
        return []
    table: Any = reading.table
    return [
        Number("the length of the decision boundary", float(table["length"].sum())),
        Number("the number of its curves", float(len(table))),
        Number("the number of its straight pieces", float(reading.meta["pieces"])),
    ]


@finds("boundary", numbers=boundary_numbers)
def finds_boundary(reading: Reading, names: Names) -> list[Finding]:
    """Length and pieces with the verdict, and the pair of classes with most of it."""
    table: Any = reading.table
    if not len(table) and not reading.complete:
        text = "Whether a decision boundary runs through the slice is not known: tracing stopped."
        return [described(text, "nothing traced", verdict_of(reading), 0.1)]
    if not len(table):
        text = "No decision boundary was found on the slice: the class does not change there."
        return [described(text, "length 0", verdict_of(reading), 0.1)]
    length, pieces = float(table["length"].sum()), int(reading.meta["pieces"])
    what = "The decision boundary" if reading.complete else "What was traced of the boundary"
    text = f"{what} on the slice is {number(length)} long, in "
    text += f"{count(len(table), 'curve')} of {count(pieces, 'straight piece')}"
    text += f"; {count(int(table['closed'].sum()), 'of them is', 'of them are')} closed."
    against = f"{verdict_of(reading)}; curves smaller than the scan's spacing may be missing"
    found = [described(text, number(length), against, 0.4)]
    pairs = table.groupby(["class_i", "class_j"])["length"].sum().sort_values(ascending=False)
    if len(pairs) > 1 and length > 0:
        (i, j), most = pairs.index[0], float(pairs.iloc[0])
        text = f"{percent(most / length)} of this length lies between class {i} and class {j}, "
        text += f"the rest between {count(len(pairs) - 1, 'other pair')}."
        even = 1 / len(pairs)
        size = (most / length - even) / (1 - even)
        found.append(described(text, percent(most / length), f"{percent(even)} if even", size))
    return found

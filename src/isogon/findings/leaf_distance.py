"""Findings of leaf distances: which transformed inputs the leaf of an input reaches."""

from __future__ import annotations

from typing import Any

import numpy as np

from isogon.findings.finding import Finding, Names, Number, described
from isogon.findings.intervals import wilson
from isogon.findings.words import enumerated, number, percent, span
from isogon.readings import Reading
from isogon.registry import finds


def leaf_distance_numbers(reading: Reading) -> list[Number]:
    """Share of targets that were reached."""
    table = _targets(reading)
    share = float(table["reached"].mean()) if len(table) else float("nan")
    return [Number("the share of transformed inputs that the leaf reaches", share, "%", 1.0)]


@finds("leaf_distance", numbers=leaf_distance_numbers)
def finds_leaf_distance(reading: Reading, names: Names) -> list[Finding]:
    """How many targets were reached, how much longer the way was than the straight one."""
    table = _targets(reading)
    if not len(table):
        return []
    got, total = int(table["reached"].sum()), len(table)
    share = got / total
    low, high = wilson(got, total)
    text = f"Along its leaf an input reaches {got} of {total} of its transformed images"
    if got:
        ratio = (table["leaf"] / table["euclidean"])[table["reached"]].median()
        text += f", on ways {number(float(ratio))} times as long as the straight one (median)"
    missed = list(dict.fromkeys(table.loc[~table["reached"], "transformation"]))
    if missed and got:
        text += f"; not those under {enumerated(missed)}"
    if not got:
        left = (table["remaining"] / table["euclidean"]).median()
        text += f"; {percent(float(left))} of the distance is left (median)"
    against = f"95 % interval {span(low, high, percent)}"
    against += "; walks that their limit of steps or patience ended count as not reached"
    return [described(f"{text}.", percent(share), against, 0.5 * (1 - share))]


def _targets(reading: Reading) -> Any:
    table: Any = reading.table
    return table[np.asarray(table["euclidean"], float) > 0]

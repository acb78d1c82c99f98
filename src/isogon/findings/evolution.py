"""Findings of evolution: how the partition changed while the network was trained."""

from __future__ import annotations

import math

import pandas as pd

from isogon.findings.finding import Finding, Names, Number, described, nothing
from isogon.findings.words import count, number, percent
from isogon.readings import Reading
from isogon.registry import finds

SAME = 0.02  # a relative change of the number of regions below it is none


def evolution_numbers(reading: Reading) -> list[Number]:
    """Regions at the start and at the end, near the data and elsewhere."""
    table: pd.DataFrame = reading.table
    found = [
        Number("the regions on the slice at the start", float(table["regions"].iloc[0])),
        Number("the regions on the slice at the end", float(table["regions"].iloc[-1])),
    ]
    if "density_near" in table:
        found.append(Number("the density near the data at the end", _last(table, "density_near")))
    return found


@finds("evolution", numbers=evolution_numbers)
def finds_evolution(reading: Reading, names: Names) -> list[Finding]:
    """Regions from first to last snapshot, and whether they gathered near the data."""
    table: pd.DataFrame = reading.table
    first, last = float(table["regions"].iloc[0]), float(table["regions"].iloc[-1])
    against = f"exact counts on one slice, over {count(len(table), 'snapshot')}"
    if not reading.complete or not bool(table["complete"].all()):
        against += "; some are not cut to the end"
    if len(table) < 2:
        text = f"The one snapshot has {count(int(first), 'linear region')} on the slice."
        return [described(text, count(int(first), "region"), against, 0.1)]
    change = last / first - 1 if first else math.inf
    value = f"{number(first)} to {number(last)}"
    if abs(change) < SAME:
        text = f"The number of regions on the slice stayed as it was: {value}."
        found = [nothing(text, value, against, abs(change))]
    else:
        word = "grew" if change > 0 else "fell"
        text = f"From the first to the last snapshot the regions on the slice {word} from "
        text += f"{value}, by {percent(abs(change))}."
        size = 1 - min(first, last) / max(first, last)
        found = [described(text, value, against, size)]
    if {"density_near", "density_far"} <= set(table):
        found += _gathered(table, against)
    return found


def _gathered(table: pd.DataFrame, against: str) -> list[Finding]:
    ratio = table["density_near"] / table["density_far"]
    first, last = float(ratio.iloc[0]), float(ratio.iloc[-1])
    if not (math.isfinite(first) and math.isfinite(last)) or not min(first, last) > 0:
        return []
    if abs(last / first - 1) < SAME:
        return []
    word = "gathered near the samples" if last > first else "thinned out near the samples"
    text = f"During training the regions {word}: their density there was {number(first)} times "
    text += f"that elsewhere at first, and is {number(last)} times at the end."
    size = 1 - min(first, last) / max(first, last)
    return [described(text, f"{number(last)} times", against, size)]


def _last(table: pd.DataFrame, name: str) -> float:
    return float(table[name].iloc[-1])

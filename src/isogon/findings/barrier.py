"""Findings of barriers: what the middle of the line between two networks loses."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from isogon.findings.finding import Finding, Names, Number, described, effect, nothing
from isogon.findings.intervals import drop
from isogon.findings.words import in_points, number, span
from isogon.readings import Reading
from isogon.registry import finds

MIDPOINT = "accuracy_midpoint"


def barrier_numbers(reading: Reading) -> list[Number]:
    """What the midpoint of each line loses."""
    found = []
    for _, row in _lines(reading).iterrows():
        name = f"the accuracy that the midpoint loses {_words(row)}"
        if math.isfinite(row[MIDPOINT]):
            found.append(Number(name, float(row[MIDPOINT]), "points", 1.0))
        else:
            name = f"the loss that the midpoint gains {_words(row)}"
            found.append(Number(name, float(row["loss_midpoint"])))
    return found


@finds("barrier", numbers=barrier_numbers)
def finds_barrier(reading: Reading, names: Names) -> list[Finding]:
    """The midpoint before and after matching, against the straight line between the ends."""
    lines = _lines(reading)
    first = lines.iloc[0]
    rest = lines.iloc[1:]
    if not math.isfinite(first[MIDPOINT]):
        gap = float(first["loss_midpoint"])
        text = f"Half way between {names.a} and {names.b} the loss is {number(abs(gap))} "
        text += f"{'above' if gap > 0 else 'below'} the straight line {_words(first)}."
        ends = f"ends {number(first['loss_a'])} and {number(first['loss_b'])}"
        return [described(text, number(gap), f"0 is no barrier; {ends}", 0.5)]
    lost = float(first[MIDPOINT])
    middle = (float(first["accuracy_a"]) + float(first["accuracy_b"])) / 2
    total = int(reading.meta["samples"])
    low, high = drop(middle, middle - lost, total)
    text = f"Half way between {names.a} and {names.b} the network {_loses(lost)} {_words(first)}"
    after = [f"{in_points(float(row[MIDPOINT]))} {_words(row)}" for _, row in rest.iterrows()]
    text += "".join(f", {t}" for t in after) + f", of {in_points(middle)}."
    against = f"0 is no barrier; 95 % interval {span(low, high, in_points)} points over "
    against += f"{total:,} samples"
    value = f"{in_points(lost)} points"
    size = abs(lost) / middle if middle else 0.0
    if low > 0 or high < 0:
        return [effect(text, value, against, size)]
    text = f"Between {names.a} and {names.b} there is no barrier in accuracy that {total:,} "
    text += f"samples show: the midpoint {_loses(lost)} {_words(first)}."
    return [nothing(text, value, against, size)]


def _loses(lost: float) -> str:
    return f"loses {in_points(lost)} points" if lost >= 0 else f"gains {in_points(-lost)} points"


def _words(row: pd.Series) -> str:
    when = "after matching" if row["matched"] else "before matching"
    return f"{when} with batch-norm recalibrated" if row["recalibrated"] else when


def _lines(reading: Reading) -> Any:
    return reading.summary()

"""Findings of stitching: what the simplest map between two networks costs, and where."""

from __future__ import annotations

from typing import Any

import numpy as np

from isogon.findings.finding import Finding, Names, Number, described, effect, nothing
from isogon.findings.intervals import LEVEL, drop
from isogon.findings.words import count, in_points, span, start, trimmed
from isogon.readings import Reading
from isogon.registry import finds

# Of maps in a survey the one with the least freedom is told first.
ORDER = ("identity", "permutation", "G_relu", "orthogonal", "low_rank", "linear")


def stitch_numbers(reading: Reading) -> list[Number]:
    """Mean penalty of each kind of map."""
    means: Any = reading.table.groupby("by", sort=False)["penalty"].mean()
    return [
        Number(f"the mean penalty of stitching by {by}", float(v), "points", 1.0)
        for by, v in means.items()
    ]


@finds("stitch", numbers=stitch_numbers)
def finds_stitch(reading: Reading, names: Names) -> list[Finding]:
    """Per map the site where it costs most, and least."""
    found = []
    whole = float(reading.meta["accuracy"])
    total = int(reading.meta["samples"])
    table = reading.table[np.isfinite(reading.table["penalty"])]
    short = trimmed(list(table["site_a"]))
    for by, part in sorted(table.groupby("by", sort=False), key=lambda p: _place(str(p[0]))):
        values = part["penalty"].to_numpy(float)
        worst, best = int(values.argmax()), int(values.argmin())
        sites = [short[s] for s in part["site_a"]]
        lost = values[worst]
        low, high = drop(whole, whole - lost, total, LEVEL / len(part))
        text = f"{start(names.a)} up to {sites[worst]}, joined to {names.b} by "
        text += (
            f"{_article(str(by))} map, loses {in_points(lost)} of {names.b}'s {in_points(whole)} "
        )
        text += "points"
        more = (
            f"; {in_points(values[best])} at {sites[best]}" if sites[best] != sites[worst] else ""
        )
        against = f"95 % interval {span(low, high, in_points)} points over {total:,} samples"
        if "floor" in part and np.isfinite(part["floor"].iloc[worst]):
            against += f"; with channels at random {in_points(whole - part['floor'].iloc[worst])}"
        value = f"{in_points(lost)} points"
        size = lost / whole if whole else 0.0
        if low > 0:
            found.append(effect(f"{text}{more}.", value, against, size))
        else:
            text = f"{start(names.a)} can be joined to {names.b} by "
            text += f"{_article(str(by))} map at any of {count(len(part), 'site')} without a loss "
            text += f"that {total:,} samples show; the largest is {value}."
            # that nothing is lost says that the two are the same up to such a map
            floor = whole - float(part["floor"].min()) if "floor" in part else 0.0
            shown = floor > 0 and drop(whole, whole - floor, total)[0] > 0
            made = described if shown and by != "identity" else nothing
            found.append(made(text, value, against, 1 - abs(size)))
    return found


def _place(by: str) -> int:
    name = by.split("(")[0]
    return ORDER.index(name) if name in ORDER else len(ORDER)


def _article(by: str) -> str:
    return f"{'an' if by[0] in 'aeiou' else 'a'} {by}"

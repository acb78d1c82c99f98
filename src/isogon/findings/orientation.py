"""Findings of the orientation of hyperplanes: the mass against signs thrown by a coin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from isogon.findings.finding import Finding, Names, Number, described, effect, nothing
from isogon.findings.intervals import LEVEL, coin, corrected, wilson
from isogon.findings.sides import of_numbers, of_shares
from isogon.findings.words import (
    chance,
    count,
    enumerated,
    in_points,
    number,
    percent,
    trimmed,
)
from isogon.readings import Reading
from isogon.registry import finds


def orientation_numbers(reading: Reading) -> list[Number]:
    """The mass of each layer, and how far it has moved from its start."""
    found = []
    sites: Any = _sites(reading)
    for site, row in sites.iterrows():
        name = f"the share of filters on the non-positive side in {site}"
        found.append(Number(name, float(row["mass"]), "%", span=1.0))
    for site, row in sites.iterrows():
        if math.isfinite(row["l2_distance"]):
            name = f"the distance of {site} from its start"
            found.append(Number(name, float(row["l2_distance"]), "times its initial norm"))
    return found


def differs_orientation(a: Reading, b: Reading, names: Names) -> list[Finding]:
    """The mass of layers of one name, corrected over them; and how far they have moved."""
    mine, theirs = _sites(a), _sites(b)
    both = [s for s in mine.index if s in theirs.index]
    level = LEVEL / max(len(both), 1)
    found = []
    for site in both:
        held = [
            (float(t["mass"][site]), *wilson(int(t["below"][site]), int(t["units"][site]), level))
            for t in (mine, theirs)
        ]
        what = f"the share of filters on the non-positive side in {site}"
        over = f"{count(int(mine['units'][site]), 'filter')}, corrected over {len(both)} layers"
        found.append(of_shares(what, held[0], held[1], names, over))
    rest = [[n for n in orientation_numbers(r) if n.unit != "%"] for r in (a, b)]
    return found + of_numbers(rest[0], rest[1], names)


@finds("orientation", numbers=orientation_numbers, differs=differs_orientation)
def finds_orientation(reading: Reading, names: Names) -> list[Finding]:
    """Layers whose mass parts from a coin's, corrected over layers, and which moved most."""
    sites: Any = _sites(reading)
    below, total = sites["below"].to_numpy(int), sites["units"].to_numpy(int)
    p = corrected([coin(int(k), int(n)) for k, n in zip(below, total)])
    parts = [int(i) for i in np.argsort(p, kind="stable") if p[i] <= LEVEL]
    over = count(len(sites), "layer")
    found = []
    if parts:
        i = max(parts, key=lambda k: abs(below[k] / total[k] - 0.5))
        share, name = below[i] / total[i], sites.index[i]
        text = f"In {name}, {below[i]} of {total[i]} filters ({percent(share)}) have a sum of "
        text += f"weights that is not positive, against {_coin(total[i])} for a coin"
        others = [str(sites.index[k]) for k in parts if k != i]
        more = f"; {enumerated(others)} part from it as well" if others else ""
        found.append(
            effect(
                f"{text}{more}.",
                percent(share),
                f"coin: {_coin(total[i])}; {chance(p[i])} corrected over {over}",
                abs(2 * share - 1),
            )
        )
    else:
        i = int(np.argmin(p))
        share = below[i] / total[i]
        text = f"In none of {over} does the share of filters on the non-positive side part from "
        text += f"a coin's half; {sites.index[i]} comes closest with {below[i]} of {total[i]}."
        found.append(
            nothing(
                text,
                percent(share),
                f"coin: {_coin(total[i])}; {chance(p[i])} corrected over {over}",
                abs(2 * share - 1),
            )
        )
    moved = sites["l2_distance"].replace(np.inf, np.nan).dropna()
    if len(moved) > 1 and moved.max() > 0:
        most, least = str(moved.idxmax()), str(moved.idxmin())
        text = f"{most} has moved furthest from its start, by {number(moved[most])} times its "
        text += f"initial norm; {least} least, by {number(moved[least])} times."
        size = float(moved[most] / (1 + moved[most]))
        against = "distance of the weights over their initial norm; no null"
        found.append(described(text, f"{number(moved[most])} times", against, size))
    if zeros := int(reading.table["zero"].sum()):
        text = f"{count(zeros, 'filter is', 'filters are')} zero, and count as not positive."
        share = zeros / len(reading.table)
        found.append(described(text, str(zeros), f"exact count of {len(reading.table)}", share))
    return found


def _sites(reading: Reading) -> Any:
    """Per layer: filters, those whose projection is not positive, distance from the start."""
    table: Any = reading.table
    below = (table["projection"] <= 0).groupby(table["site"], sort=False)
    frame = pd.DataFrame({"units": below.size(), "below": below.sum()})
    frame["mass"] = frame["below"] / frame["units"]
    kept = reading.arrays.get("l2_distance")
    frame["l2_distance"] = np.nan if kept is None else np.asarray(kept, float)[: len(frame)]
    frame.index = pd.Index(list(trimmed(list(frame.index)).values()))
    return frame


def _coin(n: int) -> str:
    return f"50 ± {in_points(math.sqrt(0.25 / n))} %"

"""Findings of invariance and equivariance: which sites move least and most, and where it begins."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from isogon.findings.finding import Finding, Names, Number, described, effect, nothing
from isogon.findings.sides import of_pairs
from isogon.findings.words import count, number, span, start, trimmed
from isogon.readings import Reading
from isogon.registry import finds

MAIN = "normalized_variance"
APART = 0.1  # how far from 1 a site's mean has to be, as 1 - min(v, 1/v), to be called so
INVARIANT = 0.5  # at or below it a site counts as invariant in "from here on"


def orbit_numbers(reading: Reading) -> list[Number]:
    """The mean of each site."""
    sites: Any = _sites(reading)
    words = _words(reading)
    return [
        Number(f"the normalised variance under {words} in {site}", float(row["mean"]))
        for site, row in sites.iterrows()
    ]


def differs_orbits(a: Reading, b: Reading, names: Names) -> list[Finding]:
    """Sites of the same name, unit by unit where they have the same shape."""
    if MAIN not in a.table or MAIN not in b.table:
        return []
    found = []
    short = trimmed([*a.table["site"].unique(), *b.table["site"].unique()])
    for site, mine in a.table.groupby("site", sort=False):
        theirs = b.table[b.table["site"] == site]
        if len(mine) != len(theirs) or not len(_live(mine)):
            continue
        keep = np.isfinite(mine[MAIN].to_numpy(float)) & np.isfinite(theirs[MAIN].to_numpy(float))
        what = f"the movement of {short[str(site)]} under {_words(a)} (normalised variance)"
        found += of_pairs(
            what,
            mine[MAIN].to_numpy(float)[keep],
            theirs[MAIN].to_numpy(float)[keep],
            names,
            f"{count(int(keep.sum()), 'unit')} at the same place",
        )
    return found


@finds("equivariance", numbers=orbit_numbers, differs=differs_orbits)
def finds_equivariance(reading: Reading, names: Names) -> list[Finding]:
    """What moves with the transformation, beside the floor that interpolation alone leaves."""
    found = _found(reading, " once the maps are turned back")
    table: Any = reading.table
    if "normalized_floor" in table and MAIN in table:
        floor = float(np.nanmean(_finite(table["normalized_floor"])))
        text = f"Interpolation alone would leave a normalised variance of {number(floor)}."
        found.append(nothing(text, number(floor), "mean over all units", 0.5))
    return found


@finds("invariance", numbers=orbit_numbers, differs=differs_orbits)
def finds_invariance(reading: Reading, names: Names) -> list[Finding]:
    """The most and the least invariant site, and from where on the network is invariant."""
    return _found(reading, "")


def _found(reading: Reading, how: str) -> list[Finding]:
    words = _words(reading)
    sites: Any = _sites(reading)
    if sites.empty:
        return []
    if MAIN not in reading.table:
        column = str(sites.attrs["column"]).replace("_", " ")
        low, high = sites["mean"].idxmin(), sites["mean"].idxmax()
        text = f"Under {words} the {column} is smallest in {low} ({number(sites['mean'][low])}) "
        text += f"and largest in {high} ({number(sites['mean'][high])})."
        value = number(sites["mean"][low])
        return [described(text, value, "mean over units; no null", 0.3)]
    apart = {s: _apart(v) for s, v in sites["mean"].items()}
    most, least = sites["mean"].idxmin(), sites["mean"].idxmax()
    far = max(apart, key=lambda s: apart[s])
    if apart[far] < APART:
        text = f"Under {words} no site moves more or less than it does from image to image: "
        text += f"normalised variance {span(sites['mean'].min(), sites['mean'].max())}."
        against = "1 is as much as from image to image"
        return [nothing(text, number(sites["mean"][far]), against, apart[far])]
    rows = {s: sites.loc[s] for s in (most, least)}
    text = f"{start(words)} move {most} least{how}, "
    text += f"{number(rows[most]['mean'])} times as much as a change of image does"
    if most != least:
        text += f", and {least} most, {number(rows[least]['mean'])} times"
    quartiles = span(rows[far]["low"], rows[far]["high"])
    against = "1 is as much as from image to image; middle half of "
    against += f"{count(int(rows[far]['units']), 'live unit')} {quartiles}"
    found = [effect(f"{text}.", number(sites["mean"][far]), against, apart[far])]
    order = list(sites.index)
    calm = [s for i, s in enumerate(order) if (sites["mean"][order[i:]] <= INVARIANT).all()]
    if calm and calm[0] != order[0]:
        text = (
            f"From {calm[0]} on, {words} move units at most half as much as a change of image does."
        )
        value = number(float(sites["mean"][calm].max()))
        found.append(effect(text, value, f"threshold {INVARIANT:g}; 1 is no invariance", 0.5))
    return found


def _sites(reading: Reading) -> Any:
    """Per site the mean and quartiles of a statistic over its live units."""
    table: Any = reading.table
    numbers = [c for c in reading.summary() if c not in ("site", "units", "class")]
    column = MAIN if MAIN in table else next((c for c in numbers if c in table), "")
    rows, names = [], []
    for site, part in table.groupby("site", sort=False) if column else []:
        values = _live(part) if column == MAIN else _finite(part[column])
        if len(values):
            low, high = np.percentile(values, [25, 75])
            rows.append({"mean": values.mean(), "low": low, "high": high, "units": len(values)})
            names.append(site)
    frame = pd.DataFrame(rows, index=list(trimmed(names).values()))
    frame.attrs["column"] = column
    return frame


def _live(part: Any) -> np.ndarray:
    values = part[MAIN].to_numpy(float)
    keep = np.isfinite(values)
    if "sample_variance" in part:
        keep &= part["sample_variance"].to_numpy(float) > 0
    return values[keep]


def _finite(column: Any) -> np.ndarray:
    values = column.to_numpy(float)
    return values[np.isfinite(values)]


def _apart(value: float) -> float:
    if not value > 0 or math.isinf(value):
        return 1.0
    return 1 - min(value, 1 / value)


def _words(reading: Reading) -> str:
    family = reading.meta.get("family")
    name = str(family.get("name", "")) if isinstance(family, dict) else ""
    head = name.split("(")[0].replace("_", " ").strip()
    return head or "the transformations"

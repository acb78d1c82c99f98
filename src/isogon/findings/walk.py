"""Findings of walks: whether the class was kept, how far it went, and what ended it."""

from __future__ import annotations

from typing import Any

import numpy as np

from isogon.findings.finding import Finding, Names, Number, described
from isogon.findings.words import count, enumerated, number, percent
from isogon.readings import Reading
from isogon.registry import finds

ENDED = {  # of one walk, of several
    "distance": ("reached its target", "reached their targets"),
    "steps": ("was stopped by its limit of steps", "were stopped by their limit of steps"),
    "patience": ("stalled: it came no nearer to its target", "stalled on the way"),
    "probability": ("ended where its class became improbable", "ended at an improbable class"),
}


def walk_numbers(reading: Reading) -> list[Number]:
    """Share of walks that kept their class, length, and the part of the way that was gone."""
    groups: Any = reading.table.groupby("walk")
    first, last = groups.first(), groups.last()
    kept = float((first["prediction"] == last["prediction"]).mean())
    found = [
        Number("the share of walks that kept their class", kept, "%", 1.0),
        Number("the length of a walk", float(last["travelled"].mean()), "units of input"),
    ]
    part = _part(reading)
    if np.isfinite(part).any():
        found.append(Number("the part of the way gone", float(np.nanmean(part)), "%", 1.0))
    return found


@finds("walk", numbers=walk_numbers)
def finds_walk(reading: Reading, names: Names) -> list[Finding]:
    """Class kept or lost along the leaf or the kernel; where the walks stalled."""
    groups: Any = reading.table.groupby("walk")
    first, last = groups.first(), groups.last()
    total = len(last)
    kept = int((first["prediction"] == last["prediction"]).sum())
    along = "along the data leaf" if reading.meta.get("along") == "leaf" else "in the kernel of G"
    length = number(float(last["travelled"].mean()))
    share = kept / total
    if total == 1:
        words = "keeps its class" if kept else "changes its class"
        text = f"The walk {along} {words} ({_said(reading, first, 0)}"
        text += f" to {_said(reading, last, 0)}) over a length of {length}"
    else:
        text = f"{kept:,} of {count(total, 'walk')} {along} {'keeps' if kept == 1 else 'keep'} "
        text += f"{'its' if kept == 1 else 'their'} class, over a mean length of {length}"
    ended = reading.meta.get("ended") or []
    held = {why: ended.count(why) for why in dict.fromkeys(ended)}
    why = [f"{n} {ENDED.get(k, (k, k))[n > 1]}" for k, n in held.items() if k]
    if total == 1:
        why = [w.removeprefix("1 ") for w in why]
    more = f"; {'it ' if total == 1 else ''}{enumerated(why)}" if why else ""
    against = "exact count of walks; no null"
    size = share if reading.meta.get("along") == "kernel" else 1 - share
    found = [described(f"{text}{more}.", f"{kept} of {total}", against, size)]
    part = _part(reading)
    if np.isfinite(part).any():
        gone = float(np.nanmean(part))
        text = f"The {'walk comes' if total == 1 else 'walks come'} {percent(max(gone, 0))} of "
        text += f"the way to {'its target' if total == 1 else 'their targets'}"
        left = float(np.nanmean(last["distance"]))
        text += f" ({number(left)} of {number(float(np.nanmean(first['distance'])))} is left)."
        against = "100 % would be the target; exact for these walks"
        found.append(described(text, percent(max(gone, 0)), against, 1 - gone))
    if "regions_crossed" in reading.table:
        crossed = float(np.nansum(reading.table["regions_crossed"]))
        far = float(last["travelled"].sum())
        if crossed > 0 and far > 0:
            text = f"On the way {count(round(crossed), 'linear region')} begin, "
            text += f"{number(crossed / far)} per unit of length."
            found.append(described(text, number(crossed / far), "exact count; no null", 0.1))
    return found


def _part(reading: Reading) -> np.ndarray:
    groups: Any = reading.table.groupby("walk")["distance"]
    start, end = groups.first().to_numpy(float), groups.last().to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(start > 0, 1 - end / start, np.nan)


def _said(reading: Reading, rows, k: int) -> str:
    kinds, said = reading.meta.get("classes"), int(rows["prediction"].iloc[k])
    return str(kinds[said]) if isinstance(kinds, list) and said < len(kinds) else str(said)

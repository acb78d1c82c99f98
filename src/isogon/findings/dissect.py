"""Findings of dissection: how many units detect a concept, beside random bases."""

from __future__ import annotations

from typing import Any

import numpy as np

from isogon.findings.finding import Finding, Names, Number, described, effect, nothing
from isogon.findings.words import count, number, percent, span, trimmed
from isogon.readings import Reading
from isogon.registry import finds

UNIT = "unit"
FEW = 3  # draws of a random basis that a range of chance needs


def dissect_numbers(reading: Reading) -> list[Number]:
    """Share of units that detect a concept, by site."""
    table = _units(reading)
    short = trimmed(list(table["site"]))
    return [
        Number(f"the share of detectors in {short[site]}", float(v), "%", 1.0)
        for site, v in table.groupby("site", sort=False)["detector"].mean().items()
    ]


@finds("dissect", numbers=dissect_numbers)
def finds_dissect(reading: Reading, names: Names) -> list[Finding]:
    """Detectors among units and in random bases, and the unit that fits a concept best."""
    units = _units(reading)
    short = trimmed(list(units["site"]))
    total, got = len(units), int(units["detector"].sum())
    found = []
    for basis, part in reading.table.groupby("basis", sort=False):
        if basis == UNIT:
            continue
        draws = part.groupby("draw")["detector"].sum().to_numpy(float)
        chance = float(draws.mean())
        text = f"{got} of {count(total, 'unit')} detect a concept; in a random basis ({basis}) "
        text += f"{number(chance)} do"
        value, gap = f"{got} of {total}", abs(got - chance) / max(total, 1)
        if len(draws) < FEW:
            against = f"{count(len(draws), 'draw')} of the basis: too few for a range"
            found.append(described(f"{text}.", value, against, gap))
            continue
        against = f"{span(draws.min(), draws.max())} over {len(draws)} draws of the basis"
        apart = got > draws.max() or got < draws.min()
        text += "." if apart else ", as many as the draws allow for."
        found.append((effect if apart else nothing)(text, value, against, gap))
    if not found:
        text = f"{got} of {count(total, 'unit')} detect a concept (intersection over union of at "
        text += f"least {number(float(reading.meta['threshold']))})."
        share = got / max(total, 1)
        found.append(described(text, f"{got} of {total}", "no random basis beside it", share))
    if got:
        best = units.loc[units["iou"].idxmax()]
        text = f"Unit {int(best['unit'])} of {short[best['site']]} fits a concept best: "
        text += f"{best['concept']}, with an intersection over union of {number(best['iou'])}."
        against = (
            f"threshold {number(float(reading.meta['threshold']))}; 1 would be the same pixels"
        )
        found.append(described(text, number(best["iou"]), against, float(best["iou"])))
        rates: Any = units.groupby("site", sort=False)["detector"].mean()
        if len(rates) > 1 and np.ptp(rates.to_numpy()) > 0:
            high, low = rates.idxmax(), rates.idxmin()
            text = f"{short[high]} has the largest share of detectors, {percent(rates[high])}; "
            text += f"{short[low]} the smallest, {percent(rates[low])}."
            size = float(np.ptp(rates.to_numpy()))
            found.append(described(text, percent(rates[high]), "exact share of units", size))
    return found


def _units(reading: Reading) -> Any:
    table: Any = reading.table
    own = table[table["basis"] == UNIT]
    return own if len(own) else table[table["basis"] == table["basis"].iloc[0]]

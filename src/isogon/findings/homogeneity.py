"""Findings of homogeneity: which activations commute with positive scales."""

from __future__ import annotations

from typing import Any

from isogon.findings.finding import Finding, Names, Number, effect, nothing
from isogon.findings.words import count, number, trimmed
from isogon.readings import Reading
from isogon.registry import finds

ROUNDING = 1e-5  # relative deviations below it are rounding


def homogeneity_numbers(reading: Reading) -> list[Number]:
    """Largest deviation of each site."""
    worst: Any = reading.table.groupby("site", sort=False)["deviation"].max()
    short = trimmed(list(worst.index))
    return [
        Number(f"the largest deviation from homogeneity at {short[s]}", float(v), span=1.0)
        for s, v in worst.items()
    ]


@finds("homogeneity", numbers=homogeneity_numbers)
def finds_homogeneity(reading: Reading, names: Names) -> list[Finding]:
    """Sites that deviate, with the worst scale."""
    table: Any = reading.table
    worst: Any = table.loc[table["deviation"].idxmax()]
    off = table.loc[table["deviation"] > ROUNDING, "site"].nunique()
    sites = table["site"].nunique()
    value = number(float(worst["deviation"]))
    against = f"0 is homogeneous; rounding is below {ROUNDING:g}"
    if not off:
        text = f"All of {count(sites, 'site')} are positively homogeneous, as ReLU is: scaling the "
        text += "input of a site by a positive factor scales its output by the same."
        return [nothing(text, value, against, 1.0)]
    short = trimmed(list(table["site"]))
    text = f"{off} of {count(sites, 'site')} {'is' if off == 1 else 'are'} not positively "
    text += f"homogeneous; {short[worst['site']]} ({worst['op']}) deviates most, by "
    text += f"{value} of its size at a scale of {number(float(worst['scale']))}."
    return [effect(text, value, against, float(worst["deviation"]))]

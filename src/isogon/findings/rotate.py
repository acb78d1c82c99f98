"""Findings of rotations: which sites' own basis the rest of the network needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from isogon.findings.finding import Finding, Names, Number, effect, nothing
from isogon.findings.intervals import LEVEL, drop
from isogon.findings.words import count, in_points, span, trimmed
from isogon.readings import Reading
from isogon.registry import finds


def rotate_numbers(reading: Reading) -> list[Number]:
    """Mean penalty of each site."""
    means: Any = reading.table.groupby("site", sort=False)["penalty"].mean()
    short = trimmed(list(means.index))
    return [
        Number(f"the penalty of rotating {short[site]}", float(v), "points", 1.0)
        for site, v in means.items()
    ]


@finds("rotate", numbers=rotate_numbers)
def finds_rotate(reading: Reading, names: Names) -> list[Finding]:
    """The site whose rotation costs most after retraining what follows, and the cheapest."""
    groups: Any = reading.table.groupby("site", sort=False)["penalty"]
    means, low, high = groups.mean(), groups.min(), groups.max()
    means: Any = means[np.isfinite(means)]
    if means.empty:
        return []
    short = trimmed(list(means.index))
    worst, best = means.idxmax(), means.idxmin()
    total, repeats = int(reading.meta["samples"]), int(groups.size().max())
    base = float(reading.table["baseline"].mean())
    ends = drop(base, base - float(means[worst]), total, LEVEL / len(means))
    group = str(reading.meta.get("group", "")).replace("_", " ")
    epochs = reading.meta.get("epochs")
    text = f"{f'A random element of the group {group}' if group else 'A rotation'} behind "
    text += f"{short[worst]} costs {in_points(means[worst])} of {in_points(base)} points"
    text += f" after {count(int(epochs), 'epoch')} of retraining" if epochs is not None else ""
    text += f"; behind {short[best]} {in_points(means[best])}" if worst != best else ""
    value = f"{in_points(means[worst])} points"
    against = f"95 % interval {span(*ends, in_points)} points over {total:,} samples"
    if repeats > 1:
        against += f"; {span(low[worst], high[worst], in_points)} points over {repeats} repeats"
    size = float(means[worst]) / base if base else 0.0
    if ends[0] > 0:
        return [effect(f"{text}.", value, against, size)]
    text = f"At none of {count(len(means), 'site')} does a rotation cost more than chance on "
    text += f"{total:,} samples explains; the most is {value}, at {short[worst]}."
    return [nothing(text, value, against, size)]

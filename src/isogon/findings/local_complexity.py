"""Findings of local complexity: hyperplanes around samples, and the layer they come from."""

from __future__ import annotations

from typing import Any

import numpy as np

from isogon.findings.finding import Finding, Names, Number, described
from isogon.findings.intervals import median
from isogon.findings.sides import of_pairs
from isogon.findings.words import count, interval, number, percent, span, trimmed
from isogon.readings import Reading
from isogon.registry import finds

AT = "hyperplanes@"


def local_complexity_numbers(reading: Reading) -> list[Number]:
    """Median number of hyperplanes around a sample."""
    values = reading.table["hyperplanes"].to_numpy(float)
    radius = number(float(reading.meta["radius"]))
    return [Number(f"the median count of hyperplanes within {radius}", float(np.median(values)))]


def differs_local_complexity(a: Reading, b: Reading, names: Names) -> list[Finding]:
    """Counts of hyperplanes, sample by sample."""
    both: Any = a.table.merge(b.table, on="sample", suffixes=("_a", "_b"))
    return of_pairs(
        "the number of hyperplanes around a sample",
        both["hyperplanes_a"].to_numpy(),
        both["hyperplanes_b"].to_numpy(),
        names,
        count(len(both), "sample"),
    )


@finds("local_complexity", numbers=local_complexity_numbers, differs=differs_local_complexity)
def finds_local_complexity(reading: Reading, names: Names) -> list[Finding]:
    """Hyperplanes per sample, and the layer with most of them."""
    table: Any = reading.table
    values = table["hyperplanes"].to_numpy(float)
    centre, low, high = median(values)
    radius = number(float(reading.meta["radius"]))
    text = f"Within {radius} of a sample {number(centre)} hyperplanes are crossed (median of "
    text += f"{count(len(values), 'sample')}, {span(values.min(), values.max())})."
    found = [described(text, number(centre), f"{interval(low, high)}; no null", 0.2)]
    layers = {c.removeprefix(AT): float(table[c].sum()) for c in table if str(c).startswith(AT)}
    total = sum(layers.values())
    if total > 0 and len(layers) > 1:
        top = max(layers, key=lambda k: layers[k])
        share = layers[top] / total
        text = f"{percent(share)} of these hyperplanes belong to {trimmed(list(layers))[top]}."
        even = 1 / len(layers)
        against = f"exact count; {percent(even)} if even over {len(layers)} sites"
        found.append(described(text, percent(share), against, 0.5 * (share - even) / (1 - even)))
    return found

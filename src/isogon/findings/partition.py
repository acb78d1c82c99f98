"""Findings of partitions: regions, classes, density near data, and whether it is certified."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from isogon.findings.finding import Finding, Names, Number, described
from isogon.findings.words import count, enumerated, number, percent
from isogon.measures.partition.decisions import MOST, class_areas
from isogon.readings import Reading
from isogon.registry import finds

if TYPE_CHECKING:
    from isogon.measures.partition.reading import Partition


def partition_numbers(reading: Reading) -> list[Number]:
    """Regions, and the length of the decision boundary; nothing where not all of it was cut."""
    p = cast("Partition", reading)
    if not p.complete:
        return []
    parts = p.boundary
    length = float(np.linalg.norm(parts[:, 1] - parts[:, 0], axis=1).sum())
    return [
        Number("the number of linear regions", float(len(p))),
        Number("the regions per unit of area", len(p) / p.plane.area),
        Number("the length of the decision boundary on the slice", length),
    ]


@finds("partition", numbers=partition_numbers)
def finds_partition(reading: Reading, names: Names) -> list[Finding]:
    """Regions with the certificate's verdict, shares of the classes, density near the data."""
    p = cast("Partition", reading)
    rows = p.statistics().set_index("regions")
    text = f"The slice holds {count(len(p), 'linear region')}"
    if not p.complete:
        text += f", of which {count(int((~p.finished).sum()), 'one is', 'are')} not cut to the end"
    areas = p.area[p.finished]
    if len(areas) > 1:
        middle = float(np.median(areas)) / p.plane.area
        text += f"; half of them are smaller than {number(middle)} of its area"
    found = [described(f"{text}.", count(len(p), "region"), verdict_of(reading), 0.3)]
    found += _classes(p)
    return found + _near(p, rows)


def verdict_of(reading: Reading) -> str:
    """What the certificate says, or that none was made."""
    kept = reading.meta.get("certificate")
    told = str(kept.get("verdict", "")) if isinstance(kept, dict) else ""
    return told or "not certified"


def _classes(p: Partition) -> list[Finding]:
    areas = class_areas(p)
    if not areas or p.outputs.shape[1] < 2:
        return []
    total = sum(areas.values())
    shares = {k: area / total for k, area in areas.items()}
    order = sorted(shares, key=lambda k: -shares[k])
    where = "The whole slice" if p.complete else f"All that was cut, {_cut(p)} of the slice,"
    named = [f"class {k} ({percent(shares[k])})" for k in order]
    value = percent(shares[order[0]])
    if len(order) == 1:
        text = f"{where} is given to class {order[0]}: no decision boundary runs through it."
        return [described(text, value, "exact share of the area", 0.1)]
    whole = "the slice" if p.complete else f"what was cut, {_cut(p)} of the slice"
    text = f"{count(len(order), 'class', 'classes')} share {whole}: {enumerated(named)}, by area."
    even = 1 / len(order)
    # beyond this many the regions that the boundary crosses are not cut along it
    exact = len(np.unique(p.boundary_region)) <= MOST
    against = f"{'exact' if exact else 'by the class at the centroids of regions'}; no null"
    size = 1 - (shares[order[0]] - even) / (1 - even)
    return [described(text, value, against, 0.4 * size)]


def _cut(p: Partition) -> str:
    return percent(float(p.area[p.finished].sum() / p.plane.area))


def _near(p: Partition, rows: pd.DataFrame) -> list[Finding]:
    if not {"near", "far"} <= set(rows.index):
        return []
    near, far = float(rows["density"]["near"]), float(rows["density"]["far"])
    if not (math.isfinite(near) and math.isfinite(far)) or not far > 0 or not near > 0:
        return []
    ratio = near / far
    text = f"Near the samples there are {number(ratio)} times as many regions per area as "
    text += f"elsewhere ({number(near)} against {number(far)})."
    against = "1 is as many; exact on this slice, one slice: no interval"
    return [described(text, f"{number(ratio)} times", against, 1 - min(ratio, 1 / ratio))]

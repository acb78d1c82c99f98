"""The layer map: what each measure says of each layer, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from isogon.readings import Reading
from isogon.survey.pages.tables import numeral, title

Values = dict[str, float]  # layer -> number


def layer_map(layers: list[dict[str, Any]], readings: Mapping[str, Reading]) -> dict[str, Any]:
    """Columns of the table of layers, one per measure that tells layers apart.

    Args:
        layers: As `isogon.survey.whole.subject.layers` gives them.
        readings: By measure.

    Returns:
        ``columns``: measure, title, what it counts; ``cells``: layer -> a cell per column, with its
        text and its length as a share of the column's longest.
    """
    columns: list[dict[str, str]] = []
    cells: dict[str, list[dict[str, str]]] = {str(row["path"]): [] for row in layers}
    for measure, (words, of) in COLUMNS.items():
        reading = readings.get(measure)
        if reading is None:
            continue
        try:
            values = {k: v for k, v in of(reading).items() if k in cells and np.isfinite(v)}
        except (KeyError, ValueError, TypeError):  # measured with other statistics
            continue
        if len(values) < 2:
            continue
        top = max(abs(v) for v in values.values()) or 1.0
        columns.append({"measure": measure, "title": title(measure), "words": words})
        for path, held in cells.items():
            value = values.get(path)
            text = "" if value is None else numeral(float(f"{value:.3g}"))
            size = 0.0 if value is None else max(value, 0.0) / top
            held.append({"text": text, "size": f"{size:.3f}"})
    return {"columns": columns, "cells": cells}


def _mass(reading: Reading) -> Values:
    table: Any = reading.table
    return dict((table["projection"] <= 0).groupby(table["site"], sort=False).mean())


def _orbit(reading: Reading) -> Values:
    table: Any = reading.table
    live = table[np.isfinite(table["normalized_variance"]) & (table["sample_variance"] > 0)]
    return dict(live.groupby("site", sort=False)["normalized_variance"].mean())


def _reset(reading: Reading) -> Values:
    drops = np.asarray(reading.arrays["drop"], float)[:, 0]
    return dict(zip(map(str, reading.coords["site"]), 100 * drops))


def _similarity(reading: Reading) -> Values:
    table: Any = reading.table
    first = table[table["metric"] == table["metric"].iloc[0]]
    same = first[first["site_a"] == first["site_b"]]
    return dict(zip(same["site_a"], same["similarity"].astype(float)))


def _stitch(reading: Reading) -> Values:
    table: Any = reading.table
    last = table[table["by"] == table["by"].iloc[-1]]
    same = last[last["site_a"] == last["site_b"]]
    return dict(zip(same["site_a"], 100 * same["penalty"].astype(float)))


COLUMNS: dict[str, tuple[str, Callable[[Reading], Values]]] = {
    "reset": ("points lost", _reset),
    "orientation": ("share not positive", _mass),
    "invariance": ("normalised variance", _orbit),
    "equivariance": ("normalised variance", _orbit),
    "similarity": ("first metric", _similarity),
    "stitch": ("points lost, last map", _stitch),
}

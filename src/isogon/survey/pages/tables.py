"""Tables and numbers of a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

ROWS = 300  # of a table in the page


def table_cells(frame: pd.DataFrame, label: str, units: Mapping[str, str]) -> dict[str, Any]:
    """A frame as cells with their text and the value they sort by."""
    frame = frame.loc[:, ~frame.isna().all()] if len(frame) else frame
    numeric = [frame[c].dtype.kind in "iuf" for c in frame.columns]
    columns = [
        {"name": str(c).replace("_", " "), "number": n, "unit": units.get(str(c), "")}
        for c, n in zip(frame.columns, numeric)
    ]
    rows = [
        [_cell(value, number) for value, number in zip(row, numeric)]
        for row in frame.head(ROWS).itertuples(index=False, name=None)
    ]
    cut = len(frame) > ROWS
    return {
        "columns": columns,
        "rows": rows,
        "label": label,
        "cut": cut,
        "total": f"{len(frame):,}",
    }


def _cell(value: Any, number: bool) -> dict[str, Any]:
    if number:
        by = "nan" if pd.isna(value) else repr(float(value))
        return {"text": numeral(value), "value": by, "number": True}
    if isinstance(value, float | np.floating):  # among words, e.g. a table of one row per statistic
        return {"text": numeral(value), "value": "", "number": False}
    missing = value is None or value is pd.NA
    return {"text": "–" if missing else str(value), "value": "", "number": False}


def title(name: str) -> str:
    """A measure's name as a heading."""
    return name.replace("_", " ").capitalize()


def numeral(value: Any) -> str:
    """A number for a table: integers whole, floats to four digits, true minus signs."""
    if pd.isna(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if float(value).is_integer() and abs(value) < 1e6:
        text = f"{int(value):,}"
    elif 1e-3 <= abs(value) < 1e6:
        text = f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    else:
        mantissa, exponent = f"{value:.2e}".split("e")
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa}·10{power}"
    return text.replace("-", "−")


def compact(count: int) -> tuple[str, str]:
    """A large count in three digits: 11.7 million."""
    for size, unit in ((10**9, "billion"), (10**6, "million")):
        if count >= size:
            return f"{count / size:.3g}", unit
    return f"{count:,}", ""


def span(seconds: float) -> tuple[str, str]:
    """A duration in words."""
    if seconds < 1:
        return f"{max(seconds * 1000, 1):.0f}", "ms"
    if seconds < 120:
        return f"{seconds:.1f}", "s"
    return f"{seconds / 60:.1f}", "min"

"""Many runs of a measure in numbers, by what kind of reading it is.

Runs of one name (seeds) are pooled: a mean with one standard deviation around it. What is drawn
of a run is

- of a table along an axis (sites, steps, snapshots), the mean over its rows at each place; walks
  that have ended count with their last value;
- of a table of samples, the share of them up to a value (the distribution function);
- of a grid, the grid, averaged cell by cell;
- of anything else, the numbers of its summary, a dot per run.

A measure says more when it registers its figure: ``@draws("name", columns=("trace", ...),
along="transformation", by=("metric",))`` which numbers are shown, along which column, and which
columns tell several curves of one run apart; ``curves={"spectrum": ("i", function)}`` adds one
that is no column: the function gives x, which is called i, and y of a reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from isogon import registry
from isogon.errors import OptionError
from isogon.readings import Curve, Grid, Path, Reading, SiteTable
from isogon.readings.columns import quantities
from isogon.show.panel import Panel

SHOWN = 3  # numbers of a table that are drawn where nobody says which
KINDS = 6  # values of a column that still tells curves of one run apart
ALONG: dict[type[Reading], str] = {SiteTable: "site", Path: "step"}


def run_table(panels: Sequence[Panel]) -> pd.DataFrame:
    """Mean, standard deviation and number of runs behind the figure.

    Returns:
        A row per panel, name, place (of a grid or along an axis: of curves over numbers the last
        one) and statistic; ``sd`` is missing where there is one run.
    """
    rows: list[dict[str, Any]] = []
    for panel in map(split_curves, panels):
        where = {"panel": panel.title} if any(p.title for p in panels) else {}
        found: dict[tuple, list[float]] = {}
        likes = dict(zip(reversed(panel.names), reversed(panel.readings)))  # the first of each name
        for reading, name in zip(panel.readings, panel.names):
            named = {"name": name} if any(panel.names) else {}
            for place, statistic, value in _values(reading, panel.column, likes[name]):
                key = {**where, **named, **place, "statistic": statistic}
                found.setdefault(tuple(key.items()), []).append(value)
        for key, values in found.items():
            mean, sd = mean_and_sd(np.array(values)[:, None])
            rows.append({**dict(key), "mean": mean[0], "sd": sd[0], "runs": len(values)})
    return pd.DataFrame(rows)


def mean_and_sd(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the runs ``[r, k]`` that have a finite value, NaN for none.

    The standard deviation is that of a sample (r - 1), NaN for a single run.
    """
    finite = np.isfinite(runs)
    n = finite.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(finite, runs, 0).sum(0) / n
        square = np.where(finite, (runs - mean) ** 2, 0).sum(0) / (n - 1)
    return mean, np.where(n > 1, np.sqrt(square), np.nan)


# --------------------------------------------------------------------------- what is shown


def columns(reading: Reading, column: str | None = None) -> list[str]:
    """The numbers of a table that are drawn: the one asked for, else those of the measure.

    Raises:
        OptionError: No such column, or none at all.
    """
    extra = declared(reading)
    table = reading.table
    there = [str(c) for c in table if pd.api.types.is_numeric_dtype(table[c])]
    there += extra.get("curves", {})
    if column is not None:
        if column not in there:
            raise OptionError("no such column", got=repr(column), expected=", ".join(there))
        return [column]
    said = [c for c in extra.get("columns", ()) if c in there]
    found = said or quantities(table)[:SHOWN]
    if not found:
        raise OptionError("nothing to draw", got=reading.measure, expected="a column of numbers")
    return found


@dataclass(frozen=True)
class RunCurve:
    """One run: numbers ``y`` over the numbers or the labels ``x``."""

    x: list
    y: np.ndarray

    @property
    def labelled(self) -> bool:
        """Whether the places have names."""
        return bool(self.x) and isinstance(self.x[0], str)


def run_curve(reading: Reading, column: str) -> RunCurve | None:
    """A run as a curve along the axis of its table; None for a table of samples."""
    made = declared(reading).get("curves", {}).get(column)
    if made is not None:
        x, y = made[1](reading)
        return RunCurve(list(map(float, x)), np.asarray(y, float))
    axis = curve_axis(reading)
    if not axis:
        return None
    values = reading.table[column].astype(float)
    values = values.where(np.isfinite(values))
    if axis == "step" and "walk" in reading.table:
        # one that has ended stays where it is: else the mean jumps where it drops out
        walks = reading.table.assign(value=values).pivot_table("value", "step", "walk")
        mean = walks.sort_index().ffill().mean(axis=1)
    else:
        mean = values.groupby(reading.table[axis], sort=False).mean()
    if pd.api.types.is_numeric_dtype(reading.table[axis]):
        mean = mean.sort_index()
        return RunCurve([float(v) for v in mean.index], mean.to_numpy(float))
    return RunCurve([str(v) for v in mean.index], mean.to_numpy(float))


def curve_axis(reading: Reading, column: str = "") -> str:
    """What the axis of a column's curves is called; nothing for a table of samples."""
    extra = declared(reading)
    if column in extra.get("curves", {}):
        return extra["curves"][column][0]
    named = extra.get("along")
    named = named or next((a for k, a in ALONG.items() if isinstance(reading, k)), "")
    if not named and "site" in reading.table and not isinstance(reading, Curve):
        named = "site"
    if not named and isinstance(reading, Curve):
        table = reading.table
        named = next((c for c in table if table[c].dtype.kind in "iuf"), "")
    return str(named or "")


def split_curves(panel: Panel) -> Panel:
    """The panel with a name for each curve of a run, where its table holds several.

    They are told apart by the columns that the measure declares with ``by``, else, along an axis,
    by those of few words (or of true and false).
    """
    names, readings, labels = [], [], []
    for k, (reading, name) in enumerate(zip(panel.readings, panel.names)):
        by = _kinds(reading)
        groups = reading.table.groupby(by, sort=False) if by else [(None, reading.table)]
        for key, part in groups:
            words = [] if key is None else [_word(c, v) for c, v in zip(by, key)]
            readings.append(reading if key is None else replace(reading, table=part))
            names.append(", ".join(t for t in (name, *words) if t))
            labels += panel.labels[k : k + 1]
    return Panel(panel.title, tuple(readings), tuple(names), panel.column, tuple(labels))


def _kinds(reading: Reading) -> list[str]:
    extra, table, axis = declared(reading), reading.table, curve_axis(reading)
    if "by" in extra:
        return [c for c in extra["by"] if c in table and table[c].nunique() > 1]
    if not isinstance(reading, Curve | SiteTable) or not axis:
        return []
    words = [
        c for c in table if not pd.api.types.is_numeric_dtype(table[c]) or table[c].dtype == bool
    ]
    return [
        str(c)
        for c in words
        if c not in {axis, "label", "block", "stage"}
        and not str(c).startswith("site")
        and 1 < table[c].nunique() <= KINDS
        and table.groupby(str(c))[axis].nunique().min() > 1
    ]


def _word(column: str, value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return column.replace("_", " ") if value else f"not {column.replace('_', ' ')}"
    return str(value)


def scalars(reading: Reading) -> dict[str, float]:
    """The numbers of a reading's summary, where each row of it is one."""
    table = reading.summary()
    if len(table.columns) < 2:
        return {}
    names, values = table.iloc[:, 0], pd.to_numeric(table.iloc[:, 1], errors="coerce")
    return {str(n): float(v) for n, v in zip(names, values) if np.isfinite(v)}


def declared(reading: Reading) -> dict[str, Any]:
    """What the measure said when it registered its figure."""
    have = registry.has("draws", reading.measure)
    return registry.get("draws", reading.measure).extra if have else {}


def _values(
    reading: Reading, column: str | None, like: Reading
) -> Iterator[tuple[dict, str, float]]:
    """Place, statistic and value of everything that the table of runs averages.

    Places are called as in the reading ``like``, where it has as many: of another run, the same
    layer or snapshot may have another name.
    """
    if isinstance(reading, Grid):
        name = array_of(reading, column)
        array = np.asarray(reading.arrays[name], float)
        same = name in like.arrays and like.arrays[name].shape == array.shape
        of = like if same else reading
        axes = of.axes.get(name, ("row", "column"))
        coords = [of.coords.get(a, list(range(n))) for a, n in zip(axes, array.shape)]
        for cell in np.ndindex(*array.shape):
            place = {a: labels[i] for a, labels, i in zip(axes, coords, cell)}
            yield place, name, float(array[cell])
        return
    if not len(reading.table):
        found = scalars(reading)
        said = [c for c in declared(reading).get("columns", ()) if c in found] or list(found)
        for name in said if column is None else [column]:
            yield {}, name, found.get(name, np.nan)
        return
    for name in columns(reading, column):
        drawn = run_curve(reading, name)
        if drawn is None:
            values = reading.table[name].to_numpy(float)
            finite = values[np.isfinite(values)]
            yield {"at": "all samples"}, name, float(finite.mean()) if len(finite) else np.nan
        elif drawn.labelled:
            other = run_curve(like, name)
            places = drawn.x if other is None or len(other.x) != len(drawn.x) else other.x
            for x, y in zip(places, drawn.y):
                yield {"at": x}, name, float(y)
        elif len(drawn.y):
            yield {"at": "the end"}, name, float(drawn.y[-1])


def array_of(reading: Reading, column: str | None) -> str:
    """The name of the grid that is drawn."""
    flat = [k for k, a in reading.arrays.items() if a.ndim == 2]
    names = [c for c in declared(reading).get("columns", ()) if c in flat] or flat
    if (column is not None and column not in flat) or not names:
        raise OptionError("no such grid", got=column, expected=", ".join(flat) or "a 2-D array")
    return column or names[0]

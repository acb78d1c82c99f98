"""Figures for readings that have none of their own, by what a row of the reading is."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isogon.errors import OptionError
from isogon.readings import Curve, Grid, Path, Reading, SampleTable, SiteTable
from isogon.readings.columns import names_something
from isogon.show import legends, style
from isogon.show.fitting import CELL


@singledispatch
def draw_generic(reading: Reading, column: str | None = None) -> Figure:
    """Distribution of each number of the table (the first six, or the one named)."""
    columns = _numbers(reading, column)[:6]
    fig, axes = style.panels(min(3, len(columns)), -(-len(columns) // 3), height=2.2)
    for ax, name in zip(axes.flat, columns, strict=False):
        values = _finite(reading.table[name])
        _histogram(ax, values)
        ax.set_xlabel(axis_label(reading, name))
    for ax in list(axes.flat)[len(columns) :]:
        ax.set_visible(False)
    axes[0, 0].set_ylabel(f"{reading.row}s")
    return fig


@draw_generic.register
def _(reading: SampleTable, column: str | None = None) -> Figure:
    return draw_generic.dispatch(Reading)(reading, column)


@draw_generic.register
def _(reading: SiteTable, column: str | None = None) -> Figure:
    """One statistic per site: the spread over units as boxes, the mean as a line."""
    name = _numbers(reading, column)[0]
    groups = list(reading.table.groupby("site", sort=False)[name])
    fig, axes = style.panels(1, height=2.8)
    ax = axes[0, 0]
    data = [_finite(values) for _, values in groups]
    if all(len(d) <= 1 for d in data):
        ax.plot([d[0] if len(d) else np.nan for d in data], "-o", color=style.BLUE)
    else:
        boxes(ax, data)
        means = [d.mean() if len(d) else np.nan for d in data]
        ax.plot(means, color=style.ORANGE, lw=1.2, marker="o", ms=3, label="mean over units")
        ax.legend(loc="best")
    site_axis(ax, [site for site, _ in groups])
    ax.set_ylabel(axis_label(reading, name))
    return fig


@draw_generic.register
def _(reading: Grid, name: str | None = None) -> Figure:
    """A heatmap of the grid."""
    arrays = {k: a for k, a in reading.arrays.items() if a.ndim == 2}
    if (name is not None and name not in arrays) or not arrays:
        raise OptionError("no such grid", got=name, expected=", ".join(arrays) or "a 2-D array")
    name = name or next(iter(arrays))
    values = np.asarray(arrays[name], dtype=float)
    down, across = reading.axes.get(name, ("row", "column"))
    labels = [reading.coords.get(a, list(range(n))) for a, n in zip((down, across), values.shape)]
    width = float(np.clip(1.8 + 0.3 * values.shape[1], 3.4, style.WIDTH))
    height = float(np.clip(1.1 + 0.3 * values.shape[0], 2.4, 7.0))
    fig = style.figure(width, height)
    heatmap(fig, fig.subplots(), values, labels[0], labels[1], axis_label(reading, name))
    fig.axes[0].set_ylabel(down.replace("_", " "))
    fig.axes[0].set_xlabel(across.replace("_", " "))
    return fig


@draw_generic.register
def _(reading: Curve, x: str | None = None, y: str | None = None) -> Figure:
    """Each number of the table against the first one; one line per group, if there are names."""
    table: Any = reading.table
    numbers = _all_numbers(reading)
    x = x or numbers[0]
    ys = [y] if y else [c for c in numbers if c != x][:3]
    names = [c for c in table if c not in numbers and table[c].nunique() <= 12]
    fig, axes = style.panels(max(1, len(ys)), height=2.5)
    for ax, name in zip(axes.flat, ys, strict=False):
        groups = table.groupby(names[0], sort=False) if names else [(None, table)]
        for (key, part), dash in zip(groups, style.DASHES * 99):
            label = None if key is None else style.shorten(key)
            ax.plot(part[x], part[name], ls=dash, label=label)
        ax.set_xlabel(axis_label(reading, x))
        ax.set_ylabel(axis_label(reading, name))
    legends.above(fig, list(axes.flat))
    return fig


@draw_generic.register
def _(reading: Path) -> Figure:
    """Every number of the table against the step, one line per walk."""
    return draw_generic.dispatch(Curve)(reading, x="step")


def boxes(ax: Axes, data: list[np.ndarray], *, positions=None, color: str = style.BLUE) -> None:
    """Slim box plots: quartiles as a bar, 5th to 95th percentile as a line, median as a mark."""
    for place, values in zip(range(len(data)) if positions is None else positions, data):
        if not len(values):
            continue
        q = np.percentile(values, [5, 25, 50, 75, 95])
        ax.plot([place, place], [q[0], q[4]], color=color, lw=0.9, alpha=0.55, zorder=1)
        ax.plot(
            [place, place],
            [q[1], q[3]],
            color=color,
            lw=5,
            alpha=0.45,
            zorder=2,
            solid_capstyle="butt",
        )
        ax.plot([place], [q[2]], marker="_", color=style.INK, ms=6, mew=1.3, zorder=3)


def heatmap(
    fig: Figure,
    ax: Axes,
    values: np.ndarray,
    down: list,
    across: list,
    label: str,
    *,
    limits: tuple[float, float] | None = None,
    diverging: bool = False,
) -> None:
    """A matrix of numbers with labelled rows and columns; cells without a value are grey."""
    finite = values[np.isfinite(values)]
    cmap = style.DIVERGING if diverging else style.SEQUENTIAL
    cmap = cmap.with_extremes(bad=style.MISSING)
    if limits is None and len(finite):
        top = max(abs(finite.min()), abs(finite.max())) or 1.0
        limits = (-top, top) if diverging else (float(finite.min()), float(finite.max()))
    low, high = limits or (0.0, 1.0)
    high = high if high > low else low + (abs(low) or 1.0)
    mesh = ax.imshow(np.ma.masked_invalid(values), cmap=cmap, vmin=low, vmax=high, aspect="auto")
    for set_ticks, labels in ((ax.set_yticks, down), (ax.set_xticks, across)):
        set_ticks(range(len(labels)), [style.shorten(t) for t in labels])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    style.color_bar(mesh, label, ax=ax, fraction=0.05, pad=0.02, aspect=24)
    if values.size <= 150:
        middle = (low + high) / 2
        for (i, j), v in np.ndenumerate(values):
            if np.isfinite(v):
                dark = abs(v) > 0.6 * high if diverging else v > middle
                small = f"{v:.2f}".replace("0.", ".", 1) if v else "0"
                ax.text(
                    j,
                    i,
                    small if abs(v) < 1 else f"{v:.3g}",
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color="white" if dark else style.ON_DATA,
                    gid=CELL,
                )


def site_axis(ax: Axes, sites: list) -> None:
    """Site names along x; the figure's layout turns or thins them by the room there is."""
    ax.set_xticks(range(len(sites)), [style.shorten(s) for s in sites])
    ax.set_xlim(-0.6, len(sites) - 0.4)


def _histogram(ax: Axes, values: np.ndarray) -> None:
    if not len(values):
        ax.text(0.5, 0.5, "no finite value", ha="center", color=style.MUTED, transform=ax.transAxes)
        return
    whole = np.all(values == np.round(values)) and np.ptp(values) < 40
    bins = (
        np.arange(values.min() - 0.5, values.max() + 1) if whole else min(30, 5 + len(values) // 3)
    )
    ax.hist(values, bins=bins, color=style.BLUE, alpha=0.8, rwidth=0.85 if whole else 0.95)


def _all_numbers(reading: Reading) -> list[str]:
    table = reading.table
    return [
        str(c) for c in table if pd.api.types.is_numeric_dtype(table[c]) and table[c].dtype != bool
    ]


def _numbers(reading: Reading, column: str | None) -> list[str]:
    numbers = _all_numbers(reading)
    found = [c for c in numbers if not names_something(c)]
    if column is not None:
        if column not in numbers:
            raise OptionError("no such column", got=repr(column), expected=", ".join(numbers))
        return [column]
    if not found:
        raise OptionError("nothing to draw", got="no column of numbers", expected="a measurement")
    return found


def _finite(values: pd.Series | pd.DataFrame) -> np.ndarray:
    v = values.to_numpy(dtype=float)
    return v[np.isfinite(v)]


def axis_label(reading: Reading, name: str) -> str:
    """A number of a reading in words, with its unit."""
    unit = reading.units.get(name)
    text = str(name).replace("_", " ")
    return f"{text} ({unit})" if unit and unit != "1" else text

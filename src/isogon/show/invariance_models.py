"""Means per site of several models: curves by depth, panels, seeds pooled, tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isogon.errors import OptionError
from isogon.measures.orbits.compare import compare
from isogon.readings import Reading
from isogon.show import legends, style
from isogon.show.invariance_parts import check_sites, finite_mean, label, pick, values
from isogon.show.panel import Panel

if TYPE_CHECKING:
    from matplotlib.typing import ColorType


LEVEL = 0.01  # of significance
BANDS = 3  # curves with a band of their units: more hide each other
ACROSS = 3  # panels abreast


def draw_models(
    readings: Sequence[Reading], names: Sequence[str] = (), column: str | None = None
) -> Figure:
    """Means per site of several models on one axis, percent of depth.

    Args:
        readings: One per model.
        names: What they are called; models of one name (seeds) share a colour and are pooled.
        column: The statistic.

    Sites at which two names differ carry a star, where all models have equally many sites:
    Tukey's test of the means of the models where every name has several (seeds are the
    repetitions), of the units where it has one.
    """
    if names and len(names) != len(readings):
        raise OptionError(
            "one name for each model", got=f"{len(names)} names", expected=f"{len(readings)}"
        )
    names = list(names) or [f"model {i}" for i in range(len(readings))]
    with style.styled():
        return draw_panels([Panel("", tuple(readings), tuple(names), column)])


def draw_panels(panels: Sequence[Panel]) -> Figure:
    """Panels of curves: one per family, per statistic, ..., with one legend."""
    for panel in panels:
        for reading in panel.readings:
            check_sites(reading)
    panels = list(map(_by_class, panels))
    columns = [pick(p.readings[0], p.column) for p in panels]
    order = in_order(list(dict.fromkeys(n for p in panels for n in p.names)))
    colors = colours(order)
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    height = 2.9 if len(panels) == 1 else 2.5
    fig, axes = style.panels(across, down, height=height)
    notes: list[str] = []
    for ax, panel, column in zip(axes.flat, panels, columns):
        _curves(ax, panel, column, colors, len(panels) == 1)
        if len(set(columns)) > 1:
            ax.set_title(", ".join(t for t in (panel.title, label(column)) if t))
        else:
            ax.set_title(panel.title or "Mean per site")
            ax.set_ylabel(label(column))
        stars(ax, panel, column, notes)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    if len(set(columns)) == 1:
        _share(axes, len(panels))
    for ax in axes[-1]:
        ax.set_xlabel("depth of the site (percent)")
    if len(panels) == 1:
        _named(axes[0, 0], panels[0])
    legends.above(fig, list(axes.flat), order)
    if len(panels) == 1 and any(ax.collections for ax in axes.flat if _banded(panels[0])):
        notes.append("bands: the middle half of the units")
    several = any(len(set(p.names)) < len(p.names) for p in panels)
    if several:
        notes.append("thin lines: single models (seeds), thick ones: their mean")
    style.note(fig, "\n".join(dict.fromkeys(notes)))
    return fig


def in_order(names: list[str]) -> list[str]:
    """Names that are one text with different numbers by that number; others as they are."""
    return sorted(names, key=_number) if _ordered(names) else names


def colours(order: list[str]) -> dict[str, ColorType]:
    """A colour per name: from light to dark where the names are ordered by a number."""
    if _ordered(order):
        return dict(zip(order, map(tuple, style.shades(len(order)))))
    return {n: style.CYCLE[i % len(style.CYCLE)] for i, n in enumerate(order)}


def over_models(panel: Panel) -> list[dict]:
    """Per name and site: the mean over units, and its standard deviation over the models.

    Returns:
        Rows of name, place, site, mean, sd (NaN for one model), models, units.
    """
    rows = []
    for name in dict.fromkeys(panel.names):
        mine = [r for r, n in zip(panel.readings, panel.names) if n == name]
        wanted = pick(mine[0], panel.column)
        sites = [list(r.table["site"].unique()) for r in mine]
        if len({len(s) for s in sites}) > 1:
            continue
        for place, site in enumerate(sites[0]):
            units = [values(r, s[place], wanted) for r, s in zip(mine, sites)]
            means = np.array([finite_mean(u) for u in units])
            rows.append(
                {
                    "name": name,
                    "place": place,
                    "site": site,
                    "mean": float(np.nanmean(means)) if np.isfinite(means).any() else np.nan,
                    "sd": float(means.std(ddof=1)) if len(means) > 1 else np.nan,
                    "models": len(means),
                    "units": len(units[0]),
                }
            )
    return rows


def _by_class(panel: Panel) -> Panel:
    """The panel with a curve per class for readings within classes of labels."""
    if not any("class" in r.table for r in panel.readings):
        return panel
    readings, names = [], []
    for reading, name in zip(panel.readings, panel.names):
        if "class" not in reading.table:
            readings.append(reading)
            names.append(name)
            continue
        for kind, part in reading.table.groupby("class", sort=False):
            readings.append(replace(reading, table=part))
            names.append(f"class {kind}" if len(set(panel.names)) == 1 else f"{name}, {kind}")
    return Panel(panel.title, tuple(readings), tuple(names), panel.column)


def panel_tables(panels: Sequence[Panel]) -> dict[str, pd.DataFrame]:
    """The means of `over_models`, the tests of `isogon.measures.orbits.compare`, of all panels."""
    means, tests = [], []
    for panel in map(_by_class, panels):
        where = {"panel": panel.title} if any(p.title for p in panels[1:]) else {}
        column = pick(panel.readings[0], panel.column)
        means += [{**where, **row, "statistic": column} for row in over_models(panel)]
        if (over := repeated(panel)) is not None:
            found = compare(panel.readings, panel.names, column, over=over).table
            found = found.drop(columns="place").assign(over=over, statistic=column)
            tests.append(found.assign(**where)[[*where, *found.columns]])
    frame = pd.DataFrame(means).drop(columns="place", errors="ignore")
    if "sd" in frame:
        frame = frame.rename(columns={"sd": "sd_over_models"})
    return {"Means per site": frame, "Tests": pd.concat(tests) if tests else pd.DataFrame()}


def repeated(panel: Panel) -> Literal["units", "models"] | None:
    """What tests of a panel compare: models where each name has several, else units."""
    names = panel.names
    if len(set(names)) < 2 or len({r.table["site"].nunique() for r in panel.readings}) > 1:
        return None
    return "models" if min(names.count(n) for n in names) > 1 else "units"


def stars(ax: Axes, panel: Panel, column: str, notes: list[str]) -> None:
    """Mark the sites at which two names differ."""
    names = panel.names
    over = repeated(panel)
    if over is None:
        return
    tests = compare(panel.readings, names, column, over=over).table
    lowest = tests.groupby("place")["tukey_p"].min()
    if not np.isfinite(lowest).any():
        return
    for place, p in zip(np.linspace(0, 100, len(lowest)), lowest):
        if p < LEVEL:
            ax.text(
                place,
                1.0,
                "*",
                ha="center",
                va="top",
                color=style.INK,
                fontsize=11,
                transform=ax.get_xaxis_transform(),
                clip_on=False,
            )
    which = "the means of models" if over == "models" else "the units"
    two = "the two" if len(set(names)) == 2 else "two of them"
    notes.append(f"* {two} differ (Tukey's test of {which}, p < {LEVEL:g})")


def _curves(ax: Axes, panel: Panel, column: str, colors: dict[str, ColorType], bands: bool) -> None:
    bands = bands and _banded(panel)
    marks = dict(zip(colors, style.MARKS * 99))
    for name in in_order(list(dict.fromkeys(panel.names))):
        mine = [r for r, n in zip(panel.readings, panel.names) if n == name]
        lines = []
        for reading in mine:
            groups = [values(reading, s, column) for s in reading.table["site"].unique()]
            groups = [g[np.isfinite(g)] for g in groups]
            x = np.linspace(0, 100, len(groups))
            lines.append((x, np.array([finite_mean(g) for g in groups])))
            if bands and max(map(len, groups), default=0) > 1:
                low, high = (
                    [np.quantile(g, q) if len(g) else np.nan for g in groups] for q in (0.25, 0.75)
                )
                ax.fill_between(x, low, high, color=colors[name], alpha=0.13, lw=0)
        same = len({len(x) for x, _ in lines}) == 1
        if len(lines) > 1:
            for x, y in lines:
                ax.plot(x, y, color=colors[name], lw=0.7, alpha=0.5, label=None if same else name)
        if same:
            mean = np.nanmean(np.stack([y for _, y in lines]), 0) if lines else []
            look: Any = {"ms": 3.4, "color": colors[name], "marker": marks[name]}
            ax.plot(lines[0][0], mean, label=name, **look)
        _intervals(ax, mine, column, colors[name])
    if column.startswith("normalized"):
        ax.axhline(1, color=style.MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
    ax.set_ylim(bottom=0)


def _banded(panel: Panel) -> bool:
    return len(panel.names) <= BANDS


def _named(ax: Axes, panel: Panel) -> None:
    """Sites by name under their percentages, where all models have the same few."""
    sites = {tuple(style.trimmed(list(r.table["site"].unique()))) for r in panel.readings}
    names = next(iter(sites))
    if len(sites) == 1 and 1 < len(names) <= 10:
        x = np.linspace(0, 100, len(names))
        ax.set_xticks(x, [f"{v:.0f}\n{style.shorten(n, 12)}" for v, n in zip(x, names)])


def _intervals(ax: Axes, mine: list[Reading], column: str, color: ColorType) -> None:
    """Bootstrap intervals, where one model has them."""
    if len(mine) > 1 or f"{column}_low" not in mine[0].table:
        return
    sites = list(mine[0].table["site"].unique())
    ends = [
        [finite_mean(values(mine[0], s, f"{column}_{e}")) for s in sites] for e in ("low", "high")
    ]
    ax.vlines(np.linspace(0, 100, len(sites)), ends[0], ends[1], color=color, lw=1.2)


def _share(axes: np.ndarray, count: int) -> None:
    """One scale for all panels; labels on the left ones only."""
    used = list(axes.flat)[:count]
    top = max(ax.get_ylim()[1] for ax in used)
    for i, ax in enumerate(used):
        ax.set_ylim(0, top)
        if i % axes.shape[1]:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)


def _number(name: str) -> float:
    found = re.search(r"\d+(\.\d+)?", name)
    return float(found.group()) if found else 0.0


def _ordered(names: list[str]) -> bool:
    if any(n.startswith("class ") for n in names):
        return False
    same = {re.sub(r"\d+(\.\d+)?", "#", n, count=1) for n in names}
    singular = {t.replace("#", "", 1).rstrip("s") for t in same}  # 1 epoch, 2 epochs
    return len(names) > 2 and len(singular) == 1 and all(re.search(r"\d", n) for n in names)

"""Figures of stitching: penalties along the diagonal, and maps of all pairs of sites."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.stats import t

from isogon.errors import OptionError
from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import legends, style
from isogon.show import stitch_strengths as strengths
from isogon.show.generic import heatmap, site_axis
from isogon.show.stitch_strengths import labelled
from isogon.show.together import Panel

SHARES = ("penalty", "penalty_frozen_bn", "accuracy", "floor", "ceiling", "agreement")
NAMES = {"penalty_frozen_bn": "penalty, own batch-norm statistics"}
OPEN = "open marks: within a residual block"


def _together(panels: Sequence[Panel]) -> Figure:
    """Several runs: curves, or maps where every site was stitched into every other."""
    column = panels[0].column or "penalty"
    if column in strengths.FIGURES:
        return strengths.together(panels, column)
    if all(len(diagonal(r)) < len(r.table) for p in panels for r in p.readings):
        return _maps_together(panels, column)
    return _curves_together(panels)


def _curves_together(panels: Sequence[Panel]) -> Figure:
    """Penalties of k-th with k-th sites, a curve per method, the spread over runs as a band."""
    fig, axes = style.panels(min(3, len(panels)), -(-len(panels) // 3), height=2.8)
    marked = False
    for ax, panel in zip(axes.flat, panels):
        column = panel.column or "penalty"
        several = len(dict.fromkeys(panel.names)) > 1
        runs: dict[str, list[pd.DataFrame]] = {}
        for reading, name in zip(panel.readings, panel.names):
            for by, part in labelled(diagonal(reading)).groupby("method", sort=False):
                label = f"{name}, {by}" if several else str(by)
                runs.setdefault(label, []).append(part)
        for (label, parts), (place, line) in zip(runs.items(), _looks(runs)):
            marked |= curve(ax, parts, column, label, place, line=line)
        _site_labels(ax, diagonal(panel.readings[0]))
        ax.set_title(panel.title)
        ax.set_ylabel(_label(column))
    legends.above(fig, list(axes.flat))
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    if marked:
        style.note(fig, OPEN)
    return fig


def _maps_together(panels: Sequence[Panel], column: str) -> Figure:
    """A map per panel and method: means over runs."""
    parts = []
    for panel in panels:
        for reading, name in zip(panel.readings, panel.names):
            table = labelled(reading.table)
            said = [t for t in (panel.title, name) if t]
            table["method"] = [", ".join([*said, str(m)]) for m in table["method"]]
            parts.append(table)
    keys = ["site_a", "site_b", "method", "in_block"]
    table = pd.concat(parts).groupby(keys, sort=False)[column].mean().reset_index()
    first = panels[0].readings[0]
    return _maps(first, table, column, list(dict.fromkeys(table["method"])))


def _numbers_together(panels: Sequence[Panel]) -> dict[str, pd.DataFrame]:
    """Mean, standard deviation and number of runs of each pair and method, by panel.

    ``low`` and ``high``: the 95 % interval of the mean by Student's t, runs taken as independent
    (pairs of networks that share one are not quite).
    """
    found = {}
    for panel in panels:
        parts = [r.table.assign(name=n) for r, n in zip(panel.readings, panel.names)]
        table = pd.concat(parts)
        column = panel.column or "penalty"
        column = strengths.FIGURES.get(column, column)
        more = ["refine"] if "refine" in table else []
        keys = ["name", "by", *more, "site_a", "site_b", "in_block"]
        frame = table.groupby(keys, sort=False)[column].agg(["mean", "std", "count"]).reset_index()
        half = (
            frame["std"] * t.ppf(0.975, (frame["count"] - 1).clip(lower=1)) / frame["count"] ** 0.5
        )
        frame["low"], frame["high"] = frame["mean"] - half, frame["mean"] + half
        found[panel.title or "stitch"] = frame.rename(columns={"std": "sd", "count": "runs"})
    return found


@draws("stitch", together=_together, tables=_numbers_together)
def draw_stitch(reading: Reading, column: str = "penalty", by: str | None = None) -> Figure:
    """Along the diagonal a curve per method; of all pairs a map per method.

    Sites within residual blocks are drawn with open marks, or framed.

    Args:
        reading: Of `isogon.stitch`.
        column: What is drawn: penalty, penalty_frozen_bn, accuracy, floor, ceiling, agreement or
            loss; sparsity: penalty against sparsity; strength: how often which strength was chosen.
        by: Draw this method alone.
    """
    table = labelled(reading.table)
    names = list(dict.fromkeys(table["method"]))
    known = (*SHARES, "loss", *strengths.FIGURES)
    if column not in known:
        raise OptionError("no such column", got=column, expected=", ".join(known))
    if by is not None:
        names = [n for n in names if by in (n, *table[table["method"] == n]["by"])]
        if not names:
            expected = ", ".join(dict.fromkeys(table["by"]))
            raise OptionError("no such method", got=by, expected=expected)
    table = table[table["method"].isin(names)]
    if column in strengths.FIGURES:
        alone = dataclasses.replace(reading, table=table.drop(columns="method"))
        return strengths.together([Panel("", (alone,), ("",))], column)
    if len(diagonal(reading)) == len(reading.table):
        return _curves(reading, table, column, names)
    return _maps(reading, table, column, names)


def diagonal(reading: Reading) -> pd.DataFrame:
    """The rows of the k-th site with the k-th."""
    pairs = set(zip(*_sites(reading)))
    table = reading.table
    return table[[pair in pairs for pair in zip(table["site_a"], table["site_b"])]]


def _sites(reading: Reading) -> tuple[list[str], list[str]]:
    """The sites of a and of b in the order of computation."""
    return reading.meta["sites_a"], reading.meta["sites_b"]


def curve(
    ax: Axes,
    parts: Sequence[pd.DataFrame],
    column: str,
    label: str,
    place: int,
    key: str = "site",
    line: str = "-",
) -> bool:
    """One line over sites: the mean over runs with a standard deviation; whether a mark is open.

    Colour and mark are those of the ``place``-th curve.
    """
    color = style.CYCLE[place % len(style.CYCLE)]
    mark = style.MARKS[place % len(style.MARKS)]
    scale = 1.0 if column == "loss" else 100.0
    sites = list(dict.fromkeys(s for part in parts for s in part[key]))
    table = pd.concat(parts)
    groups = table.groupby(key, sort=False)
    mean, sd = groups[column].mean()[sites] * scale, groups[column].std(ddof=1)[sites] * scale
    inside = groups["in_block"].any()[sites].to_numpy(bool)
    places = np.arange(len(sites))
    name = style.shorten(label, 34)
    ax.plot(places, mean, color=color, lw=1.2, ls=line, label=name, marker=mark, ms=3.5)
    look = {"ms": 3.8, "color": color, "mfc": "white", "mew": 1.0, "zorder": 3, "ls": "none"}
    ax.plot(places[inside], mean[inside], marker=mark, **look)
    if sd.notna().any():
        low, high = (mean - sd).to_numpy(float), (mean + sd).to_numpy(float)
        ax.fill_between(places, low, high, color=color, alpha=0.18, lw=0)
    return bool(inside.any())


def _curves(reading: Reading, table: pd.DataFrame, column: str, names: list[str]) -> Figure:
    fig, axes = style.panels(1, height=max(2.8, 0.24 * len(names)))  # room for the legend
    ax = axes[0, 0]
    marked = False
    for name, (place, line) in zip(names, _looks(names)):
        part = table[table["method"] == name]
        marked |= curve(ax, [part], column, name, place, line=line)
    if column.startswith("penalty"):
        ax.axhline(0, color=style.MUTED, lw=0.6, zorder=0)
    _site_labels(ax, table)
    ax.set_ylabel(_label(column))
    ax.set_title(f"Accuracy of b alone: {100 * reading.meta['accuracy']:.1f} %")
    legends.beside(ax)
    if marked:
        style.note(fig, OPEN)
    return fig


def _looks(labels: Iterable[str]) -> list[tuple[int, str]]:
    """Place and line of each curve: dashed what was trained, in the colour of its closed form."""
    split = [re.match(r"(.*?)(, trained|, \d+ steps)?$", label) for label in labels]
    parts = [(m[1], m[2]) for m in split if m is not None]
    bases = list(dict.fromkeys(base for base, _ in parts))
    return [(bases.index(base), "--" if trained else "-") for base, trained in parts]


def _site_labels(ax: Axes, table: pd.DataFrame) -> None:
    names = dict(zip(table["site_a"], table["site_b"]))
    site_axis(ax, [a if a == b else f"{a} → {b}" for a, b in names.items()])


def _maps(reading: Reading, table: pd.DataFrame, column: str, names: list[str]) -> Figure:
    there = (set(table["site_a"]), set(table["site_b"]))
    down, across = ([s for s in sites if s in t] for sites, t in zip(_sites(reading), there))
    columns = min(len(names), 3 if len(across) < 12 else 2)
    rows = -(-len(names) // columns)
    height = float(np.clip(1.2 + 0.24 * len(down), 2.2, 5.0))
    wide = max(3.4, min(style.WIDTH, columns * (1.9 + 0.24 * len(across))))
    fig = style.figure(wide, rows * height)
    axes = fig.subplots(rows, columns, squeeze=False)
    scale = 1.0 if column == "loss" else 100.0
    values = table[column].to_numpy(float) * scale
    limits = min(0.0, float(np.nanmin(values))), max(float(np.nanmax(values)), 1e-9)
    framed = False
    for ax, name in zip(axes.flat, names):
        part = table[table["method"] == name]
        wide_table = part.pivot(index="site_a", columns="site_b", values=column)
        square = wide_table.reindex(index=down, columns=across).to_numpy(float) * scale
        heatmap(fig, ax, np.round(square), down, across, _label(column), limits=limits)
        ax.set_title(style.shorten(name, 34))
        ax.set_ylabel("head of a up to")
        ax.set_xlabel("tail of b from")
        for row in part[part["in_block"]].itertuples():
            place = across.index(str(row.site_b)) - 0.5, down.index(str(row.site_a)) - 0.5
            ax.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor=style.ORANGE, lw=1.0))
            framed = True
    for ax in list(axes.flat)[len(names) :]:
        ax.set_visible(False)
    if framed:
        style.note(fig, "framed: within a residual block")
    return fig


def _label(column: str) -> str:
    if column == "loss":
        return "loss (nats)"
    unit = "points" if column.startswith("penalty") else "%"
    return f"{NAMES.get(column, column)} ({unit})"

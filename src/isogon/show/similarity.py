"""Figures of similarity: maps of all pairs of sites, and curves along the diagonal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from isogon.errors import OptionError
from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import legends, style
from isogon.show.generic import heatmap, site_axis
from isogon.show.panel import Panel

LEVEL = 0.05  # of what counts as distinguishable from chance
SD = 1.96


def curves_together(panels: Sequence[Panel]) -> Figure:
    """Similarity of k-th with k-th sites, a curve per name, the spread over runs as a band."""
    fig, axes = style.panels(min(3, len(panels)), -(-len(panels) // 3), height=2.6)
    for ax, panel in zip(axes.flat, panels):
        grouped: dict[str, list[np.ndarray]] = {}
        for reading, name in zip(panel.readings, panel.names):
            for metric, part in _diagonals(reading):
                several = len(reading.table["metric"].unique()) > 1
                label = ", ".join(t for t in (name, metric if several else "") if t) or metric
                grouped.setdefault(label, []).append(part["similarity"].to_numpy(float))
        looks = zip(style.CYCLE * 9, style.MARKS * 10)
        for (color, mark), (label, runs) in zip(looks, grouped.items()):
            _band(ax, runs, label, color, mark)
        labels = _diagonals(panel.readings[0])[0][1]["site_a"].tolist()
        site_axis(ax, labels)
        ax.set_title(panel.title)
        ax.set_ylabel("similarity")
    legends.above(fig, list(axes.flat))
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    return fig


def numbers_together(panels: Sequence[Panel]) -> dict[str, pd.DataFrame]:
    """Mean, standard deviation and number of runs of each pair, by panel."""
    found = {}
    for panel in panels:
        parts = [r.table.assign(name=n) for r, n in zip(panel.readings, panel.names)]
        groups = pd.concat(parts).groupby(["name", "metric", "site_a", "site_b"], sort=False)
        frame = groups["similarity"].agg(["mean", "std", "count"]).reset_index()
        found[panel.title or "similarity"] = frame.rename(columns={"std": "sd", "count": "runs"})
    return found


@draws("similarity", together=curves_together, tables=numbers_together)
def draw_similarity(reading: Reading, metric: str | None = None, fade: bool = True) -> Figure:
    """A map of all pairs for each metric; along the diagonal a curve.

    Where subsets of the samples were compared (``repeats``), a band of one standard deviation about
    their mean lies behind the curve.

    Pairs that can't be told from chance (``p_max`` above 0.05, else ``p_value``, else a z within
    1.96) are hatched.

    Args:
        reading: Of `isogon.similarity`.
        metric: Draw this metric alone.
        fade: Hatch what can't be told from chance.
    """
    inner = reading.table[reading.table["site_a"] != "output"]
    names = list(dict.fromkeys(inner["metric"]))
    if metric is not None and metric not in names:
        raise OptionError("no such metric", got=metric, expected=", ".join(names))
    names = names if metric is None else [metric]
    if not names:
        return _bars(reading)
    if all(
        len(part) == part["site_a"].nunique() == part["site_b"].nunique()
        for _, part in inner.groupby("metric")
    ) and len(inner) > len(names):
        return _curves(reading, names)
    return _maps(reading, inner, names, fade)


def _maps(reading: Reading, inner: pd.DataFrame, names: list[str], fade: bool) -> Figure:
    down = list(dict.fromkeys(inner["site_a"]))
    across = list(dict.fromkeys(inner["site_b"]))
    columns = min(len(names), 3 if len(across) < 12 else 2)
    rows = -(-len(names) // columns)
    height = float(np.clip(1.2 + 0.24 * len(down), 2.2, 5.0))
    wide = max(3.4, min(style.WIDTH, columns * (1.9 + 0.24 * len(across))))
    fig = style.figure(wide, rows * height)
    axes = fig.subplots(rows, columns, squeeze=False)
    hatched = False
    for ax, name in zip(axes.flat, names):
        part = inner[inner["metric"] == name]
        values = _square(part, "similarity", down, across)
        facts = reading.meta["metrics"][name]
        low, high = facts["range"]
        signed = low < 0 and bool((values[np.isfinite(values)] < 0).any())
        limits = None if signed or not np.isfinite([low, high]).all() else (max(low, 0.0), high)
        label = "similarity" if facts["direction"].startswith("higher") else "distance"
        heatmap(fig, ax, values, down, across, label, limits=limits, diverging=signed)
        ax.set_title(style.shorten(name, 34))
        ax.set_ylabel("sites of a")
        ax.set_xlabel("sites of b")
        if fade and (chance := _chance(part)) is not None:
            mask = _square(part.assign(chance=chance.astype(float)), "chance", down, across)
            hatched |= _hatch(ax, mask)
    for ax in list(axes.flat)[len(names) :]:
        ax.set_visible(False)
    if hatched:
        style.note(fig, "hatched: not told from chance at the 5 % level")
    return fig


def _curves(reading: Reading, names: list[str]) -> Figure:
    fig, axes = style.panels(1, height=2.8)
    ax = axes[0, 0]
    for color, mark, name in zip(style.CYCLE * 9, style.MARKS * 10, names):
        part = reading.table[reading.table["metric"] == name]
        values = part["similarity"].to_numpy(float)
        ax.plot(values, marker=mark, color=color, ms=3.5, label=style.shorten(name, 34))
        if "sd" in part:
            mean, sd = part["mean"].to_numpy(float), part["sd"].to_numpy(float)
            label = f"sd over {reading.meta['repeats']} subsets of {reading.meta['subset']}"
            ax.fill_between(
                range(len(sd)), mean - sd, mean + sd, color=color, alpha=0.3, lw=0, label=label
            )
        if "null_sd" in part and np.isfinite(part["null_sd"]).any():
            sd = SD * part["null_sd"].to_numpy(float)
            ax.fill_between(
                range(len(sd)), -sd, sd, color=color, alpha=0.15, lw=0, label="chance, 95 %"
            )
    site_axis(ax, part["site_a"].tolist())
    one = len(names) == 1 and reading.meta["metrics"][names[0]]["direction"].startswith("lower")
    ax.set_ylabel("distance" if one else "similarity")
    legends.beside(ax)
    return fig


def _bars(reading: Reading) -> Figure:
    fig, axes = style.panels(1, height=2.2)
    ax, table = axes[0, 0], reading.table
    ax.bar(table["metric"], table["similarity"], color=style.BLUE, width=0.55)
    ax.set_ylabel("difference of the outputs")
    return fig


def _chance(part: pd.DataFrame) -> pd.Series | None:
    """Which pairs can't be told from chance; None where nothing says."""
    for column in ("p_max", "p_value"):
        if column in part and part[column].notna().any():
            return part[column] > LEVEL
    if "z" in part and part["z"].notna().any():
        return part["z"].abs() < SD
    return None


def _square(part: pd.DataFrame, column: str, down: list, across: list) -> np.ndarray:
    wide = part.pivot(index="site_a", columns="site_b", values=column)
    return wide.reindex(index=down, columns=across).to_numpy(float)


def _hatch(ax: Axes, mask: np.ndarray) -> bool:
    """Mark the cells where the mask is 1."""
    places = np.argwhere(mask == 1)
    for i, j in places:
        ax.add_patch(
            Rectangle(
                (j - 0.5, i - 0.5),
                1,
                1,
                fill=True,
                facecolor="#ffffff66",
                hatch="////",
                edgecolor=style.MUTED,
                lw=0,
            )
        )
    for text in ax.texts:  # numbers of these cells stay legible
        x, y = (round(float(v)) for v in text.get_position())
        if mask[y, x] == 1:
            style.on_data(text)
    return bool(len(places))


def _diagonals(reading: Reading) -> list[tuple[str, pd.DataFrame]]:
    """The k-th site with the k-th, per metric, of a diagonal or of all pairs."""
    found = []
    for name, part in reading.table.groupby("metric", sort=False):
        part = part[part["site_a"] != "output"]
        down = list(dict.fromkeys(part["site_a"]))
        across = list(dict.fromkeys(part["site_b"]))
        pairs = set(zip(down, across))
        keep = [pair in pairs for pair in zip(part["site_a"], part["site_b"])]
        if any(keep):
            found.append((str(name), part[keep]))
    if not found:
        raise OptionError("no pairs of sites to draw", got=reading.measure)
    return found


def _band(ax: Axes, runs: list[np.ndarray], label: str, color: str, mark: str) -> None:
    length = max(map(len, runs))
    table = np.full((len(runs), length), np.nan)
    for row, values in zip(table, runs):
        row[: len(values)] = values
    mean = np.nanmean(table, 0)
    ax.plot(mean, marker=mark, ms=3, color=color, label=style.shorten(label, 40))
    if len(runs) > 1:
        sd = np.nanstd(table, 0, ddof=1)
        ax.fill_between(range(length), mean - sd, mean + sd, color=color, alpha=0.18, lw=0)

"""The figure of homogeneity: deviations against the scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import legends, style
from isogon.show.invariance_scatter import depth_bar
from isogon.show.together import Panel

MANY = 10  # sites from which colours say their depth


def _together(panels: Sequence[Panel]) -> Figure:
    """Deviation against scale, a curve per run: the mean over sites, their range as a band."""
    fig, axes = style.panels(min(3, len(panels)), -(-len(panels) // 3), height=2.6)
    for ax, panel in zip(axes.flat, panels):
        runs: dict[str, list[pd.DataFrame]] = {}
        for reading, name in zip(panel.readings, panel.names):
            runs.setdefault(name, []).append(reading.table)
        looks = zip(style.CYCLE * 9, style.MARKS * 10)
        for k, ((color, mark), (name, parts)) in enumerate(zip(looks, runs.items())):
            size = max(2.5, 6.5 - 1.5 * k)  # several of them may be 0 throughout
            groups = pd.concat(parts).groupby("scale")["deviation"]
            mean, low, high = groups.mean(), groups.min(), groups.max()
            label = name or "mean"
            look = {"color": color, "lw": 0.4 * size, "marker": mark, "ms": size}
            ax.plot(mean.index, mean, label=label, **look)
            ax.fill_between(mean.index, low, high, color=color, alpha=0.18, lw=0)
        _finish(ax)
        ax.set_title(panel.title)
    legends.above(fig, list(axes.flat))
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    style.note(fig, "mean over sites, band: their range")
    return fig


def _numbers_together(panels: Sequence[Panel]) -> dict[str, pd.DataFrame]:
    """Mean and standard deviation over runs of each site and scale, by panel."""
    found = {}
    for panel in panels:
        parts = [r.table.assign(name=n) for r, n in zip(panel.readings, panel.names)]
        keys = ["name", "site", "op", "scale"]
        groups = pd.concat(parts).groupby(keys, sort=False)["deviation"]
        frame = groups.agg(["mean", "std", "count"]).reset_index()
        found[panel.title or "homogeneity"] = frame.rename(columns={"std": "sd", "count": "runs"})
    return found


@draws("homogeneity", together=_together, tables=_numbers_together)
def draw_homogeneity(reading: Reading) -> Figure:
    """Deviation against scale, a curve per site.

    Args:
        reading: Of `isogon.homogeneity`.
    """
    fig, axes = style.panels(1, height=2.8, width=5.2)
    ax, table = axes[0, 0], reading.table
    names = list(dict.fromkeys(table["site"]))
    many = len(names) > MANY
    shades = style.shades(len(names))
    for k, name in enumerate(names):
        color = shades[k] if many else style.CYCLE[k]
        part = table[table["site"] == name].sort_values("scale")
        size = 3 if many else max(2.5, 6.0 - 1.2 * k)  # several of them may be 0 throughout
        look = {"color": color, "lw": 1.2, "ms": size, "marker": style.MARKS[k % len(style.MARKS)]}
        label = style.shorten(f"{name} ({part['op'].iloc[0]})", 34)
        ax.plot(part["scale"], part["deviation"], label=label, **look)
    _finish(ax)
    if many:
        depth_bar(ax, names, shades)
    else:
        legends.beside(ax)
    return fig


def _finish(ax: Axes) -> None:
    ax.set_xscale("log", base=2)
    low, high = ax.get_xlim()
    ticks = [t for t in 2.0 ** np.arange(-6, 7) if low <= t <= high]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.axhline(0, color=style.MUTED, lw=0.6, zorder=0)
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]), top=max(0.05, ax.get_ylim()[1]))
    ax.set_xlabel("scale t")
    ax.set_ylabel("E|s(tz) - t s(z)| / E|t s(z)|")

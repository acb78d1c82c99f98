"""The figure of homogeneity: deviations against the scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import style
from isogon.show.together import Panel


def _together(panels: Sequence[Panel]) -> Figure:
    """Deviation against scale, a curve per run: the mean over sites, their range as a band."""
    fig, axes = style.panels(min(3, len(panels)), -(-len(panels) // 3), height=2.6)
    for ax, panel in zip(axes.flat, panels):
        runs: dict[str, list[pd.DataFrame]] = {}
        for reading, name in zip(panel.readings, panel.names):
            runs.setdefault(name, []).append(reading.table)
        for k, (color, (name, parts)) in enumerate(zip(style.CYCLE * 9, runs.items())):
            size = max(2.5, 6.5 - 1.5 * k)  # several of them may be 0 throughout
            groups = pd.concat(parts).groupby("scale")["deviation"]
            mean, low, high = groups.mean(), groups.min(), groups.max()
            label = name or "mean"
            ax.plot(mean.index, mean, color=color, lw=0.4 * size, marker="o", ms=size, label=label)
            ax.fill_between(mean.index, low, high, color=color, alpha=0.18, lw=0)
        _finish(ax)
        ax.set_title(panel.title)
        if len(runs) > 1:
            ax.legend(loc="best")
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
    shades = style.CYCLE * 9
    for color, name in zip(shades, names):
        part = table[table["site"] == name].sort_values("scale")
        label = style.shorten(f"{name} ({part['op'].iloc[0]})", 34)
        ax.plot(
            part["scale"], part["deviation"], color=color, lw=1.2, marker="o", ms=3, label=label
        )
    _finish(ax)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
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

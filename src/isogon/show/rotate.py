"""Figures of rotations: what an element of a group costs behind each site."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import legends, style
from isogon.show.generic import site_axis
from isogon.show.stitch import OPEN, curve
from isogon.show.together import Panel


def _curves_together(panels: Sequence[Panel]) -> Figure:
    """Penalties per site, a curve per name, the spread over elements and runs as a band."""
    fig, axes = style.panels(min(3, len(panels)), -(-len(panels) // 3), height=2.6)
    marked = False
    for ax, panel in zip(axes.flat, panels):
        runs: dict[str, list[pd.DataFrame]] = {}
        for reading, name in zip(panel.readings, panel.names):
            runs.setdefault(name or str(reading.meta["group"]), []).append(reading.table)
        for place, (label, parts) in enumerate(runs.items()):
            marked |= curve(ax, parts, panel.column or "penalty", label, place)
        _finish(ax, panel.readings[0])
        ax.set_title(panel.title)
    legends.above(fig, list(axes.flat))
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    if marked:
        style.note(fig, OPEN)
    return fig


def _numbers_together(panels: Sequence[Panel]) -> dict[str, pd.DataFrame]:
    """Mean, standard deviation and number of elements of each site, by panel."""
    found = {}
    for panel in panels:
        parts = [r.table.assign(name=n) for r, n in zip(panel.readings, panel.names)]
        groups = pd.concat(parts).groupby(["name", "site", "in_block"], sort=False)["penalty"]
        frame = groups.agg(["mean", "std", "count"]).reset_index()
        found[panel.title or "rotate"] = frame.rename(columns={"std": "sd", "count": "elements"})
    return found


@draws("rotate", together=_curves_together, tables=_numbers_together)
def draw_rotate(reading: Reading) -> Figure:
    """The penalty per site: each element a dot, the mean a line, one standard deviation a band.

    Args:
        reading: Of `isogon.rotate`.
    """
    fig, axes = style.panels(1, height=2.8, width=5.2)
    ax, table = axes[0, 0], reading.table
    sites = list(dict.fromkeys(table["site"]))
    if table["repeat"].max() > 0:
        places = table["site"].map(sites.index)
        spread = 0.25 * (table["repeat"] / table["repeat"].max() - 0.5)
        ax.plot(
            places + spread,
            table["penalty"] * 100,
            "s",
            ms=2.4,
            color=style.ORANGE,
            alpha=0.7,
            label="one element",
        )
    marked = curve(ax, [table], "penalty", "mean", 0)
    _finish(ax, reading)
    epochs, group = reading.meta["epochs"], reading.meta["group"]
    retrained = f"{epochs} epoch{'s' * (epochs != 1)} of retraining" if epochs else "not retrained"
    ax.set_title(f"{group}, {retrained}")
    if table["repeat"].max() > 0:
        ax.legend(loc="best")
    if marked:
        style.note(fig, OPEN)
    return fig


def _finish(ax: Axes, reading: Reading) -> None:
    site_axis(ax, list(dict.fromkeys(reading.table["site"])))
    ax.axhline(0, color=style.MUTED, lw=0.6, zorder=0)
    ax.set_ylabel("penalty (points)")
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, -1.0), max(high, 1.0) if np.isfinite(high) else 1.0)

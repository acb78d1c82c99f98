"""Figure of a match: how far the weights are apart, and what became of the units."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from isogon.measures.alignment import Match
from isogon.registry import draws
from isogon.show import style
from isogon.show.generic import boxes, site_axis


@draws("match")
def draw_match(reading: Match) -> Figure:
    """Per site the squared difference of the weights that touch it, and the scales of its channels.

    The line across is the difference over all weights; how many channels moved stands above each
    bar. Scales are drawn where any differs from 1.

    Args:
        reading: Of `isogon.match`.
    """
    table, sites = reading.table, list(reading.table["site"])
    ends = np.cumsum(table["channels"].to_numpy())[:-1]
    factors = [np.abs(f) for f in np.split(reading.arrays["factor"], ends)]
    scaled = any((f != 1).any() for f in factors)
    fig, axes = style.panels(2 if scaled else 1, height=2.8)
    ax = axes[0, 0]
    values = table["objective"].to_numpy(float)
    ax.bar(range(len(sites)), values, color=style.BLUE, width=0.62)
    ax.axhline(reading.objective, color=style.ORANGE, lw=1.1)
    ax.text(len(sites) - 0.45, reading.objective, " all", color=style.ORANGE, va="center",
            fontsize=7.5)  # fmt: skip
    site_axis(ax, style.trimmed(sites))
    if len(sites) <= 16:
        for place, (moved, size, y) in enumerate(zip(table["moved"], table["channels"], values)):
            ax.annotate(f"{moved}/{size}", (place, y), (0, 2), textcoords="offset points",
                        ha="center", fontsize=6.5, color=style.MUTED)  # fmt: skip
    ax.set_ylabel("squared difference of weights")
    ax.set_title("channels that moved, above the bars" if len(sites) <= 16 else "")
    if scaled:
        other = axes[0, 1]
        boxes(other, factors)
        other.axhline(1, color=style.MUTED, lw=0.7, zorder=0)
        style.log_axis(other.yaxis, np.concatenate(factors))
        site_axis(other, style.trimmed(sites))
        other.set_ylabel("scale of the channels")
    return fig

"""Figure of a match: how far the weights are apart, and what became of the units."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from isogon.measures.alignment.matching import Match
from isogon.registry import draws
from isogon.show import style
from isogon.show.generic import boxes, site_axis

FAR = 5.0  # times the difference of matched weights above which that of unmatched ones is left out


@draws("match")
def draw_match(reading: Match) -> Figure:
    """Per site the squared difference of the weights that touch it, and the scales of its channels.

    Lines across: the difference over all weights, with b matched and as it was (where that is not
    far above). Scales are drawn where any differs from 1: their median, quartiles, and 5 to 95 %.

    Args:
        reading: Of `isogon.match`.
    """
    table, sites = reading.table, style.trimmed(list(reading.table["site"]))
    ends = np.cumsum(table["channels"].to_numpy())[:-1]
    factors = [np.abs(f) for f in np.split(reading.arrays["factor"], ends)]
    scaled = any((f != 1).any() for f in factors)
    fig, axes = style.panels(2 if scaled else 1, height=2.8)
    ax, before = axes[0, 0], float(reading.meta["objective_before"])
    ax.plot(table["objective"].to_numpy(float), "o", color=style.BLUE, ms=5)
    ax.axhline(reading.objective, color=style.BLUE, lw=1.1, label="all weights, matched")
    if before < FAR * max(reading.objective, 1e-12):
        ax.axhline(before, color=style.MUTED, lw=1.1, ls="--", label="all weights, as they were")
    ax.set_ylim(0, 1.1 * max(ax.get_ylim()[1], 1e-12))
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, columnspacing=1.0)
    site_axis(ax, sites)
    ax.set_ylabel("squared difference of weights")
    if scaled:
        other = axes[0, 1]
        boxes(other, factors)
        other.axhline(1, color=style.MUTED, lw=0.7, zorder=0)
        style.log_axis(other.yaxis, np.concatenate(factors))
        site_axis(other, sites)
        other.set_ylabel("scale of the channels")
    return fig

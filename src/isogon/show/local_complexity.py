"""Figure of local complexity: hyperplanes around each input, by site."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from isogon.readings import SampleTable
from isogon.registry import draws
from isogon.show import style
from isogon.show.generic import boxes, site_axis
from isogon.show.segments import site_colors

PREFIX = "hyperplanes@"
BARS = 48  # inputs that get a bar each


@draws("local_complexity", columns=("hyperplanes", "patterns"))
def draw_local_complexity(reading: SampleTable) -> Figure:
    """Hyperplanes near each input, stacked by site (many inputs: their spread); by site over all.

    Args:
        reading: Of `local_complexity`.
    """
    names = [str(c) for c in reading.table if str(c).startswith(PREFIX)]
    fig, axes = style.panels(2, height=2.7)
    _samples(axes[0, 0], reading, names)
    _sites(axes[0, 1], reading, names)
    style.letter(list(axes[0]))
    style.note(fig, f"radius {reading.meta['radius']:g}, {reading.meta['directions']} directions")
    return fig


def _samples(ax: Axes, reading: SampleTable, names: list[str]) -> None:
    table = reading.table
    colors = site_colors(names)
    if len(table) > BARS:
        ax.hist(
            table["hyperplanes"],
            bins=min(40, 8 + len(table) // 8),
            color=style.BLUE,
            alpha=0.8,
            rwidth=0.95,
        )
        ax.set_xlabel("hyperplanes near an input")
        ax.set_ylabel("inputs")
    else:
        base = np.zeros(len(table))
        for name in names:
            values = table[name].to_numpy(float)
            ax.bar(
                table["sample"],
                values,
                bottom=base,
                color=colors[name],
                width=0.85,
                label=style.shorten(name.removeprefix(PREFIX), 18),
            )
            base += values
        ax.set_xlabel("sample")
        ax.set_ylabel("hyperplanes near it")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(names) <= 8:
            ax.set_ylim(top=1.02 * max(base.max(initial=0), 1) * (1 + 0.12 * -(-len(names) // 2)))
            ax.legend(loc="upper left", ncols=2, fontsize=6.5, columnspacing=1.0)
    ax.set_title("Around each input")


def _sites(ax: Axes, reading: SampleTable, names: list[str]) -> None:
    data = [reading.table[name].to_numpy(float) for name in names]
    boxes(ax, data)
    ax.plot([d.mean() for d in data], color=style.ORANGE, lw=1.2, marker="o", ms=3, label="mean")
    site_axis(ax, [name.removeprefix(PREFIX) for name in names])
    ax.set_ylim(bottom=0)
    ax.set_ylabel("hyperplanes")
    ax.legend()
    ax.set_title("By site, over the inputs")

"""Two statistics of every unit against each other, coloured by depth."""

from __future__ import annotations

import numpy as np
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from isogon.errors import OptionError
from isogon.readings import Reading
from isogon.show import style

MOST = 20_000  # dots: more are thinned, evenly within each site


def draw_scatter(reading: Reading, x: str, y: str, labels: dict[str, str]) -> Figure:
    """A dot per unit, its colour the site's place; a ring at the mean of each site.

    Units for which one of the two is missing or infinite are left out; Spearman's rank
    correlation of the rest is given, over all units and (its median) within the sites.
    """
    if x == y:
        raise OptionError("two different statistics are needed", got=x)
    sites = list(reading.table["site"].unique())
    frame = reading.table[["site", x, y]].replace([np.inf, -np.inf], np.nan).dropna()
    if frame.empty:
        raise OptionError("nothing to draw", got="no unit with both statistics finite")
    within = [g for _, g in frame.groupby("site", sort=False)]
    fig = style.figure(5.4, 3.9)
    ax = fig.subplots()
    shades = style.shades(len(sites))
    step = max(1, -(-len(frame) // MOST))
    for site, color in zip(sites, shades):
        part = frame[frame["site"] == site]
        thinned = part.iloc[::step]
        ax.scatter(thinned[x], thinned[y], s=5, color=color, alpha=0.4, lw=0, rasterized=True)
    for site, color in zip(sites, shades):
        part = frame[frame["site"] == site]
        if len(part):
            ax.scatter(
                part[x].mean(), part[y].mean(), s=42, color=color, ec="white", lw=1.4, zorder=4
            )
            ax.scatter(
                part[x].mean(), part[y].mean(), s=52, color="none", ec=style.INK, lw=0.7, zorder=5
            )
    for axis, name in ((ax.xaxis, x), (ax.yaxis, y)):
        style.log_axis(axis, np.quantile(frame[name], (0.001, 0.05, 0.95, 1)))
    ax.set_xlabel(labels.get(x, x.replace("_", " ")))
    ax.set_ylabel(labels.get(y, y.replace("_", " ")))
    depth_bar(ax, sites, shades)
    ax.set_title("Units (dots) and means of the sites (rings)")
    notes = [f"Spearman's rank correlation: {_spearman(frame[x], frame[y])} over all units"]
    if len(within) > 1:
        inner = [scipy.stats.spearmanr(g[x], g[y])[0] for g in within if _varies(g[x], g[y])]
        if inner:
            notes.append(f"{np.median(inner):.2f} within a site (median)".replace("-", "−"))
    if len(frame) < len(reading.table):
        notes.append(f"{len(reading.table) - len(frame):,} units without both left out")
    style.note(fig, ", ".join(notes))
    return fig


def depth_bar(ax: Axes, sites: list[str], shades: np.ndarray) -> None:
    """Which colour is which site."""
    norm = BoundaryNorm(np.arange(len(sites) + 1) - 0.5, len(sites))
    scale = ScalarMappable(norm, ListedColormap(shades))
    bar = style.color_bar(scale, "", ax=ax, pad=0.02, aspect=24)
    bar.set_ticks(list(range(len(sites))), labels=list(map(style.shorten, style.trimmed(sites))))
    bar.ax.tick_params(length=0, labelsize=7)
    bar.ax.invert_yaxis()


def _varies(a, b) -> bool:
    return len(a) > 2 and a.nunique() > 1 and b.nunique() > 1


def _spearman(a, b) -> str:
    return f"{scipy.stats.spearmanr(a, b)[0]:.2f}".replace("-", "−") if _varies(a, b) else "none"

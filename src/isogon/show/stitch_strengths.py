"""Figures of the strengths of stitches: penalty against sparsity, and which ones were chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from isogon.errors import OptionError
from isogon.show import legends, style
from isogon.show.panel import Panel

FIGURES = {"sparsity": "sparsity", "strength": "strength"}  # what is drawn -> its column


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column ``method``: the stitch, and how long it was trained."""
    trained = pd.Series(table.get("refine", 0), index=table.index)
    several = trained[trained > 0].nunique() > 1
    names = [
        by if not n else f"{by}, {n} steps" if several else f"{by}, trained"
        for by, n in zip(table["by"], trained)
    ]
    return table.assign(method=names)


def together(panels: Sequence[Panel], what: str) -> Figure:
    """One axis per panel.

    Args:
        panels: Readings of `isogon.stitch`.
        what: ``sparsity``: a curve per site, a mark per method and run; ``strength``: how many
            sites and runs chose which strength.

    Raises:
        OptionError: Nothing was chosen, or no map is a matrix.
    """
    fig, axes = style.panels(min(3, len(panels)), -(-len(panels) // 3), height=2.8)
    for ax, panel in zip(axes.flat, panels):
        table = pd.concat([labelled(r.table) for r in panel.readings])
        if what == "sparsity":
            _sparsity(ax, table)
        else:
            tried = [t["strength"] for r in panel.readings for t in r.meta.get("strengths", [])]
            _chosen(ax, table, tried)
        ax.set_title(panel.title)
    if len(panels) == 1:
        legends.beside(axes[0, 0])
    else:
        legends.above(fig, list(axes.flat))
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    return fig


def _sparsity(ax: Axes, table: pd.DataFrame) -> None:
    table = table[table["sparsity"].notna()]
    if not len(table):
        raise OptionError("no map is a matrix", got="no sparsity", expected="e.g. by=lasso(0.01)")
    sites = list(dict.fromkeys(table["site"]))
    for color, mark, site in zip(style.CYCLE * 9, style.MARKS * 10, sites):
        part = table[table["site"] == site]
        mean = part.groupby("method", sort=False)[["sparsity", "penalty"]].mean()
        mean = mean.sort_values("sparsity") * 100
        ax.plot(part["sparsity"] * 100, part["penalty"] * 100, mark, ms=2.4, color=color, alpha=0.5)
        label = style.shorten(site, 24)
        look = {"color": color, "marker": mark, "ms": 3.2, "lw": 1.2}
        ax.plot(mean["sparsity"], mean["penalty"], label=label, **look)
    ax.axhline(0, color=style.MUTED, lw=0.6, zorder=0)
    ax.set_xlabel("entries that are 0 (%)")
    ax.set_ylabel("penalty (points)")


def _chosen(ax: Axes, table: pd.DataFrame, tried: Sequence[float]) -> None:
    table = table[table["strength"].notna()]
    if not len(table):
        raise OptionError(
            "nothing was chosen", got="no strengths", expected="e.g. by=lasso((0.001,0.01))"
        )
    values = sorted({*table["strength"], *tried})
    names = list(dict.fromkeys(table["method"]))
    width = 0.8 / len(names)
    looks = zip(style.CYCLE * 9, style.HATCHES * 9)
    for k, ((color, hatch), name) in enumerate(zip(looks, names)):
        chosen = table[table["method"] == name]["strength"]
        counts = [int((chosen == v).sum()) for v in values]
        places = np.arange(len(values)) + (k - (len(names) - 1) / 2) * width
        ax.bar(
            places,
            counts,
            width,
            color=color,
            label=style.shorten(name, 34),
            **style.hatched(hatch),
        )
    ax.set_xticks(range(len(values)), [f"{v:g}" for v in values])
    ax.set_xlim(-1, len(values))
    ax.set_xlabel("strength or rank that was chosen")
    ax.set_ylabel("sites and runs")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))

"""Figures of the orientation of hyperplanes: cosines per site, mass, distance; over training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from isogon.errors import OptionError
from isogon.measures.arrangement.null import LEVEL
from isogon.measures.arrangement.orientation import OrientationTable
from isogon.registry import draws
from isogon.show import style
from isogon.show.generic import boxes, site_axis

if TYPE_CHECKING:
    import pandas as pd

MOST = 20  # sites whose course over training is drawn
BAND = 1.96  # standard deviations: 95 % of untrained layers lie within


@draws("orientation", columns=("cosine", "nonpositive"))
def draw_orientation(reading: OrientationTable, series: bool | None = None) -> Figure:
    """Cosine of each filter with the all-ones direction, and the share that is not positive.

    The grey band holds that share in 95 % of untrained layers; a star marks the sites that part
    from it, after Benjamini and Hochberg's correction over the sites.

    Args:
        reading: Of `isogon.orientation`.
        series: The share over the snapshots, site by site, instead; by default where there are
            at least two.

    Raises:
        OptionError: There are no snapshots.
    """
    names = reading.coords.get("snapshot", [])
    if series and not names:
        raise OptionError(
            "no series to draw",
            got="a reading without snapshots",
            expected="orientation(model, snapshots=...)",
        )
    if series or (series is None and len(names) > 1):
        return _course(reading)
    table: pd.DataFrame = reading.table
    sites = list(table["site"].unique())
    summary: pd.DataFrame = reading.summary()
    per_site, network = summary.iloc[:-1], summary.iloc[-1]
    distances = bool(summary["l2_distance"].notna().any())
    rows = 3 if distances else 2
    fig = style.figure(style.WIDTH, 3.4 + 1.1 * distances)
    axes = fig.subplots(rows, 1, sharex=True, height_ratios=[2.2, 1, 1][:rows])

    ax = axes[0]
    data = [group.to_numpy() for _, group in table.groupby("site", sort=False)["cosine"]]
    if len(sites) <= 40:
        random = np.random.default_rng(0)
        for place, values in enumerate(data):
            values = values if len(values) <= 400 else random.choice(values, 400, replace=False)
            across = place + random.uniform(-0.26, 0.26, len(values))
            ax.scatter(across, values, s=2.5, color=style.BLUE, alpha=0.22, lw=0)
    boxes(ax, data)
    ax.axhline(0, color=style.MUTED, lw=0.8, ls=(0, (4, 3)))
    top = max(0.05, max(np.abs(d).max() for d in data)) * 1.08
    ax.set_ylim(-min(top, 1.02), min(top, 1.02))
    ax.set_ylabel(r"cosine of $w_i$ with $\mathbf{1}$")
    ax.set_title("Orientation of the filters")

    ax = axes[1]
    ax.bar(range(len(sites)), per_site["mass"], width=0.62, color=style.BLUE, alpha=0.75)
    away = BAND * per_site["null_sd"].to_numpy()
    for place, gap in enumerate(away):
        ax.fill_between(
            [place - 0.4, place + 0.4], 0.5 - gap, 0.5 + gap, color=style.MUTED, alpha=0.22, lw=0
        )
    for place in np.flatnonzero(per_site["p_corrected"] < LEVEL):
        at = max(per_site["mass"].iloc[place], 0.5 + away[place])
        ax.text(place, min(at, 0.9), "*", ha="center", va="bottom", fontsize=9, color=style.INK)
    ax.axhline(network["mass"], color=style.ORANGE, lw=1.2)
    ax.text(
        len(sites) - 0.42,
        network["mass"],
        f" network {network['mass']:.2f}",
        va="center",
        fontsize=7.5,
        color=style.ORANGE,
    )
    ax.axhline(0.5, color=style.MUTED, lw=0.8, ls=(0, (4, 3)))
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.5, 1])
    ax.set_ylabel("share with\n$\\langle w_i, 1\\rangle \\leq 0$")

    if distances:
        ax = axes[2]
        for name, color, mark, label in (
            ("l2_distance", style.GREEN, "o", "Euclidean"),
            ("linf_distance", style.PURPLE, "s", "largest entry"),
        ):
            values = per_site[name].replace(np.inf, np.nan)
            ax.plot(range(len(sites)), values, marker=mark, ms=3, color=color, label=label)
        ax.set_ylim(bottom=0)
        ax.set_ylabel("relative distance\nfrom initial")
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    for ax in axes:
        for stage in np.flatnonzero(np.diff(per_site["stage"].to_numpy(int))):
            ax.axvline(stage + 0.5, color=style.FAINT, lw=0.9, zorder=0)
    site_axis(axes[-1], sites)
    axes[-1].set_xlabel("site (lines: pooling)" if per_site["stage"].nunique() > 1 else "site")
    zeros = int(network["zero"])
    style.note(
        fig,
        "grey: 95 % of untrained layers; *: p < 0.05, corrected"
        + (f"; {zeros} filters are zero" if zeros else ""),
    )
    return fig


def _course(reading: OrientationTable) -> Figure:
    """Mass of each site over the snapshots, with the band of untrained layers."""
    table: pd.DataFrame = reading.series()
    known = next((k for k in ("step", "epoch") if table[k].notna().all()), None)
    sites = list(dict.fromkeys(table["site"]))
    shown = [*sites[:-1][:MOST], sites[-1]]
    across = min(4, len(shown))
    fig, axes = style.panels(across, -(-len(shown) // across), height=1.55)
    for ax, site in zip(axes.flat, shown):
        rows = table[table["site"] == site]
        x = rows[known].to_numpy(float) if known else np.arange(len(rows), dtype=float)
        away = BAND * rows["null_sd"].iloc[0]
        ax.axhspan(0.5 - away, 0.5 + away, color=style.MUTED, alpha=0.16, lw=0)
        color = style.ORANGE if site == "network" else style.BLUE
        ax.plot(x, rows["mass"], "-o", ms=2.6, color=color)
        parted = (rows["p_corrected"] < LEVEL).to_numpy()
        ax.plot(x[parted], rows["mass"][parted], "o", ms=4.2, mfc="none", mew=0.9, color=style.INK)
        ax.set_ylim(0, 1)
        ax.set_yticks([0, 0.5, 1])
        ax.set_title(f"{site}, N = {rows['units'].iloc[0]}", fontsize=8)
    for ax in list(axes.flat)[len(shown) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel(known or "snapshot")
    fig.supylabel(r"share of filters with $\langle w_i, 1\rangle \leq 0$", fontsize=9)
    more = f"; the first {MOST} of {len(sites) - 1} sites" if len(sites) - 1 > MOST else ""
    style.note(fig, f"grey: 95 % of untrained layers; rings: p < 0.05, corrected over sites{more}")
    return fig

"""Figure of the orientation of hyperplanes: cosines per site, mass, distance."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import style
from isogon.show.generic import boxes, site_axis


@draws("orientation", columns=("cosine", "projection"))
def draw_orientation(reading: Reading) -> Figure:
    """Cosine of each filter with the all-ones direction, and the share that is not positive."""
    table: Any = reading.table
    sites = list(table["site"].unique())
    summary: Any = reading.summary()
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
        for name, color, label in (
            ("l2_distance", style.GREEN, "Euclidean"),
            ("linf_distance", style.PURPLE, "largest entry"),
        ):
            values = per_site[name].replace(np.inf, np.nan)
            ax.plot(range(len(sites)), values, "-o", ms=3, color=color, label=label)
        ax.set_ylim(bottom=0)
        ax.set_ylabel("relative distance\nfrom initial")
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    for ax in axes:
        for stage in np.flatnonzero(np.diff(per_site["stage"].to_numpy(int))):
            ax.axvline(stage + 0.5, color=style.FAINT, lw=0.9, zorder=0)
    site_axis(axes[-1], sites)
    axes[-1].set_xlabel("site (lines: pooling)" if per_site["stage"].nunique() > 1 else "site")
    if zeros := int(network["zero"]):
        style.note(fig, f"{zeros} filters are zero.")
    return fig

"""Figure of distances along leaves: what of a transformation the classifier sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import legends, style
from isogon.show.generic import site_axis

if TYPE_CHECKING:
    import pandas as pd


@draws("leaf_distance", along="transformation", columns=("leaf", "euclidean", "remaining"))
def draw_leaf_distance(reading: Reading) -> Figure:
    """Euclidean distance, length along the leaf and what remains, per transformation."""
    table: pd.DataFrame = reading.table
    labels = list(dict.fromkeys(table["transformation"]))
    fig, axes = style.panels(1, width=5.6, height=3.0)
    ax = axes[0, 0]
    groups = table.groupby("transformation", sort=False)
    for column, color, mark, text in (
        ("leaf", style.BLUE, "o", "along the leaf"),
        ("euclidean", style.MUTED, "s", "straight"),
        ("remaining", style.ORANGE, "^", "remaining: not seen by the classifier"),
    ):
        values = [groups.get_group(name)[column].to_numpy(dtype=float) for name in labels]
        low, mid, high = np.array([np.percentile(v, [25, 50, 75]) for v in values]).T
        place = np.arange(len(labels))
        ax.fill_between(place, low, high, color=color, alpha=0.15, lw=0)
        size = 5 if column == "euclidean" else 3  # what remains may be all of it
        ax.plot(place, mid, marker=mark, ms=size, color=color, label=text)
    site_axis(ax, labels)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("transformation")
    ax.set_ylabel("distance (L2)")
    ax.set_title("How far a transformed image is")
    legends.above(fig, [ax])
    if (missed := int((~table["reached"].to_numpy(bool)).sum())) > 0:
        style.note(fig, f"{missed} of {len(table)} walks ended short of their target")
    return fig

"""Figure of layer resets: the accuracy that each layer holds."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import style
from isogon.show.generic import heatmap


@draws("reset", columns=("drop",))
def draw_reset(reading: Reading) -> Figure:
    """Drop of accuracy, snapshots down and layers across."""
    drop = np.asarray(reading.arrays["drop"], dtype=float).T * 100
    sites, names = reading.coords["site"], reading.coords["snapshot"]
    width = float(np.clip(2.2 + 0.34 * len(sites), 3.6, style.WIDTH))
    fig = style.figure(width, float(np.clip(1.3 + 0.3 * len(names), 1.9, 7.0)))
    ax = fig.subplots()
    top = max(float(np.nanmax(drop, initial=0.0)), 1.0)  # points: less is hardly a loss
    heatmap(fig, ax, drop, names, sites, "drop (points)", limits=(min(0.0, np.nanmin(drop)), top))
    ax.set_xlabel("layer that is reset")
    ax.set_ylabel("to its state in")
    ax.set_title(f"Accuracy lost of {100 * reading.meta['accuracy']:.1f} %")
    return fig

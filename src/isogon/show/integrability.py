"""Figure of the bracket test: how far each sample is from having a leaf."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import style


@draws("integrability", columns=("residual", "bracket"))
def draw_integrability(reading: Reading) -> Figure:
    """Distribution of the residual, and the residual against the size of the bracket."""
    residual = reading.table["residual"].to_numpy(dtype=float)
    bracket = reading.table["bracket"].to_numpy(dtype=float)
    zero = residual == 0
    fig, axes = style.panels(2, width=5.4, height=2.5)
    ax = axes[0, 0]
    edges = np.linspace(0, 1, 26)
    ax.hist(residual[~zero], bins=edges, color=style.BLUE, alpha=0.8, rwidth=0.92)
    if zero.any():
        ax.bar(0, zero.sum(), width=0.035, color=style.GREEN, label=f"exactly 0 ({zero.sum()})")
        ax.legend()
    ax.set_xlim(-0.04, 1.02)
    ax.set_xlabel(r"residual $\|(I-P)[X_i, X_j]\| \,/\, \|[X_i, X_j]\|$")
    ax.set_ylabel("samples")
    ax.set_title("Distance from integrable")
    ax = axes[0, 1]
    if (~zero).any():
        ax.scatter(bracket[~zero], residual[~zero], s=10, color=style.BLUE, alpha=0.6, lw=0)
        style.log_axis(ax.xaxis, bracket[~zero])
        ax.set_ylim(0, 1.03)
        ax.set_xlabel(r"$\|[X_i, X_j]\|$")
        ax.set_ylabel("residual")
    else:
        ax.set_axis_off()
        ax.text(
            0.5,
            0.5,
            "all brackets vanish:\nevery sample lies in a leaf",
            ha="center",
            va="center",
            color=style.MUTED,
            transform=ax.transAxes,
        )
    ax.set_title("Against the size of the bracket")
    style.letter(list(axes[0]))
    return fig

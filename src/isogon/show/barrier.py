"""Figures of the barrier between two networks: loss and accuracy on the line between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isogon.measures.alignment.barrier import Barrier
from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import legends, style
from isogon.show.together import Panel

COLUMNS = ("loss", "accuracy")
REPAIRED = ", recalibrated"


def _curves_together(panels: Sequence[Panel]) -> Figure:
    """Loss and accuracy along the line, mean over runs with one standard deviation as a band."""
    fig, axes = style.panels(2, len(panels), height=2.6)
    looks: dict[str, int] = {}
    for row, panel in zip(axes, panels, strict=True):
        grouped: dict[str, list[pd.DataFrame]] = {}
        for reading, name in zip(panel.readings, panel.names, strict=True):
            for label, part in _curves(reading):
                grouped.setdefault(", ".join(t for t in (name, label) if t), []).append(part)
        several = len(set(panel.names)) > 1
        for label, parts in grouped.items():
            matched, repaired = (bool(parts[0][c].iloc[0]) for c in ("matched", "recalibrated"))
            pair = label.removesuffix(REPAIRED)
            at = looks.setdefault(pair if several else str(matched), len(looks))
            for ax, column in zip(row, COLUMNS, strict=True):
                _band(ax, parts, column, label, at, repaired)
        _finish(row, panel.title)
    legends.above(fig, list(axes.flat))
    return fig


def _numbers_together(panels: Sequence[Panel]) -> dict[str, pd.DataFrame]:
    """Gaps of each curve: mean, standard deviation and number of runs, by panel."""
    found = {}
    for panel in panels:
        parts = [r.summary().assign(name=n) for r, n in zip(panel.readings, panel.names)]
        keys = ["name", "matched", "recalibrated"]
        groups = pd.concat(parts).groupby(keys, sort=False)
        columns = [f"{c}_{k}" for c in COLUMNS for k in ("gap", "midpoint")]
        frame = groups[columns].agg(["mean", "std", "count"])
        frame.columns = [f"{c} {k}" for c, k in frame.columns]
        found[panel.title or "barrier"] = frame.reset_index()
    return found


@draws("barrier", together=_curves_together, tables=_numbers_together)
def draw_barrier(reading: Barrier) -> Figure:
    """Loss and accuracy along the line, before and after matching and recalibration.

    Dotted: the straight line between the ends, from which the gap is measured.

    Args:
        reading: Of `isogon.barrier`.
    """
    fig, axes = style.panels(2, height=2.7)
    for label, part in _curves(reading):
        color = _color(part)
        dashed = "--" if bool(part["recalibrated"].iloc[0]) else "-"
        for ax, column in zip(axes[0], COLUMNS, strict=True):
            t, y = part["t"].to_numpy(float), part[column].to_numpy(float)
            ax.plot(t, y, dashed, color=color, label=label, marker=_mark(part), ms=2.8)
            ax.plot(t[[0, -1]], y[[0, -1]], ":", color=color, lw=0.9, zorder=0)
    _finish(axes[0], "")
    if len(axes[0, 1].get_legend_handles_labels()[1]) > 1:
        legends.beside(axes[0, 1])
    return fig


def _curves(reading: Reading) -> list[tuple[str, pd.DataFrame]]:
    assert isinstance(reading, Barrier)
    found = []
    for matched, repaired, part in reading.curves():
        label = "matched" if matched else "as trained"
        found.append((label + REPAIRED if repaired else label, part))
    return found


def _color(part: pd.DataFrame) -> str:
    return style.ORANGE if bool(part["matched"].iloc[0]) else style.BLUE


def _mark(part: pd.DataFrame) -> str:
    return style.MARKS[int(part["matched"].iloc[0])]


def _band(
    ax: Axes, parts: list[pd.DataFrame], column: str, label: str, place: int, repaired: bool
) -> None:
    color = style.CYCLE[place % len(style.CYCLE)]
    mark = style.MARKS[place % len(style.MARKS)]
    t = parts[0]["t"].to_numpy(float)
    values = np.stack([np.interp(t, p["t"], p[column]) for p in parts])
    dashed = "--" if repaired else "-"
    text = style.shorten(label, 40)
    ax.plot(t, values.mean(0), dashed, color=color, marker=mark, ms=3, label=text)
    if len(parts) > 1:
        sd = values.std(0, ddof=1)
        low, high = values.mean(0) - sd, values.mean(0) + sd
        ax.fill_between(t, low, high, color=color, alpha=0.18, lw=0)


def _finish(axes: Sequence[Axes], title: str) -> None:
    for ax, column in zip(axes, COLUMNS, strict=True):
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["a", "¼", "½", "¾", "b"])
        ax.set_xlabel("on the line from a to b")
        ax.set_ylabel(column)
    axes[0].set_title(title)

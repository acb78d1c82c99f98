"""Figures of many runs of a measure, by what kind of reading it is; see `isogon.show.runs`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isogon.errors import OptionError
from isogon.readings import Grid, Reading
from isogon.show import legends, style
from isogon.show.generic import axis_label, heatmap, site_axis
from isogon.show.panel import Panel
from isogon.show.runs import (
    RunCurve,
    array_of,
    columns,
    curve_axis,
    declared,
    mean_and_sd,
    run_curve,
    scalars,
    split_curves,
)

GRID = 200  # points of a distribution
MOST = 6  # numbers of summaries


def draw_runs(panels: Sequence[Panel]) -> Figure:
    """The figure, for any kind of reading.

    Raises:
        OptionError: No such column, or nothing to draw.
    """
    panels = list(map(split_curves, panels))
    first = panels[0].readings[0]
    if isinstance(first, Grid):
        return _grids(panels)
    if len(first.table):
        return _curves(panels)
    return _dots(panels)


# --------------------------------------------------------------------------- curves


def _curves(panels: Sequence[Panel]) -> Figure:
    wanted = [(p, c) for p in panels for c in columns(p.readings[0], p.column)]
    across = min(3, len(wanted))
    tall = 3.0 if across == 1 else 2.6
    fig, axes = style.panels(across, -(-len(wanted) // across), height=tall)
    places = {n: k for k, n in enumerate(dict.fromkeys(n for p in panels for n in p.names))}
    for ax, (panel, column) in zip(axes.flat, wanted):
        reading = panel.readings[0]
        text = axis_label(reading, column)
        lines = [run_curve(r, column) for r in panel.readings]
        found = [k for k in lines if k is not None]
        if found:
            x, runs = _aligned(found)
            ax.set_ylabel(text)
            _axis(ax, found[0], x, curve_axis(reading, column))
        else:
            x, runs = _distributions(ax, panel.readings, column)
            ax.set_xlabel(text)
            ax.set_ylabel(f"share of {reading.row}s up to it")
        for name in dict.fromkeys(panel.names):
            own = np.stack([r for r, n in zip(runs, panel.names) if n == name])
            _band(ax, x, own, name, places[name], stairs=not found)
        several = len({c for _, c in wanted}) > 1
        words = (panel.title, text if several and panel.title else "")
        ax.set_title(", ".join(t for t in words if t))
    for ax in list(axes.flat)[len(wanted) :]:
        ax.set_visible(False)
    legends.above(fig, list(axes.flat))
    style.note(fig, _pooled(panels))
    return fig


def _aligned(lines: list[RunCurve]) -> tuple[np.ndarray, list[np.ndarray]]:
    """One axis for all runs and their values on it, NaN where a run has none."""
    if lines[0].labelled:  # by place: other models may call their sites otherwise
        length = max(len(k.y) for k in lines)
        runs = [np.concatenate([k.y, np.full(length - len(k.y), np.nan)]) for k in lines]
        return np.arange(length, dtype=float), runs
    x = np.unique(np.concatenate([np.asarray(k.x, float) for k in lines]))
    return x, [np.interp(x, k.x, k.y, np.nan, np.nan) if len(k.x) else x * np.nan for k in lines]


def _axis(ax: Axes, first: RunCurve, x: np.ndarray, along: str) -> None:
    if first.labelled and len(first.x) == len(x):
        site_axis(ax, style.trimmed(first.x))
    ax.set_xlabel("" if along == "site" else along.replace("_", " "))


def _distributions(
    ax: Axes, readings: Sequence[Reading], column: str
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The distribution functions of the runs on a common grid."""
    kept = [r.table[column].to_numpy(float) for r in readings]
    kept = [np.sort(v[np.isfinite(v)]) for v in kept]
    every = np.concatenate(kept)
    if not len(every):
        return np.zeros(1), [np.full(1, np.nan) for _ in kept]
    low, high = float(every.min()), float(every.max())
    style.log_axis(ax.xaxis, every if low > 0 else np.zeros(0))
    if ax.get_xscale() == "log":
        x = np.geomspace(low, high, GRID)
    else:
        x = np.linspace(low, high, GRID) if high > low else np.array([low - 0.5, low, low + 0.5])
    x[-1] = max(x[-1], high)
    runs = [np.searchsorted(v, x, "right") / len(v) if len(v) else x * np.nan for v in kept]
    ax.set_ylim(0, 1.03)
    return x, runs


def _band(
    ax: Axes, x: np.ndarray, runs: np.ndarray, name: str, place: int, *, stairs: bool
) -> None:
    color = style.CYCLE[place % len(style.CYCLE)]
    mean, sd = mean_and_sd(runs)
    look: dict[str, Any] = {"drawstyle": "steps-post"} if stairs else {}
    if len(runs) > 1:
        low, high = mean - sd, mean + sd
        if stairs:
            low, high = np.clip([low, high], 0, 1)
        step: Any = "post" if stairs else None
        ax.fill_between(x, low, high, color=color, alpha=0.18, lw=0, step=step)
        for run in runs:
            ax.plot(x, run, color=color, lw=0.6, alpha=0.45, **look)
    if len(x) <= 40 and not stairs:
        mark: dict[str, Any] = {"marker": style.MARKS[place % len(style.MARKS)], "ms": 3.2}
    else:
        mark = {"ls": style.DASHES[place % len(style.DASHES)]}
    ax.plot(x, mean, color=color, label=style.shorten(name, 40), **mark, **look)


def _pooled(panels: Sequence[Panel]) -> str:
    """What a band is, in words; nothing where no name has two runs."""
    counts = {p.names.count(n) for p in panels for n in p.names}
    if max(counts) < 2:
        return ""
    many = str(max(counts)) if len(counts) == 1 else f"up to {max(counts)}"
    return f"mean of {many} runs with one standard deviation; thin: each of them"


# --------------------------------------------------------------------------- grids and dots


def _grids(panels: Sequence[Panel]) -> Figure:
    """A map of the mean for each name, and of the standard deviation beside it."""
    shown: list[tuple[str, Reading, str, np.ndarray, np.ndarray, int]] = []
    for panel in panels:
        for name in dict.fromkeys(panel.names):
            own = [r for r, n in zip(panel.readings, panel.names) if n == name]
            array = array_of(own[0], panel.column)
            by_shape: dict[tuple, list[np.ndarray]] = {}
            for r in own:
                by_shape.setdefault(r.arrays[array].shape, []).append(r.arrays[array].astype(float))
            for held in by_shape.values():  # networks of other depth have maps of their own
                mean, sd = mean_and_sd(np.stack(held).reshape(len(held), -1))
                title = ", ".join(t for t in (panel.title, name) if t)
                shape = held[0].shape
                shown.append(
                    (title, own[0], array, mean.reshape(shape), sd.reshape(shape), len(held))
                )
    both = any(n > 1 for *_, n in shown)
    size = shown[0][3].shape
    height = float(np.clip(1.2 + 0.28 * size[0], 2.2, 5.0))
    width = float(np.clip((1 + both) * (2.0 + 0.34 * size[1]), 3.6, style.WIDTH))
    fig, axes = style.panels(1 + both, len(shown), width=width, height=height)
    for row, (title, reading, array, mean, sd, runs) in zip(axes, shown):
        down, across = reading.axes.get(array, ("row", "column"))
        labels = [reading.coords.get(a, list(range(n))) for a, n in zip((down, across), mean.shape)]
        text = axis_label(reading, array)
        signed = bool((mean[np.isfinite(mean)] < 0).any())
        heatmap(fig, row[0], mean, labels[0], labels[1], text, diverging=signed)
        row[0].set_title(", ".join(t for t in (title, f"mean of {runs}" if runs > 1 else "") if t))
        if both:
            heatmap(fig, row[1], sd, labels[0], labels[1], f"sd of {text}")
            row[1].set_title("standard deviation over runs")
        row[0].set_ylabel(down.replace("_", " "))
        for ax in row:
            ax.set_xlabel(across.replace("_", " "))
    return fig


def _dots(panels: Sequence[Panel]) -> Figure:
    """The numbers of the summary: a dot per run, a bar at the mean of each name."""
    names = list(scalars(panels[0].readings[0]))
    wanted = [c for c in declared(panels[0].readings[0]).get("columns", ()) if c in names] or names
    wanted = [panels[0].column] if panels[0].column else wanted[:MOST]
    if not wanted:
        raise OptionError("nothing to draw", got=panels[0].readings[0].measure)
    across = min(3, len(wanted))
    fig, axes = style.panels(across, -(-len(wanted) // across), height=2.0)
    dots(list(axes.flat), panels, wanted)
    for ax in list(axes.flat)[len(wanted) :]:
        ax.set_visible(False)
    return fig


def dots(axes: Sequence[Axes], panels: Sequence[Panel], wanted: Sequence[str]) -> None:
    """Numbers of the runs' summaries, a statistic per axes: a dot per run, a bar at the mean."""
    runs = [
        (", ".join(t for t in (p.title, n) if t), scalars(r))
        for p in panels
        for r, n in zip(p.readings, p.names)
    ]
    names = list(dict.fromkeys(n for n, _ in runs))
    for ax, column in zip(axes, wanted):
        for place, (name, color) in enumerate(zip(names, itertools.cycle(style.CYCLE))):
            values = np.array([s.get(column, np.nan) for n, s in runs if n == name])
            across = place + np.linspace(-0.16, 0.16, len(values)) * (len(values) > 1)
            ax.scatter(across, values, s=14, color=color, alpha=0.8, lw=0, zorder=3)
            mean, _ = mean_and_sd(values[:, None])
            ax.plot([place - 0.28, place + 0.28], [mean[0]] * 2, color=style.INK, lw=1.2)
        ax.set_title(column.replace("_", " "))
        ax.set_xlim(-0.6, len(names) - 0.4)
        if any(names):
            site_axis(ax, names)
        else:
            ax.set_xticks([])

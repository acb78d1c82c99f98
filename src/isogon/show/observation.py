"""Figure of what a measure saw while a network learned."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import style

_PLACES = ("step", "epoch", "sample", "label", "prediction", "unit", "channel", "row", "column")


@draws("observation")
def draw_observation(reading: Reading, curves: int = 100) -> Figure:
    """Mean, single examples and distribution over training time.

    For the local data matrix: the mean trace with median and quartiles, the traces of single
    examples, and how many examples have which rank (count as size and colour). For any other
    measure: the mean of each of its numbers with its quartiles.

    Args:
        reading: Of a run's observer.
        curves: How many single examples at most.
    """
    table = reading.table
    if "trace" not in table or not (ranks := [c for c in table if str(c).startswith("rank@")]):
        return _any(reading)
    fig, axes = style.panels(2 + len(ranks[:1]), height=2.55)
    _band(axes[0, 0], table, "trace")
    axes[0, 0].set_ylabel(r"tr $G$  (nats / unit$^2$)")
    axes[0, 0].set_title("Trace")
    _single(axes[0, 1], table, "trace", curves)
    axes[0, 1].set_ylabel(r"tr $G$  (nats / unit$^2$)")
    axes[0, 1].set_title("Single examples")
    _distribution(axes[0, 2], table, str(ranks[0]))
    style.letter(list(axes[0]))
    return fig


def _any(reading: Reading) -> Figure:
    table = reading.table
    numbers = [c for c in table.select_dtypes("number") if c not in _PLACES][:6]
    columns = min(3, max(1, len(numbers)))
    fig, axes = style.panels(columns, -(-max(1, len(numbers)) // columns), height=2.3)
    for ax, column in zip(axes.flat, numbers):
        _band(ax, table, str(column))
        ax.set_title(str(column).replace("_", " "))
    for ax in axes.flat[len(numbers) :]:
        ax.set_visible(False)
    return fig


def _band(ax: Axes, table: pd.DataFrame, column: str) -> None:
    groups = table.groupby("epoch")[column]
    epochs = np.unique(table["epoch"].to_numpy(dtype=float))
    low, middle, high, mean = (
        np.asarray(f, dtype=float)
        for f in (
            groups.quantile(0.25),
            groups.median(),
            groups.quantile(0.75),
            groups.mean(),
        )
    )
    ax.fill_between(epochs, low, high, color=style.BLUE, alpha=0.15, lw=0, label="quartiles")
    ax.plot(epochs, middle, color=style.BLUE, lw=0.9, alpha=0.7, label="median")
    ax.plot(epochs, mean, color=style.ORANGE, label="mean")
    ax.set_ylim(bottom=min(0.0, float(low.min())))
    ax.set_xlabel("epoch")
    ax.legend(loc="upper right", ncols=1)


def _single(ax: Axes, table: pd.DataFrame, column: str, curves: int) -> None:
    wide = table.pivot(index="epoch", columns="sample", values=column)
    stride = max(1, wide.shape[1] // max(curves, 1))
    shown = wide.iloc[:, ::stride].where(wide.iloc[:, ::stride] > 0)
    ax.plot(shown.index, shown, color=style.BLUE, lw=0.5, alpha=0.2)
    ax.plot(wide.index, wide.where(wide > 0).median(axis=1), color=style.INK, lw=1.2)
    if np.isfinite(shown.to_numpy()).any():
        ax.set_yscale("log")
    ax.set_xlabel("epoch")


def _distribution(ax: Axes, table: pd.DataFrame, column: str) -> None:
    epochs = np.unique(table["epoch"].to_numpy(dtype=float))
    shown = epochs[np.unique(np.linspace(0, len(epochs) - 1, 24).round().astype(int))]
    counts = table[table["epoch"].isin(shown.tolist())].groupby(["epoch", column]).size()
    counts = counts.to_frame("count").reset_index()
    share = counts["count"] / counts.groupby("epoch")["count"].transform("sum")
    top = float(share.to_numpy().max())
    dots = ax.scatter(
        counts["epoch"],
        counts[column],
        s=75 * share + 1,
        c=share,
        cmap=style.SEQUENTIAL,
        vmin=-0.25 * top,
        vmax=top,
        lw=0,
    )
    bar = style.color_bar(dots, "share of the examples", size=7.5, ax=ax, pad=0.02, aspect=30)
    bar.ax.set_ylim(0, top)
    ax.set_xlabel("epoch")
    ax.set_ylabel("rank")
    ax.set_title(f"Rank of $G$ at {column.split('@')[1]}")

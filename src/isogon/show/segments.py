"""Figure of a network along a line: outputs, prediction, breakpoints and their density."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from isogon.measures.segments import Segments
from isogon.registry import draws
from isogon.show import style

if TYPE_CHECKING:
    from matplotlib.typing import ColorType


ROWS = 24  # sites that get a row of ticks of their own
TICKS = 3000  # breakpoints from which the ticks are thin
PLACES = 201  # of a line, at which runs are averaged
RASTER = 20_000  # breakpoints from which ticks are drawn as pixels


def counted(reading: Segments) -> tuple[np.ndarray, np.ndarray]:
    """Breakpoints up to each place of the line: all of its places for many runs."""
    t = np.linspace(0, 1, PLACES)
    return t, np.searchsorted(reading.breakpoints, t, "right")


def slopes(reading: Segments) -> tuple[np.ndarray, np.ndarray]:
    """Norm of the outputs' slope at each place of the line."""
    t = np.linspace(0, 1, PLACES)
    at = np.searchsorted(reading.breakpoints, t, "right")
    return t, reading.table["slope"].to_numpy(float)[at]


@draws(
    "segments",
    columns=("breakpoints_up_to_t", "slope_at_t"),
    curves={"breakpoints_up_to_t": ("t", counted), "slope_at_t": ("t", slopes)},
)
def draw_segments(reading: Segments, outputs: int = 5, bins: int = 60) -> Figure:
    """Outputs along the line with the prediction below, breakpoints by site, and their density.

    Args:
        reading: Of `segments`.
        outputs: How many outputs are drawn: those that are predicted, then the largest ones.
        bins: Of the density of breakpoints.
    """
    table, length = reading.table, float(reading.meta["length"])
    at = np.concatenate([table["start"].to_numpy(float), [1.0]]) * length
    names = [s for s in reading.meta["sites"] if (table["site"] == s).any()]
    high = float(np.clip((0.13 if len(names) <= 12 else 0.1) * min(len(names), ROWS), 0.3, 2.4))
    fig = style.figure(style.WIDTH, 3.6 + high)
    axes = fig.subplots(
        4, 1, sharex=True, height_ratios=[2.0, 0.13, high, 0.9], gridspec_kw={"hspace": 0.03}
    )
    _outputs(axes[0], reading, at, outputs)
    _prediction(axes[1], reading, length)
    breaks = _ticks(axes[2], reading, names, length)
    _density(axes[3], breaks, names, length, bins)
    axes[0].set_title(f"{len(table):,} linear pieces on a line of length {length:.3g}")
    axes[3].set_xlabel("distance from the first input")
    axes[3].set_xlim(0, length)
    return fig


def site_colors(names: list[str]) -> dict[str, ColorType]:
    """As in a partition's figure."""
    return dict(zip(names, style.layers(len(names)), strict=True))


def _outputs(ax: Axes, reading: Segments, at: np.ndarray, count: int) -> None:
    values = reading.outputs
    if values.shape[1] == 1:
        ax.plot(at, values[:, 0], color=style.BLUE)
        ax.axhline(0, color=style.MUTED, lw=0.7, zorder=0)
        ax.set_ylabel("output")
        return
    seen = reading.classes()["class"].drop_duplicates().tolist()
    rest = [int(k) for k in np.argsort(-values.max(0)) if int(k) not in seen]
    chosen = [*seen, *rest][: max(count, len(seen))]
    for k in sorted(chosen):
        shown = k in seen
        ax.plot(
            at,
            values[:, k],
            color=_color(k),
            lw=1.5 if shown else 0.9,
            ls="-" if shown else style.DASHES[1 + k % (len(style.DASHES) - 1)],
            alpha=1.0 if shown else 0.6,
            label=f"class {k}",
        )
    ax.set_ylabel("output")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _color(k: int) -> str:
    return style.CYCLE[k % len(style.CYCLE)]


def _prediction(ax: Axes, reading: Segments, length: float) -> None:
    for x0, x1, k in reading.classes().itertuples(index=False):
        ax.axvspan(x0 * length, x1 * length, color=_color(k), lw=0, alpha=0.85)
    ax.set_yticks([])
    ax.tick_params(axis="x", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_ylabel("prediction", rotation=0, ha="right", va="center", fontsize=7.5)
    if reading.outputs.shape[1] == 1:
        handles = [Patch(color=_color(k), label=f"output {'<>'[k]} 0") for k in (0, 1)]
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _ticks(ax: Axes, reading: Segments, names: list[str], length: float) -> list[np.ndarray]:
    table = reading.table.iloc[:-1]  # the last piece ends with the line, not with a breakpoint
    breaks = [table.loc[table["site"] == s, "end"].to_numpy(float) * length for s in names]
    colors = site_colors(names)
    count = sum(map(len, breaks))
    own = len(names) <= ROWS
    for row, (name, x) in enumerate(zip(names, breaks, strict=True)):
        low = len(names) - 1 - row if own else 0
        ends = np.stack([np.stack([x, x], 1), np.tile([low + 0.1, low + 0.9], (len(x), 1))], 2)
        ax.add_collection(
            LineCollection(
                list(ends),
                colors=[colors[name]],
                linewidths=0.3 if count > TICKS else 0.6,
                rasterized=count > RASTER,
            ),
            autolim=False,
        )
    ax.set_ylim(0, max(len(names), 1) if own else 1)
    if own:
        texts = [f"{style.shorten(n, 18)} ({len(x):,})" for n, x in zip(names, breaks)]
        ax.set_yticks(
            np.arange(len(names)) + 0.5, texts[::-1], fontsize=6.5 if len(names) <= 12 else 5.5
        )
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{len(names)} sites", fontsize=7.5)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return breaks


def _density(
    ax: Axes, breaks: list[np.ndarray], names: list[str], length: float, bins: int
) -> None:
    edges = np.linspace(0, length, bins + 1)
    weights = [np.full(len(x), bins / length) for x in breaks]
    if breaks:
        ax.hist(
            breaks,
            bins=list(edges),
            weights=weights,
            stacked=True,
            lw=0,
            color=list(site_colors(names).values()),
        )
    ax.set_ylabel("breakpoints per\nunit of length", fontsize=7.5)

"""Figures of dissections: detectors per category and basis, and the images that fire a unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from isogon.errors import OptionError
from isogon.measures.dissection.dissect import per_draw
from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import legends, style
from isogon.show.generic import site_axis
from isogon.show.together import Panel

LABELS = {"unique": "unique detectors", "detectors": "detectors"}
ROWS = 6  # units of a site in a gallery


def bars_together(panels: Sequence[Panel]) -> Figure:
    """Per site the detectors of all categories, a bar per name and basis, over draws and runs."""
    fig, axes = style.panels(min(3, len(panels)), -(-len(panels) // 3), height=2.6)
    for ax, panel in zip(axes.flat, panels):
        column = panel.column if panel.column in LABELS else "unique"
        counts = _pooled(panel)
        _bars(ax, counts[counts["category"] == "all"], "label", column)
        ax.set_title(panel.title)
        ax.set_ylabel(LABELS[column])
    legends.above(fig, list(axes.flat))
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    return fig


def numbers_together(panels: Sequence[Panel]) -> dict[str, pd.DataFrame]:
    """Mean and standard deviation of detectors over draws and runs, by panel."""
    found = {}
    for panel in panels:
        groups = _pooled(panel).groupby(["label", "site", "category"], sort=False)
        frame = groups[["detectors", "unique"]].agg(["mean", "std"])
        frame.columns = ["detectors", "detectors_sd", "unique", "unique_sd"]
        frame["elements"] = groups.size()
        found[panel.title or "dissect"] = frame.reset_index()
    return found


def _pooled(panel: Panel) -> pd.DataFrame:
    """Counts of all readings of a panel, with what a bar is called."""
    parts = []
    several = len(dict.fromkeys(panel.names)) > 1
    for reading, name in zip(panel.readings, panel.names):
        part = per_draw(reading.table, reading.meta["categories"])
        bases = part["basis"].nunique()
        label = (
            part["basis"] if not several else name if bases == 1 else name + ", " + part["basis"]
        )
        parts.append(part.assign(label=label))
    return pd.concat(parts, ignore_index=True)


@draws("dissect", together=bars_together, tables=numbers_together)
def draw_dissect(
    reading: Reading,
    column: Literal["unique", "detectors"] = "unique",
    gallery: str | tuple[str, int] | None = None,
) -> Figure:
    """Detectors per site, a panel per category and a bar per basis; or images that fire units.

    Bars are means over random elements, with one standard deviation.

    Args:
        reading: Of `isogon.dissect`.
        column: ``unique`` detectors (different concepts), or all ``detectors``.
        gallery: A site and one of its units, or a site, for its best units: the images that fire
            them most, with the outline of where they are on. The dissection has to have kept them
            (``gallery=5``).
    """
    if gallery is not None:
        return _gallery(reading, gallery)
    if column not in LABELS:
        raise OptionError("no such count", got=column, expected=" or ".join(LABELS))
    counts = per_draw(reading.table, reading.meta["categories"])
    names = [*reading.meta["categories"], "all"]
    names = names[:1] if len(names) == 2 else names  # one category is all of them
    across = 2 if len(names) == 4 else min(3, len(names))
    fig, axes = style.panels(across, -(-len(names) // across), height=2.2, sharey=True)
    for ax, category in zip(axes.flat, names):
        _bars(ax, counts[counts["category"] == category], "basis", column)
        ax.set_title("all categories" if category == "all" else category)
    for row in axes:
        row[0].set_ylabel(LABELS[column])
    axes[0, 0].set_ylim(0, max(ax.dataLim.y1 for ax in axes.flat) * 1.05 or 1.0)
    for ax in list(axes.flat)[len(names) :]:
        ax.set_visible(False)
    legends.above(fig, list(axes.flat))
    return fig


def _bars(ax: Axes, counts: pd.DataFrame, label: str, column: str) -> None:
    """A group of bars per site; a line is one standard deviation over draws."""
    sites, names = (list(dict.fromkeys(counts[c])) for c in ("site", label))
    width = 0.8 / len(names)
    groups = counts.groupby([label, "site"], sort=False)[column]
    mean, sd = groups.mean(), groups.std(ddof=1)
    for k, (name, color, hatch) in enumerate(zip(names, style.CYCLE * 9, style.HATCHES * 9)):
        there = [i for i, s in enumerate(sites) if (name, s) in mean.index]
        at = np.array(there) + width * (k - (len(names) - 1) / 2)
        heights = [mean[name, sites[i]] for i in there]
        look = {"color": color, **style.hatched(hatch)}
        ax.bar(at, heights, width * 0.92, label=style.shorten(name, 30), **look)
        spread = np.array([sd[name, sites[i]] for i in there])
        if (spread > 0).any():
            look = {"fmt": "none", "ecolor": style.INK, "lw": 0.8, "capsize": 1.5}
            ax.errorbar(at, heights, np.where(spread > 0, spread, np.nan), **look)
    site_axis(ax, style.trimmed(sites))
    ax.set_ylim(0, max(ax.dataLim.y1 * 1.05, 1.0))
    ax.yaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _gallery(reading: Reading, wanted: str | tuple[str, int] | list) -> Figure:
    if "masks" not in reading.arrays:
        raise OptionError(
            "no images were kept",
            got="gallery=0 in the dissection",
            expected="images for each unit",
            fix="Measure with gallery=5.",
        )
    table = reading.table
    table = table[table["basis"] == table["basis"].iloc[0]]
    table = table[table["draw"] == 0]
    site, unit = (wanted, None) if isinstance(wanted, str) else (str(wanted[0]), int(wanted[1]))
    here = table[table["site"] == site]
    here = here.nlargest(ROWS, "iou") if unit is None else here[here["unit"] == unit]
    if here.empty:
        raise OptionError(
            "no such unit",
            got=wanted,
            expected="a site of: " + ", ".join(dict.fromkeys(table["site"])) + "; and a unit",
        )
    top, masks, images = (reading.arrays[k] for k in ("top", "masks", "images"))
    across = top.shape[1]
    size = float(np.clip(style.WIDTH / across, 0.8, 1.5))
    fig = style.figure(size * across, (size + 0.2) * len(here))
    for part, found in zip(fig.subfigures(len(here), 1, squeeze=False)[:, 0], here.itertuples()):
        place = int(str(found.Index))
        for ax, i, mask in zip(
            part.subplots(1, across, squeeze=False)[0], top[place], masks[place]
        ):
            if i < 0:
                ax.set_visible(False)
                continue
            style.picture(ax, images[i])
            _outline(ax, mask, images[i].shape[-2:])
        what = f"{found.concept} ({found.category})" if found.concept else "no concept"
        text = f"{site}, unit {found.unit}: {what}, IoU {found.iou:.2f}"
        part.suptitle(text, x=0.01, ha="left", fontsize=9)
    return fig


def _outline(ax: Axes, mask: np.ndarray, size: tuple[int, ...]) -> None:
    """The border of a mask ``[h, w]`` on an image of ``size``."""
    if not mask.any():
        return
    edged = np.pad(mask.astype(float), 1)
    y, x = ((np.arange(-1, n + 1) + 0.5) * whole / n - 0.5 for n, whole in zip(mask.shape, size))
    limits = ax.get_xlim(), ax.get_ylim()
    for color, width in (("white", 2.2), (style.INK, 1.0)):
        ax.contour(x, y, edged, levels=[0.5], colors=[color], linewidths=width)
    ax.set_xlim(*limits[0])
    ax.set_ylim(*limits[1])

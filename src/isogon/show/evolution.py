"""Figure and film of a partition over the snapshots of a training run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from PIL import Image

from isogon.errors import OptionError
from isogon.measures.evolution.evolution import Evolution
from isogon.registry import draws
from isogon.show import mesh, style
from isogon.show.areas import TINTS, by_class
from isogon.show.partition import LEVELS, frame, marks
from isogon.storage import atomic

Color = Literal["class", "area"]
DOTS = 60  # data points that are still drawn one by one
STRIP = 4


@draws("evolution", along="snapshot", columns=("regions", "boundary_length", "test_accuracy"))
def draw_evolution(reading: Evolution, color: Color = "class", pictures: int = STRIP) -> Figure:
    """The partition at some snapshots; density near data and far from it, and the gap, over all.

    Args:
        reading: Of `evolution`.
        color: What colours the regions: their class, or their area (dark: small).
        pictures: How many snapshots are shown at most.
    """
    kept = reading.frames
    places = np.unique(np.linspace(0, len(kept) - 1, max(pictures, 1)).round().astype(int))
    shown = [kept[i] for i in places] if kept and pictures > 0 else []
    if not shown:
        fig = style.figure(style.WIDTH, 2.5)
        bottom: Figure | SubFigure = fig
    else:
        high, wide = np.ptp(reading.corners, axis=0)[::-1]
        height = min(style.WIDTH / max(len(shown), 3) * high / wide, 3.0) + 0.3
        fig = style.figure(style.WIDTH, height + 2.5)
        halves: Any = fig.subfigures(2, 1, height_ratios=[height, 2.5])
        bottom = halves[1]
        scale = _scale(reading, color)
        for ax, i in zip(np.atleast_1d(halves[0].subplots(1, len(shown))), shown, strict=True):
            _picture(ax, reading, i, scale)
            ax.set_xticks([])
            ax.set_yticks([])
            for spine in ax.spines.values():
                spine.set_visible(False)
    axes = bottom.subplots(1, 3)
    _densities(axes[0], reading)
    _scores(axes[1], reading)
    _against(axes[2], reading)
    style.letter(list(axes))
    return fig


def animate(
    reading: Evolution,
    path: str | os.PathLike,
    *,
    color: Color = "class",
    size: int = 480,
    seconds: float = 6.0,
) -> Path:
    """Write a GIF of the kept partitions, all on the same slice and in the same colours.

    Args:
        reading: Of `evolution`, with frames.
        path: The file, ``.gif``.
        color: What colours the regions: their class, or their area (dark: small).
        size: Width in pixels.
        seconds: Length; the last frame stays for another second.

    Returns:
        The path.

    Raises:
        OptionError: The reading keeps no frames.
        FileError: The file can't be written.
    """
    if not reading.frames:
        raise OptionError(
            "no partitions to show",
            got="a reading without frames",
            expected="frames >= 1",
            fix="Measure with frames=12, say.",
        )
    scale = _scale(reading, color)
    high, wide = np.ptp(reading.corners, axis=0)[::-1]
    pages = []
    with style.styled():
        for i in reading.frames:
            width = size / 120
            fig = Figure(figsize=(width, width * high / wide + 0.35), dpi=120)
            canvas = FigureCanvasAgg(fig)
            share = 0.35 / fig.get_figheight()
            ax = fig.add_axes((0.02, 0.01, 0.96, 0.98 - share))
            _picture(ax, reading, i, scale, pixels=False)
            ax.set_axis_off()
            ax.set_title(_caption(reading, i), fontsize=8, pad=4)
            canvas.draw()
            pages.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    palette = pages[-1].quantize(128)
    pages = [page.quantize(palette=palette, dither=Image.Dither.NONE) for page in pages]
    pause = [int(np.clip(1000 * seconds / len(pages), 40, 1500))] * len(pages)
    pause[-1] += 1000
    with atomic(path) as temporary:
        pages[0].save(
            temporary, format="GIF", save_all=True, append_images=pages[1:], duration=pause, loop=0
        )
    return Path(path)


def _when(reading: Evolution) -> tuple[np.ndarray, str]:
    """Place of each row in training and what it is counted in."""
    table = reading.table
    for name in ("epoch", "step"):
        if name in table:
            values = table[name].to_numpy(float)
            last = np.nanmax(values)  # the model itself comes after its snapshots
            return np.where(np.isnan(values), last * (1 + 1 / len(values)), values), name
    return np.arange(len(table), dtype=float), "snapshot"


def _title(reading: Evolution, i: int) -> str:
    row = reading.table.iloc[i]
    known = row.get("epoch")
    if known is not None and not np.isnan(float(known)):
        return f"epoch {int(known)}"
    return style.shorten(row["snapshot"], 16)


def _caption(reading: Evolution, i: int) -> str:
    row = reading.table.iloc[i]
    parts = [_title(reading, i), f"{int(row['regions']):,} regions"]
    if "test_accuracy" in row and np.isfinite(row["test_accuracy"]):
        parts.append(f"test {100 * row['test_accuracy']:.1f} %")
    return ", ".join(parts)


def _scale(reading: Evolution, color: str) -> LogNorm | None:
    """One scale of areas for all frames."""
    if color == "class":
        return None
    if color != "area":
        raise OptionError("no such colours", got=repr(color), expected="class or area")
    areas = np.concatenate([reading.frame(i)["area"] for i in reading.frames])
    positive = areas[areas > 0]
    low, high = np.percentile(positive, [2, 100])
    return LogNorm(float(low), float(max(high, 2 * low)), clip=True)


def _picture(
    ax: Axes, reading: Evolution, i: int, scale: LogNorm | None, *, pixels: bool = True
) -> None:
    part = reading.frame(i)
    faces = part["vertices"], part["offsets"], part["loops"]
    if scale is None:
        single = bool(reading.meta.get("outputs") == 1)
        label = np.maximum(part["label"], 0)
        shade, palette = by_class(label, np.full(len(label), TINTS // 2), single)
    else:
        areas = np.maximum(part["area"], scale.vmin or 0)
        shade = np.round(scale(areas).filled(0) * (LEVELS - 1)).astype(np.int64)
        palette = style.SEQUENTIAL.reversed()(np.linspace(0, 1, LEVELS))
    mesh.fill(ax, *faces, shade, palette, pixels=pixels)
    if scale is None:
        mesh.hatched(ax, *faces, np.flatnonzero(part["label"] < 0))
        thin = float(np.clip(18 / np.sqrt(len(part["edges"])), 0.05, 0.35))
        mesh.strokes(ax, part["vertices"][part["edges"]], color="white", linewidths=thin, zorder=2)
    if len(part["boundary"]):
        mesh.strokes(ax, part["boundary"], color=style.ON_DATA, linewidths=1.1, zorder=4)
    frame(ax, reading.corners)
    if 0 < len(reading.marks) <= DOTS:
        marks(ax, reading.marks)
    ax.set_title(_title(reading, i), fontsize=8, pad=3)


def _line(
    ax: Axes,
    reading: Evolution,
    name: str,
    color: str,
    label: str,
    mark: str = "o",
    dash: str = "-",
) -> bool:
    if name not in reading.table:
        return False
    x, _ = _when(reading)
    y, whole = reading.table[name].to_numpy(float), reading.table["complete"].to_numpy(bool)
    ax.plot(x, y, color=color, label=label, marker=mark, ms=3, ls=dash)
    ax.plot(x[~whole], y[~whole], mark, ms=3.4, mfc="white", mec=color, zorder=4)
    ax.set_xlabel(_when(reading)[1])
    return True


def _densities(ax: Axes, reading: Evolution) -> None:
    near = _line(ax, reading, "density_near", style.ORANGE, "near the data")
    if near:
        _line(ax, reading, "density_far", style.BLUE, "far from it", "s")
    else:
        _line(ax, reading, "density", style.BLUE, "whole slice")
    values = [line.get_ydata() for line in ax.lines]
    style.log_axis(ax.yaxis, np.concatenate([np.asarray(v, float) for v in values]))
    if ax.get_yscale() == "linear":
        ax.set_ylim(bottom=0)
    ax.set_ylabel("regions per unit of area")
    ax.set_title("Region density")
    ax.legend()


def _scores(ax: Axes, reading: Evolution) -> None:
    kind = (
        "accuracy"
        if "train_accuracy" in reading.table or "test_accuracy" in reading.table
        else "loss"
    )
    drawn = [
        _line(ax, reading, f"train_{kind}", style.PURPLE, "train", "o", "--"),
        _line(ax, reading, f"test_{kind}", style.GREEN, "test", "s"),
    ]
    if all(drawn):
        x, _ = _when(reading)
        both = (reading.table[f"{part}_{kind}"].to_numpy(float) for part in ("train", "test"))
        ax.fill_between(x, *both, color=style.MUTED, alpha=0.18, lw=0)
        handles = [*ax.get_legend_handles_labels()[0], Patch(color=style.MUTED, alpha=0.3)]
        ax.legend(handles, ["train", "test", "gap"])
        ax.set_ylabel(kind)
        ax.set_title("Generalisation")
    elif any(drawn):
        ax.legend()
        ax.set_ylabel(kind)
        ax.set_title("Performance")
    else:
        _line(ax, reading, "eccentricity_mean", style.PURPLE, "mean eccentricity")
        ax.set_ylabel("mean eccentricity")
        ax.set_title("Shape of regions")


def _against(ax: Axes, reading: Evolution) -> None:
    table = reading.table
    name = "density_near" if "density_near" in table else "density"
    target = "gap" if "gap" in table else "loss_gap"
    if target not in table:
        _line(ax, reading, "boundary_length", style.GREEN, "decision boundary")
        ax.set_ylim(bottom=0)
        ax.set_ylabel("length")
        ax.set_title("Decision boundary")
        return
    x, y = table[name].to_numpy(float), table[target].to_numpy(float)
    when, unit = _when(reading)
    ax.plot(x, y, color=style.FAINT, lw=0.9, zorder=1)
    dots = ax.scatter(
        x, y, c=when, cmap=style.SEQUENTIAL, s=16, zorder=2, edgecolors=style.MUTED, linewidths=0.4
    )
    style.color_bar(dots, unit, size=7.5, ax=ax, pad=0.02, aspect=30)
    if np.nanmin(y) < 0 < np.nanmax(y):
        ax.axhline(0, color=style.MUTED, lw=0.6, zorder=0)
    ax.set_xlabel("density near the data" if name == "density_near" else "density")
    ax.set_ylabel("gap in accuracy" if target == "gap" else "gap in loss")
    known = reading.meta["correlation"].get(name)
    ax.set_title("Density and gap")
    if known is not None:
        text = rf"rank correlation {known['spearman']:+.2f}, n = {known['n']}"
        ax.set_ylim(top=ax.get_ylim()[1] + 0.12 * np.ptp(ax.get_ylim()))
        ax.text(
            0.03,
            0.985,
            text.replace("-", "\u2212"),
            transform=ax.transAxes,
            fontsize=7.5,
            va="top",
            color=style.MUTED,
        )

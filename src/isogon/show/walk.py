"""Figures of walks: what the images turn into, and what the prediction makes of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from isogon.errors import OptionError
from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import style, video
from isogon.storage import atomic

# How a walk ended: its mark, and what it says.
ENDS = {
    "steps": (">", "limit of steps: not at an end"),
    "patience": ("X", "stalled"),
    "distance": ("o", "target reached"),
    "probability": ("v", "class too improbable"),
}


@draws("walk", columns=("probability", "travelled", "regions_crossed"))
def draw_walk(reading: Reading, walk: int = 0, frames: int = 9) -> Figure:
    """A strip of frames of one walk, and the numbers of all walks along their steps.

    Args:
        reading: Of `walk`.
        walk: The walk whose frames are shown.
        frames: How many of them.
    """
    _check(reading, walk)
    flat = reading.arrays["start"][walk].ndim == 1
    fig = style.figure(style.WIDTH, 3.9 if reading.arrays["start"].shape[1:] != (2,) else 3.2)
    if flat and reading.arrays["start"].shape[1] == 2:
        axes = fig.subplots(1, 3, width_ratios=[1.2, 1, 1])
        _plane(axes[0], reading)
        _probability(axes[1], reading, walk)
        _length(axes[2], reading, walk)
        style.letter(list(axes))
        return fig
    halves: Any = fig.subfigures(2, 1, height_ratios=[1, 1.75])
    top, bottom = halves
    _strip(top.subplots(1, frames), reading, walk, frames)
    axes = bottom.subplots(1, 3)
    _probability(axes[0], reading, walk)
    _length(axes[1], reading, walk)
    _off(axes[2], reading, walk)
    if "regions_crossed" in reading.table:
        _regions(axes[2], reading, walk)
    return fig


def strip(reading: Reading, walk: int = 0, frames: int = 9) -> Figure:
    """Frames of one walk, evenly spread, with iteration, label and probability under each."""
    _check(reading, walk)
    with style.styled():
        fig = style.figure(style.WIDTH, style.WIDTH / frames + 0.42)
        _strip(fig.subplots(1, frames), reading, walk, frames)
        return fig


def animate(
    reading: Reading,
    path: str | os.PathLike,
    *,
    walk: int = 0,
    size: int = 280,
    seconds: float = 8.0,
) -> Path:
    """Write a film of one walk's frames, with iteration, label and probability under them.

    Args:
        reading: Of `walk`, over images.
        path: The file, ``.gif`` or ``.mp4`` (H.264; needs ffmpeg or isogon[video]).
        walk: Which walk.
        size: Least width of the picture in pixels (a whole multiple of the image's).
        seconds: Length; the last frame stays for another second.

    Returns:
        The path.

    Raises:
        OptionError: No such walk, its positions are no images, or no such kind of film.
        DependencyError: No encoder for MP4 was found, or it failed.
        FileError: The file can't be written.
    """
    _check(reading, walk)
    if Path(path).suffix.lower() not in (".gif", ".mp4"):
        raise OptionError("no such kind of film", got=str(path), expected=".gif or .mp4")
    images, rows = _frames(reading, walk)
    limits = _limits(reading)
    pages = []
    for image, (_, row) in zip(images, rows.iterrows(), strict=True):
        picture = style.canvas(image, limits)
        if picture is None:
            raise OptionError("only walks over images can be animated", got=image.shape)
        pages.append(_page(picture, _caption(reading, row, "   "), size))
    if Path(path).suffix.lower() == ".mp4":
        return video.encode(pages, path, seconds=seconds)
    pause = [int(np.clip(1000 * seconds / len(pages), 30, 1000))] * len(pages)
    pause[-1] += 1000
    first, *rest = [page.quantize(128) for page in pages]
    with atomic(path) as temporary:
        first.save(
            temporary, format="GIF", save_all=True, append_images=rest, duration=pause, loop=0
        )
    return Path(path)


def _page(picture: np.ndarray, caption: str, size: int) -> Image.Image:
    pixels = np.round(255 * picture).astype(np.uint8)
    scale = max(1, -(-size // pixels.shape[1]))
    width, height = scale * pixels.shape[1], scale * pixels.shape[0]
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
    page = Image.new("RGB", (width, height + 26), "white")
    page.paste(image.convert("RGB"), (0, 0))
    font = ImageFont.load_default(size=13)
    ImageDraw.Draw(page).text((6, height + 5), caption, fill=style.INK, font=font)
    return page


def _strip(axes: np.ndarray, reading: Reading, walk: int, frames: int) -> None:
    images, rows = _frames(reading, walk)
    shown = np.unique(np.linspace(0, len(images) - 1, frames).round().astype(int))
    limits = _limits(reading)
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    for ax, place in zip(axes, shown):
        style.picture(ax, images[place], limits=limits)
        ax.set_title(
            _caption(reading, rows.iloc[place], "\n"),
            loc="center",
            fontsize=7,
            y=-0.02,
            va="top",
            pad=0,
            linespacing=1.35,
        )


def _frames(reading: Reading, walk: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Frames of a walk [k, ...] and their rows of the table."""
    mine = reading.arrays["frame_walk"] == walk
    table = reading.table[reading.table["walk"] == walk].set_index("step")
    steps = reading.arrays["frame_step"][mine]
    return reading.arrays["frames"][mine], table.loc[steps].reset_index()


def _limits(reading: Reading) -> tuple[float, float]:
    """One grey scale for all frames: the domain if there is one, else the starts' and targets'."""
    clamp = reading.meta.get("clamp")
    if clamp is not None and all(isinstance(b, float | int) for b in clamp):
        return float(clamp[0]), float(clamp[1])
    known = [reading.arrays[k] for k in ("start", "target") if k in reading.arrays]
    low, high = min(a.min() for a in known), max(a.max() for a in known)
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    return float(low), float(high) if high > low else float(low) + 1.0


def _caption(reading: Reading, row: pd.Series, between: str) -> str:
    names = reading.meta.get("classes") or []
    label = int(row["prediction"])
    text = str(names[label]) if label < len(names) else str(label)
    parts = [f"step {int(row['step'])}", style.shorten(text, 12), f"p = {row['probability']:.3f}"]
    return between.join(parts)


def _lines(
    ax: Axes, reading: Reading, column: str, walk: int, color: str, label: str = "", dash: int = 0
) -> None:
    for number, part in reading.table.groupby("walk"):
        look = {"lw": 0.6, "alpha": 0.3, "zorder": 2}
        if number == walk:
            look = {"lw": 1.5, "zorder": 3, "label": label or None, "ls": style.DASHES[dash]}
        ax.plot(part["step"], part[column], color=color, **look)
    ax.set_xlabel("step")


def _probability(ax: Axes, reading: Reading, walk: int) -> None:
    _lines(ax, reading, "probability", walk, style.BLUE)
    part: pd.DataFrame = reading.table[reading.table["walk"] == walk]
    labels = part["prediction"].to_numpy()
    for place in np.flatnonzero(np.diff(labels)):
        ax.axvline(part["step"].iloc[place + 1], color=style.FAINT, lw=0.9, zorder=0)
    ax.set_ylim(0, 1.04)
    ax.set_ylabel("probability of the prediction")
    ax.set_title("Prediction")
    _ends(ax, reading, walk)


def _ends(ax: Axes, reading: Reading, walk: int) -> None:
    """How the walk ended: a limit of the search is no property of the leaf."""
    ended = reading.meta.get("ended") or []
    why = ended[walk] if walk < len(ended) else ""
    if why not in ENDS:
        return
    marker, text = ENDS[why]
    last = reading.table[reading.table["walk"] == walk].iloc[-1]
    look = {"ms": 6.5, "mfc": "none", "mew": 1.3, "color": style.INK, "zorder": 4, "ls": "none"}
    ax.plot([last["step"]], [last["probability"]], marker, label=text, clip_on=False, **look)
    if why == "steps":
        ax.axvline(last["step"], color=style.MUTED, lw=0.9, ls=(0, (2, 2)), zorder=1)
    ax.legend(loc="upper left", bbox_to_anchor=(0.0, -0.3))


def _length(ax: Axes, reading: Reading, walk: int) -> None:
    aimed = "target" in reading.arrays
    _lines(ax, reading, "travelled", walk, style.GREEN, "travelled")
    if aimed:
        _lines(ax, reading, "distance", walk, style.ORANGE, "to the target", 1)
    _lines(ax, reading, "from_start", walk, style.PURPLE, "from the start", 2)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("length (L2)")
    ax.set_title("Path")
    ax.legend(loc="upper left", bbox_to_anchor=(0.0, -0.3), ncols=1)


def _off(ax: Axes, reading: Reading, walk: int) -> None:
    both = (("departure", style.BLUE, "turning", 0), ("drift", style.RED, "clamping", 1))
    for column, color, label, dash in both:
        if bool((reading.table[column].to_numpy(dtype=float) > 0).any()):
            _lines(ax, reading, column, walk, color, label, dash)
    where = "leaf" if reading.meta.get("along") == "leaf" else "kernel"
    ax.set_ylim(bottom=0)
    ax.set_ylabel(f"off the {where} per step (L2)")
    ax.set_title("Fidelity")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.1)


def _regions(ax: Axes, reading: Reading, walk: int) -> None:
    """Linear regions per unit of length, where they were counted, on an axis of its own."""
    mine = reading.table[reading.table["walk"] == walk].set_index("step")
    frames = reading.arrays["frame_step"][reading.arrays["frame_walk"] == walk]
    rows = mine.loc[frames]
    images = reading.arrays["frames"][reading.arrays["frame_walk"] == walk].astype(float)
    length = np.linalg.norm(np.diff(images.reshape(len(images), -1), axis=0), axis=1)
    counted = rows["regions_crossed"].to_numpy(dtype=float)[1:]
    rate = np.divide(counted, length, out=np.full(len(length), np.nan), where=length > 0)
    known = np.isfinite(rate)
    if not known.any():
        return
    twin = ax.twinx()
    twin.plot(frames[1:][known], rate[known], ".", ms=3, color=style.PURPLE)
    twin.set_ylim(bottom=0)
    twin.set_ylabel("regions crossed per length (dots)", color=style.PURPLE)
    twin.grid(False)


def _plane(ax: Axes, reading: Reading) -> None:
    for number in range(len(reading.arrays["start"])):
        mine = reading.arrays["frames"][reading.arrays["frame_walk"] == number]
        ax.plot(mine[:, 0], mine[:, 1], color=style.BLUE, lw=0.9, alpha=0.7)
    ax.plot(*reading.arrays["start"].T, "o", ms=3.5, color=style.INK, label="start")
    if "target" in reading.arrays:
        ax.plot(*reading.arrays["target"].T, "s", ms=3.5, color=style.ORANGE, label="target")
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_title("Paths")
    ax.legend()


def _check(reading: Reading, walk: int) -> None:
    count = len(reading.arrays["start"]) if "start" in reading.arrays else 0
    if not 0 <= walk < count:
        raise OptionError("no such walk", got=walk, expected=f"0 .. {count - 1}")

"""The one visual style of all figures: palette, type, sizes, and the pieces they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, LogNorm, hsv_to_rgb, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from isogon.findings import words
from isogon.show.fitting import Fitted

INK = "#22303c"  # text, outlines
ON_DATA = "#21303c"  # text and lines on pale areas: they stay dark where the page is
MUTED = "#7b8794"  # secondary text, reference lines
FAINT = "#e4e8ec"  # grids, spines of empty axes
BLUE, ORANGE, GREEN, GOLD, RED, PURPLE = (
    "#2b6c9f",
    "#c47024",
    "#489e84",
    "#d8af37",
    "#ac3a30",
    "#964469",
)
# told apart also without red or green receptors (tests/show/test_colors.py)
CYCLE = (BLUE, ORANGE, GREEN, GOLD, RED, PURPLE, "#61a6b2", "#416acf", "#8a6d5a", "#6d768c")
# of curves, with the colours: an 11th has a first colour, but no first mark
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES: Any = (
    "-",
    (0, (4, 1.4)),
    (0, (1, 1)),
    (0, (5, 1.2, 1, 1.2)),
    (0, (8, 1.5, 2, 1.5, 2, 1.5)),
)
HATCHES = ("", "////", "....", "\\\\\\\\", "++", "oo", "--", "xx", "||", "**")  # of classes

SEQUENTIAL = LinearSegmentedColormap.from_list(
    "isogon", ["#f7f9fb", "#cfe0ec", "#93bcd6", "#4f8fb8", "#24648f", "#123a5a"]
)
DIVERGING = LinearSegmentedColormap.from_list(
    "isogon_diverging",
    ["#8c3a24", "#d98d5f", "#f2dccb", "#f8f8f6", "#cfdfea", "#5b97be", "#1d5079"],
)
DEPTH = LinearSegmentedColormap.from_list(
    "isogon_depth", ["#86c79a", "#4fb0b8", "#4a88cc", "#6648ac"]
)  # of layers behind the first
MISSING = "#f0eeea"  # cells without a value

INKED = 0.14  # of the axes: lines cover no more
THINNEST = 0.12  # points
WIDTH = 7.2  # inches: the width of a page's text block

TEXT: Any = {"svg.fonttype": "none", "pdf.fonttype": 42, "ps.fonttype": 42}
RC: dict[str, Any] = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["Inter", "Source Sans 3", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 8.5,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.titlesize": 9.0,
    "axes.titleweight": "normal",
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    "axes.titlecolor": INK,
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa5b1",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=list(CYCLE)),
    "axes.grid": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": "#9aa5b1",
    "ytick.color": "#9aa5b1",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.0,
    "patch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "legend.handlelength": 1.4,
    "legend.borderaxespad": 0.2,
    "figure.facecolor": "white",
    "figure.dpi": 110.0,
    "savefig.dpi": 200.0,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.08,
    **TEXT,
    "image.interpolation": "nearest",
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in isogon's style; matplotlib's own settings are as before afterwards."""
    have = {f.name for f in fontManager.ttflist}
    fonts = [f for f in RC["font.sans-serif"] if f in have] or ["DejaVu Sans"]
    settings: Any = {**RC, "font.sans-serif": fonts}
    with mpl.rc_context(settings):
        yield


class Plate(Figure):
    """A figure whose text stays text in vector formats, wherever it is saved."""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Write it, as `matplotlib.figure.Figure.savefig`."""
        with mpl.rc_context(TEXT):
            super().savefig(*args, **kwargs)


def figure(width: float = WIDTH, height: float = 2.6) -> Figure:
    """An empty figure of the given size in inches, apart from pyplot's global state."""
    layout = Fitted(w_pad=0.06, h_pad=0.05, wspace=0.04, hspace=0.04)
    fig = Plate(figsize=(width, height), layout=layout)
    FigureCanvasAgg(fig)
    return fig


def panels(
    columns: int, rows: int = 1, *, width: float = WIDTH, height: float = 2.6, **kwargs: Any
) -> tuple[Figure, np.ndarray]:
    """A figure with a grid of axes [rows, columns]; ``height`` is that of one row."""
    fig = figure(width, height * rows)
    return fig, fig.subplots(rows, columns, squeeze=False, **kwargs)


def letter(axes: Sequence[Axes]) -> None:
    """Mark panels a, b, c, ... in front of their titles, where there are several."""
    if len(axes) < 2:
        return
    for place, ax in enumerate(axes):
        title = ax.get_title(loc="left")
        ax.set_title(rf"$\bf{{{chr(97 + place)}}}$  {title}", loc="left")


def thickness(length: float, extent: float, inches: float, most: float) -> float:
    """Width in points of lines that must leave their ground to be seen.

    So that all lines together cover no more than a share of the axes.

    Args:
        length: Of all lines, in data coordinates.
        extent: Side of the axes in data coordinates.
        inches: The same side on paper.
        most: Width where there is room.
    """
    points = 72 * inches
    drawn = max(length, 1e-300) / extent * points
    return float(np.clip(INKED * points * points / drawn, THINNEST, most))


def shades(count: int) -> np.ndarray:
    """`[count, 4]` colours of ordered curves, from light to dark, seen on light and dark pages."""
    return SEQUENTIAL(np.linspace(0.42, 0.8, count))


def layers(count: int) -> list[tuple[float, float, float]]:
    """Colours of a network's layers: orange, then pale green, blue to purple, with depth."""
    deep = DEPTH(np.linspace(0, 1, count - 1))[:, :3] if count > 2 else DEPTH([1.0])[:, :3]
    rgb = [to_rgb(ORANGE), *deep.tolist()]
    return [(float(r), float(g), float(b)) for r, g, b in rgb[:count]]


def on_data(text: Text) -> None:
    """Keep a text legible on whatever areas it stands on."""
    text.set_color(ON_DATA)
    text.set_path_effects([withStroke(linewidth=2.2, foreground="white")])


def line_on_data(width: float, label: str) -> Line2D:
    """The entry of a legend for a line on areas, on a ground as pale as they are."""
    look: Any = {"color": ON_DATA, "lw": width, "label": label}
    ground = withStroke(linewidth=width + 5, foreground="#e9e8e4", capstyle="butt")
    return Line2D([], [], path_effects=[ground], **look)


def hatched(pattern: str) -> dict[str, Any]:
    """How a bar is drawn with a pattern, so that its colour alone tells nothing."""
    return {"hatch": pattern[:2], "edgecolor": "white", "lw": 0} if pattern else {}


def log_axis(axis: Any, values: np.ndarray) -> None:
    """A logarithmic axis where positive values span more than a decade and a half."""
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) and values.max() > 30 * values.min():
        axis._set_axes_scale("log")
        axis.set_minor_formatter(NullFormatter())


def color_bar(colors: ScalarMappable, label: str, *, size: float = 8.0, **place: Any) -> Colorbar:
    """A colour bar without a frame, its numbers written out.

    Args:
        colors: What it is of.
        label: What its numbers are.
        size: Of the label, in points.
        **place: Of `matplotlib.figure.Figure.colorbar`: ``ax`` or ``cax``, ``aspect``, ...
    """
    fig = (place["ax"] if "ax" in place else place["cax"]).figure
    bar: Any = fig.colorbar(colors, **place)
    bar.outline.set_visible(False)
    if not isinstance(colors.norm, LogNorm):  # no power of ten above it, where titles stand
        bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    bar.set_label(label, fontsize=size)
    return bar


def note(fig: Figure, text: str) -> None:
    """A quiet line under the figure, behind what stands there already."""
    before = fig.get_supxlabel()
    text = f"{before}; {text}" if before else text
    fig.supxlabel(text, fontsize=7.5, color=MUTED, x=0.01, ha="left")


def classes(count: int) -> ListedColormap:
    """Distinct colours for so many classes."""
    if count <= len(CYCLE):
        return ListedColormap(CYCLE[: max(count, 1)])
    hues = (np.arange(count) * 0.61803398875 + 0.58) % 1.0
    light = np.where(np.arange(count) % 2, 0.62, 0.78)
    return ListedColormap(hsv_to_rgb(np.stack([hues, np.full(count, 0.5), light], 1)))


def shorten(text: object, limit: int = 22) -> str:
    """A label that fits: long module paths keep their end."""
    text = str(text)
    return text if len(text) <= limit else "…" + text[-(limit - 1) :]


def trimmed(names: Sequence[str]) -> list[str]:
    """Names without the path that all of them begin with, as in sentences."""
    return list(map(words.trimmed(names).__getitem__, names))


def thin(labels: Sequence[object], most: int = 28) -> tuple[list[int], list[str]]:
    """Places and texts of at most ``most`` tick labels, evenly spread."""
    step = max(1, -(-len(labels) // most))
    places = list(range(0, len(labels), step))
    return places, [shorten(labels[i]) for i in places]


def canvas(image: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray | None:
    """A sample as a picture [H, W] or [H, W, 3] with values in [0, 1]; None for a vector.

    One channel is grey, three are colours, of any other number the mean is shown. Values are
    scaled from ``limits``: by default [0, 1], widened to the image's own range.
    """
    image = np.asarray(image, dtype=float)
    if image.ndim == 3:
        image = image.transpose(1, 2, 0) if image.shape[0] == 3 else image.mean(0)
    if image.ndim not in (2, 3):
        return None
    low, high = limits or (min(0.0, image.min()), max(1.0, image.max()))
    return np.clip((image - low) / (high - low), 0, 1)


def picture(
    ax: Axes,
    image: np.ndarray,
    *,
    diverging: bool = False,
    limits: tuple[float, float] | None = None,
) -> None:
    """Show a sample [C, H, W], [H, W] or [D] without ticks; a vector is drawn as bars.

    ``diverging`` centres the colours at 0; ``limits`` are those of `canvas`.
    """
    image = np.asarray(image, dtype=float)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    top = np.abs(image).max() or 1.0
    shown = canvas(image, (-top, top) if diverging else limits)
    if shown is None:
        flat = image.reshape(-1)
        ax.bar(np.arange(len(flat)), flat, width=1.0, color=BLUE)
        ax.axhline(0, color=MUTED, lw=0.6)
        if limits:
            ax.set_ylim(*limits)
    elif shown.ndim == 3:
        ax.imshow(shown)
    else:
        ax.imshow(shown, cmap=DIVERGING if diverging else "gray", vmin=0, vmax=1)

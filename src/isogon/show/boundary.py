"""Figure of a traced boundary: its curves over the classes of the slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.path import Path
from scipy import ndimage

from isogon.measures.boundary.reading import Boundary
from isogon.registry import draws
from isogon.show import style
from isogon.show.class_places import class_places
from isogon.show.partition import TINTS, by_class, frame, marks

if TYPE_CHECKING:
    from matplotlib.artist import Artist


SIMPLE = 1e-4  # of the slice's extent: bends that are not drawn
ROOM = 0.05  # of the image: half the width from which an area is named in it
LEGEND = 10  # classes that a legend still lists


@draws("boundary")
def draw_boundary(reading: Boundary, anchors: bool = True, names: bool = True) -> Figure:
    """The boundary over the class image, anchors marked.

    Args:
        reading: Of `boundary`.
        anchors: Whether to mark the inputs that the slice was made from, in their order.
        names: Whether to write the classes into their areas.
    """
    fig, axes = style.panels(1, width=4.4, height=3.9)
    ax = axes[0][0]
    single = bool(reading.meta["single"])
    _classes(ax, reading, single)
    for k in range(len(reading)):
        corners = simplified(reading.curve(k), SIMPLE * float(np.ptp(reading.plane.corners)))
        ax.plot(
            *corners.T,
            color=style.INK,
            lw=0.9,
            zorder=4,
            solid_capstyle="round",
            rasterized=len(reading.points) > 50_000,
        )
    frame(ax, reading.plane.corners)
    if names and not single:
        _names(ax, reading)
    if anchors and len(reading.plane.marks):
        marks(ax, reading.plane.marks)
    what = "Zero set" if single else "Decision boundary"
    count = f"{len(reading):,} curve{'' if len(reading) == 1 else 's'}"
    ax.set_title(f"{what}: {count}, {len(reading.curve_of):,} pieces")
    ax.set_xlabel("slice coordinate 1")
    ax.set_ylabel("slice coordinate 2")
    return fig


def simplified(corners: np.ndarray, size: float) -> np.ndarray:
    """A curve without corners that lie within a distance of the chord (Douglas and Peucker)."""
    kept = np.zeros(len(corners), bool)
    kept[[0, -1]] = True
    waiting = [(0, len(corners) - 1)]
    while waiting:
        low, high = waiting.pop()
        if high - low < 2:
            continue
        a, b = corners[low], corners[high]
        step, own = b - a, corners[low + 1 : high] - a
        length = float(step @ step)
        part = np.clip(own @ step / length, 0, 1) if length > 0 else np.zeros(len(own))
        off = np.linalg.norm(own - part[:, None] * step, axis=1)
        far = int(off.argmax())
        if off[far] > size:
            middle = low + 1 + far
            kept[middle] = True
            waiting += [(low, middle), (middle, high)]
    return corners[kept]


def _classes(ax: Axes, b: Boundary, single: bool) -> None:
    """The class image, cut to the slice's polygon, and its legend."""
    image, x, y = b.image, b.arrays["image_x"], b.arrays["image_y"]
    present = np.unique(image[image >= 0])
    shade, palette = by_class(present, np.full(len(present), TINTS // 2), single)
    colors = [tuple(palette[s]) for s in shade]
    filled = _spread(image)
    index = np.searchsorted(present, filled)
    dx, dy = x[1] - x[0], y[1] - y[0]
    extent = (x[0] - dx / 2, x[-1] + dx / 2, y[0] - dy / 2, y[-1] + dy / 2)
    shown = ax.imshow(
        index,
        origin="lower",
        extent=extent,
        cmap=ListedColormap(colors),
        vmin=-0.5,
        vmax=len(present) - 0.5,
        interpolation="nearest",
        zorder=1,
        aspect="auto",
    )
    shown.set_clip_path(Path(np.vstack([b.plane.corners, b.plane.corners[:1]])), ax.transData)
    if len(present) > LEGEND:
        return
    label = {0: "output < 0", 1: "output > 0"} if single else {}
    handles: list[Artist] = [
        Patch(color=c, label=label.get(int(k), f"class {k}"))
        for k, c in zip(present, colors, strict=True)
    ]
    if len(b):
        what = "zero set" if single else "boundary"
        handles.append(Line2D([], [], color=style.INK, lw=0.9, label=what))
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7)


def _spread(image: np.ndarray) -> np.ndarray:
    """The image with the places outside the slice given the class of the nearest one inside."""
    if (image >= 0).all():
        return image
    found: Any = ndimage.distance_transform_edt(image < 0, return_indices=True)
    return image[tuple(found[1])]


def _names(ax: Axes, b: Boundary) -> None:
    """Classes written where their areas are widest, away from the anchors."""
    image, x, y = b.image, b.arrays["image_x"], b.arrays["image_y"]
    for place in class_places(image, x, y, b.plane.marks, ROOM):
        ax.annotate(
            f"class {place.label}",
            (place.x, place.y),
            ha="center",
            va="center",
            fontsize=7,
            color=style.INK,
            zorder=3,
        )

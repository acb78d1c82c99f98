"""Figure of a traced boundary: its curves over the classes of the slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.path import Path
from scipy import ndimage

from isogon.measures.boundary.reading import Boundary
from isogon.measures.partition.reading import Partition
from isogon.registry import draws
from isogon.show import mesh, style
from isogon.show.areas import TINTS, area_patch, by_class, name_at, name_classes, names_of_classes
from isogon.show.class_places import class_places
from isogon.show.insets import place_of
from isogon.show.partition import below, frame, marks, overlay, regions

if TYPE_CHECKING:
    from matplotlib.artist import Artist

SIMPLE = 1e-4  # of the slice's extent: bends that are not drawn
ROOM = 0.05  # of the image: half the width from which an area is named in it
SIDE = 3.0  # inches: of the axes
MANY = 50_000  # corners from which curves are drawn as pixels, also in vector formats
SEEN = 1 / 40  # of the slice's extent: a smaller part is ringed
LEGEND = 10  # classes that a legend still lists


@draws("boundary")
def draw_boundary(
    reading: Boundary,
    anchors: bool = True,
    labels: bool = True,
    names: Sequence[str] | None = None,
    hatch: bool = False,
    inset: Partition | None = None,
) -> Figure:
    """The boundary over the class image, anchors marked; beside it a part of it with its regions.

    Args:
        reading: Of `boundary`.
        anchors: Whether to mark the inputs that the slice was made from, in their order.
        labels: Whether to write the classes into their areas.
        names: What the classes are called, in their order.
        hatch: Whether each class has a pattern, too, for print without colours.
        inset: The partition of a small part of the same plane (`Boundary.zoom`), drawn beside
            it with lines to its place.

    Raises:
        OptionError: The inset is of another plane or network, or classes have too few names.
    """
    single = bool(reading.meta["single"])
    names = names_of_classes(names, 2 if single else int(reading.meta["outputs"]))
    both = inset is not None
    place = None if inset is None else place_of(reading, inset)
    fig, axes = style.panels(1 + both, width=style.WIDTH if both else 4.4, height=3.9)
    ax = axes[0][0]
    present = _classes(ax, reading, single, hatch)
    extent = float(np.ptp(reading.plane.corners, axis=0).max())
    curves = [simplified(reading.curve(k), SIMPLE * extent) for k in range(len(reading))]
    width = style.thickness(reading.length, extent, SIDE, 0.9)
    many = sum(map(len, curves)) > MANY
    for corners in curves:
        ax.plot(
            *corners.T,
            color=style.ON_DATA,
            lw=width,
            zorder=4,
            solid_capstyle="round",
            rasterized=many,
        )
    frame(ax, reading.plane.corners)
    if labels:
        away = reading.plane.marks
        if place is not None:  # its place bears a mark, too
            away = np.vstack([away, place.mean(0)])
        _names(ax, reading, names, single, away)
    if anchors and len(reading.plane.marks):
        marks(ax, reading.plane.marks)
    what = "Zero set" if single else "Boundary" if both else "Decision boundary"
    count = f"{len(reading):,} curve{'' if len(reading) == 1 else 's'}"
    state = "" if reading.complete else ", not whole"
    ax.set_title(f"{what}: {count}, {len(reading.curve_of):,} pieces{state}")
    ax.set_xlabel("slice coordinate 1")
    ax.set_ylabel("slice coordinate 2")
    handles = _handles(present, single, names, bool(len(reading)), hatch)
    if inset is not None and place is not None:
        _zoom(fig, ax, axes[0][1], reading, inset, place, names, hatch)
        style.letter(list(axes[0]))
        if handles:
            below(ax, handles, 5)
    elif handles:
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7)
    return fig


def _zoom(
    fig: Figure,
    ax: Axes,
    side: Axes,
    b: Boundary,
    p: Partition,
    place: np.ndarray,
    names: Sequence[str] | None,
    hatch: bool,
) -> None:
    """The regions of a part of the plane, and lines to where it is (its corners: `place`)."""
    regions(fig, side, p, "class", 0, names, legend=False, hatch=hatch)
    overlay(side, p, True, False)
    side.set_xlabel("coordinate 1 of the part")  # its own: they begin in its middle
    side.set_ylabel("coordinate 2 of the part")
    side.yaxis.tick_right()  # off the lines that lead here
    side.yaxis.set_label_position("right")
    side.spines["left"].set_visible(False)
    name_classes(side, p, names)
    size = float(np.ptp(place, axis=0).max()) / float(np.ptp(b.plane.corners, axis=0).max())
    times = f"{1 / size:,.0f}" if size < 0.1 else f"{1 / size:.2g}"
    side.set_title(f"Marked part, {times}×: {len(p):,} regions")
    border = np.vstack([place, place[:1]])
    ax.plot(*border.T, color=style.ON_DATA, lw=1.0, zorder=6)
    middle = place.mean(0)
    if size < SEEN:  # too small to be seen: a ring around it
        ax.scatter(*middle, s=70, facecolors="none", edgecolors=style.ON_DATA, lw=1.1, zorder=6)
    low, high = p.plane.corners.min(0), p.plane.corners.max(0)
    right = float(place[:, 0].max() if size >= SEEN else middle[0])
    for y, corner in ((place[:, 1].min(), low[1]), (place[:, 1].max(), high[1])):
        line = ConnectionPatch(
            (right, y),
            (low[0], corner),
            "data",
            "data",
            axesA=ax,
            axesB=side,
            color=style.MUTED,
            lw=0.6,
            zorder=7,
        )
        line.set_in_layout(False)
        fig.add_artist(line)


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


def _classes(ax: Axes, b: Boundary, single: bool, hatch: bool) -> np.ndarray:
    """The class image, cut to the slice's polygon; the classes that it holds."""
    image, x, y = b.image, b.arrays["image_x"], b.arrays["image_y"]
    present = np.unique(image[image >= 0])
    colors = _colors(present, single)
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
    outline = Path(np.vstack([b.plane.corners, b.plane.corners[:1]]))
    shown.set_clip_path(outline, ax.transData)
    for k in present if hatch else []:
        pattern = style.HATCHES[int(k) % len(style.HATCHES)]
        if pattern:
            look: Any = {"colors": "none", "levels": [0.5, 1.5], "hatches": [pattern]}
            drawn = ax.contourf(x, y, (filled == k).astype(float), zorder=1.1, **look)
            drawn.set_edgecolor(mesh.GRID)
            drawn.set_linewidth(0.0)
            drawn.set_clip_path(outline, ax.transData)
    return present


def _colors(present: np.ndarray, single: bool) -> list[tuple[float, float, float]]:
    shade, palette = by_class(present, np.full(len(present), TINTS // 2), single)
    return [(float(r), float(g), float(b)) for r, g, b in palette[shade][:, :3]]


def _handles(
    present: np.ndarray, single: bool, names: Sequence[str] | None, curves: bool, hatch: bool
) -> list[Artist]:
    """The entries of the legend; none where there are too many classes."""
    if len(present) > LEGEND:
        return []
    label = dict(enumerate(names or (("output < 0", "output > 0") if single else ())))
    found: list[Artist] = []
    found += [
        area_patch(c, label.get(int(k), f"class {k}"), int(k), hatch)
        for k, c in zip(present, _colors(present, single), strict=True)
    ]
    if curves:
        what = "zero set" if single else "boundary"
        found.append(style.line_on_data(0.9, what))
    return found


def _spread(image: np.ndarray) -> np.ndarray:
    """The image with the places outside the slice given the class of the nearest one inside."""
    if (image >= 0).all():
        return image
    found: Any = ndimage.distance_transform_edt(image < 0, return_indices=True)
    return image[tuple(found[1])]


def _names(
    ax: Axes, b: Boundary, names: Sequence[str] | None, single: bool, away: np.ndarray
) -> None:
    """Classes written where their areas are widest, away from the marks `[m, 2]`."""
    image, x, y = b.image, b.arrays["image_x"], b.arrays["image_y"]
    for place in class_places(image, x, y, away, ROOM):
        plain = "−+"[place.label] if single else f"class {place.label}"
        text = plain if names is None else names[place.label]
        name_at(ax, place, text, b.plane.corners, 7.5)

"""The areas of classes on a slice: their colours, names and patterns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.typing import ColorType

from isogon.errors import OptionError
from isogon.measures.partition.decisions import decisions
from isogon.measures.partition.reading import Partition
from isogon.show import mesh, style
from isogon.show.class_places import Place, partition_places

INCHES = 2.2  # side of the axes at least, beside a legend
TINTS = 6  # of one class, so that neighbours stay apart


def names_of_classes(names: Sequence[str] | None, classes: int) -> Sequence[str] | None:
    """The names of classes, if there is one for each of them.

    Raises:
        OptionError: There are fewer, or more.
    """
    if names is not None and (isinstance(names, str) or not isinstance(names, Sequence)):
        raise OptionError(
            "names are those of the classes",
            got=repr(names),
            expected=f"a list of {max(classes, 2)} texts",
            fix="labels=False leaves them out of the figure.",
        )
    if names is not None and len(names) != max(classes, 2):
        raise OptionError(
            "each class needs a name",
            got=f"{len(names)} names",
            expected=f"{max(classes, 2)}, in the order of the outputs",
        )
    return names


def only_class(p: Partition) -> int | None:
    """The class of all regions, where they have one and the boundary does not cross them."""
    present = np.unique(p.label[p.finished])
    return int(present[0]) if len(present) == 1 and not len(p.boundary) else None


def alone_in(p: Partition, label: int, names: Sequence[str] | None) -> str:
    """That there is one class, in words."""
    if names is not None:
        return f"All {names[label]}"
    if p.outputs.shape[1] == 1:
        return "Output > 0 everywhere" if label else "Output < 0 everywhere"
    return f"All class {label}"


def area_patch(color: ColorType, text: str, label: int, hatch: bool) -> Patch:
    """The entry of a legend for the areas of a class."""
    pattern = style.HATCHES[label % len(style.HATCHES)] if hatch else ""
    return Patch(fc=color, ec=mesh.GRID, lw=0, hatch=pattern or None, label=text)


def hatch_classes(ax: Axes, p: Partition) -> None:
    """A pattern over the areas of each class."""
    part = decisions(p)
    for label in np.unique(part.label[part.label >= 0]):
        pattern = style.HATCHES[label % len(style.HATCHES)]
        if pattern:
            own = np.flatnonzero(part.label == label)
            mesh.hatched(ax, *part[:3], own, pattern, None)


def by_class(labels: np.ndarray, tint: np.ndarray, single: bool) -> tuple[np.ndarray, np.ndarray]:
    """Row of the palette for regions of these classes and tints (0..TINTS - 1); the palette.

    Args:
        labels: `[R]` classes.
        tint: `[R]`, or 0.
        single: One output, whose sign is the class.
    """
    tints = np.linspace(0.72, 0.40, TINTS)[:, None]
    base = style.CYCLE[:2] if single else style.CYCLE
    colors = np.array([to_rgb(c) for c in base])
    palette = np.concatenate([1 - tints * (1 - c) for c in colors])
    return (labels % len(base)) * TINTS + tint, palette


def name_classes(ax: Axes, p: Partition, names: Sequence[str] | None = None) -> None:
    """The class (one output: its sign) in the middle of each larger area."""
    single = p.outputs.shape[1] == 1
    extent = float(np.ptp(p.plane.corners, axis=0).max())
    for place in partition_places(p):
        label = place.label
        wide = place.radius > extent / 12  # room for words, which no anchor's number is taken for
        if names is not None:
            text = names[label]
        else:
            text = "−+"[label] if single else f"class {label}" if wide else str(label)
        name_at(ax, place, text, p.plane.corners, 8)


def name_at(ax: Axes, place: Place, text: str, corners: np.ndarray, size: float) -> None:
    """A name in an area, moved along the first coordinate where it would leave the slice.

    Args:
        ax: Where to.
        place: The middle of the area.
        text: The name.
        corners: `[k, 2]` of the slice.
        size: Of the text, in points.
    """
    low, high = corners[:, 0].min(), corners[:, 0].max()
    point = float(np.ptp(corners, axis=0).max()) / (72 * INCHES)
    half = (0.3 * size * len(text) + 2) * point  # letters are some 0.6 of their size wide
    x = float(np.clip(place.x, low + half, high - half)) if 2 * half < high - low else place.x
    words: Text = ax.text(x, place.y, text, ha="center", va="center", fontsize=size, zorder=4.5)
    style.on_data(words)

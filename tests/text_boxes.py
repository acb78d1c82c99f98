"""What is wrong with the texts of a figure, by the boxes in which the renderer draws them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox, BboxBase

PIXEL = 1.0  # of the figure's own density: boxes that touch are apart


@dataclass(frozen=True)
class Box:
    """A rectangle on the canvas, turned as its text is.

    Attributes:
        text: What stands in it.
        corners: ``[4, 2]`` in pixels, in turn.
    """

    text: str
    corners: np.ndarray

    def overlaps(self, other: Box, by: float = PIXEL) -> bool:
        """Whether both share a place that is more than so many pixels deep."""
        for side in (self, other):
            step = np.roll(side.corners, -1, 0)[:2] - side.corners[:2]
            axes = step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-12)
            for axis in axes:  # rectangles are apart if a side of one of them parts them
                a, b = self.corners @ axis, other.corners @ axis
                if min(a.max(), b.max()) - max(a.min(), b.min()) <= by:
                    return False
        return True

    def within(self, frame: BboxBase, by: float = PIXEL) -> bool:
        """Whether all of it lies in a frame, up to so many pixels."""
        low, high = self.corners.min(0), self.corners.max(0)
        inner, outer = np.array(frame.min), np.array(frame.max)
        return bool((low >= inner - by).all() and (high <= outer + by).all())


def faults(fig: Figure) -> list[str]:
    """Texts of a figure that overlap, that a border cuts off, or that a legend covers.

    Tick labels, titles, labels of axes, legends and annotations of all axes are texts alike.
    """
    canvas = FigureCanvasAgg(fig)
    with _drawn() as (texts, legends):
        canvas.draw()
    renderer = canvas.get_renderer()
    held = [(t, box) for t in texts if (box := _box(t, renderer)) is not None]
    found = []
    for text, box in held:
        if not box.within(fig.bbox):
            found.append(f"{box.text!r} is cut off by the figure's border")
        clip = text.get_clip_box() if text.get_clip_on() else None
        if clip is not None and not box.within(clip):
            found.append(f"{box.text!r} is cut off by its axes")
    for (_, a), (_, b) in _near(held):
        if a.overlaps(b):
            found.append(f"{a.text!r} overlaps {b.text!r}")
    covers = [(k, _of(k.get_window_extent(renderer), f"legend {_first(k)}")) for k in legends]
    for legend, box in covers:
        own = {id(t) for t in legend.findobj(Text)}
        for text, other in held:
            if id(text) not in own and box.overlaps(other):
                found.append(f"{box.text} covers {other.text!r}")
    for (_, a), (_, b) in itertools.combinations(covers, 2):
        if a.overlaps(b):
            found.append(f"{a.text} covers {b.text}")
    return found


@contextmanager
def _drawn() -> Iterator[tuple[list[Text], list[Legend]]]:
    """What is drawn meanwhile: no hidden axes, no ticks beyond the limits."""
    texts: dict[int, Text] = {}
    legends: dict[int, Legend] = {}

    def seen(kept: dict[int, Any], draw: Any) -> Any:
        def drawing(self: Any, renderer: Any, *args: Any, **kwargs: Any) -> Any:
            if self.get_visible():
                kept[id(self)] = self
            return draw(self, renderer, *args, **kwargs)

        return drawing

    found: tuple[list[Text], list[Legend]] = ([], [])
    with (
        patch.object(Text, "draw", seen(texts, Text.draw)),
        patch.object(Legend, "draw", seen(legends, Legend.draw)),
    ):
        yield found
    found[0].extend(t for t in texts.values() if t.get_text().strip())
    found[1].extend(legends.values())


def _box(text: Text, renderer: Any) -> Box | None:
    """The box of a text, turned with it; None where there is nothing to see."""
    whole = Text.get_window_extent(text, renderer)  # of an annotation: without its arrow
    turned = text.get_rotation()
    text.set_rotation(0)
    flat = Text.get_window_extent(text, renderer)
    text.set_rotation(turned)
    if flat.width <= 0 or flat.height <= 0:
        return None
    angle = np.deg2rad(turned)
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (flat.width / 2, flat.height / 2)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = np.add(whole.min, whole.max) / 2  # turning keeps the middle of the box around a box
    return Box(text.get_text(), half @ turn + middle)


def _of(extent: Bbox, text: str) -> Box:
    return Box(text, np.array(extent.corners())[[0, 1, 3, 2]])


def _first(legend: Legend) -> str:
    return repr(legend.get_texts()[0].get_text()) if legend.get_texts() else "without entries"


def _near(held: list[tuple[Text, Box]]) -> Iterator[tuple[tuple[Text, Box], tuple[Text, Box]]]:
    """Pairs whose upright hulls meet."""
    if not held:
        return
    low = np.array([b.corners.min(0) for _, b in held])
    high = np.array([b.corners.max(0) for _, b in held])
    meet = (low[:, None] < high[None]).all(2) & (low[None] < high[:, None]).all(2)
    for i, j in np.argwhere(np.triu(meet, 1)):
        yield held[i], held[j]

"""Texts that fit: titles, labels and ticks by the room that a figure's layout leaves them.

Where a text has room is known only once a figure is laid out, and is another matter on a figure
of another size. So the layout of all figures does it: it lays out, breaks titles and labels of axes
into lines, turns or thins tick labels, leaves out numbers of cells that are too small, and lays out
again.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator
from matplotlib.transforms import Bbox

CELL = "cell"  # group of the numbers in the cells of a heatmap
ROUNDS = 6  # of layouts at most: each changes the room a little
GAP = 4.0  # points between texts beside each other
TURNS = (40.0, 60.0, 90.0)  # degrees of tick labels that have no room side by side
DEEPEST = 0.45  # of the height of axes and their tick labels: what turned labels take of it
FEWEST = 9  # letters of a shortened label
PLAIN: dict[str, Any] = {"rotation": 0, "ha": "center", "rotation_mode": "default"}


class Fitted(ConstrainedLayoutEngine):
    """Matplotlib's constrained layout, with texts that fit."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._whole: dict[Text, tuple[str, str]] = {}  # as written, as broken
        # within one layout texts only take less room: two of them do not give way to each other
        self._rooms: dict[Text, float] = {}
        self._turned: dict[Axis, tuple[int, float]] = {}
        self._ticks: dict[Axis, tuple[list[float], list[str], list[float]]] = {}

    def execute(self, fig: Figure) -> Any:
        """Lay out a figure."""
        self._rooms.clear()
        self._turned.clear()
        found = super().execute(fig)
        again = any(ax.get_aspect() != "auto" for ax in fig.axes)  # its width follows its height
        for _ in range(ROUNDS):
            if not (self._fit(fig) or again):
                break
            found = super().execute(fig)
            again = False
        return found

    # ----------------------------------------------------------------------- internals

    def _fit(self, fig: Figure) -> bool:
        """Whether anything was changed."""
        renderer = cast(Any, fig)._get_renderer()
        shown = [ax for ax in fig.axes if ax.get_visible()]
        changed = False
        for ax in shown:
            for axis in (ax.xaxis, ax.yaxis):
                changed |= self._fit_ticks(axis, renderer)
            _fit_cells(ax, renderer)
            for text, room, signs in _texts(ax, shown, fig.dpi / 72):
                changed |= self._break(text, room, renderer, signs)
        for part in _parts(fig):
            for text in part.texts:
                if text.get_rotation() == 0 and text.get_horizontalalignment() == "left":
                    start = text.get_window_extent(renderer).x0
                    room = part.bbox.x1 - start - GAP * fig.dpi / 72
                    changed |= self._break(text, room, renderer)
        return changed

    def _break(self, text: Text, room: float, renderer: Any, signs: bool = True) -> bool:
        """Break a text into lines that are no longer than its room, also at signs in words."""
        before = text.get_text()
        if not text.get_visible() or not before.strip() or room <= 0:
            return False
        room = self._rooms[text] = min(room, self._rooms.get(text, room))
        whole, broken = self._whole.get(text, (before, before))
        if broken != before:
            whole = before  # somebody wrote another text since

        def length(part: str) -> float:
            text.set_text(part)
            box = text.get_window_extent(renderer)
            return box.height if text.get_rotation() == 90 else box.width

        after = "\n".join(broken_line(line, room, length, signs) for line in whole.split("\n"))
        text.set_text(after)
        self._whole[text] = whole, after
        return after != before

    def _fit_ticks(self, axis: Axis, renderer: Any) -> bool:
        """Turn or thin the labels of an axis; fewer ticks, where they are numbers."""
        if not axis.get_visible():
            return False
        labels = [t for t in axis.get_ticklabels() if t.get_visible() and t.get_text()]
        if len(labels) < 2:
            return False
        across = isinstance(axis, XAxis)
        locator, formatter = axis.get_major_locator(), axis.get_major_formatter()
        if not isinstance(locator, FixedLocator):
            return _fewer(axis, locator, across, renderer)
        places = [float(p) for p in axis.get_majorticklocs()]
        texts = [str(t) for t in formatter.format_ticks(places)]
        if axis not in self._ticks or self._ticks[axis][2] != places:
            self._ticks[axis] = places, texts, places  # somebody set others since
        places, texts, now = self._ticks[axis]
        ends = axis.axes.transData.transform([(p, p) for p in places])[:, 0 if across else 1]
        sample, turn = labels[0], labels[0].get_rotation()
        sizes = [_size(sample, t, renderer) for t in texts]
        widths, high = np.array([w for w, _ in sizes]), max(h for _, h in sizes)
        order = np.argsort(ends, kind="stable")
        gap = GAP * cast(Any, axis.axes.figure).dpi / 72
        step, look = _look(ends[order], widths[order], high, across, gap, texts)
        level = step, look.get("rotation", 0.0)
        if level < self._turned.get(axis, level):
            return False
        self._turned[axis] = level
        kept = list(range(0, len(places), step))
        wanted, said = [places[i] for i in kept], [texts[i] for i in kept]
        if across and look is not PLAIN:
            rise = np.sin(np.deg2rad(look["rotation"]))
            before = max(t.get_window_extent(renderer).height for t in labels)
            room = DEEPEST * (axis.axes.get_window_extent().height + before) / rise
            said = [_shortened(t, room, lambda s: _size(sample, s, renderer)[0]) for t in said]
        same = wanted == now and said == [t.get_text() for t in labels]
        if same and (not across or turn == look["rotation"]):
            return False
        axis.set_ticks(wanted, said, **(look if across else {}))
        self._ticks[axis] = places, texts, wanted
        return True


def broken_line(line: str, room: float, length: Callable[[str], float], signs: bool = True) -> str:
    """A line broken at spaces; longer words, if wanted, at signs, and what is longer shortened."""
    if length(line) <= room:
        return line
    words = re.findall(r"(?:\$[^$]*\$|\S)+\s*", line)
    lines, now = [], ""
    for word in words:
        fits = not signs or length(word.rstrip()) <= room
        for part in [word] if fits else _pieces(word, room, length):
            if now and length((now + part).rstrip()) > room:
                lines.append(now.rstrip())
                now = ""
            now += part
    return "\n".join([*lines, now.rstrip()])


def _pieces(word: str, room: float, length: Callable[[str], float]) -> Iterator[str]:
    """The parts of a word after signs; a part that is too long keeps its end."""
    for part in re.findall(r"[^(/.,_=\-]*[(/.,_=\-]*\s*", word):
        while len(part) > 3 and "$" not in part and length(part.rstrip()) > room:
            part = "…" + part.lstrip("…")[1:]
        if part:
            yield part


def _shortened(text: str, room: float, length: Callable[[str], float]) -> str:
    """A label that is no longer than its room, by its end: there paths of modules differ."""
    while len(text) > FEWEST and length(text) > room:
        text = "…" + text.lstrip("…")[1:]
    return text


def _parts(fig: Figure | SubFigure) -> Iterator[Figure | SubFigure]:
    yield fig
    for part in fig.subfigs:
        yield from _parts(part)


def _texts(ax: Axes, shown: Sequence[Axes], scale: float) -> Iterator[tuple[Text, float, bool]]:
    """Titles and labels of axes, the room for each in pixels, and whether words may be broken."""
    box = ax.get_window_extent()
    others = [o.get_window_extent() for o in shown if o is not ax and not hasattr(o, "_colorbar")]
    figure: Bbox = cast(Any, ax.figure).bbox
    beside = [o for o in others if min(o.y1, box.y1) - max(o.y0, box.y0) > 1]
    gap = GAP * scale
    right = min([o.x0 for o in beside if o.x0 > box.x1 - 1], default=figure.x1)
    for other in shown:  # a label that is longer than its axis stands beside this title
        label = other.yaxis.label.get_window_extent()
        if other.get_ylabel() and label.x0 > box.x0 and label.y0 < box.y1 < label.y1:
            right = min(right, label.x0)
    left = max([o.x1 for o in beside if o.x1 < box.x0 + 1], default=figure.x0)
    middle = (box.x0 + box.x1) / 2
    both = 2 * min((right + box.x1) / 2 - middle, middle - (left + box.x0) / 2) - gap
    for title in ax.get_children():
        if isinstance(title, Text) and title not in ax.texts:
            held = title.get_horizontalalignment() == "left"
            yield title, right - box.x0 - gap if held else both, True
    power = ax.xaxis.get_offset_text()  # at the end of the axis, beside the label
    taken = 2 * (power.get_window_extent().width + gap) if power.get_text() else 0.0
    yield ax.xaxis.label, min(both, box.width - taken) if taken else both, False
    if ax.yaxis.label.get_rotation() == 90:
        yield ax.yaxis.label, box.height + gap, False


def _fit_cells(ax: Axes, renderer: Any) -> None:
    """Leave out the numbers of a heatmap whose cells are too small for one of them."""
    cells = [t for t in ax.texts if t.get_gid() == CELL]
    if not cells:
        return
    (x0, y0), (x1, y1) = ax.transData.transform([(0, 0), (1, 1)])
    for text in cells:
        text.set_visible(True)
    boxes = [t.get_window_extent(renderer) for t in cells]
    room = all(b.width < abs(x1 - x0) and b.height < abs(y1 - y0) for b in boxes)
    for text in cells:
        text.set_visible(room)


def _size(text: Text, content: str, renderer: Any) -> tuple[float, float]:
    """Width and height of a text, were it to say something else and not be turned."""
    before, turn = text.get_text(), text.get_rotation()
    text.set(text=content, rotation=0)
    box = text.get_window_extent(renderer)
    text.set(text=before, rotation=turn)
    return box.width, box.height


def _look(
    ends: np.ndarray, widths: np.ndarray, high: float, across: bool, gap: float, texts: list[str]
) -> tuple[int, dict[str, Any]]:
    """Which label is kept (each first of so many), and how labels are turned."""
    apart = np.diff(ends)
    least = max(float(apart.min()), 1e-9)
    if not across:
        return max(1, int(np.ceil(high / least))), {}
    if ((widths[1:] + widths[:-1]) / 2 + gap <= apart).all():
        return 1, PLAIN
    if any("\n" in t for t in texts) or float(widths.max()) < 1.5 * high:  # short: fewer of them
        return int(np.ceil((widths.max() + gap) / least)), PLAIN
    for turn in TURNS:
        if least * np.sin(np.deg2rad(turn)) >= high + 1:
            break
    step = max(1, int(np.ceil((high + 1) / (least * np.sin(np.deg2rad(turn))))))
    if turn == 90:
        return step, {"rotation": 90, "ha": "center", "rotation_mode": "default"}
    return step, {"rotation": turn, "ha": "right", "rotation_mode": "anchor"}


def _fewer(axis: Axis, locator: Any, across: bool, renderer: Any) -> bool:
    """Ask for fewer ticks until their labels are apart."""
    before = len(axis.get_ticklocs())
    name = "nbins" if isinstance(locator, MaxNLocator) else "numticks"
    if not isinstance(locator, MaxNLocator | LogLocator):
        return False
    changed = False
    for count in range(before - 1, 1, -1):
        boxes = _shown(axis, renderer)
        ends = sorted((b.x0, b.x1) if across else (b.y0, b.y1) for b in boxes)
        if all(a[1] <= b[0] for a, b in itertools.pairwise(ends)):
            break
        set_params: Any = locator.set_params
        set_params(**{name: count})
        changed = True
    return changed


def _shown(axis: Axis, renderer: Any) -> list[Bbox]:
    """The boxes of the labels within the limits of an axis."""
    low, high = sorted(axis.get_view_interval())
    ticks = [(p, t) for p, t in zip(axis.get_ticklocs(), axis.get_ticklabels())]
    return [
        t.get_window_extent(renderer)
        for p, t in ticks
        if low <= p <= high and t.get_visible() and t.get_text()
    ]

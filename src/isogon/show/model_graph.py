"""A model drawn as the graph of its sites, each coloured by a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from isogon.nets.wiring import Wiring
from isogon.show import style

ROW, BOX, GAP, GUTTER = 0.34, 0.21, 0.16, 0.5  # inches: level, box height, between boxes, columns
TALL, WIDE = 24, 44  # levels of a column of one or two nodes abreast, and of more
FONT = 6.8
SIGNS = {"add": "+", "sub": "−", "mul": "×", "cat": "‖"}


def draw_graph(wiring: Wiring, values: Mapping[str, float], label: str, title: str) -> Figure:
    """Levels from the top down, in columns where there are many; skips as arcs at the side.

    Args:
        wiring: The graph.
        values: Number of each site; sites without a finite one stay grey.
        label: What the numbers are.
        title: Of the figure.
    """
    names = style.trimmed([n for n, kind in wiring.nodes.items() if kind == "site"])
    texts = dict(zip([n for n, kind in wiring.nodes.items() if kind == "site"], names))
    texts = {n: style.shorten(t, 28) for n, t in texts.items()}
    width = 0.42 + 0.062 * max([len(t) for t in texts.values()], default=6)
    places, size = _layout(wiring, width)
    fig = style.figure(max(3.4, size[0] + 1.0), max(2.0, size[1] + 0.45))
    ax = fig.subplots()
    ax.set_xlim(0, size[0])
    ax.set_ylim(size[1] + 0.06, -0.1)
    ax.set_aspect("equal")
    ax.axis("off")
    finite = [v for v in values.values() if np.isfinite(v)]
    norm = Normalize(min(0.0, *finite, 0.0), max([*finite, 1e-12]))
    for a, b in wiring.edges:
        _edge(ax, wiring, places, a, b, width)
    for name, kind in wiring.nodes.items():
        value = values.get(name, np.nan) if kind == "site" else np.nan
        _node(ax, places[name][:2], kind, texts.get(name, name), value, norm, width)
    scale = mpl.cm.ScalarMappable(norm, style.SEQUENTIAL)  # type: ignore[attr-defined]
    style.color_bar(scale, label, ax=ax, shrink=min(1.0, 2.6 / size[1]), aspect=18, pad=0.02)
    ax.set_title(title)
    if wiring.note:
        style.note(fig, wiring.note)
    return fig


# --------------------------------------------------------------------------- places


def _layout(wiring: Wiring, width: float) -> tuple[dict[str, tuple], tuple[float, float]]:
    """Of each node x, y, column and slot; and the size of the whole, in inches."""
    levels = wiring.levels()
    rows: list[list[str]] = [[] for _ in range(max(levels.values()) + 1)]
    for name in wiring.nodes:
        rows[levels[name]].append(name)
    sources: dict[str, list[str]] = {n: [] for n in wiring.nodes}
    for a, b in wiring.edges:
        sources[b].append(a)
    columns = -(-len(rows) // (WIDE if max(map(len, rows)) > 2 else TALL))
    tall = -(-len(rows) // columns)
    widest = [max(map(len, rows[c * tall : (c + 1) * tall])) for c in range(columns)]
    pitch = width + GAP
    starts = np.cumsum([0, *[w * pitch - GAP + GUTTER for w in widest]])
    places: dict[str, tuple] = {}
    for level, row in enumerate(rows):
        column, down = divmod(level, tall)
        # beside what they come from, so that few edges cross
        row.sort(key=lambda n: np.mean([places[s][3] for s in sources[n] if s in places] or [0]))
        middle = starts[column] + (widest[column] * pitch - GAP) / 2
        for i, name in enumerate(row):
            slot = i - (len(row) - 1) / 2
            places[name] = (middle + slot * pitch, (down + 0.5) * ROW, column, slot)
    return places, (float(starts[-1]), tall * ROW)


def _node(
    ax: Axes, xy: tuple, kind: str, text: str, value: float, norm: Normalize, width: float
) -> None:
    x, y = xy
    middle: Any = {"ha": "center", "va": "center", "zorder": 4}
    if kind == "join":
        sign = SIGNS.get(text.rpartition(":")[2].partition("#")[0], "·")
        ring = {"boxstyle": "circle,pad=0.12", "fc": "white", "ec": style.MUTED, "lw": 0.7}
        ax.text(x, y, sign, fontsize=FONT + 1, color=style.ON_DATA, bbox=ring, **middle)
        return
    if kind != "site":
        ground = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none"}
        ax.text(x, y, text, fontsize=FONT, color=style.MUTED, bbox=ground, **middle)
        return
    known = bool(np.isfinite(value))
    face = style.SEQUENTIAL(norm(value)) if known else style.MISSING
    dark = known and norm(value) > 0.55
    color = "white" if dark else style.ON_DATA if known else style.INK
    left = x - width / 2
    shape = "round,pad=0,rounding_size=0.05"
    ax.add_patch(
        FancyBboxPatch(
            (left, y - BOX / 2), width, BOX, boxstyle=shape, fc=face, ec="#9aa5b1", lw=0.6, zorder=3
        )
    )
    ax.text(
        left + 0.06, y, text, ha="left", va="center_baseline", fontsize=FONT, color=color, zorder=4
    )
    ax.text(
        left + width - 0.06,
        y,
        f"{value:.2f}" if known else "–",
        ha="right",
        va="center_baseline",
        fontsize=FONT,
        color=color,
        zorder=4,
    )


def _edge(ax: Axes, wiring: Wiring, places: dict, a: str, b: str, width: float) -> None:
    """Straight down where nothing stands between; else an arc at the side, or by the gutter."""
    (xa, ya, ca, _), (xb, yb, cb, _) = places[a], places[b]
    half, turn = BOX / 2, yb - ROW + BOX / 2
    edge = {n: {"site": width / 2, "join": 0.08}.get(wiring.nodes[n], 0.25) for n in (a, b)}
    reach = width / 2 + 0.05
    between = [n for n, p in places.items() if p[2] == ca and ya < p[1] < yb]
    clear = not any(abs(places[n][0] - xa) < reach for n in between)
    color = "#9aa5b1"
    if ca != cb:  # between the rows to the gutter, up, and over the next column
        gutter = max(p[0] for p in places.values() if p[2] == ca) + width / 2 + GUTTER / 2
        below, above = ya + ROW / 2, yb - ROW / 2
        points = [(xa, ya + half), (xa, below), (gutter, below), (gutter, above), (xb, above)]
        codes = [Path.MOVETO] + [Path.LINETO] * 5
        points.append((xb, yb - half))
    elif clear:
        middle = (turn + yb - half) / 2
        points = [(xa, ya + half), (xa, turn), (xa, middle), (xb, middle), (xb, yb - half)]
        codes = [Path.MOVETO, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    else:
        color = style.MUTED
        passed = [places[n][0] + width / 2 for n in between if wiring.nodes[n] == "site"]
        side = max([xa + edge[a], xb + edge[b], *passed])
        out = side + min(0.1 + 0.045 * (yb - ya) / ROW, GUTTER - 0.1)
        start, end = (xa + edge[a], ya + 0.04), (xb + edge[b], yb - 0.04)
        points = [start, (out, ya + 0.06), (out, yb - 0.06), end]
        codes = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    arrow = {"arrowstyle": "-|>", "mutation_scale": 5, "color": color, "lw": 0.8, "zorder": 2}
    ax.add_patch(FancyArrowPatch(path=Path(points, codes), capstyle="butt", **arrow))

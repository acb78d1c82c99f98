"""Figure of a partition: regions, the edges of each layer, the decision boundary, the anchors."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure

from isogon.measures.partition import Partition
from isogon.registry import draws
from isogon.show import style


@draws("partition")
def draw_partition(
    reading: Partition,
    color: Literal["class", "area", "slope", "random"] = "class",
    edges: bool = True,
    boundary: bool = True,
    anchors: bool = True,
) -> Figure:
    """Regions coloured by class on the left, edges coloured by layer on the right.

    Args:
        reading: A partition.
        color: What colours the regions: class, area, norm of the slope, or at random.
        edges: Whether to draw the panel of edges by layer.
        boundary: Whether to draw the decision boundary on top.
        anchors: Whether to mark the inputs that the slice was made from.
    """
    fig, axes = style.panels(2 if edges else 1, height=3.5)
    panels = list(axes[0])
    _regions(fig, panels[0], reading, color)
    if edges:
        _edges(panels[1], reading)
    for ax in panels:
        _overlay(ax, reading, boundary and ax is panels[0], anchors)
    if edges:
        style.letter(panels)
    return fig


def _polygons(p: Partition) -> list[np.ndarray]:
    return np.split(p.vertices[p.face_vertices], p.face_offsets[1:-1])


def _regions(fig: Figure, ax: Axes, p: Partition, color: str) -> None:
    rng = np.random.default_rng(0)
    width = 0.25 if len(p) < 3000 else 0.0
    shapes = PolyCollection(_polygons(p), linewidths=width, edgecolors="white", rasterized=True)
    if color == "class":
        palette = np.array([to_rgb(c) for c in style.CYCLE])[p.label % len(style.CYCLE)]
        tint = 0.35 + 0.4 * rng.random((len(p), 1))  # neighbours of one class stay apart
        shapes.set_facecolor(list(map(tuple, 1 - tint * (1 - palette))))
        title = "Regions by class"
    elif color == "random":
        shapes.set_facecolor(list(map(tuple, style.SEQUENTIAL(0.1 + 0.8 * rng.random(len(p))))))
        title = "Regions"
    else:
        if color == "slope":
            values = np.linalg.norm(p.gradients().reshape(len(p), -1), axis=1)
            title = "Regions by norm of their slope"
        else:
            values, title = p.area, "Regions by area"
        positive = values[values > 0]
        floor = float(np.percentile(positive, 1)) if len(positive) else 1.0
        shapes.set_array(np.maximum(values, floor))
        shapes.set_cmap(style.SEQUENTIAL)
        if len(positive) and positive.max() > floor:
            shapes.set_norm(LogNorm(floor, float(positive.max())))
        fig.colorbar(shapes, ax=ax, shrink=0.8)
    ax.add_collection(shapes)
    state = "" if p.complete else ", incomplete"
    ax.set_title(f"{title} ({len(p):,}{state})")


def _edges(ax: Axes, p: Partition) -> None:
    count = len(p.sites)
    shades = style.SEQUENTIAL(np.linspace(1.0, 0.35, max(count, 1)))
    many = len(p.edges) > 20_000
    for site in reversed(range(count)):  # first layers on top
        own = p.edges[p.edge_site == site]
        if not len(own):
            continue
        thin = (0.25 if many else 0.5) * (1.6 if site == 0 else 1.0)
        label = f"{p.sites[site]} ({len(own):,})"
        color = style.ORANGE if site == 0 else shades[site]
        lines = LineCollection(
            list(p.vertices[own]), colors=[color], linewidths=thin, label=label, rasterized=True
        )
        ax.add_collection(lines)
    ax.set_title("Edges by layer")
    handles, labels = ax.get_legend_handles_labels()
    if 0 < len(handles) <= 8:
        ax.legend(handles[::-1], labels[::-1], loc="upper center", bbox_to_anchor=(0.5, -0.2),
                  ncols=2, fontsize=7)  # fmt: skip


def _overlay(ax: Axes, p: Partition, boundary: bool, anchors: bool) -> None:
    border = np.vstack([p.plane.corners, p.plane.corners[:1]])
    ax.plot(*border.T, color=style.INK, lw=0.8)
    if boundary and len(p.boundary):
        lines = LineCollection(list(p.boundary), colors=style.INK, linewidths=1.3)
        lines.set_capstyle("round")
        ax.add_collection(lines)
    if anchors and len(p.plane.marks):
        ax.scatter(*p.plane.marks.T, s=26, color="white", edgecolors=style.INK, lw=1.1, zorder=5)
    low, high = p.plane.corners.min(0), p.plane.corners.max(0)
    margin = 0.02 * (high - low).max()
    ax.set_xlim(low[0] - margin, high[0] + margin)
    ax.set_ylim(low[1] - margin, high[1] + margin)
    ax.set_aspect("equal")
    ax.set_xlabel("slice coordinate 1")
    ax.set_ylabel("slice coordinate 2")

"""Many polygons and segments on an axis at once, as a few compound paths."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, TriMesh
from matplotlib.colors import to_rgba
from matplotlib.path import Path
from matplotlib.tri import Triangulation

CHUNK = 2000  # shapes per path: Agg's limit for one path is not far above 10,000
MANY = 4000  # faces from which they are drawn as pixels, also in vector formats
DPI = 200.0  # of these pixels
HATCH, PALE, GRID = "//////", "#f1f1ef", "#a9a9a4"  # of what is not known


def fill(
    ax: Axes,
    vertices: np.ndarray,
    offsets: np.ndarray,
    loops: np.ndarray,
    shade: np.ndarray,
    palette: np.ndarray,
    *,
    zorder: float = 1.0,
    pixels: bool = True,
) -> PathCollection:
    """Fill the polygons of a mesh: as many paths as colours, not as polygons.

    Args:
        ax: Where to.
        vertices: `[V, 2]`.
        offsets: `[R + 1]`: polygon i has the corners `loops[offsets[i]:offsets[i + 1]]`.
        loops: See there.
        shade: `[R]` row of the palette for each polygon.
        palette: `[K, 3 or 4]` colours.
        zorder: Of the collection.
        pixels: Whether many polygons become pixels in vector formats.
    """
    sizes = np.diff(offsets)
    order = np.argsort(shade, kind="stable")
    first = np.cumsum(np.concatenate([[0], sizes[order] + 1]))  # one entry more closes each
    source = np.repeat(offsets[:-1][order] - first[:-1], sizes[order] + 1) + np.arange(first[-1])
    source[first[1:] - 1] = offsets[:-1][order]
    points = vertices[loops[source]]
    codes = np.full(first[-1], Path.LINETO, np.uint8)
    codes[first[:-1]], codes[first[1:] - 1] = Path.MOVETO, Path.CLOSEPOLY
    paths, colors = [], []
    for low, high, color in _runs(shade[order]):
        part = slice(first[low], first[high])
        paths.append(Path(points[part], codes[part]))
        colors.append(palette[color])
    many = pixels and len(sizes) > MANY
    # antialiased neighbours would let the ground shine through between them
    shapes = PathCollection(
        paths,
        facecolors=colors,
        edgecolors="none",
        linewidths=0,
        rasterized=many,
        antialiaseds=False,
        zorder=zorder,
    )
    if many:
        _sharpen(ax)
    shapes.set_in_layout(False)  # the axes around it are
    ax.add_collection(shapes, autolim=False)
    return shapes


def hatched(
    ax: Axes,
    vertices: np.ndarray,
    offsets: np.ndarray,
    loops: np.ndarray,
    which: np.ndarray,
    hatch: str = HATCH,
    face: str | None = PALE,
) -> None:
    """Hatch some polygons of a mesh: of them nothing is known, or to tell classes apart.

    Args:
        ax: Where to.
        vertices: `[V, 2]`.
        offsets: As in `fill`.
        loops: Likewise.
        which: The polygons.
        hatch: Matplotlib's pattern.
        face: Colour behind it; None: what is there already.
    """
    if not len(which):
        return
    sizes = np.diff(offsets)[which]
    first = np.concatenate([[0], np.cumsum(sizes)])
    corner = np.arange(first[-1]) + np.repeat(offsets[which] - first[:-1], sizes)
    shapes = fill(
        ax,
        vertices,
        first,
        loops[corner],
        np.zeros(len(which), np.int64),
        np.array([to_rgba(face) if face is not None else (0, 0, 0, 0)]),
        zorder=1.1,
    )
    shapes.set_hatch(hatch)
    shapes.set_edgecolor(GRID)
    shapes.set_linewidth(0.0)


def strokes(ax: Axes, segments: np.ndarray, **look: Any) -> PathCollection:
    """Draw segments `[n, 2, 2]` in one look."""
    points = np.asarray(segments).reshape(-1, 2)
    codes = np.tile(np.array([Path.MOVETO, Path.LINETO], np.uint8), len(segments))
    step = 2 * CHUNK
    paths = [Path(points[k : k + step], codes[k : k + step]) for k in range(0, len(points), step)]
    color = look.pop("color")
    lines = PathCollection(
        paths, facecolors="none", edgecolors=[color], rasterized=len(segments) > 2 * MANY, **look
    )
    lines.set_capstyle("round")
    lines.set_in_layout(False)  # the axes around it are
    ax.add_collection(lines, autolim=False)
    return lines


def shaded(
    ax: Axes,
    vertices: np.ndarray,
    offsets: np.ndarray,
    loops: np.ndarray,
    values: np.ndarray,
    **look: Any,
) -> TriMesh:
    """Polygons shaded by values `[V]` at their corners, linear in between: exact on each."""
    sizes = np.diff(offsets)
    count = sizes - 2
    face = np.repeat(np.arange(len(sizes)), count)
    inside = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    start = offsets[:-1][face]
    triangles = np.stack([loops[start], loops[start + inside + 1], loops[start + inside + 2]], 1)
    x, y = np.asarray(vertices, float).T
    mesh = TriMesh(Triangulation(x, y, triangles), rasterized=True, **look)
    mesh.set_array(np.asarray(values, float))
    _sharpen(ax)
    mesh.set_in_layout(False)  # the axes around it are
    ax.add_collection(mesh, autolim=False)
    return mesh


def _sharpen(ax: Axes) -> None:
    """More pixels for what is drawn as pixels; a figure keeps the density of its canvas."""
    fig = ax.get_figure(root=True)
    if fig is not None and fig.get_dpi() < DPI:
        fig.set_dpi(DPI)
        FigureCanvasAgg(fig)


def _runs(shade: np.ndarray) -> list[tuple[int, int, int]]:
    """Runs of one colour, cut into chunks: first, end, colour."""
    cuts = np.flatnonzero(np.diff(shade)) + 1
    bounds = [0, *cuts.tolist(), len(shade)]
    return [
        (low, min(low + CHUNK, b), int(shade[a]))
        for a, b in itertools.pairwise(bounds)
        for low in range(a, b, CHUNK)
    ]

"""Figure of a partition: regions, the edges of each layer, the decision boundary, the anchors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from isogon.errors import OptionError
from isogon.measures.partition.decisions import decisions
from isogon.measures.partition.reading import Partition
from isogon.registry import draws
from isogon.show import mesh, style
from isogon.show.areas import (
    TINTS,
    alone_in,
    area_patch,
    by_class,
    hatch_classes,
    name_classes,
    names_of_classes,
    only_class,
)
from isogon.show.panel import Panel
from isogon.show.run_figures import dots

if TYPE_CHECKING:
    from matplotlib.artist import Artist

LEVELS = 128  # of a colour scale
LEGEND = 10  # classes or layers that a legend still lists
BLOCK = 1 << 23  # slopes at a time
LABELS = 12  # anchors that are numbered
DISC = 9.0  # points: of a numbered anchor, with its outline
PANEL = 3.0  # inches: side of the axes
PICTURES = 6  # of many partitions
COVER = 3.0  # times `style.INKED`: what the edges of all layers cover
FAINT, FAINTEST = 0.25, 0.3  # of the axes: a layer that covers more is drawn paler; how pale
CELLS = 24  # a side: where lines crowd
GRAIN = 12  # pixels: regions that are smaller have no tint of their own
GROUND = "#fcfcfa"  # of edges: as pale on a dark page
STATISTICS = ("count", "boundary_length", "area_mean")  # of many partitions
Faces = tuple[np.ndarray, np.ndarray, np.ndarray]


def partition_pictures(panels: Sequence[Panel]) -> Figure:
    """Many partitions: regions by class of each of the first ones, the statistics of all."""
    shown: list[tuple[Any, str]] = [
        (p.readings[k], ", ".join(t for t in (p.title, p.called(k)) if t))
        for p in panels
        for name in dict.fromkeys(p.names)  # a row per name, where it has three runs
        for k in range(len(p.readings))
        if p.names[k] == name
    ][:PICTURES]
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    fig = style.figure(style.WIDTH, 2.7 * down + 2.0)
    halves: Any = fig.subfigures(2, 1, height_ratios=[2.7 * down, 2.0])
    top, bottom = halves
    axes = list(top.subplots(down, across, squeeze=False).flat)
    for ax, (reading, title) in zip(axes, shown):
        regions(fig, ax, reading, "class", 0)
        overlay(ax, reading, True, True)
        if ax.get_legend() is not None:
            ax.get_legend().remove()  # the classes of one are not those of all
        ax.set_title(f"{title} ({len(reading):,})" if title else f"Regions ({len(reading):,})")
        ax.set_xlabel("")
        ax.set_ylabel("")
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    dots(list(bottom.subplots(1, len(STATISTICS))), panels, STATISTICS)
    every = sum(len(p.readings) for p in panels)
    if every > len(shown):
        style.note(fig, f"the first {len(shown)} of {every} partitions")
    return fig


@draws("partition", together=partition_pictures, columns=STATISTICS)
def draw_partition(
    reading: Partition,
    color: Literal["class", "area", "slope", "random", "output"] = "class",
    output: int = 0,
    edges: bool = True,
    boundary: bool = True,
    anchors: bool = True,
    labels: bool = True,
    names: Sequence[str] | None = None,
    hatch: bool = False,
) -> Figure:
    """Regions coloured by class on the left, edges coloured by layer on the right.

    A slice that lies in one class says so, and its regions are coloured by the norm of their
    slope instead (where that is the same everywhere, by area).

    Args:
        reading: A partition.
        color: What colours the regions: the class (one output: its sign; exact, also inside
            regions that the boundary crosses), area, norm of the slope, chance, or the value
            of an output (linear inside each region, as it is).
        output: Which output that is.
        edges: Whether to draw the panel of edges by layer.
        boundary: Whether to draw the decision boundary (one output: zero set) on top.
        anchors: Whether to mark the inputs that the slice was made from, in their order.
        labels: Whether to write the class into its larger areas, so that colours alone tell none.
        names: What the classes are called, in their order.
        hatch: Whether each class has a pattern, too, for print without colours.
    """
    names = names_of_classes(names, reading.outputs.shape[1])
    fig, axes = style.panels(2 if edges else 1, width=style.WIDTH if edges else 4.2, height=3.5)
    panels = list(axes[0])
    alone = only_class(reading) if color == "class" else None
    if alone is not None:
        color = "slope" if varies(slope_norms(reading)) else "area"
    regions(fig, panels[0], reading, color, output, names, hatch=hatch)
    if alone is not None:
        panels[0].set_title(f"{alone_in(reading, alone, names)}: {panels[0].get_title('left')}")
    if edges:
        _edges(panels[1], reading)
    for ax in panels:
        overlay(ax, reading, boundary and ax is panels[0], anchors)
    if labels and color == "class":
        name_classes(panels[0], reading, names)
    if edges:
        style.letter(panels)
    return fig


def varies(values: np.ndarray) -> bool:
    """Whether values differ by more than rounding."""
    return len(values) > 1 and bool(np.ptp(values) > 1e-9 * np.abs(values).max())


def frame(ax: Axes, corners: np.ndarray) -> None:
    """Limits, outline and names of the axes of a slice with these corners."""
    border = np.vstack([corners, corners[:1]])
    ax.plot(*border.T, color=style.INK, lw=0.8, zorder=4)
    low, high = corners.min(0), corners.max(0)
    margin = 0.02 * (high - low).max()
    ax.set_xlim(low[0] - margin, high[0] + margin)
    ax.set_ylim(low[1] - margin, high[1] + margin)
    ax.set_aspect("equal")


def marks(ax: Axes, at: np.ndarray) -> None:
    """The anchors, numbered where they are few and their discs apart."""
    apart = np.linalg.norm(at[:, None] - at[None], axis=2)[np.triu_indices(len(at), 1)]
    wide = max(float(np.ptp(ax.get_xlim())), float(np.ptp(ax.get_ylim())), 1e-300)
    few = len(at) <= LABELS and bool((apart * PANEL * 72 / wide > DISC).all())
    ax.scatter(
        *at.T,
        s=62 if few else 4,
        color="white",
        edgecolors=style.ON_DATA,
        lw=1.0 if few else 0.5,
        zorder=5,
    )
    for number, place in enumerate(at if few else []):
        ax.annotate(
            str(number + 1),
            place,
            ha="center",
            va="center_baseline",
            fontsize=6.5,
            color=style.ON_DATA,
            zorder=6,
            annotation_clip=True,
        )


def regions(
    fig: Figure,
    ax: Axes,
    p: Partition,
    color: str,
    output: int,
    names: Sequence[str] | None = None,
    legend: bool = True,
    hatch: bool = False,
) -> None:
    """The regions of a partition, coloured by what `draw_partition` says."""
    rng = np.random.default_rng(0)
    faces: Faces = (p.vertices, p.face_offsets, p.face_vertices)
    single = p.outputs.shape[1] == 1
    left = np.flatnonzero(~p.finished)
    state = f", {len(left):,} unfinished" if len(left) else ""
    if color == "class":
        pixel = float(np.ptp(p.plane.corners, axis=0).max()) / (PANEL * mesh.DPI)
        tint = rng.integers(TINTS, size=len(p))
        tint[p.area < GRAIN * pixel**2] = TINTS // 2  # of many in a pixel one is seen, by chance
        part = decisions(p)
        mesh.fill(ax, *part[:3], *by_class(np.maximum(part.label, 0), tint[part.region], single))
        title = f"Regions by {'sign' if single else 'class'}"
        if hatch:
            hatch_classes(ax, p)
        if legend:
            _legend(ax, p, np.unique(part.label[part.label >= 0]), names, hatch)
    elif color == "random":
        shade = rng.integers(32, size=len(p))
        mesh.fill(ax, *faces, shade, style.SEQUENTIAL(np.linspace(0.1, 0.9, 32)))
        title = "Regions"
    elif color == "output":
        title = _output(fig, ax, p, output)
    elif color in ("slope", "area"):
        if color == "slope":
            values = slope_norms(p)
        else:
            values = p.area
        title = f"Regions by {'norm of their slope' if color == 'slope' else color}"
        _scale(fig, ax, faces, values, dark_is_small=color == "area")
    else:
        raise OptionError(
            "regions have no such colours",
            got=repr(color),
            expected="class, area, slope, random or output",
        )
    if color != "area":
        mesh.hatched(ax, *faces, left)
    ax.set_title(f"{title} ({len(p):,}{state})")


def slope_norms(p: Partition) -> np.ndarray:
    """`[R]` norm of each region's slope; 0 where it has none.

    From the outputs at the corners: the integral of the gradient over a region is that of the
    output times the outer normal along its border. Where cancellation would show, slivers, from
    the region's own affine map.
    """
    k = np.arange(len(p.face_vertices)) + 1
    k[p.face_offsets[1:] - 1] = p.face_offsets[:-1]
    first = np.repeat(p.face_offsets[:-1], np.diff(p.face_offsets))
    step = (p.vertices[p.face_vertices[k]] - p.vertices[p.face_vertices])[:, ::-1] * (1, -1)
    square = np.zeros(len(p))
    size = np.zeros(len(p))  # of the values that cancel, over the area
    length = np.add.reduceat(np.linalg.norm(step, axis=1), p.face_offsets[:-1])
    area = np.maximum(p.area, np.finfo(float).tiny)
    for c in range(p.outputs.shape[1]):
        z = p.outputs[p.face_vertices, c]
        size = np.maximum(size, np.abs(z[p.face_offsets[:-1]]) * length / area)
        z = z - z[first]
        flow = np.add.reduceat((z + z[k])[:, None] * step / 2, p.face_offsets[:-1])
        square += ((flow / area[:, None]) ** 2).sum(1)
    norm = np.sqrt(square)
    doubtful = np.flatnonzero(p.finished & (size * 1e-15 > 1e-4 * norm))
    for own in np.array_split(doubtful, 1 + len(doubtful) * p.outputs.shape[1] // BLOCK):
        norm[own] = np.linalg.norm(p.gradients(own), axis=(1, 2))
    return np.where(p.finished, norm, 0.0)


def _scale(fig: Figure, ax: Axes, faces: Faces, values: np.ndarray, *, dark_is_small: bool) -> None:
    """Colour by a positive number, logarithmically; the smallest hundredth shares a colour."""
    positive = values[values > 0]
    floor = float(np.percentile(positive, 1)) if len(positive) else 1.0
    top = float(positive.max()) if len(positive) else 1.0
    if not top > floor * (1 + 1e-9):
        floor, top = floor / 2, top * 2
    norm = LogNorm(floor, top, clip=True)
    cmap = style.SEQUENTIAL.reversed() if dark_is_small else style.SEQUENTIAL
    shade = np.round(norm(np.maximum(values, floor)).filled(0) * (LEVELS - 1)).astype(np.int64)
    mesh.fill(ax, *faces, shade, cmap(np.linspace(0, 1, LEVELS)))
    _bar(fig, ax, ScalarMappable(norm, cmap), "norm of the slope" if not dark_is_small else "area")


def _output(fig: Figure, ax: Axes, p: Partition, output: int) -> str:
    if not 0 <= output < p.outputs.shape[1]:
        raise OptionError("no such output", got=output, expected=f"0..{p.outputs.shape[1] - 1}")
    values = p.outputs[:, output]
    norm = CenteredNorm(0.0, float(np.abs(values).max()) or 1.0)
    look: Any = {"cmap": style.DIVERGING, "norm": norm}
    mesh.shaded(ax, p.vertices, p.face_offsets, p.face_vertices, values, **look)
    _bar(fig, ax, ScalarMappable(norm, style.DIVERGING), "output")
    return "Output" if p.outputs.shape[1] == 1 else f"Output {output}"


def _bar(fig: Figure, ax: Axes, colors: ScalarMappable, label: str) -> None:
    """A colour bar as high as the axes."""
    bar = style.color_bar(colors, label, size=7.5, cax=ax.inset_axes((1.03, 0.0, 0.035, 1.0)))
    bar.ax.tick_params(labelsize=7)


def _legend(
    ax: Axes, p: Partition, present: np.ndarray, names: Sequence[str] | None, hatch: bool
) -> None:
    single = p.outputs.shape[1] == 1
    if len(present) > LEGEND:
        return
    label = dict(enumerate(names or (("output < 0", "output > 0") if single else ())))
    shade, palette = by_class(present, np.full(len(present), TINTS // 2), single)
    handles: list[Artist] = [
        area_patch(tuple(palette[s]), label.get(int(k), f"class {k}"), int(k), hatch)
        for k, s in zip(present, shade, strict=True)
    ]
    if not p.complete:
        handles.append(
            Patch(fc=mesh.PALE, ec=mesh.GRID, hatch=mesh.HATCH, lw=0, label="unfinished")
        )
    if len(p.boundary):
        what = "zero set" if single else "boundary"
        handles.append(style.line_on_data(1.3, what))
    below(ax, handles, 5)


def _edges(ax: Axes, p: Partition) -> None:
    """Edges by layer, the deepest on top, as wide as leaves the layers below them in sight."""
    extent = float(np.ptp(p.plane.corners, axis=0).max())
    own = [np.flatnonzero(p.edge_site == site) for site in range(len(p.sites))]
    present = [site for site, edges in enumerate(own) if len(edges)]
    colors = style.layers(len(p.sites))
    ax.fill(*p.plane.corners.T, color=GROUND, zorder=1)
    handles = []
    for site in present:
        segments = p.vertices[p.edges[own[site]]]
        length = _crowded(segments, extent)
        width = style.thickness(length * len(present) / COVER, extent, PANEL, 0.6)
        covered = width * length / (extent * 72 * PANEL)  # of the axes, in part more than once
        look: Any = {"alpha": float(np.clip(FAINT / max(covered, 1e-300), FAINTEST, 1))}
        look |= {"color": colors[site], "linewidths": width}
        mesh.strokes(ax, segments, zorder=2 + (1 + site) / (1 + len(p.sites)), **look)
        label = f"{style.shorten(p.sites[site])} ({len(segments):,})"
        handles.append(Line2D([], [], color=colors[site], lw=1.4, label=label))
    ax.set_title("Edges by layer")
    if 0 < len(handles) <= LEGEND:
        below(ax, handles, 2)


def _crowded(segments: np.ndarray, extent: float) -> float:
    """Length of lines that are as crowded everywhere as these are, on a geometric mean.

    Lines that fill a part of the axes need be thinner than their length alone says, but not so thin
    that the few outside it are lost. Crowding is that of middles on a coarse grid.
    """
    long = np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)
    middle = segments.mean(1)
    cell = np.clip((middle - middle.min(0)) / extent * CELLS, 0, CELLS - 1).astype(np.int64)
    held = np.bincount(cell @ (1, CELLS), long)
    return float(np.sqrt(CELLS * CELLS * (held**2).sum()))


def below(ax: Axes, handles: list[Artist], columns: int) -> None:
    """A legend under the axes and the name of their first coordinate."""
    fig: Any = ax.figure
    below = ax.transAxes + ScaledTranslation(0, -36 / 72, fig.dpi_scale_trans)
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        fontsize=7,
        ncols=min(columns, len(handles)),
        columnspacing=1.2,
        bbox_transform=below,
    )


def overlay(ax: Axes, p: Partition, boundary: bool, anchors: bool) -> None:
    """Frame, decision boundary and anchors on top of regions."""
    frame(ax, p.plane.corners)
    if boundary and len(p.boundary):
        length = float(np.linalg.norm(p.boundary[:, 1] - p.boundary[:, 0], axis=1).sum())
        extent = float(np.ptp(p.plane.corners, axis=0).max())
        width = style.thickness(length, extent, PANEL, 1.3)
        mesh.strokes(ax, p.boundary, color=style.ON_DATA, linewidths=width, zorder=4)
    if anchors and len(p.plane.marks):
        marks(ax, p.plane.marks)
    ax.set_xlabel("slice coordinate 1")
    ax.set_ylabel("slice coordinate 2")

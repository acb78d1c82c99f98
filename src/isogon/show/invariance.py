"""Figures of invariance and equivariance: units by site, means by depth, feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import Module

from isogon.errors import OptionError
from isogon.nets.sites import inputs
from isogon.nets.wiring import wiring
from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import style
from isogon.show.generic import site_axis
from isogon.show.invariance_models import draw_models, draw_panels, panel_tables
from isogon.show.invariance_parts import LABELS, check_sites, finite_mean, label, pick, values
from isogon.show.invariance_scatter import draw_scatter
from isogon.show.model_graph import draw_graph
from isogon.show.panel import Panel

__all__ = ["draw_invariance", "draw_models"]


ROWS = 64  # of the heatmap: units, sorted and binned


@draws("invariance", together=draw_panels, tables=panel_tables)
def draw_invariance(
    reading: Reading,
    column: str | None = None,
    others: Sequence[Reading] = (),
    names: Sequence[str] = (),
    maps: bool = False,
    stability: bool = False,
    scatter: str | Sequence[str] | None = None,
    graph: Module | None = None,
    example: Tensor | None = None,
) -> Figure:
    """Units of every site and their mean by depth; or one of the figures that options name.

    Args:
        reading: Of `invariance` or `equivariance`.
        column: The statistic; the normalised variance where there is one.
        others: Readings of other models, drawn beside this one on the axis of depth.
        names: What the models are called.
        maps: Whether to show the kept feature maps (those of ``invariance(..., maps=k)``).
        stability: Whether to show the curves over the number of samples (those of
            ``invariance(..., stability=True)``).
        scatter: A statistic that is drawn against ``column``, or both; a dot per unit.
        graph: The model: its sites as a graph, coloured by their means.
        example: Inputs ``[N, ...]`` or batches, to trace the model with; for ``graph``.
    """
    check_sites(reading)
    if maps and "maps" not in reading.arrays:
        raise OptionError(
            "no feature maps were kept", expected="a reading of invariance(..., maps=2)"
        )
    if maps:
        return _feature_maps(reading)
    if stability:
        return _stability(reading)
    if scatter is not None:
        pair = [scatter] if isinstance(scatter, str) else list(scatter)
        if len(pair) not in (1, 2):
            raise OptionError("two statistics make a scatter plot", got=", ".join(pair))
        x, y = pair if len(pair) == 2 else (column, pair[0])
        return draw_scatter(reading, pick(reading, x), pick(reading, y), LABELS)
    column = pick(reading, column)
    if graph is not None:
        return _graph(reading, column, graph, example)
    if others:
        return draw_models([reading, *others], names, column)
    if "class" in reading.table:
        return draw_panels([Panel("Mean per site, within each class", (reading,), ("",), column)])
    sites = list(reading.table["site"].unique())
    groups = [values(reading, site, column) for site in sites]
    fig = style.figure(style.WIDTH, 2.5 + (2.4 if max(map(len, groups)) > 1 else 0))
    if max(map(len, groups)) > 1:
        top, bottom = fig.subplots(2, 1)
        _units(fig, top, groups, sites, column)
    else:
        bottom = fig.subplots()
    _by_depth(bottom, reading, column)
    if left_out := reading.meta.get("not_applicable"):
        style.note(fig, f"not applicable (no two space axes): {', '.join(left_out[:8])}")
    return fig


draws("equivariance", together=draw_panels, tables=panel_tables)(draw_invariance)


def _units(fig: Figure, ax: Axes, groups: list, sites: list[str], column: str) -> None:
    """Heatmap: a column per site, its units sorted from the lowest value to the highest."""
    rows = np.full((ROWS, len(groups)), np.nan)
    for i, group in enumerate(groups):
        finite = np.sort(group[np.isfinite(group)])
        if len(finite):
            rows[:, i] = np.quantile(finite, (np.arange(ROWS) + 0.5) / ROWS)
    finite = rows[np.isfinite(rows)]
    limits = (0.0, max(1e-12, float(np.quantile(finite, 0.98)))) if len(finite) else None
    low, high = limits or (0.0, 1.0)
    cmap = style.SEQUENTIAL.with_extremes(bad=style.MISSING)
    mesh = ax.imshow(np.ma.masked_invalid(rows), cmap=cmap, vmin=low, vmax=high, aspect="auto")
    site_axis(ax, style.trimmed(sites))
    ax.set_yticks([-0.5, ROWS - 0.5], ["lowest", "highest"])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    style.color_bar(mesh, label(column), ax=ax, fraction=0.05, pad=0.02, aspect=24)
    ax.set_ylabel("units, sorted")
    ax.set_title("Units of each site")


def _by_depth(ax: Axes, reading: Reading, column: str) -> None:
    sites = list(reading.table["site"].unique())
    finite = [g[np.isfinite(g)] for g in (values(reading, site, column) for site in sites)]
    x = np.arange(len(sites))
    title, facts = "Mean per site", []
    if max(map(len, finite), default=0) > 1:
        low, high = (
            np.array([np.quantile(g, q) if len(g) else np.nan for g in finite])
            for q in (0.25, 0.75)
        )
        ax.fill_between(x, low, high, color=style.BLUE, alpha=0.13, lw=0)
        facts.append("band: middle half of the units")
    mean = [g.mean() if len(g) else np.nan for g in finite]
    ax.plot(x, mean, "-o", ms=3.4, color=style.BLUE)
    if f"{column}_low" in reading.table:
        low, high = (
            [finite_mean(values(reading, site, f"{column}_{end}")) for site in sites]
            for end in ("low", "high")
        )
        ax.vlines(x, low, high, color=style.BLUE, lw=1.2)
        facts.append("lines: 95 % intervals")
    if column.startswith("normalized"):
        ax.axhline(1, color=style.MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(label(column))
    site_axis(ax, style.trimmed(sites))
    ax.set_title(f"{title} ({'; '.join(facts)})" if facts else title)


def _graph(reading: Reading, column: str, model: Module, example: Tensor | None) -> Figure:
    """The model's sites as a graph."""
    if example is None:
        raise OptionError(
            "an example input is needed to trace the model",
            expected="draw(reading, graph=model, example=x) with x [N, ...]",
            fix="Pass a few of the samples, or the batches.",
        )
    sites = list(reading.table["site"].unique())
    means = {site: finite_mean(values(reading, site, column)) for site in sites}
    found = wiring(model, inputs(example), sites)
    return draw_graph(found, means, "mean " + label(column), "Sites of the network")


def _feature_maps(reading: Reading) -> Figure:
    """The most and least invariant channels of a site under the family, with the images."""
    images, maps = reading.arrays["images"], reading.arrays["maps"]  # [T, C, H, W], [S, K, T, h, w]
    kept = reading.meta["maps_kept"]
    labels = reading.meta["family"]["labels"]
    columns = min(len(images), 8)
    chosen = np.linspace(0, len(images) - 1, columns).astype(int)
    rows = 1 + len(kept)
    fig = style.figure(style.WIDTH, 0.95 * rows + 0.3)
    axes = fig.subplots(rows, columns, squeeze=False)
    sites = list(dict.fromkeys(fact["site"] for fact in kept))
    names = dict(zip(sites, style.trimmed(sites)))
    for j, t in enumerate(chosen):
        style.picture(axes[0, j], images[t])
        axes[0, j].set_title(labels[t], loc="center", fontsize=7.5)
    for i, fact in enumerate(kept, 1):
        height, width = fact["size"]
        stack = maps[i - 1][:, :height, :width]
        top = float(np.abs(stack).max()) or 1.0
        for j, t in enumerate(chosen):
            ax = axes[i, j]
            ax.imshow(
                stack[t],
                cmap=style.DIVERGING if stack.min() < 0 else style.SEQUENTIAL,
                vmin=-top if stack.min() < 0 else 0,
                vmax=top,
            )
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
        text = (
            f"{style.shorten(names[fact['site']], 14)}\nch {fact['channel']}\n{fact['value']:.2f}"
        )
        axes[i, 0].set_ylabel(text, fontsize=6.5, rotation=0, ha="right", va="center")
    axes[0, 0].set_ylabel("input", fontsize=6.5, rotation=0, ha="right", va="center")
    style.note(
        fig,
        "per site: the most, then the least invariant channels that vary across samples,\n"
        "with their mean normalised variance; each channel has colours of its own, pale at 0",
    )
    return fig


def _stability(reading: Reading) -> Figure:
    """How far each site's mean is from its last value after ever more samples."""
    if "stability" not in reading.arrays:
        raise OptionError(
            "no curves were kept", expected="a reading of invariance(..., stability=True)"
        )
    values, counts = reading.arrays["stability"], reading.coords["samples"]
    fig = style.figure(style.WIDTH, 2.8)
    ax = fig.subplots()
    error = np.abs(values / values[:, -1:] - 1)
    shades = style.shades(len(values))
    for curve, color, site in zip(error, shades, style.trimmed(reading.coords["site"])):
        ax.plot(counts, curve, "-o", ms=3, color=color, label=style.shorten(site))
    ax.set_xscale("log", base=2)
    ax.set_xticks(counts, [str(c) for c in counts])
    ax.set_ylim(bottom=0)
    ax.set_xlabel("samples")
    ax.set_ylabel("relative distance from the last value")
    ax.set_title("Mean normalised variance of each site against the number of samples")
    if len(values) <= 12:
        ax.legend(ncols=2)
    return fig

"""Figures of invariance and equivariance: units by site, means by depth, feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isogon.actions.compare import compare
from isogon.errors import OptionError
from isogon.readings import Reading
from isogon.registry import draws
from isogon.show import style
from isogon.show.generic import site_axis

LEVEL = 0.01  # of significance
ROWS = 64  # of the heatmap: units, sorted and binned
LABELS = {
    "normalized_variance": "normalised variance  TV / SV",
    "transformation_variance": "transformational variance  TV",
    "sample_variance": "sample variance  SV",
    "normalized_squared": "TV / SV, by variances",
    "anova_f": "F over transformations",
    "normalized_distance": "normalised distance  TD / SD",
    "goodfellow": "L / G",
    "simple_distance": "mean |a(Tx) − T a(x)|",
}
PREFERRED = (
    "normalized_variance",
    "normalized_distance",
    "normalized_squared",
    "anova_f",
    "goodfellow",
)


@draws("invariance")
def draw_invariance(
    reading: Reading,
    column: str | None = None,
    others: Sequence[Reading] = (),
    names: Sequence[str] = (),
    maps: bool = False,
    stability: bool = False,
) -> Figure:
    """Units of every site and their mean by depth; with others, models side by side.

    Args:
        reading: Of `invariance` or `equivariance`.
        column: The statistic; the normalised variance where there is one.
        others: Readings of other models, drawn beside this one on the axis of depth.
        names: What the models are called.
        maps: Whether to show the kept feature maps (those of ``invariance(..., maps=k)``).
        stability: Whether to show the curves over the number of samples (those of
            ``invariance(..., stability=True)``).
    """
    _check(reading)
    if maps and "maps" not in reading.arrays:
        raise OptionError(
            "no feature maps were kept", expected="a reading of invariance(..., maps=2)"
        )
    if maps:
        return _feature_maps(reading)
    if stability:
        return _stability(reading)
    column = _column(reading, column)
    if others:
        return draw_models([reading, *others], names, column)
    sites = list(reading.table["site"].unique())
    groups = [_values(reading, site, column) for site in sites]
    fig = style.figure(style.WIDTH, 2.5 + (2.4 if max(map(len, groups)) > 1 else 0))
    if max(map(len, groups)) > 1:
        top, bottom = fig.subplots(2, 1)
        _units(fig, top, groups, sites, column)
    else:
        bottom = fig.subplots()
    _by_depth(bottom, [reading], [""], column)
    if left_out := reading.meta.get("not_applicable"):
        style.note(fig, f"not applicable (no two space axes): {', '.join(left_out[:8])}")
    return fig


draws("equivariance")(draw_invariance)


def draw_models(
    readings: Sequence[Reading], names: Sequence[str] = (), column: str | None = None
) -> Figure:
    """Means per site of several models on one axis, percent of depth.

    Args:
        readings: One per model.
        names: What they are called; models of one name (seeds) share a colour, and their units
            are tested together.
        column: The statistic.

    Sites at which two names differ (Tukey's test) carry a star, where all models have equally
    many sites.
    """
    for reading in readings:
        _check(reading)
    column = _column(readings[0], column)
    if names and len(names) != len(readings):
        raise OptionError(
            "one name for each model", got=f"{len(names)} names", expected=f"{len(readings)}"
        )
    names = list(names) or [f"model {i}" for i in range(len(readings))]
    with style.styled():
        fig = style.figure(style.WIDTH, 2.9)
        ax = fig.subplots()
        _by_depth(ax, readings, names, column)
        if len({r.table["site"].nunique() for r in readings}) == 1 and len(set(names)) > 1:
            _stars(fig, ax, readings, names, column)
    return fig


def _stars(
    fig: Figure, ax: Axes, readings: Sequence[Reading], names: list[str], column: str
) -> None:
    """Mark the sites at which two models differ."""
    tests = compare(readings, names, column).table.groupby("place")["tukey_p"].min()
    x, top = np.linspace(0, 100, len(tests)), ax.get_ylim()[1]
    for place, p in zip(x, tests):
        if p < LEVEL:
            ax.text(place, top, "*", ha="center", va="center", color=style.INK, fontsize=12)
    style.note(fig, f"* sites at which two models differ (Tukey's test, p < {LEVEL:g})")


def _units(fig: Figure, ax: Axes, groups: list, sites: list[str], column: str) -> None:
    """Heatmap: a column per site, its units sorted from the lowest value to the highest."""
    rows = np.full((ROWS, len(groups)), np.nan)
    for i, values in enumerate(groups):
        finite = np.sort(values[np.isfinite(values)])
        if len(finite):
            rows[:, i] = np.quantile(finite, (np.arange(ROWS) + 0.5) / ROWS)
    finite = rows[np.isfinite(rows)]
    limits = (0.0, max(1e-12, float(np.quantile(finite, 0.98)))) if len(finite) else None
    low, high = limits or (0.0, 1.0)
    cmap = style.SEQUENTIAL.with_extremes(bad=style.MISSING)
    mesh = ax.imshow(np.ma.masked_invalid(rows), cmap=cmap, vmin=low, vmax=high, aspect="auto")
    site_axis(ax, sites)
    ax.set_yticks([-0.5, ROWS - 0.5], ["lowest", "highest"])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    bar = fig.colorbar(mesh, ax=ax, fraction=0.05, pad=0.02, aspect=24)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label(LABELS.get(column, column.replace("_", " ")))
    ax.set_ylabel("units, sorted")
    ax.set_title("Units of each site")


def _by_depth(ax: Axes, readings: Sequence[Reading], names: list[str], column: str) -> None:
    order = list(dict.fromkeys(names))
    drawn: set[str] = set()
    for reading, name in zip(readings, names):
        color = style.CYCLE[order.index(name) % len(style.CYCLE)]
        sites = list(reading.table["site"].unique())
        groups = [_values(reading, site, column) for site in sites]
        finite = [g[np.isfinite(g)] for g in groups]
        mean = np.array([g.mean() if len(g) else np.nan for g in finite])
        x = np.linspace(0, 100, len(sites)) if len(readings) > 1 else np.arange(len(sites))
        if max(map(len, finite), default=0) > 1:
            low, high = (
                np.array([np.quantile(g, q) if len(g) else np.nan for g in finite])
                for q in (0.25, 0.75)
            )
            ax.fill_between(x, low, high, color=color, alpha=0.13 / names.count(name), lw=0)
        label = None if name in drawn or not name else name
        drawn.add(name)
        ax.plot(x, mean, "-o", ms=3.4, color=color, label=label)
        if f"{column}_low" in reading.table:
            low, high = [
                [np.nanmean(np.where(np.isfinite(v), v, np.nan)) for v in (
                    _values(reading, site, f"{column}_{end}") for site in sites)]
                for end in ("low", "high")
            ]  # fmt: skip
            ax.vlines(x, low, high, color=color, lw=1.2)
    if column.startswith("normalized"):
        ax.axhline(1, color=style.MUTED, lw=0.8, ls=(0, (4, 3)))
    ax.set_ylim(bottom=0)
    ax.set_ylabel(LABELS.get(column, column.replace("_", " ")))
    if len(readings) > 1:
        ax.set_xlabel("depth of the site (percent)")
        ax.legend(ncols=min(4, len(order)))
    else:
        site_axis(ax, list(readings[0].table["site"].unique()))
    ax.set_title("Mean per site (band: middle half of the units)")


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
    for j, t in enumerate(chosen):
        style.picture(axes[0, j], images[t])
        axes[0, j].set_title(labels[t], loc="center", fontsize=7.5)
    for i, fact in enumerate(kept, 1):
        height, width = fact["size"]
        stack = maps[i - 1][:, :height, :width]
        top = float(np.abs(stack).max()) or 1.0
        for j, t in enumerate(chosen):
            ax = axes[i, j]
            ax.imshow(stack[t], cmap=style.DIVERGING if stack.min() < 0 else style.SEQUENTIAL,
                      vmin=-top if stack.min() < 0 else 0, vmax=top)  # fmt: skip
            ax.set_xticks([])
            ax.set_yticks([])
        text = f"{style.shorten(fact['site'], 12)}\nch {fact['channel']}\n{fact['value']:.2f}"
        axes[i, 0].set_ylabel(text, fontsize=6.5, rotation=0, ha="right", va="center")
    axes[0, 0].set_ylabel("input", fontsize=6.5, rotation=0, ha="right", va="center")
    style.note(
        fig, "per site: the most, then the least invariant channels that vary across samples"
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
    shades = style.SEQUENTIAL(np.linspace(0.3, 1, len(values)))
    for curve, color, site in zip(error, shades, reading.coords["site"]):
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


def _check(reading: Reading) -> None:
    if "site" not in reading.table or reading.table.empty:
        raise OptionError(
            "nothing to draw",
            got="no site that the measure applies to",
            expected="at least one site",
            fix="Choose other sites.",
        )


def _column(reading: Reading, column: str | None) -> str:
    known = [c for c in (*PREFERRED, *reading.table.columns) if c in reading.table]
    if column is None:
        return known[0]
    if column not in reading.table:
        raise OptionError(
            "no such column", got=repr(column), expected=", ".join(dict.fromkeys(known))
        )
    return column


def _values(reading: Reading, site: str, column: str) -> np.ndarray:
    return reading.table.loc[reading.table["site"] == site, column].to_numpy(float)

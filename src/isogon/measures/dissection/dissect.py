"""Network dissection: which units detect a concept, in the network's own basis and in others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch.nn import Module

from isogon.actions import Group, group
from isogon.errors import DataError, OptionError
from isogon.measures.dissection.concepts import Concepts
from isogon.measures.dissection.concepts import concepts as as_concepts
from isogon.measures.dissection.gallery import Images
from isogon.measures.dissection.labels import Columns, Labels
from isogon.measures.dissection.units import Basis, Units
from isogon.nets.behaviour import FEW, examine
from isogon.nets.channel_axis import channel_axis
from isogon.nets.finite import check_finite
from isogon.nets.layout import check_images
from isogon.nets.passes import all_passes
from isogon.nets.sites import Site, called, choose
from isogon.readings import SiteTable
from isogon.registry import measure
from isogon.stats import Quantiles

if TYPE_CHECKING:
    from isogon.nets.watchers import Watcher


UNIT = "unit"
EXACT = 2**26  # activations that are kept at most, of all sites and bases, for exact thresholds
KEEP = 4096  # and at least in one buffer of the estimate beyond


@measure(
    cite=("bau2017", "godfrey2022"),
    cost=8.0,
    survey=False,
    example={
        "model": "cnn(width=2, size=8)",
        "basis": ("unit", "orthogonal"),
        "quantile": 0.9,
        "gallery": 2,
    },
)
def dissect(
    model: Module,
    concepts: Concepts,
    *,
    sites: str = "activations",
    basis: str | tuple[str, ...] = UNIT,
    draws: int = 1,
    quantile: float = 0.995,
    threshold: float = 0.04,
    gallery: int = 0,
    channel_axis: int | None = None,
    generator: torch.Generator | None = None,
) -> SiteTable:
    """Which units of a network detect a concept, and in how many of its bases they do.

    A unit's threshold T is the smallest value that at least a share ``quantile`` of its activations
    (all images, all positions) does not exceed. At a pixel it is on where its map, brought to the
    size of the concepts' maps (bilinear, corners not aligned), is above T. Its IoU with a concept
    is the number of pixels that have both over the number that have one of them, over the images
    that carry the concept's category; a label of an image counts for all of its pixels. A unit
    whose best IoU is at least ``threshold`` is a detector of that concept; unique detectors are the
    different concepts among them.

    A unit is a channel of a map, or an entry of a vector (a map of one position). In another basis
    unit u is a combination of channels: row u of a random element of a group. Permutations and
    positive scales (G_relu) leave all IoUs as they are, up to the order of the units; rotations
    don't, and tell whether the network's own basis is special.

    Two passes over the data, for all sites and bases at once: thresholds, then counts. Thresholds
    are exact where the activations above them fit into 2^26 numbers, else estimated;
    ``meta["rank_error"]`` bounds the error in rank, as a share of all activations.

    Args:
        model: Takes images.
        concepts: Images with maps or labels of concepts, see `isogon list concepts`; also any
            re-iterable of (images [N, C, H, W], maps).
        sites: Which sites, see `isogon.sites`; tokens, which have no map, are left out.
        basis: ``unit``, or a group: ``orthogonal``, ``orthogonal(power=0.5)``, ``G_relu``,
            ``permutations``, ...; or several. The k-th elements of all powers belong together.
        draws: Random elements of each group.
        quantile: Share of activations up to the threshold.
        threshold: Least IoU of a detector.
        gallery: How many images are kept for each unit, those that fire it most, with its mask.
        channel_axis: Axis of the channels, where the layers don't tell.
        generator: Draws the elements.

    Returns:
        One row per site, basis, draw and unit: site, basis, draw, unit, concept and category (the
        best ones; empty where nothing overlaps), iou, detector, activation (T). All IoUs are the
        array ``iou [row, concept]``. The summary counts detectors and unique detectors per site,
        basis and category, as mean and standard deviation over draws.

    Raises:
        OptionError: An option out of range, no such group, or no site with maps.
        DataError: Not images with concepts, no concept in them, or NaN.
        ModelError: A model that is random, depends on the batch, or has weights that are no
            numbers.
    """
    _check(draws, quantile, threshold, gallery)
    data = as_concepts(concepts)
    x = data.example[:FEW]
    check_finite(model)
    check_images(model, x)
    examine(model, x)
    axes, left_out = _sites(model, sites, x, channel_axis)
    names = (basis,) if isinstance(basis, str | Group) else tuple(basis)
    groups = {str(getattr(b, "name", b)): None if b == UNIT else group(b) for b in names}
    if not groups:
        raise OptionError("no basis", got="()", expected="unit, or a group")
    labels = Labels(data)
    found: list[Columns] = []

    def columns() -> Columns:
        if not found:
            found.append(labels.result())
        if not len(found[0]):
            raise DataError(
                f"{data.name}: no concept is in any image",
                got="zeros",
                expected="numbers above 0",
            )
        return found[0]

    generator = generator or torch.Generator().manual_seed(0)
    plans = _quantiles(axes, len(groups), draws if set(groups) != {UNIT} else 1, data, quantile)
    units = []
    for site, axis in axes.items():
        seed = int(torch.randint(2**62, (), generator=generator))
        bases = _bases(groups, site.shape[axis - 1], draws, seed, plans[site], quantile)
        units.append(Units(site, axis, bases, data.size, columns, gallery))
    kept = [Images(units)] if gallery else []
    watchers: list[Watcher] = [labels, *units, *kept]
    seen = all_passes(model, data, watchers, passes=2, what="dissect")
    meta = {
        "quantile": quantile,
        "threshold": threshold,
        "samples": seen,
        "shapes": {str(s): list(s.shape) for s in axes},
        "images": dict(zip(data.categories, labels.images, strict=True)),
        "not_applicable": left_out,
        "rank_error": max(b.quantile.error for w in units for b in w.bases),
        "draws": draws,
    }
    return _reading(units, columns(), threshold, meta, kept[0].result() if kept else {})


def _check(draws: int, quantile: float, threshold: float, gallery: int) -> None:
    if draws < 1 or not 0 < quantile <= 1 or not 0 <= threshold <= 1 or gallery < 0:
        raise OptionError(
            "options out of range",
            got=f"draws={draws}, quantile={quantile}, threshold={threshold}, gallery={gallery}",
            expected="draws >= 1, 0 < quantile <= 1, 0 <= threshold <= 1, gallery >= 0",
        )


def _sites(
    model: Module, select: str, x: torch.Tensor, given: int | None
) -> tuple[dict[Site, int], list[str]]:
    """Sites of maps or vectors with their channel axes, and the names of others."""
    every = called(model, x)
    chosen = choose(model, every, select)
    axes = {s: channel_axis(s, every, given) for s in chosen if len(s.shape) in (1, 3)}
    left_out = [str(s) for s in chosen if s not in axes]
    if not axes:
        maps = [str(s) for s in every if len(s.shape) == 3]
        raise OptionError(
            "no site with maps",
            got=", ".join(f"{s} {list(s.shape)}" for s in chosen[:6]),
            expected="[C, h, w], or vectors [C]",
            fix=f"Choose others: sites={maps[-1]!r} has maps, for example."
            if maps
            else "This model has none anywhere: leave dissect out.",
        )
    return axes, left_out


def _quantiles(
    axes: dict[Site, int], bases: int, draws: int, data: Concepts, q: float
) -> dict[Site, dict[str, int]]:
    """How the quantiles of each site are found: exact where all of them fit."""
    many = bases * draws
    totals, kept = {}, 0
    for site, axis in axes.items():
        channels = site.shape[axis - 1]
        positions = int(np.prod(site.shape)) // channels
        totals[site] = {"total": data.count * positions}
        kept += 2 * channels * many * (1 + int(min(q, 1 - q) * data.count * positions))
    if kept <= EXACT:
        return totals
    channels = sum(site.shape[axis - 1] for site, axis in axes.items()) * many
    keep = max(KEEP, 2 ** int(np.log2(max(1, EXACT / channels / 16))))
    return {site: {"keep": keep} for site in axes}


def _bases(
    groups: dict[str, Group | None],
    channels: int,
    draws: int,
    seed: int,
    plan: dict[str, int],
    q: float,
) -> list[Basis]:
    """The bases of a site; those of different groups are drawn from the same numbers."""
    found = []
    for name, one in groups.items():
        own = torch.Generator().manual_seed(seed)
        for draw in range(1 if one is None else draws):
            matrix = None if one is None else one.sample(channels, own).matrix
            found.append(Basis(name, draw, matrix, Quantiles(q, **plan)))
    return found


def _reading(
    units: list[Units],
    columns: Columns,
    threshold: float,
    meta: dict[str, Any],
    images: dict[int, torch.Tensor],
) -> SiteTable:
    """The table, with every IoU as an array."""
    tables, ious = [], []
    concepts = np.array([*columns.names, ""], dtype=object)
    categories = np.array([*columns.categories, ""], dtype=object)
    of = np.append(columns.category.numpy(), len(columns.categories))
    for watcher in units:
        for b in watcher.result():
            iou = b.iou(columns).numpy()
            best, value = iou.argmax(1), iou.max(1)
            best = np.where(value > 0, best, len(columns))
            tables.append(
                pd.DataFrame(
                    {
                        "site": str(watcher.site),
                        "basis": b.name,
                        "draw": b.draw,
                        "unit": np.arange(len(iou)),
                        "concept": concepts[best],
                        "category": categories[of[best]],
                        "iou": value,
                        "detector": (value >= threshold) & (value > 0),
                        "activation": b.threshold.cpu().numpy(),
                    }
                )
            )
            ious.append(iou)
    table = pd.concat(tables, ignore_index=True)
    arrays = {"iou": np.concatenate(ious), "pixels": columns.pixels.numpy()}
    axes: dict[str, tuple[str, ...]] = {"iou": ("row", "concept"), "pixels": ("concept",)}
    if images:
        place = {row: i for i, row in enumerate(images)}
        tops = torch.cat([b.top for w in units for b in w.bases]).numpy()
        arrays["images"] = torch.stack(list(images.values())).numpy()
        arrays["top"] = np.vectorize(lambda row: place.get(row, -1), otypes=[np.int64])(tops)
        arrays["masks"] = torch.cat([b.masks for w in units for b in w.bases]).numpy()
        axes |= {"top": ("row", "rank"), "masks": ("row", "rank", "y", "x")}
    named = [columns.categories[c] for c in columns.category.tolist()]
    meta |= {
        "categories": columns.categories,
        "category_of_concept": named,
        "summary": _counted(table, columns.categories).to_dict("list"),
    }
    coords = {"concept": columns.names}
    return SiteTable(
        "dissect", table, arrays, axes=axes, coords=coords, units={"iou": "1"}, meta=meta
    )


def per_draw(table: pd.DataFrame, categories: list[str]) -> pd.DataFrame:
    """Detectors and unique detectors per site, basis, draw and category.

    Args:
        table: Of a dissection.
        categories: Their names; ``all`` of them together come last.
    """
    rows = []
    for (site, basis, draw), part in table.groupby(["site", "basis", "draw"], sort=False):
        found = part[part["detector"]]
        for category in (*categories, "all"):
            here = found if category == "all" else found[found["category"] == category]
            unique = len(here[["category", "concept"]].drop_duplicates())
            rows.append((site, basis, draw, category, len(part), len(here), unique))
    names = ["site", "basis", "draw", "category", "units", "detectors", "unique"]
    return pd.DataFrame(rows, columns=names)


def _counted(table: pd.DataFrame, categories: list[str]) -> pd.DataFrame:
    """The same as mean and standard deviation over draws."""
    groups = per_draw(table, categories).groupby(["site", "basis", "category"], sort=False)
    found = groups["units"].first().to_frame()
    found["draws"] = groups.size()
    for column in ("detectors", "unique"):
        found[column] = groups[column].mean().astype(float)
        found[f"{column}_sd"] = groups[column].std(ddof=1)
    return found.reset_index()

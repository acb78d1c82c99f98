"""Similarity of the insides of two networks, site by site."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import nn

from isogon import context
from isogon.data import Batches, as_batches
from isogon.errors import DataError, OptionError
from isogon.measures.alignment.comparison import OUTPUT, Comparison
from isogon.measures.alignment.metrics.metric import metrics
from isogon.measures.alignment.representations import (
    Features,
    Representation,
    Rows,
    places,
    representation,
)
from isogon.measures.alignment.subsets import check_subsets, over_subsets, random_subsets
from isogon.nets.behaviour import FEW, examine
from isogon.readings import Grid
from isogon.registry import measure

if TYPE_CHECKING:
    from isogon.data.batches import DataLike


SHIFTED = 64  # samples whose mean is subtracted before anything is summed
Maps = Literal["flatten", "positions", "mean"]


@measure(
    cite=("kornblith2019", "godfrey2022", "hemerik2018"),
    cost=4.0,
    survey={"b": "@initial", "batches": "@batches", "metric": ("cka", "procrustes(modulo=G_relu)")},
    example={"b": "cnn(width=2, seed=1)", "batches": "digits(test, 12)", "null": 9},
    typed={"b": "trained(cnn, digits, epochs=5, seed=1)", "batches": "digits(test)"},
)
def similarity(
    a: Representation,
    b: Representation,
    batches: Batches | None = None,
    *,
    metric: str | tuple[str, ...] = "cka",
    modulo: str | None = None,
    sites: str = "activations",
    sites_b: str | None = None,
    pairs: Literal["all", "diagonal"] = "all",
    maps: Maps | None = None,
    channel_axis: int | None = None,
    null: int = 0,
    repeats: int = 0,
    subset: int | None = None,
    generator: torch.Generator | None = None,
) -> Grid:
    """How alike two networks are inside, for pairs of sites, by one or several metrics.

    Each activation becomes a matrix with a row per sample (``flatten``, ``mean`` over positions) or
    per sample and position (``positions``); a metric gives a number for two such matrices of the
    same samples. Each model runs once per batch, whatever is asked for. `isogon list metrics` names
    the metrics; each says its range, which way is closer, what identical inputs give, and what it
    is invariant to.

    The unbiased CKA of whole samples has mean 0 and variance ``2 / (n (n - 3))`` under permutation
    of the samples, for any data and kernel: ``z`` is the value in units of that. ``null=K`` draws K
    permutations of the samples of b, the same for all sites, from a random group of permutations,
    for which the test is exact: ``p_value = (1 + #) / (K + 1)``, one-sided, and ``p_max`` with the
    closest of all pairs in place of each. ``repeats=K`` compares on K random subsets of the
    samples as well: their mean and standard deviation say how far a value depends on which
    samples there are.

    Args:
        a: A model, or features: an array ``[n, ...]``, arrays by name, ``features.npz``.
        b: The other one; of any architecture.
        batches: Inputs; none with features, whose samples are in the same order.
        metric: Spec of a metric, or several: ``cka``, ``cka(kernel=rbf)``, ``procrustes``,
            ``svcca(keep=0.99)``, ``rsa``, ``mutual_knn(k=10)``, ``disagreement``, ...
        modulo: Group of ``procrustes``: orthogonal, permutations, signed_permutations, G_relu,
            G_abs.
        sites: Which sites of a, see `isogon.sites`.
        sites_b: Which sites of b; those of ``sites`` by default.
        pairs: ``all``, or ``diagonal``: the k-th site of a with the k-th of b.
        maps: ``flatten``, ``positions`` or ``mean``; by default what the metric's definition says.
            Maps of different sizes are brought to the larger one by the nearest position.
        channel_axis: Axis of the channels, where the layers don't tell.
        null: Number of permutations.
        repeats: Number of random subsets of the samples; each is a pass of its own.
        subset: Samples in each, drawn without replacement; half of them by default.
        generator: Draws permutations and subsets.

    Returns:
        One row per metric and pair: metric, site_a, site_b, similarity (the metric's value,
        whichever way is closer: see ``meta["metrics"]``), null_sd and z where there is an exact
        null, p_value and p_max where permutations were drawn, mean and sd (n - 1) over subsets
        where there are repeats (``arrays["values"]`` holds each). NaN where a site is constant and
        the metric centres.

    Raises:
        OptionError: A selector that matches nothing, or options that don't go together.
        DataError: Too few samples, or features of different numbers of samples.
        ModelError: NaN in an activation.
    """
    chosen = metrics(metric, modulo=modulo)
    sides = [representation(a), representation(b)]
    data = _data(sides, batches)
    x, _ = next(iter(data))
    for side in sides:
        if not isinstance(side, Features):
            examine(side, x[:FEW])
    left = places(sides[0], "a", sites, x[:FEW], channel_axis)
    same = sides[1] is sides[0] and sites_b in (None, sites)
    right = left if same else places(sides[1], "b", sites_b or sites, x[:FEW], channel_axis)
    size = check_subsets(repeats, subset, int(data.count))
    made = Comparison(chosen, left, right, pairs, maps, int(data.count), null)
    made.gather(sides, data, x[:SHIFTED], same)
    generator = generator or torch.Generator().manual_seed(0)
    found = _reading(made, generator)
    if not repeats:
        return found

    blank = np.full(found.arrays["similarity"].shape[-2:], math.nan)

    def values(part: list[nn.Module], rows: Batches | Rows) -> list[np.ndarray]:
        few = Comparison(chosen, left, right, pairs, maps, size, 0)
        few.gather(part, rows, x[:SHIFTED], same)
        return [_padded(few.layer(m, generator)["similarity"], blank) for m in chosen]

    parts = random_subsets(sides, data, size, repeats, generator)
    return _with_spread(found, over_subsets(parts, repeats, values), repeats, size)


def _with_spread(found: Grid, layers: list[dict], repeats: int, size: int) -> Grid:
    """The reading with columns ``mean`` and ``sd``, and the values of each subset."""
    single = len(layers) == 1
    for name in ("mean", "sd", "values"):
        stacked = np.stack([layer[name] for layer in layers], 1 if name == "values" else 0)
        axis = 1 if name == "values" else 0
        found.arrays[name] = stacked.squeeze(axis) if single else stacked
        axes = found.axes["similarity"]
        found.axes[name] = ("repeat", *axes) if name == "values" else axes
    places = {k: {v: i for i, v in enumerate(found.coords[k])} for k in found.axes["similarity"]}
    rows = tuple(found.table[k].map(at).to_numpy() for k, at in places.items())
    for name in ("mean", "sd"):
        found.table[name] = found.arrays[name][rows]
    found.meta |= {"repeats": repeats, "subset": size}
    return found


def _reading(made: Comparison, generator: torch.Generator) -> Grid:
    """Values of all metrics as one grid."""
    report = context.progress()
    layers = []
    for k, m in enumerate(made.metrics):
        report(k, len(made.metrics), "metrics")
        layers.append(made.layer(m, generator))
    report(len(made.metrics), len(made.metrics), "metrics")
    names = [m.name for m in made.metrics]
    extra = [OUTPUT] if made.outputs else []
    coords = {
        "metric": names,
        "site_a": [p.name for p in made.left] + extra,
        "site_b": [p.name for p in made.right] + extra,
    }
    columns = [
        c
        for c in ("similarity", "null_sd", "z", "p_value", "p_max")
        if any(c in layer for layer in layers)
    ]
    blank = np.full((len(coords["site_a"]), len(coords["site_b"])), math.nan)
    arrays = {c: np.stack([_padded(layer.get(c), blank) for layer in layers]) for c in columns}
    single = len(names) == 1
    axes = tuple(coords)[1:] if single else tuple(coords)
    return Grid(
        "similarity",
        _table(made, coords, arrays),
        {c: v[0] if single else v for c, v in arrays.items()},
        axes=dict.fromkeys(columns, axes),
        coords={k: v for k, v in coords.items() if k in axes},
        meta=_meta(made),
    )


def _table(
    made: Comparison, coords: dict[str, list[str]], arrays: dict[str, np.ndarray]
) -> pd.DataFrame:
    """One row per metric and pair that was asked for."""
    rows: dict[str, list] = {k: [] for k in (*coords, *arrays)}
    for k, m in enumerate(made.metrics):
        last = (len(coords["site_a"]) - 1, len(coords["site_b"]) - 1)
        for i, j in [last] if m.kind == "outputs" else made.pairs:
            for axis, at in zip(coords, (k, i, j)):
                rows[axis].append(coords[axis][at])
            for c, values in arrays.items():
                rows[c].append(values[k, i, j])
    return pd.DataFrame(rows)


def _meta(made: Comparison) -> dict[str, Any]:
    facts = {
        m.name: {
            "direction": f"{m.closer} is closer",
            "range": list(m.bounds),
            "identical": m.identical,
            "invariant": list(m.invariant),
            "maps": made.maps[m.name],
        }
        for m in made.metrics
    }
    meta: dict[str, Any] = {"metrics": facts, "samples": made.count, "null": made.null}
    meta["direction"] = {m.name: m.closer for m in made.metrics}
    if len(made.metrics) == 1:
        meta["direction"] = made.metrics[0].closer
    if made.notes:
        meta["notes"] = list(dict.fromkeys(made.notes))
    return meta


def _padded(layer: np.ndarray | None, blank: np.ndarray) -> np.ndarray:
    found = blank.copy()
    if layer is not None:
        found[: layer.shape[0], : layer.shape[1]] = layer
    return found


def _data(sides: list[nn.Module], batches: DataLike | None) -> Batches | Rows:
    """What a pass iterates over: the user's batches, or numbers of rows."""
    features = [s for s in sides if isinstance(s, Features)]
    if not features:
        if batches is None:
            raise OptionError(
                "two models are compared on inputs",
                got="no batches",
                expected="batches",
                fix="Pass batches, e.g. --batches 'digits(test)'.",
            )
        return as_batches(batches)
    if len(features) == 1 or batches is not None:
        raise OptionError(
            "features are compared with features of the same samples",
            got="features and a model" if len(features) == 1 else "features and batches",
            expected="two models and batches, or features on both sides",
            fix="Save the model's activations as an .npz first.",
        )
    counts = [f.count for f in features]
    if counts[0] != counts[1]:
        raise DataError(
            "features of different numbers of samples", got=counts, expected="the same samples"
        )
    return Rows(counts[0], 1024)

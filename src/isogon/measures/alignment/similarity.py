"""Similarity of the insides of two networks, site by site."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import nn

from isogon import context
from isogon.data import Batches, as_batches
from isogon.errors import DataError, OptionError
from isogon.measures.alignment.engines import (
    Aligned,
    AllPairs,
    Engine,
    Held,
    InBatches,
    Outputs,
    Pair,
    Streamed,
)
from isogon.measures.alignment.metrics.metric import Metric, metrics
from isogon.measures.alignment.representations import (
    Features,
    Place,
    Representation,
    Rows,
    places,
    representation,
)
from isogon.measures.alignment.watchers import Kept, Minibatch, Moments
from isogon.nets.passes import LOGITS, all_passes
from isogon.nets.tap import tap
from isogon.readings import Grid
from isogon.registry import measure

PERMUTED = 2000  # samples that permutations of a metric of moments are taken of
WIDE = 4096  # columns of which second moments are still formed
MANY = 20_000  # samples of which n x n matrices are still formed
SHIFTED = 64  # samples whose mean is subtracted before anything is summed
OUTPUT = "output"
Maps = Literal["flatten", "positions", "mean"]


@measure(
    cite=("kornblith2019", "godfrey2022"),
    cost=4.0,
    survey={"metric": ("cka", "procrustes(modulo=G_relu)")},
    example={"sites": "activations", "metric": ("cka", "procrustes"), "null": 9},
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
    permutations of the samples of b, the same for all sites: ``p_value = (1 + #) / (K + 1)``,
    one-sided, and ``p_max`` with the closest of all pairs in place of each.

    Args:
        a: A model, or features: an array ``[n, ...]``, arrays by name, ``features.npz``.
        b: The other one; of any architecture.
        batches: Inputs; none with features, whose samples are in the same order.
        metric: Spec of a metric, or several: ``cka``, ``cka(kernel=rbf)``, ``procrustes``,
            ``svcca(keep=0.99)``, ``rsa``, ``mutual_knn(k=10)``, ``disagreement``, ...
        modulo: Group of ``procrustes``: orthogonal, permutations, signed_permutations, G_relu, G_abs.
        sites: Which sites of a, see `isogon.sites`.
        sites_b: Which sites of b; those of ``sites`` by default.
        pairs: ``all``, or ``diagonal``: the k-th site of a with the k-th of b.
        maps: ``flatten``, ``positions`` or ``mean``; by default what the metric's definition says.
            Maps of different sizes are brought to the smaller one by the nearest position.
        channel_axis: Axis of the channels, where the layers don't tell.
        null: Number of permutations.
        generator: Draws them.

    Returns:
        One row per metric and pair: metric, site_a, site_b, similarity (the metric's value,
        whichever way is closer: see ``meta["metrics"]``), null_sd and z where there is an exact
        null, p_value and p_max where permutations were drawn. NaN where a site is constant and the
        metric centres.

    Raises:
        OptionError: A selector that matches nothing, or options that don't go together.
        DataError: Too few samples, or features of different numbers of samples.
        ModelError: NaN in an activation.
    """
    chosen = metrics(metric, modulo=modulo)
    sides = [representation(a), representation(b)]
    data = _data(sides, batches)
    x, _ = next(iter(data))
    left = places(sides[0], "a", sites, x[:SHIFTED], channel_axis)
    same = sides[1] is sides[0] and sites_b in (None, sites)
    right = (
        left if same else places(sides[1], "b", sites_b or sites, x[:SHIFTED], channel_axis)
    )
    plan = _Plan(chosen, left, right, pairs, maps, _count(data), null)
    plan.gather(sides, data, x[:SHIFTED], same)
    generator = generator or torch.Generator().manual_seed(0)
    return plan.reading(generator)


class _Plan:
    """Which metric is computed from what, and what has to be gathered for it."""

    def __init__(
        self, chosen: list[Metric], left: list[Place], right: list[Place], pairs: str,
        maps: str | None, count: int, null: int,
    ) -> None:  # fmt: skip
        if null < 0:
            raise OptionError("a negative number of permutations", got=null, expected="0 or more")
        self.metrics, self.left, self.right, self.null, self.count = chosen, left, right, null, count
        k = min(len(left), len(right))
        every = [(i, j) for i in range(len(left)) for j in range(len(right))]
        self.pairs: list[Pair] = [(i, i) for i in range(k)] if pairs == "diagonal" else every
        self.notes: list[str] = []
        if pairs == "diagonal" and len(left) != len(right):
            self.notes.append(f"the first {k} sites of {len(left)} and {len(right)}")
        self.maps = {m.name: maps or m.maps for m in chosen}
        self.outputs = any(m.kind == "outputs" for m in chosen)
        self.routes = {m.name: self._route(m) for m in chosen}
        self._moments: list[tuple[Pair, str]] = []
        for m in chosen:
            if self.routes[m.name] == "moments":
                self._moments += [(p, self._form(m, p)) for p in self.pairs]
        self._moments = list(dict.fromkeys(self._moments))

    def _form(self, m: Metric, pair: Pair) -> str:
        """How a pair of activations becomes matrices; positions that can't be paired are averaged."""
        maps = self.maps[m.name]
        x, y = self.left[pair[0]], self.right[pair[1]]
        if maps == "positions" and len(x.space) != len(y.space):
            note = "sites without common positions are compared by their means over positions"
            if note not in self.notes:
                self.notes.append(note)
            return "mean"
        return maps

    def _route(self, m: Metric) -> str:
        """How a metric is computed: moments, samples, grams, batches or outputs."""
        if m.kind in ("outputs", "samples", "moments"):
            if m.kind == "samples":
                self._enough(m)
            return m.kind
        chosen = m.facts["alignment"]
        if chosen.minibatch:
            return "batches"
        maps = self.maps[m.name]
        if maps == "positions" and not chosen.linear:
            raise OptionError(
                "this kernel compares samples, not positions", got=f"{m.name}, maps=positions",
                expected="maps=flatten or mean",
            )  # fmt: skip
        if chosen.linear and (maps == "positions" or self._narrow(maps)):
            return "moments"
        self._enough(m)
        return "grams"

    def _narrow(self, maps: str) -> bool:
        """Whether features take less work than matrices of samples, or nothing else is possible."""
        widths = [[p.width(maps) for p in side] for side in (self.left, self.right)]
        if max(map(max, widths)) > WIDE:
            return False
        n = self.count
        features = sum(w * w for side in widths for w in side)
        features += sum(widths[0][i] * widths[1][j] for i, j in self.pairs)
        return n > MANY or features <= sum(n * w for side in widths for w in side)

    def _enough(self, m: Metric) -> None:
        if self.count > MANY:
            raise DataError(
                f"too many samples for {m.name}, which compares each with each",
                got=self.count,
                expected=f"at most {MANY}",
                fix="Take a subset, maps=mean, or cka(minibatch=true), which streams.",
            )

    # ------------------------------------------------------------------ gathering

    def gather(self, sides: list[nn.Module], data: Any, example: Any, same: bool) -> None:
        """One pass over the data."""
        models = {"a": sides[0]} if same else {"a": sides[0], "b": sides[1]}
        watchers: list[Any] = []
        self.stream = None
        if self._moments:
            shifts: dict[Any, torch.Tensor] = {}
            for name, model in models.items():
                mine = {p.site: p.key for p in (*self.left, *self.right) if p.side == name}
                with tap(model, list(mine)) as run:
                    _, values = run(example)
                shifts |= {mine[s]: v.clone() for s, v in values.items()}
            couples = [(self.left[i], self.right[j]) for (i, j), _ in self._moments]
            self.stream = Moments(couples, [f for _, f in self._moments], shifts)
            watchers.append(self.stream)
        self.batches = {}
        for m in self.metrics:
            if self.routes[m.name] == "batches":
                self.batches[m.name] = Minibatch(self.left, self.right, m.facts["alignment"])
        self.kept: dict[Any, Kept] = {}
        whole = {"samples", "grams"} & set(self.routes.values())
        if whole or (self.null and self._moments):
            most = self.count if whole else min(self.count, PERMUTED)
            unique = list({p.key: p for p in (*self.left, *self.right)}.values())
            self.kept = {p.key: Kept(p, most, 1 / len(unique)) for p in unique}
        self.logits: list[Kept] = []
        if self.outputs:
            for name in models:
                self.logits.append(Kept(Place(name, LOGITS, OUTPUT, 1), self.count))
        self.labels = _Labels(self.count, next(iter(models)))
        watchers += [*self.batches.values(), *self.kept.values(), *self.logits]
        if self.outputs:
            watchers.append(self.labels)
        all_passes(models, data, watchers, what="similarity")

    def engine(self, m: Metric, *, permutable: bool = False) -> Engine:
        """What computes a metric."""
        route, maps, sides = self.routes[m.name], self.maps[m.name], (self.left, self.right)
        shape = (len(self.left) + self.outputs, len(self.right) + self.outputs)
        if route == "outputs":
            x, y = self.logits[0].result(), self.logits[-1].result()
            return Outputs(m, x[..., 0], y[..., 0], self.labels.values, shape)
        if route == "moments":
            index = {key: k for k, key in enumerate(self._moments)}
            which = {p: index[p, self._form(m, p)] for p in self.pairs}
            assert self.stream is not None
            if permutable:
                rows = [(*c, f) for c, f in zip(self.stream.pairs, self.stream.forms)]
                return Held(m, self.kept, rows, which, shape)
            return Streamed(m, self.stream, which, shape, self.count)
        if route == "batches":
            return InBatches(self.batches[m.name], self.pairs, self.count)
        make = AllPairs if route == "samples" else Aligned
        return make(m, self.kept, sides, maps, self.pairs)

    # ------------------------------------------------------------------ the reading

    def reading(self, generator: torch.Generator) -> Grid:
        """Values of all metrics as one grid."""
        report = context.progress()
        layers = []
        for k, m in enumerate(self.metrics):
            report(k, len(self.metrics), "metrics")
            layers.append(self._layer(m, generator))
        report(len(self.metrics), len(self.metrics), "metrics")
        names = [m.name for m in self.metrics]
        extra = [OUTPUT] if self.outputs else []
        coords = {
            "metric": names,
            "site_a": [p.name for p in self.left] + extra,
            "site_b": [p.name for p in self.right] + extra,
        }
        columns = [c for c in ("similarity", "null_sd", "z", "p_value", "p_max")
                   if any(c in layer for layer in layers)]  # fmt: skip
        blank = np.full((len(coords["site_a"]), len(coords["site_b"])), math.nan)
        arrays = {c: np.stack([_padded(layer.get(c), blank) for layer in layers]) for c in columns}
        single = len(names) == 1
        axes = tuple(coords)[1:] if single else tuple(coords)
        return Grid(
            "similarity",
            self._table(coords, arrays),
            {c: v[0] if single else v for c, v in arrays.items()},
            axes=dict.fromkeys(columns, axes),
            coords={k: v for k, v in coords.items() if k in axes},
            meta=self._meta(),
        )

    def _layer(self, m: Metric, generator: torch.Generator) -> dict[str, np.ndarray]:
        engine = self.engine(m)
        values = engine.values()
        found = {"similarity": values}
        if (sd := self._null_sd(m, engine)) is not None:
            found["null_sd"] = np.where(np.isnan(values), math.nan, sd)
            found["z"] = values / sd
        if self.null and self.routes[m.name] != "batches":
            found |= self._permutations(m, engine, values, generator)
        return found

    def _null_sd(self, m: Metric, engine: Engine) -> float | None:
        if m.kind != "hsic" or not m.facts["alignment"].unbiased:
            return None
        if isinstance(engine, InBatches):
            return engine.null_sd()
        if self.maps[m.name] == "positions":
            return None
        return math.sqrt(2 / (self.count * (self.count - 3)))

    def _permutations(
        self, m: Metric, engine: Engine, values: np.ndarray, generator: torch.Generator
    ) -> dict[str, np.ndarray]:
        """p-values of each pair alone and against the closest of all pairs."""
        if isinstance(engine, Streamed):
            engine = self.engine(m, permutable=True)
            values = engine.values()
            if engine.samples < self.count:
                note = f"permutations of {m.name} are of the first {engine.samples} samples"
                self.notes.append(note)
        sign = 1.0 if m.closer == "higher" else -1.0
        # values that differ by rounding alone count as equal: they are then not evidence
        slack = 1e-9 * np.maximum(1.0, np.abs(values))
        above, above_all = np.ones_like(values), np.ones_like(values)
        report = context.progress()
        for k in range(self.null):
            report(k, self.null, f"permutations of {m.name}")
            drawn = sign * engine.permuted(torch.randperm(engine.samples, generator=generator))
            best = np.nanmax(drawn) if not np.isnan(drawn).all() else math.nan
            above += drawn >= sign * values - slack
            above_all += best >= sign * values - slack
        mask = np.where(np.isnan(values), math.nan, 0.0)
        return {
            "p_value": above / (self.null + 1) + mask,
            "p_max": above_all / (self.null + 1) + mask,
        }

    def _table(self, coords: dict[str, list[str]], arrays: dict[str, np.ndarray]) -> pd.DataFrame:
        """One row per metric and pair that was asked for."""
        rows: dict[str, list] = {k: [] for k in (*coords, *arrays)}
        for k, m in enumerate(self.metrics):
            last = (len(coords["site_a"]) - 1, len(coords["site_b"]) - 1)
            for i, j in [last] if m.kind == "outputs" else self.pairs:
                for axis, at in zip(coords, (k, i, j)):
                    rows[axis].append(coords[axis][at])
                for c, values in arrays.items():
                    rows[c].append(values[k, i, j])
        return pd.DataFrame(rows)

    def _meta(self) -> dict[str, Any]:
        facts = {
            m.name: {
                "direction": f"{m.closer} is closer",
                "range": list(m.bounds),
                "identical": m.identical,
                "invariant": list(m.invariant),
                "maps": self.maps[m.name],
            }
            for m in self.metrics
        }
        meta: dict[str, Any] = {"metrics": facts, "samples": self.count, "null": self.null}
        meta["direction"] = {m.name: m.closer for m in self.metrics}
        if len(self.metrics) == 1:
            meta["direction"] = self.metrics[0].closer
        if self.notes:
            meta["notes"] = list(dict.fromkeys(self.notes))
        return meta


class _Labels:
    """Labels of all samples."""

    def __init__(self, count: int, side: str) -> None:
        self.sites = ((side, LOGITS),)
        self.values = torch.zeros(count, dtype=torch.int64)

    def update(self, values: Any, labels: torch.Tensor, rows: torch.Tensor) -> None:
        if labels.dim() == 1 and not labels.is_floating_point():
            self.values[rows] = labels.cpu()

    def again(self) -> bool:
        return False

    def share(self) -> _Labels:
        return self

    def merge(self, other: _Labels) -> _Labels:
        return self

    def result(self) -> torch.Tensor:
        return self.values


def _padded(layer: np.ndarray | None, blank: np.ndarray) -> np.ndarray:
    found = blank.copy()
    if layer is not None:
        found[: layer.shape[0], : layer.shape[1]] = layer
    return found


def _data(sides: list[nn.Module], batches: Any) -> Any:
    """What a pass iterates over: the user's batches, or numbers of rows."""
    features = [s for s in sides if isinstance(s, Features)]
    if not features:
        if batches is None:
            raise OptionError(
                "two models are compared on inputs", got="no batches", expected="batches",
                fix="Pass batches, e.g. --batches 'digits(test)'.",
            )  # fmt: skip
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


def _count(data: Any) -> int:
    return int(data.count)

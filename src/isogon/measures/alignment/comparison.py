"""A comparison: which metric is computed from what, what is gathered for it, and its values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from isogon import context
from isogon.errors import DataError, OptionError
from isogon.measures.alignment.engines import (
    Aligned,
    AllPairs,
    Engine,
    Given,
    HeldValues,
    InBatches,
    Outputs,
    Pair,
    SampleStates,
    Streamed,
)
from isogon.measures.alignment.folds import Folded, FoldMoments
from isogon.measures.alignment.held_out import HeldOut
from isogon.measures.alignment.metrics.metric import Metric
from isogon.measures.alignment.permutations import SampleOrders
from isogon.measures.alignment.representations import RowPlace, Rows
from isogon.measures.alignment.watchers import Activations, Minibatch, PairMoments
from isogon.nets.passes import LOGITS, all_passes
from isogon.nets.tap import tap

if TYPE_CHECKING:
    from isogon.data.batches import Batches
    from isogon.nets.watchers import Key, Watcher


PERMUTED = 2000  # samples that permutations of a metric of moments are taken of
WIDE = 4096  # columns of which second moments are still formed
MANY = 20_000  # samples of which n x n matrices are still formed
OUTPUT = "output"


class Comparison:
    """Which metric is computed from what, and what has to be gathered for it."""

    def __init__(
        self,
        chosen: list[Metric],
        left: list[RowPlace],
        right: list[RowPlace],
        pairs: str,
        maps: str | None,
        count: int,
        null: int,
    ) -> None:
        if null < 0:
            raise OptionError("a negative number of permutations", got=null, expected="0 or more")
        self.metrics, self.left, self.right, self.null, self.count = (
            chosen,
            left,
            right,
            null,
            count,
        )
        k = min(len(left), len(right))
        every = [(i, j) for i in range(len(left)) for j in range(len(right))]
        self.pairs: list[Pair] = [(i, i) for i in range(k)] if pairs == "diagonal" else every
        self.notes: list[str] = []
        self._permutations_of: dict[int, SampleOrders] = {}
        if pairs == "diagonal" and len(left) != len(right):
            self.notes.append(f"the first {k} sites of {len(left)} and {len(right)}")
        self.maps = {m.name: maps or m.maps for m in chosen}
        self.outputs = any(m.kind == "outputs" for m in chosen)
        self.routes = {m.name: self._route(m) for m in chosen}
        self._moments: list[tuple[Pair, str]] = []
        for m in chosen:
            if self.routes[m.name] in ("moments", "folds"):
                self._moments += [(p, self._form(m, p)) for p in self.pairs]
        self._moments = list(dict.fromkeys(self._moments))

    def _form(self, m: Metric, pair: Pair) -> str:
        """How a pair becomes matrices; positions that can't be paired are averaged."""
        maps = self.maps[m.name]
        x, y = self.left[pair[0]], self.right[pair[1]]
        if not x.space and not y.space:
            return "flatten"  # all are one: metrics share the moments
        if maps == "positions" and len(x.space) != len(y.space):
            note = "sites without common positions are compared by their means over positions"
            if note not in self.notes:
                self.notes.append(note)
            return "mean"
        return maps

    def _route(self, m: Metric) -> str:
        """How a metric is computed: moments, folds, samples, grams, batches or outputs."""
        if m.facts.get("folds"):
            return "folds"
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
                "this kernel compares samples, not positions",
                got=f"{m.name}, maps=positions",
                expected="maps=flatten or mean",
            )
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

    def gather(
        self, sides: list[nn.Module], data: Batches | Rows, example: Tensor, same: bool
    ) -> None:
        """One pass over the data."""
        models = {"a": sides[0]} if same else {"a": sides[0], "b": sides[1]}
        watchers: list[Watcher] = []
        self.folds: dict[str, FoldMoments] = {}
        self.stream = None
        if self._moments:
            shifts: dict[Key, torch.Tensor] = {}
            for name, model in models.items():
                mine = {p.site: p.key for p in (*self.left, *self.right) if p.side == name}
                with tap(model, list(mine)) as run:
                    _, values = run(example)
                shifts |= {mine[s]: v.clone() for s, v in values.items()}
            couples = [(self.left[i], self.right[j]) for (i, j), _ in self._moments]
            streamed = [m for m in self.metrics if self.routes[m.name] == "moments"]
            single = all(m.kind == "hsic" for m in streamed)
            forms = [f for _, f in self._moments]
            self.stream = PairMoments(couples, forms, shifts, single=single)
            if streamed:
                watchers.append(self.stream)
            for m in self.metrics:
                if self.routes[m.name] == "folds":
                    parts = (PairMoments(couples, forms, shifts) for _ in range(m.facts["folds"]))
                    self.folds[m.name] = FoldMoments(list(parts))
            watchers += self.folds.values()
        self.batches = {}
        for m in self.metrics:
            if self.routes[m.name] == "batches":
                self.batches[m.name] = Minibatch(self.left, self.right, m.facts["alignment"])
        self.kept: dict[Key, Activations] = {}
        whole = {"samples", "grams"} & set(self.routes.values())
        if whole or (self.null and self._moments):
            most = self.count if whole else min(self.count, PERMUTED)
            unique = list({p.key: p for p in (*self.left, *self.right)}.values())
            self.kept = {p.key: Activations(p, most, 1 / len(unique)) for p in unique}
        self.logits: list[Activations] = []
        if self.outputs:
            for name in models:
                self.logits.append(Activations(RowPlace(name, LOGITS, OUTPUT, 1), self.count))
        self.labels = _Labels(self.count, next(iter(models)))
        watchers += [*self.batches.values(), *self.kept.values(), *self.logits]
        if self.outputs:
            watchers.append(self.labels)
        all_passes(models, data, watchers, what="similarity")

    def engine(self, m: Metric, *, permutable: bool = False) -> Engine:
        """What computes a metric."""
        route, maps, sides = self.routes[m.name], self.maps[m.name], (self.left, self.right)
        if route == "folds":
            return self._held_out(m, permutable)
        shape = (len(self.left) + self.outputs, len(self.right) + self.outputs)
        if route == "outputs":
            x, y = self.logits[0].result(), self.logits[-1].result()
            return Outputs(m, x[..., 0], y[..., 0], self.labels.values, shape)
        if route == "moments":
            if not permutable:
                return Given(self._streamed[m.name], self.count)
            if m.kind == "hsic" and maps != "positions":
                return Aligned(m, self.kept, sides, maps, self.pairs)
            assert self.stream is not None
            rows = [(*c, f) for c, f in zip(self.stream.pairs, self.stream.forms)]
            return HeldValues(m, self.kept, rows, self._which(m), shape)
        if route == "batches":
            return InBatches(self.batches[m.name], self.pairs, self.count)
        if route == "samples":
            return AllPairs(m, self._states, sides, self.pairs, self.count)
        return Aligned(m, self.kept, sides, maps, self.pairs)

    def _which(self, m: Metric) -> dict[Pair, int]:
        """Index among what was streamed by pair of places."""
        index = {key: k for k, key in enumerate(self._moments)}
        return {p: index[p, self._form(m, p)] for p in self.pairs}

    @cached_property
    def _streamed(self) -> dict[str, np.ndarray]:
        """Values of all metrics of moments."""
        mine = [m for m in self.metrics if self.routes[m.name] == "moments"]
        shape = (len(self.left) + self.outputs, len(self.right) + self.outputs)
        assert self.stream is not None
        return Streamed([(m, self._which(m)) for m in mine], self.stream, shape).values()

    @cached_property
    def _states(self) -> SampleStates:
        mine = [m for m in self.metrics if self.routes[m.name] == "samples"]
        return SampleStates([(m, self.maps[m.name]) for m in mine], self.kept)

    def _held_out(self, m: Metric, permutable: bool) -> Engine:
        shape = (len(self.left) + self.outputs, len(self.right) + self.outputs)
        moments = self.folds[m.name]
        if not permutable:
            return Folded(m, moments, self._which(m), shape, self.count)
        rows = [(*c, f) for c, f in zip(moments.parts[0].pairs, moments.parts[0].forms)]
        return HeldOut(m, self.kept, rows, self._which(m), shape)

    def layer(self, m: Metric, generator: torch.Generator) -> dict[str, np.ndarray]:
        """Arrays ``[sites of a, sites of b]`` of one metric by column."""
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
        missing = np.isnan(values)
        if isinstance(engine, Given | Folded):
            engine = self.engine(m, permutable=True)
            values = engine.values()
            if engine.samples < self.count:
                note = f"permutations of {m.name} are of the first {engine.samples} samples"
                self.notes.append(note)
        sign = 1.0 if m.closer == "higher" else -1.0
        # values that differ by rounding alone count as equal: they are then not evidence
        slack = engine.rounding * np.maximum(1.0, np.abs(values))
        report, found = context.progress(), []
        for k, drawn in enumerate(engine.permuted(self._drawn(engine.samples, generator))):
            report(k, self.null, f"permutations of {m.name}")
            found.append(sign * drawn)
        every = np.stack(found)
        best = np.where(np.isnan(every), -math.inf, every).max((1, 2), keepdims=True)
        above, above_all = (1 + (v >= sign * values - slack).sum(0) for v in (every, best))
        mask = np.where(np.isnan(values) | missing, math.nan, 0.0)
        return {
            "p_value": above / (self.null + 1) + mask,
            "p_max": above_all / (self.null + 1) + mask,
        }

    def _drawn(self, samples: int, generator: torch.Generator) -> SampleOrders:
        """The same for all metrics of as many samples."""
        if samples not in self._permutations_of:
            self._permutations_of[samples] = SampleOrders(samples, self.null, generator)
        return self._permutations_of[samples]


class _Labels:
    """Labels of all samples."""

    def __init__(self, count: int, side: str) -> None:
        self.sites = ((side, LOGITS),)
        self.values = torch.zeros(count, dtype=torch.int64)

    def update(
        self, values: Mapping[Key, torch.Tensor], labels: torch.Tensor, rows: torch.Tensor
    ) -> None:
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

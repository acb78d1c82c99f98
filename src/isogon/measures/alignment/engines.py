"""From what a pass gathered to values of a metric for all pairs, also under permuted samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from isogon.measures.alignment import hsic
from isogon.measures.alignment.metrics.metric import Metric
from isogon.measures.alignment.moments import CrossSums, CrossView, SiteView, Sums
from isogon.measures.alignment.representations import RowPlace
from isogon.measures.alignment.watchers import Activations, Form, Minibatch, PairMoments, formed

Pair = tuple[int, int]  # indices of places of the two sides


class Engine(Protocol):
    """Values of one metric.

    Attributes:
        samples: Number of samples behind them.
    """

    samples: int

    def values(self) -> np.ndarray:
        """``[sites of a, sites of b]``, NaN where nothing was asked for."""
        ...

    def permuted(self, order: Tensor) -> np.ndarray:
        """The same with the samples of b in another order."""
        ...


class Streamed:
    """A metric of second moments, of any number of samples.

    Args:
        metric: The metric.
        moments: What was gathered.
        which: Index among the pairs of ``moments`` by pair of places.
        shape: Numbers of places.
        samples: Number of samples.
    """

    def __init__(
        self,
        metric: Metric,
        moments: PairMoments,
        which: dict[Pair, int],
        shape: Pair,
        samples: int,
    ) -> None:
        self.metric, self.moments, self.which = metric, moments, which
        self.shape, self.samples = shape, samples

    def values(self) -> np.ndarray:
        """See `Engine`."""
        views: dict[tuple, SiteView] = {}
        states: dict[tuple, Any] = {}
        found = np.full(self.shape, math.nan)
        for (i, j), k in self.which.items():
            a, b = self.moments.pairs[k]
            keys = [(p.key, f) for p, f in zip((a, b), self.moments.forms[k])]
            for key in keys:
                if key not in views:
                    views[key] = SiteView(self.moments.own[key])
            x, y = (views[key] for key in keys)
            sums = self.moments.cross[k]
            assert sums is not None
            found[i, j] = _value(self.metric, keys, x, y, CrossView(x, y, sums), states)
        return found

    def permuted(self, order: Tensor) -> np.ndarray:
        """Not to be had of a stream."""
        raise TypeError("a stream of moments can't be permuted")


class HeldValues:
    """The same of samples that were kept, so that they can be permuted.

    Args:
        metric: The metric.
        kept: Activations by place.
        pairs: Places, and their forms.
        which: Index among ``pairs`` by pair of places.
        shape: Numbers of places.
    """

    def __init__(
        self,
        metric: Metric,
        kept: dict[Any, Activations],
        pairs: Sequence[tuple],
        which: dict[Pair, int],
        shape: Pair,
    ) -> None:
        self.metric, self.which, self.shape, self.pairs = metric, which, shape, pairs
        self.rows: dict[tuple, Tensor] = {}
        self.views: dict[tuple, SiteView] = {}
        self.states: dict[tuple, Any] = {}
        self.samples = 0
        for a, b, forms in pairs:
            for place, form in zip((a, b), forms):
                self._hold(kept[place.key], place, form)

    def _hold(self, kept: Activations, place: RowPlace, form: Form) -> None:
        key = (place.key, form)
        if key in self.rows:
            return
        assert kept.values is not None
        x = formed(kept.values[: kept.seen], place, form).double()
        sums = Sums.empty(x.mean(0))
        x = x - sums.shift
        sums.update(x)
        self.samples = kept.seen
        self.views[key] = SiteView(sums)
        self.rows[key] = x.reshape(kept.seen, -1, x.shape[1])  # a sample's positions together

    def values(self) -> np.ndarray:
        """See `Engine`."""
        return self.permuted(torch.arange(self.samples))

    def permuted(self, order: Tensor) -> np.ndarray:
        """See `Engine`."""
        found = np.full(self.shape, math.nan)
        for (i, j), k in self.which.items():
            a, b, forms = self.pairs[k]
            keys = [(p.key, f) for p, f in zip((a, b), forms)]
            x, y = self.rows[keys[0]], self.rows[keys[1]][order]
            sums = CrossSums.empty(x.shape[2], y.shape[2], x.device)
            x, y = x.flatten(0, 1), y.flatten(0, 1)
            sums.update(x, y, x.square().sum(1), y.square().sum(1))
            u, v = (self.views[key] for key in keys)
            found[i, j] = _value(self.metric, keys, u, v, CrossView(u, v, sums), self.states)
        return found


class AllPairs:
    """A metric that looks at all pairs of samples.

    Args:
        metric: The metric.
        kept: Activations by place.
        sides: Places of the two sides.
        maps: How activations become matrices.
        pairs: What is asked for.
    """

    def __init__(
        self,
        metric: Metric,
        kept: dict[Any, Activations],
        sides: Sequence[Sequence[RowPlace]],
        maps: str,
        pairs: Sequence[Pair],
    ) -> None:
        self.metric, self.pairs, self.shape = metric, list(pairs), tuple(map(len, sides))
        self.x = [
            _matrix(kept[p.key], maps) if _used(0, i, pairs) else None
            for i, p in enumerate(sides[0])
        ]
        self.y = [
            _matrix(kept[p.key], maps) if _used(1, j, pairs) else None
            for j, p in enumerate(sides[1])
        ]
        self.samples = next(len(v) for v in self.x if v is not None)
        self.states = [_state(metric, v) for v in self.x]

    def values(self) -> np.ndarray:
        """See `Engine`."""
        return self._of([_state(self.metric, v) for v in self.y])

    def permuted(self, order: Tensor) -> np.ndarray:
        """See `Engine`."""
        return self._of([_state(self.metric, None if v is None else v[order]) for v in self.y])

    def _of(self, others: list) -> np.ndarray:
        found = np.full(self.shape, math.nan)
        for i, j in self.pairs:
            if self.states[i] is not None and others[j] is not None:
                found[i, j] = self.metric.pair(self.states[i], others[j], None)
        return found


class Aligned:
    """CKA of any kernel, from the centred matrices of the samples."""

    def __init__(
        self,
        metric: Metric,
        kept: dict[Any, Activations],
        sides: Sequence[Sequence[RowPlace]],
        maps: str,
        pairs: Sequence[Pair],
    ) -> None:
        chosen = metric.facts["alignment"]
        self.mask = np.full(tuple(map(len, sides)), math.nan)
        for i, j in pairs:
            self.mask[i, j] = 0.0
        self.grams = []
        first = kept[sides[0][0].key]
        self.samples = first.seen
        for side in sides:
            dtype = torch.float32
            values = [kept[p.key] for p in side]
            if any(v.values is not None and v.values.dtype == torch.float64 for v in values):
                dtype = torch.float64
            grams = hsic.Grams(chosen, self.samples, len(side), dtype)
            for v in values:
                x = v.result()
                grams.add(x.double().mean(2, keepdim=True).to(x.dtype) if maps == "mean" else x)
            self.grams.append(grams)
        self.own = [g.own() for g in self.grams]

    def values(self) -> np.ndarray:
        """See `Engine`."""
        return self._of(None)

    def permuted(self, order: Tensor) -> np.ndarray:
        """See `Engine`."""
        return self._of(order)

    def _of(self, order: Tensor | None) -> np.ndarray:
        return hsic.ratio(self.grams[0].inner(self.grams[1], order), *self.own) + self.mask


class InBatches:
    """CKA of minibatches."""

    def __init__(self, watcher: Minibatch, pairs: Sequence[Pair], samples: int) -> None:
        self.watcher, self.samples = watcher, samples
        self.mask = np.full((len(watcher.a), len(watcher.b)), math.nan)
        for i, j in pairs:
            self.mask[i, j] = 0.0

    def values(self) -> np.ndarray:
        """See `Engine`."""
        return self.watcher.result() + self.mask

    def permuted(self, order: Tensor) -> np.ndarray:
        """Not to be had."""
        raise TypeError("minibatches can't be permuted")

    def null_sd(self) -> float:
        """Under permutations within batches."""
        inverse = sum(m / (b * (b - 3)) for b, m in self.watcher.sizes.items())
        return math.sqrt(2 * inverse) / max(1, sum(self.watcher.sizes.values()))


class Outputs:
    """A metric of the two models' logits."""

    def __init__(self, metric: Metric, x: Tensor, y: Tensor, labels: Tensor, shape: Pair) -> None:
        self.metric, self.sides, self.labels, self.shape = metric, (x, y), labels, shape
        self.samples = len(x)

    def values(self) -> np.ndarray:
        """See `Engine`: the last place of both sides."""
        return self.permuted(torch.arange(self.samples))

    def permuted(self, order: Tensor) -> np.ndarray:
        """See `Engine`."""
        found = np.full(self.shape, math.nan)
        x, y = self.sides
        found[-1, -1] = self.metric.pair((x, self.labels), (y[order], self.labels[order]), None)
        return found


def _value(
    metric: Metric, keys: list[tuple], x: SiteView, y: SiteView, cross: CrossView, states: dict
) -> float:
    """The value of a metric of moments; NaN where a side is constant and the metric centres."""
    if metric.centred and (x.trivial or y.trivial):
        return math.nan
    if metric.kind == "hsic":
        if metric.facts["alignment"].unbiased:
            size = x.hsic() * y.hsic()
            return cross.hsic() / math.sqrt(size) if size > 0 else math.nan
        size = float(x.centred.norm() * y.centred.norm())
        return float(cross.centred.square().sum()) / size
    for key, view in zip(keys, (x, y)):
        if key not in states:
            states[key] = metric.site(view)
    return metric.pair(states[keys[0]], states[keys[1]], cross)


def _used(side: int, index: int, pairs: Sequence[Pair]) -> bool:
    return any(pair[side] == index for pair in pairs)


def _matrix(kept: Activations, maps: str) -> Tensor:
    x = kept.result().double()
    return x.mean(2) if maps == "mean" else x.flatten(1)


def _state(metric: Metric, x: Tensor | None) -> Any:
    return None if x is None or not bool(x.any()) else metric.site(x)

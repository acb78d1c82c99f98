"""From what a pass gathered to values of metrics for all pairs, also under permuted samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from isogon.measures.alignment import hsic
from isogon.measures.alignment.metrics.metric import Metric
from isogon.measures.alignment.moments import CrossSums, CrossView, SiteSums, SiteView
from isogon.measures.alignment.permutations import ROUNDING, SampleOrders
from isogon.measures.alignment.representations import RowPlace
from isogon.measures.alignment.samples import SampleView
from isogon.measures.alignment.watchers import Activations, Form, Minibatch, PairMoments, formed

if TYPE_CHECKING:
    from isogon.nets.watchers import Key


Pair = tuple[int, int]  # indices of places of the two sides
ROUGHLY = 1e-9  # what sums of float64 in another order may differ by


class Engine(Protocol):
    """Values of one metric.

    Attributes:
        samples: Number of samples behind them.
        rounding: How far apart equal values may be under permutations, beside 1.
    """

    samples: int
    rounding: float

    def values(self) -> np.ndarray:
        """``[sites of a, sites of b]``, NaN where nothing was asked for."""
        ...

    def permuted(self, drawn: SampleOrders) -> Iterator[np.ndarray]:
        """The same with the samples of b in each of other orders."""
        ...


class Streamed:
    """Metrics of second moments, of any number of samples.

    Args:
        asked: Metrics, and for each the index among the pairs of ``moments`` by pair of places.
        moments: What was gathered.
        shape: Numbers of places.
    """

    def __init__(
        self, asked: Sequence[tuple[Metric, dict[Pair, int]]], moments: PairMoments, shape: Pair
    ) -> None:
        self.asked, self.moments, self.shape = list(asked), moments, shape

    def values(self) -> dict[str, np.ndarray]:
        """By metric, see `Engine`: pair after pair, so that metrics share what they need of it."""
        views: dict[tuple, SiteView] = {}
        states: dict[str, dict[tuple, Any]] = {m.name: {} for m, _ in self.asked}
        found = {m.name: np.full(self.shape, math.nan) for m, _ in self.asked}
        for k, sums in enumerate(self.moments.cross):
            wanted = [(m, p) for m, which in self.asked for p, at in which.items() if at == k]
            if not wanted:
                continue
            a, b = self.moments.pairs[k]
            keys = [(p.key, f) for p, f in zip((a, b), self.moments.forms[k])]
            for key in keys:
                if key not in views:
                    views[key] = SiteView(self.moments.own[key])
            x, y = (views[key] for key in keys)
            assert sums is not None
            cross = CrossView(x, y, sums)
            for m, pair in wanted:
                found[m.name][pair] = _value(m, keys, x, y, cross, states[m.name])
        return found


class Given:
    """Values that are there, and can't be had under permutations.

    Args:
        values: See `Engine`.
        samples: Number of samples behind them.
    """

    def __init__(self, values: np.ndarray, samples: int) -> None:
        self._values, self.samples, self.rounding = values, samples, ROUGHLY

    def values(self) -> np.ndarray:
        """See `Engine`."""
        return self._values

    def permuted(self, drawn: SampleOrders) -> Iterator[np.ndarray]:
        """Not to be had."""
        raise TypeError("sums over samples can't be permuted")


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
        kept: dict[Key, Activations],
        pairs: Sequence[tuple],
        which: dict[Pair, int],
        shape: Pair,
    ) -> None:
        self.metric, self.which, self.shape, self.pairs = metric, which, shape, pairs
        self.rounding = ROUGHLY
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
        sums = SiteSums.empty(x.mean(0))
        x = x - sums.shift
        sums.update(x, x.square().sum(1))
        self.samples = kept.seen
        self.views[key] = SiteView(sums)
        self.rows[key] = x.reshape(kept.seen, -1, x.shape[1])  # a sample's positions together

    def values(self) -> np.ndarray:
        """See `Engine`."""
        return self._under(torch.arange(self.samples))

    def permuted(self, drawn: SampleOrders) -> Iterator[np.ndarray]:
        """See `Engine`."""
        return map(self._under, drawn.orders())

    def _under(self, order: Tensor) -> np.ndarray:
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


class SampleStates:
    """What metrics of all pairs of samples need of each place, made once for all of them.

    Args:
        asked: Metrics, and how activations become matrices for each.
        kept: Activations by place.
    """

    def __init__(self, asked: Sequence[tuple[Metric, str]], kept: dict[Key, Activations]) -> None:
        self.asked, self.kept = list(asked), kept
        self._made: dict[Key, dict[str, Any]] = {}

    def of(self, place: RowPlace, metric: Metric) -> Any:
        """The state of one place for one metric; None where it is 0 throughout."""
        if place.key not in self._made:
            views = {maps: _view(self.kept[place.key], maps) for _, maps in self.asked}
            self._made[place.key] = {
                m.name: None if views[maps] is None else m.site(views[maps])
                for m, maps in self.asked
            }
        return self._made[place.key][metric.name]


class AllPairs:
    """A metric that looks at all pairs of samples.

    Args:
        metric: The metric.
        states: Of all places.
        sides: Places of the two sides.
        pairs: What is asked for.
        samples: Number of samples.
    """

    def __init__(
        self,
        metric: Metric,
        states: SampleStates,
        sides: Sequence[Sequence[RowPlace]],
        pairs: Sequence[Pair],
        samples: int,
    ) -> None:
        self.metric, self.pairs, self.samples = metric, list(pairs), samples
        self.shape = tuple(map(len, sides))
        self.rounding = ROUGHLY if metric.inner is None else ROUNDING
        used = [sorted({pair[side] for pair in pairs}) for side in (0, 1)]
        self.x, self.y = (
            {i: states.of(places[i], metric) for i in mine} for places, mine in zip(sides, used)
        )

    def values(self) -> np.ndarray:
        """See `Engine`."""
        return self._of(self.y)

    def permuted(self, drawn: SampleOrders) -> Iterator[np.ndarray]:
        """See `Engine`."""
        if self.metric.inner is not None:
            return self._inner(drawn)
        moved = self.metric.moved
        assert moved is not None
        return (
            self._of({j: None if v is None else moved(v, order) for j, v in self.y.items()})
            for order in drawn.orders()
        )

    def _of(self, others: dict[int, Any]) -> np.ndarray:
        found = np.full(self.shape, math.nan)
        for i, j in self.pairs:
            if self.x[i] is not None and others[j] is not None:
                found[i, j] = self.metric.pair(self.x[i], others[j], None)
        return found

    def _inner(self, drawn: SampleOrders) -> Iterator[np.ndarray]:
        inner = self.metric.inner
        assert inner is not None
        sides = [{k: v for k, v in side.items() if v is not None} for side in (self.x, self.y)]
        mine, theirs = ([inner.matrix(v) for v in side.values()] for side in sides)
        if inner.ones:
            products = drawn.common(mine, theirs).numpy()
        else:
            mine, theirs = ([m.float() for m in side] for side in (mine, theirs))
            products = drawn.inner(mine, theirs, symmetric=inner.symmetric).numpy()
        found = np.full((drawn.count, *self.shape), math.nan)
        rows, columns = ({k: i for i, k in enumerate(side)} for side in sides)
        for i, j in self.pairs:
            if i in rows and j in columns:
                values = products[:, rows[i], columns[j]]
                found[:, i, j] = inner.value(values, self.x[i], self.y[j])
        return iter(found)


class Aligned:
    """CKA of any kernel, from the centred matrices of the samples."""

    def __init__(
        self,
        metric: Metric,
        kept: dict[Key, Activations],
        sides: Sequence[Sequence[RowPlace]],
        maps: str,
        pairs: Sequence[Pair],
    ) -> None:
        chosen = metric.facts["alignment"]
        self.mask = np.full(tuple(map(len, sides)), math.nan)
        for i, j in pairs:
            self.mask[i, j] = 0.0
        self.grams, self.rounding = [], ROUNDING
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
        return hsic.ratio(self.grams[0].inner(self.grams[1]), *self.own) + self.mask

    def permuted(self, drawn: SampleOrders) -> Iterator[np.ndarray]:
        """See `Engine`."""
        mine, theirs = (list(g.values) for g in self.grams)
        products = drawn.inner(mine, theirs, symmetric=True).numpy()
        return iter(hsic.ratio(products, *self.own) + self.mask)


class InBatches:
    """CKA of minibatches."""

    def __init__(self, watcher: Minibatch, pairs: Sequence[Pair], samples: int) -> None:
        self.watcher, self.samples, self.rounding = watcher, samples, ROUGHLY
        self.mask = np.full((len(watcher.a), len(watcher.b)), math.nan)
        for i, j in pairs:
            self.mask[i, j] = 0.0

    def values(self) -> np.ndarray:
        """See `Engine`."""
        return self.watcher.result() + self.mask

    def permuted(self, drawn: SampleOrders) -> Iterator[np.ndarray]:
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
        self.samples, self.rounding = len(x), ROUGHLY

    def values(self) -> np.ndarray:
        """See `Engine`: the last place of both sides."""
        return self._under(torch.arange(self.samples))

    def permuted(self, drawn: SampleOrders) -> Iterator[np.ndarray]:
        """See `Engine`."""
        return map(self._under, drawn.orders())

    def _under(self, order: Tensor) -> np.ndarray:
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
            size = x.hsic * y.hsic
            return cross.hsic() / math.sqrt(size) if size > 0 else math.nan
        size = float(x.centred.norm() * y.centred.norm())
        return float(cross.centred.square().sum()) / size
    for key, view in zip(keys, (x, y)):
        if key not in states:
            states[key] = metric.site(view)
    return metric.pair(states[keys[0]], states[keys[1]], cross)


def _view(kept: Activations, maps: str) -> SampleView | None:
    x = kept.result().double()
    x = x.mean(2) if maps == "mean" else x.flatten(1)
    return SampleView(x) if bool(x.any()) else None

"""Held-out values: second moments of each fold of the samples, fits on all folds but one."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from torch import Tensor

from isogon.errors import DataError
from isogon.measures.alignment.metrics.metric import Metric
from isogon.measures.alignment.moments import CrossSums, CrossView, SiteSums, SiteView
from isogon.measures.alignment.permutations import SampleOrders
from isogon.measures.alignment.watchers import PairMoments

if TYPE_CHECKING:
    from isogon.nets.watchers import Key


class Views(NamedTuple):
    """A pair of representations on some of the samples."""

    x: SiteView
    y: SiteView
    cross: CrossView


class FoldMoments:
    """Second moments of each fold: sample i belongs to fold ``i mod folds``.

    Args:
        parts: One empty `PairMoments` per fold, with the same shifts.
    """

    def __init__(self, parts: Sequence[PairMoments]) -> None:
        self.parts, self.sites = list(parts), parts[0].sites

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in a chunk."""
        fold = rows % len(self.parts)
        for k, part in enumerate(self.parts):
            mine = fold == k
            if bool(mine.any()):
                held: dict[Key, Tensor] = {
                    key: values[key][mine.to(values[key].device)] for key in self.sites
                }
                part.update(held, labels[mine.to(labels.device)], rows[mine])

    def again(self) -> bool:
        """One pass is enough."""
        return False

    def share(self) -> Self:
        """The same, empty."""
        return type(self)([p.share() for p in self.parts])

    def merge(self, other: Self) -> Self:
        """Add sums."""
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            mine.merge(theirs)
        return self

    def result(self) -> Self:
        """Itself."""
        return self


class Folded:
    """An engine: shares of variance that a fit on the other folds explains in each fold.

    Args:
        metric: A regression; ``facts["reverse"]`` says which side is explained.
        moments: What was gathered.
        which: Index among the pairs of ``moments`` by pair of places.
        shape: Numbers of places.
        samples: Number of samples.

    Raises:
        DataError: Fewer than 4 samples, or than folds.
    """

    rounding = 0.0

    def __init__(
        self,
        metric: Metric,
        moments: FoldMoments,
        which: dict[tuple[int, int], int],
        shape: tuple[int, int],
        samples: int,
    ) -> None:
        self.metric, self.moments, self.which = metric, moments, which
        self.shape, self.samples = shape, samples
        self._views: dict[tuple, SiteView] = {}
        if samples < max(4, len(moments.parts)):
            raise DataError(
                "too few samples to hold some out",
                got=f"{samples} samples, {len(moments.parts)} folds",
                expected="at least 4 samples, and one in each fold",
            )

    def values(self) -> np.ndarray:
        """``[sites of a, sites of b]``, NaN where nothing was asked for."""
        found = np.full(self.shape, math.nan)
        for (i, j), k in self.which.items():
            left = total = 0.0
            for fold in range(len(self.moments.parts)):
                train, test = (self._of(k, fold, held) for held in (False, True))
                if self.metric.facts["reverse"]:
                    train, test = _reversed(train), _reversed(test)
                if train.x.trivial or train.y.trivial:
                    total = 0.0
                    break
                errors, size = unexplained(train, test)
                left, total = left + errors, total + size
            found[i, j] = 1 - left / total if total > 0 else math.nan
        return found

    def permuted(self, drawn: SampleOrders) -> Iterator[np.ndarray]:
        """Not to be had of a stream."""
        raise TypeError("a stream of moments can't be permuted")

    def _of(self, pair: int, fold: int, held: bool) -> Views:
        """The pair on one fold, or on all others."""
        parts = [p for k, p in enumerate(self.moments.parts) if (k == fold) == held]
        first = parts[0]
        keys = [(p.key, f) for p, f in zip(first.pairs[pair], first.forms[pair], strict=True)]
        x, y = (self._site(key, fold, held, parts) for key in keys)
        sums = [p.cross[pair] for p in parts]
        return Views(x, y, CrossView(x, y, _added(sums)))  # type: ignore[arg-type]

    def _site(self, key: tuple, fold: int, held: bool, parts: Sequence[PairMoments]) -> SiteView:
        name = (key, fold, held)
        if name not in self._views:
            self._views[name] = SiteView(_added([p.own[key] for p in parts]))
        return self._views[name]


def unexplained(train: Views, test: Views) -> tuple[float, float]:
    """Squared errors of the best affine map from y to x on other samples, and their size.

    The size is that of the errors of the best constant, both fitted on ``train``. Where the
    channels of y are dependent there, the least map of the best ones is taken.
    """
    white = train.y.whiten()
    weights = white @ (white.T @ train.cross.centred.T)  # [q, p]
    x = test.x.mean - train.x.mean
    y = test.y.mean - train.y.mean
    n = test.x.count
    size = float(test.x.centred.trace() + n * (x @ x))
    between = test.cross.centred.T + n * y[:, None] * x
    own = test.y.centred + n * y[:, None] * y
    common = float((between * weights).sum())
    return size - 2 * common + float((weights * (own @ weights)).sum()), size


def _reversed(views: Views) -> Views:
    """The same with x and y in each other's place."""
    c = views.cross.sums
    turned = CrossSums(c.product.T, c.norms, c.by_x, c.by_y)
    return Views(views.y, views.x, CrossView(views.y, views.x, turned))


def _added(sums: Sequence[SiteSums] | Sequence[CrossSums]) -> Any:
    first = copy.deepcopy(sums[0])
    for other in sums[1:]:
        first.merge(other)  # type: ignore[arg-type]
    return first

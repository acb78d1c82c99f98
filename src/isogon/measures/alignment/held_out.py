"""Held-out regression of samples that were kept, under permutations of them.

For given regressors and folds what a regression leaves is linear in what it explains: ``M_f X`` in
fold f, with a matrix ``M_f`` that subtracts the mean of the other folds and what the map fitted
there says. So the squared errors of all folds are the inner product of ``X X^T`` with
``Q = sum M_f^T M_f``, those of the best constants one with ``R``, and permuting the samples of X
permutes one of two n x n matrices: the fits are made once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isogon.measures.alignment.metrics.metric import Metric
from isogon.measures.alignment.moments import SiteSums, SiteView
from isogon.measures.alignment.permutations import SampleOrders
from isogon.measures.alignment.products import gram
from isogon.measures.alignment.watchers import Activations, formed

ROUGHLY = 1e-9  # what the same value in another order of sums may differ by


class HeldOut:
    """An engine: values of held-out regression, and the same with the explained side permuted.

    Args:
        metric: A regression; ``facts`` has its folds and which side it explains.
        kept: Activations by place.
        pairs: Places, and their forms.
        which: Index among ``pairs`` by pair of places.
        shape: Numbers of places.
    """

    rounding = ROUGHLY

    def __init__(
        self,
        metric: Metric,
        kept: dict[Any, Activations],
        pairs: Sequence[tuple],
        which: dict[tuple[int, int], int],
        shape: tuple[int, int],
    ) -> None:
        self.which, self.shape, self.pairs = which, shape, pairs
        self.side = 1 if metric.facts["reverse"] else 0  # which is explained
        self.rows: dict[tuple, Tensor] = {}
        for *places, forms in pairs:
            for place, form in zip(places, forms, strict=True):
                key = (place.key, form)
                if key not in self.rows:
                    values = kept[place.key].values
                    assert values is not None
                    x = formed(values[: kept[place.key].seen], place, form).double()
                    x = x - x.mean(0)
                    self.rows[key] = x.reshape(kept[place.key].seen, -1, x.shape[1])
        self.samples = len(next(iter(self.rows.values())))
        self.fold = torch.arange(self.samples) % metric.facts["folds"]
        self._fits: dict[tuple, list[tuple[Tensor, Tensor]]] = {}
        self._matrices: dict[tuple, Tensor] = {}

    def values(self) -> np.ndarray:
        """``[sites of a, sites of b]``, NaN where nothing was asked for."""
        return self._under(torch.arange(self.samples))

    def permuted(self, drawn: SampleOrders) -> Iterator[np.ndarray]:
        """The same with the samples of the explained side in other orders."""
        if any(x.shape[1] > 1 for x in self.rows.values()):  # images are permuted, not positions
            yield from map(self._under, drawn.orders())
            return
        found = np.full((drawn.count, *self.shape), math.nan)
        constant = self._constant()
        for key in {self._keys(k)[0] for k in self.which.values()}:
            mine = {p: self._keys(k)[1] for p, k in self.which.items() if self._keys(k)[0] == key}
            mine = {p: regressors for p, regressors in mine.items() if self._sound(key, regressors)}
            others = list(dict.fromkeys(mine.values()))
            x = self.rows[key][:, 0]
            matrices = [constant, *map(self._errors, others)]
            products = drawn.inner(matrices, [gram(x)], symmetric=True)[..., 0].numpy()
            for pair, regressors in mine.items():
                left = products[:, 1 + others.index(regressors)]
                found[:, *pair] = 1 - left / products[:, 0]
        yield from found

    # ------------------------------------------------------------------ one order

    def _keys(self, k: int) -> tuple[tuple, tuple]:
        """The explained side and the regressors of a pair."""
        *places, forms = self.pairs[k]
        keys = [(p.key, f) for p, f in zip(places, forms, strict=True)]
        return keys[self.side], keys[1 - self.side]

    def _under(self, order: Tensor) -> np.ndarray:
        found = np.full(self.shape, math.nan)
        for pair, k in self.which.items():
            key, regressors = self._keys(k)
            if not self._sound(key, regressors):
                continue
            x, left, size = self.rows[key][order], 0.0, 0.0
            for f, (white, test) in enumerate(self._fitted(regressors)):
                train = x[self.fold != f].flatten(0, 1)
                mean = train.mean(0)
                rest = x[self.fold == f].flatten(0, 1) - mean
                size += float(rest.square().sum())
                left += float((rest - test @ (white.T @ (train - mean))).square().sum())
            found[pair] = 1 - left / size if size > 0 else math.nan
        return found

    def _sound(self, *keys: tuple) -> bool:
        """Whether neither side is constant on the folds that a map is fitted on."""
        return all(
            bool((self.rows[k][self.fold != f] != self.rows[k][self.fold != f][:1, :1]).any())
            for k in keys
            for f in range(int(self.fold.max()) + 1)
        )

    def _fitted(self, key: tuple) -> list[tuple[Tensor, Tensor]]:
        """For each fold W and T: ``T @ W^T (x - mean x)`` is what the map says there.

        W has orthonormal columns, which span those of the centred regressors of the other folds.
        """
        if key not in self._fits:
            found = []
            for f in range(int(self.fold.max()) + 1):
                y = self.rows[key][self.fold != f].flatten(0, 1)
                sums, mean = SiteSums.empty(y.mean(0)), y.mean(0)
                y = y - mean
                sums.update(y, y.square().sum(1))
                white = SiteView(sums).whiten()
                test = self.rows[key][self.fold == f].flatten(0, 1) - mean
                found.append((y @ white, test @ white))
            self._fits[key] = found
        return self._fits[key]

    # ------------------------------------------------------------------ all orders at once

    def _errors(self, key: tuple) -> Tensor:
        """Q of the regressors: the errors of X are ``sum (X X^T) Q``."""
        if key not in self._matrices:
            n = self.samples
            total = torch.zeros(n, n, dtype=torch.float64)
            for f, (white, test) in enumerate(self._fitted(key)):
                rest = self._rest(f)
                at = (self.fold != f).nonzero()[:, 0]
                rest[:, at] -= test @ (white - white.mean(0)).T
                total += rest.T @ rest
            self._matrices[key] = total
        return self._matrices[key]

    def _constant(self) -> Tensor:
        """R: the errors of the means of the other folds are ``sum (X X^T) R``."""
        parts = [self._rest(f) for f in range(int(self.fold.max()) + 1)]
        return torch.stack([p.T @ p for p in parts]).sum(0)

    def _rest(self, f: int) -> Tensor:
        """What takes samples to those of a fold less the mean of the others, ``[m, n]``."""
        mine = self.fold == f
        found = torch.eye(self.samples, dtype=torch.float64)[mine]
        found[:, ~mine] = -1.0 / int((~mine).sum())
        return found

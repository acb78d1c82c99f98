"""Order statistics of each unit: exact where they can be, else with a certified error."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Self

import torch

from isogon.errors import DataError, OptionError
from isogon.stats.base import check_shape
from isogon.stats.tails import Tail


class Quantiles:
    """Quantiles of a stream, unit by unit.

    Three ways, all mergeable:

    - ``total`` given (how many values each unit will see): exact. Only the tail that can still
      hold the quantile is kept, ``min(q, 1 - q) * total`` values per unit (`Tail`).
    - ``total`` unknown, at most ``keep`` values seen: exact, all are kept.
    - beyond: sorted buffers of ``keep`` values are thinned to every second one, which then
      counts twice (Munro and Paterson 1980). `error` bounds the rank's error, as a fraction
      of the stream: about ``log2(n / keep) / keep``.

    Args:
        q: The quantile, in [0, 1].
        total: Number of values per unit in the whole stream (all workers together).
        keep: Most values of one buffer, per unit.

    Example:
        >>> q = Quantiles(0.5).update(torch.tensor([[3.0], [1.0]])).update(torch.tensor([[2.0]]))
        >>> float(q.compute())
        2.0
    """

    def __init__(self, q: float, *, total: int | None = None, keep: int = 4096) -> None:
        if not 0 <= q <= 1:
            raise OptionError("quantile out of range", got=q, expected="0 <= q <= 1")
        if keep < 2 or (total is not None and total < 1):
            raise OptionError(
                "no room for values", got=f"keep={keep}, total={total}", expected="keep >= 2"
            )
        self.q, self.total, self.keep = float(q), total, int(keep)
        self.count = 0
        self.shape: tuple[int, ...] = ()
        self.levels: list[torch.Tensor | None] = []  # values [m, U] of weight 2^level
        self.tail: Tail | None = None  # of values on the CPU, where all of them are announced
        self.slack = 0  # bound of the error in rank
        self._turn = 0

    @property
    def error(self) -> float:
        """Bound of the error in rank, as a fraction of the values seen; 0 where exact."""
        return self.slack / self.count if self.count else 0.0

    def update(self, x: torch.Tensor) -> Self:
        """Take in values ``[N, *shape]``.

        Raises:
            DataError: More values than ``total``, another shape than before, or NaN.
        """
        if not len(x):
            return self
        if self.count:
            check_shape(x.shape[1:], self.shape, "x")
        self.shape = tuple(x.shape[1:])
        values = x.detach().reshape(len(x), -1)
        self.count += len(x)
        self._check_total()
        if self.total is not None and Tail.serves(x):
            values = values if values.dtype == torch.float64 else values.float()
            self._exact().update(values.numpy().T)
            return self
        values = values.double()
        if values.isnan().any():
            raise DataError("NaN has no rank", expected="numbers", fix="Check the model's weights.")
        step = len(x) if self.total is not None else self.keep
        for part in values.split(max(step, 1)):
            self._push(0, part)
        return self

    def merge(self, other: Self) -> Self:
        """Take in what another one has seen.

        Raises:
            DataError: Made for another quantile or stream.
        """
        mine, theirs = (self.q, self.total, self.keep), (other.q, other.total, other.keep)
        if mine != theirs:
            raise DataError("quantiles of different kinds", got=theirs, expected=mine)
        if not other.count:
            return self
        if self.count:
            check_shape(other.shape, self.shape, "x")
        self.shape = other.shape
        self.count += other.count
        self.slack += other.slack
        self._check_total()
        if other.tail is not None:
            self._exact().merge(other.tail)
        for level, values in enumerate(other.levels):
            if values is not None:
                self._push(level, values)
        return self

    def _push(self, level: int, values: torch.Tensor) -> None:
        while len(self.levels) <= level:
            self.levels.append(None)
        held = self.levels[level]
        values = values if held is None else torch.cat([held, values])
        if self.total is not None:
            self.levels[0] = self._kept(values)
            return
        if len(values) > self.keep:
            # an odd one stays behind; either half of the others stands for both
            even = len(values) - len(values) % 2
            ordered = values[:even].sort(0).values
            self.slack += 2**level
            self._turn ^= 1
            self.levels[level] = values[even:] if even < len(values) else None
            self._push(level + 1, ordered[self._turn :: 2])
        else:
            self.levels[level] = values

    def _check_total(self) -> None:
        if self.total is not None and self.count > self.total:
            raise DataError(
                "more values than announced",
                got=self.count,
                expected=f"total={self.total}",
                fix="Give the number of values of the whole stream.",
            )

    def _exact(self) -> Tail:
        """What keeps the tail that can hold the quantile."""
        if self.tail is None:
            self.tail = Tail(self._size(), largest=self.q >= 0.5)
        return self.tail

    def _size(self) -> int:
        """How many values that tail has."""
        total = self.total or 0
        low, high = _places(self.q, total)
        return total - low if self.q >= 0.5 else high + 1

    def _kept(self, values: torch.Tensor) -> torch.Tensor:
        """The same tail of values on a device."""
        size = self._size()
        if len(values) <= 2 * size:  # selecting costs; do it where there is something to drop
            return values
        return values.topk(size, 0, largest=self.q >= 0.5, sorted=False).values

    def _ordered(self) -> torch.Tensor:
        """What was kept of the whole stream, ascending ``[k, U]``."""
        if self.tail is not None:
            return torch.from_numpy(self.tail.ordered())
        values = self.levels[0]
        assert values is not None
        return values.sort(0).values

    def compute(self) -> torch.Tensor:
        """The quantile of each unit, ``[*shape]``, linear between order statistics.

        As ``numpy.quantile`` where exact. With ``total`` given, all of the stream must have
        been seen.

        Raises:
            DataError: Nothing, or less than was announced, has been seen.
        """
        self._check()
        low, high = _places(self.q, self.count)
        place = self.q * (self.count - 1) - low
        if self.total is not None:
            ordered = self._ordered()
            offset = self.count - len(ordered) if self.q >= 0.5 else 0
            a, b = ordered[low - offset], ordered[high - offset]
        else:
            a, b = self._ranked(low, high)
        # equal ends first: inf - inf has no value
        between = torch.where(a == b, a, a + (b - a) * place)
        return between.reshape(self.shape)

    def least(self) -> torch.Tensor:
        """The smallest value seen that at least a share q of the values don't exceed, ``[*shape]``.

        An order statistic, never between two values. ``q`` counts as the decimal fraction that is
        written, so that 0.9 of ten values are nine.

        Raises:
            DataError: As `compute`.
        """
        self._check()
        rank = max(0, math.ceil(Fraction(repr(self.q)) * self.count) - 1)
        if self.total is not None:
            ordered = self._ordered()
            offset = self.count - len(ordered) if self.q >= 0.5 else 0
            return ordered[rank - offset].reshape(self.shape)
        return self._ranked(rank)[0].reshape(self.shape)

    def _check(self) -> None:
        if not self.count or (self.total is not None and self.count != self.total):
            raise DataError(
                "values are missing", got=f"{self.count} values", expected=self.total or "some"
            )

    def _ranked(self, *ranks: int) -> list[torch.Tensor]:
        """The values ``[U]`` of some ranks (from 0) among thinned buffers."""
        kept = [(v, 2**level) for level, v in enumerate(self.levels) if v is not None]
        values = torch.cat([v for v, _ in kept])
        weight = torch.cat([v.new_full((len(v),), w, dtype=torch.int64) for v, w in kept])
        ordered, order = values.sort(0)
        places = weight[order].cumsum(0)  # number of values up to here
        return [
            ordered.gather(0, (places <= rank).sum(0, keepdim=True).clamp_max(len(ordered) - 1))[0]
            for rank in ranks
        ]

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that `load_state_dict` takes back."""
        names = ("q", "total", "keep", "count", "shape", "levels", "slack", "_turn", "tail")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> Self:
        """Become the statistic that gave the state."""
        for name, value in state.items():
            setattr(self, name, list(value) if name == "levels" else value)
        return self


def _places(q: float, count: int) -> tuple[int, int]:
    """The two order statistics (from 0) around the quantile."""
    place = q * (count - 1)
    return math.floor(place), math.ceil(place)

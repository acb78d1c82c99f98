"""Samples times treatments: the two-way layout of variance and analysis of variance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch

from isogon.errors import DataError
from isogon.stats.base import check_shape
from isogon.stats.sums import Sums, accumulate, left

PART = 4096  # units worked on at a time
SETTLED = 32  # samples after which sums are counted from their mean


@dataclass(frozen=True)
class TwoWay:
    """What `TwoWayMoments` knows of ``a[i, t, u]``: N samples, T treatments, units u.

    Attributes:
        samples: N.
        treatments: T.
        shift: What the column means are counted from, ``[*shape]``.
        column_mean: ``m_t - shift`` with ``m_t = mean_i a``, ``[T, *shape]``.
        column_m2: ``sum_i (a - m_t)^2``, ``[T, *shape]``.
        row_sd: Mean over samples of sd_t (unbiased), ``[*shape]``.
        row_variance: Mean over samples of variance_t (unbiased), ``[*shape]``.
        row_m2: ``sum_i (m_i - m)^2`` with ``m_i`` the row's mean, ``[*shape]``.
    """

    samples: int
    treatments: int
    shift: torch.Tensor
    column_mean: torch.Tensor
    column_m2: torch.Tensor
    row_sd: torch.Tensor
    row_variance: torch.Tensor
    row_m2: torch.Tensor

    @property
    def mean(self) -> torch.Tensor:
        """Grand mean, ``[*shape]``."""
        return self.shift + self.column_mean.mean(0)

    def within_rows(self, squared: bool = False) -> torch.Tensor:
        """Mean over samples of the sd (or variance) over treatments, ``[*shape]``."""
        return self.row_variance if squared else self.row_sd

    def within_columns(self, squared: bool = False) -> torch.Tensor:
        """Mean over treatments of the sd (or variance) over samples, ``[*shape]``."""
        if self.samples < 2:
            return torch.full_like(self.row_sd, torch.nan)
        if squared:
            return self._within / (self.samples - 1) / self.treatments
        return _by_units(lambda m2: (m2 / (self.samples - 1)).sqrt_().mean(0), self.column_m2)

    def ss_treatments(self) -> torch.Tensor:
        """``N sum_t (m_t - m)^2``, ``[*shape]``."""
        return self._between

    def ss_within(self) -> torch.Tensor:
        """``sum_t sum_i (a - m_t)^2``, ``[*shape]``."""
        return self._within

    @cached_property
    def _between(self) -> torch.Tensor:
        def spread(mean: torch.Tensor) -> torch.Tensor:
            apart = mean - mean[0]  # exactly 0 where all are the same
            return self.samples * (apart - apart.mean(0)).square_().sum(0)

        return _by_units(spread, self.column_mean)

    @cached_property
    def _within(self) -> torch.Tensor:
        return self.column_m2.sum(0)

    def ss_samples(self) -> torch.Tensor:
        """``T sum_i (m_i - m)^2`` with ``m_i`` the row's mean, ``[*shape]``."""
        return self.treatments * self.row_m2

    def f(self) -> tuple[torch.Tensor, int, int]:
        """One-way F over treatments, and its degrees of freedom.

        ``F = MSB / MSW`` with ``MSB = ss_treatments / (T - 1)`` and
        ``MSW = ss_within / (T (N - 1))``.
        """
        between, within = self.treatments - 1, self.treatments * (self.samples - 1)
        return self._ratio(self.ss_treatments(), between, self.ss_within(), within)

    def f_repeated(self) -> tuple[torch.Tensor, int, int]:
        """F of the repeated-measures design (samples are paired across treatments).

        ``F = MS_treatments / MS_error`` with
        ``SS_error = ss_within - ss_samples`` on ``(T - 1)(N - 1)`` degrees of freedom.
        """
        between, error = self.treatments - 1, (self.treatments - 1) * (self.samples - 1)
        rest = self.ss_within() - self.ss_samples()
        # what rounding leaves of a difference of equals is no variance
        rest = rest.where(rest > 1e-13 * self.ss_within(), torch.zeros_like(rest))
        return self._ratio(self.ss_treatments(), between, rest, error)

    @staticmethod
    def _ratio(top: torch.Tensor, i: int, bottom: torch.Tensor, j: int) -> tuple:
        nothing = torch.full_like(top, torch.nan)
        return ((top / i) / (bottom / j) if i > 0 and j > 0 else nothing), i, j


class TwoWayMoments:
    """Moments of ``a[i, t, u]`` along both axes in one pass, with memory flat in samples.

    Each row (a sample under all treatments) has to come as a whole, or in parts by
    ``update(x, start=...)`` before the next rows; rows may come in any order and grouping.
    Sums are of deviations from the first sample, later from the mean of the first few.

    Args:
        treatments: T.
    """

    def __init__(self, treatments: int) -> None:
        if treatments < 1:
            raise DataError("no treatments", got=treatments, expected="at least one")
        self.treatments = treatments
        self.count = 0
        self.sums: Sums | None = None
        self.shape: tuple[int, ...] = ()
        self._settled = False
        self._open: list[torch.Tensor] = []

    def update(self, x: torch.Tensor, *, start: int = 0) -> Self:
        """Take in values ``[n, k, *shape]`` of treatments ``start .. start + k - 1``.

        Raises:
            DataError: Parts of a row that come out of order or don't fit together.
        """
        width = sum(part.shape[1] for part in self._open)
        if start != width or x.shape[1] + start > self.treatments:
            raise DataError(
                "treatments of a row out of order",
                got=f"{x.shape[1]} from number {start}",
                expected=f"at most {self.treatments - width} from number {width}",
                fix="Give the treatments of the same samples one after another.",
            )
        if x.shape[1] < self.treatments:
            if self._open:
                before = self._open[0].shape
                check_shape(x.shape[:1] + x.shape[2:], before[:1] + before[2:], "x")
            self._open.append(x)
            if start + x.shape[1] < self.treatments:
                return self
            x, self._open = torch.cat(self._open, 1), []
        if not len(x):
            return self
        if self.sums is not None:
            check_shape(x.shape[2:], self.shape, "x")
        self.shape = tuple(x.shape[2:])
        a = x.transpose(0, 1).reshape(self.treatments, len(x), -1)
        if self.sums is None:
            self.sums = Sums.start(a)
        accumulate(a, self.sums)
        self.count += len(x)
        if self.count >= SETTLED and not self._settled:
            self.sums.center_on_means(self.count)
            self._settled = True
        return self

    def merge(self, other: Self) -> Self:
        """Take in what another one has seen.

        Raises:
            DataError: Another number of treatments, or a row that is not complete.
        """
        if other.treatments != self.treatments:
            raise DataError("different treatments", got=other.treatments, expected=self.treatments)
        self._closed()
        other._closed()
        if other.sums is None:
            return self
        if self.sums is None:
            self.sums, self.count, self.shape = other.sums.copy(), other.count, other.shape
            return self
        check_shape(other.shape, self.shape, "x")
        self.sums = self.sums.merged(self.count, other.sums, other.count)
        self.count += other.count
        return self

    def _closed(self) -> None:
        if self._open:
            raise DataError(
                "a row is not complete",
                got=f"{sum(p.shape[1] for p in self._open)} treatments",
                expected=self.treatments,
                fix="Give the remaining treatments first.",
            )

    def compute(self) -> TwoWay:
        """The layout's moments.

        Raises:
            DataError: Nothing has been seen, or a row is not complete.
        """
        self._closed()
        if self.sums is None:
            raise DataError("no samples were seen", expected="at least one batch")
        s, n = self.sums, self.count
        mean, m2 = torch.empty_like(s.first), torch.empty_like(s.first)
        for part in range(0, s.first.shape[1], PART):
            units = slice(part, part + PART)
            shift, first = s.shift[:, units].double(), s.first[:, units]
            torch.add(shift - shift[0], first, alpha=1 / n, out=mean[:, units])
            m2[:, units] = left(first, s.second[:, units], n)
        return TwoWay(
            n,
            self.treatments,
            s.shift[0].double().reshape(self.shape),
            mean.reshape(-1, *self.shape),
            m2.reshape(-1, *self.shape),
            (s.sd / n).reshape(self.shape),
            (s.variance / n).reshape(self.shape),
            left(s.row_first, s.row_second, n).reshape(self.shape),
        )

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that `load_state_dict` takes back."""
        self._closed()
        return {
            "treatments": self.treatments,
            "count": self.count,
            "shape": self.shape,
            "sums": None if self.sums is None else vars(self.sums),
        }

    def load_state_dict(self, state: dict[str, Any]) -> Self:
        """Become the statistic that gave the state."""
        self.treatments, self.count = int(state["treatments"]), int(state["count"])
        self.shape = tuple(state["shape"])
        self.sums = None if state["sums"] is None else Sums(**state["sums"])
        self._open, self._settled = [], self.count >= SETTLED
        return self


def _by_units(work: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """``[T, *shape] -> [*shape]``, a block of units at a time, so that all stays in cache."""
    parts = [work(part) for part in x.reshape(len(x), -1).split(PART, 1)]
    return torch.cat(parts).reshape(x.shape[1:]) if parts else x.new_empty(x.shape[1:])

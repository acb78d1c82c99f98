"""Mean and variance of each unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch

from isogon.stats.base import batch_moments, check_shape, merged_moments


@dataclass(frozen=True)
class Moment:
    """Mean and variance.

    Attributes:
        count: Number of values per unit.
        mean: Their mean, ``[*shape]``.
        variance: Unbiased variance (divisor ``count - 1``), ``[*shape]``; NaN for one value.
    """

    count: int
    mean: torch.Tensor
    variance: torch.Tensor

    @property
    def sd(self) -> torch.Tensor:
        """Standard deviation, ``[*shape]``."""
        return self.variance.sqrt()


class Moments:
    """Mean and variance of a stream, unit by unit.

    ``M2 = sum (x - mean)^2`` is kept in place of ``sum x^2``, and everything is counted from
    the first value seen, so that a large offset costs no digits (Chan et al. 1983).

    Example:
        >>> m = Moments().update(torch.tensor([1.0, 2.0])).update(torch.tensor([3.0, 4.0]))
        >>> float(m.compute().mean), float(m.compute().variance)
        (2.5, 1.6666666666666667)
    """

    def __init__(self) -> None:
        self.count = 0
        self.shift = torch.zeros(())
        self.mean = torch.zeros(())  # of x - shift
        self.m2 = torch.zeros(())

    def update(self, x: torch.Tensor) -> Self:
        """Take in values ``[N, *shape]``."""
        if not len(x):
            return self
        if self.count:
            check_shape(x.shape[1:], self.mean.shape, "x")
        else:
            self.shift = x[0].double()
        return self._add(len(x), *batch_moments(x.double() - self.shift))

    def merge(self, other: Self) -> Self:
        """Take in what another one has seen."""
        if not other.count:
            return self
        if self.count:
            check_shape(other.mean.shape, self.mean.shape, "x")
        else:
            self.shift = other.shift
        return self._add(other.count, other.mean + (other.shift - self.shift), other.m2)

    def _add(self, n: int, mean: torch.Tensor, m2: torch.Tensor) -> Self:
        self.count, self.mean, self.m2 = merged_moments(self.count, self.mean, self.m2, n, mean, m2)
        return self

    def compute(self) -> Moment:
        """Count, mean and unbiased variance."""
        spread = (
            self.m2 / (self.count - 1) if self.count > 1 else torch.full_like(self.m2, torch.nan)
        )
        return Moment(self.count, self.shift + self.mean, spread)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that `load_state_dict` takes back."""
        return {"count": self.count, "shift": self.shift, "mean": self.mean, "m2": self.m2}

    def load_state_dict(self, state: dict[str, Any]) -> Self:
        """Become the statistic that gave the state."""
        self.count, self.shift = int(state["count"]), state["shift"]
        self.mean, self.m2 = state["mean"], state["m2"]
        return self

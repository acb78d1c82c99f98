"""Second moments between two sets of channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch

from isogon.errors import DataError
from isogon.stats.base import check_shape


@dataclass(frozen=True)
class Cross:
    """Second moments of rows ``x [N, p]`` and ``y [N, q]``.

    Attributes:
        count: Number of rows.
        mean_x: ``[p]``.
        mean_y: ``[q]``.
        xx: Centred sum ``sum (x - mean_x)(x - mean_x)^T``, ``[p, p]``; None where not kept.
        xy: Centred sum ``sum (x - mean_x)(y - mean_y)^T``, ``[p, q]``.
        yy: Centred sum for y, ``[q, q]``; None where not kept.
    """

    count: int
    mean_x: torch.Tensor
    mean_y: torch.Tensor
    xx: torch.Tensor | None
    xy: torch.Tensor
    yy: torch.Tensor | None

    def raw_xy(self) -> torch.Tensor:
        """``X^T Y``, nothing subtracted, ``[p, q]``."""
        return self.xy + self.count * torch.outer(self.mean_x, self.mean_y)

    def raw_xx(self) -> torch.Tensor:
        """``X^T X``, nothing subtracted, ``[p, p]``."""
        return _kept(self.xx) + self.count * torch.outer(self.mean_x, self.mean_x)

    def raw_yy(self) -> torch.Tensor:
        """``Y^T Y``, nothing subtracted, ``[q, q]``."""
        return _kept(self.yy) + self.count * torch.outer(self.mean_y, self.mean_y)


class CrossMoments:
    """Means, ``X^T X``, ``X^T Y`` and ``Y^T Y`` of a stream of pairs of activations.

    Args:
        xx: Keep the moments of x with itself.
        yy: Keep the moments of y with itself.

    Example:
        >>> c = CrossMoments().update(torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [6.0]]))
        >>> float(c.compute().xy), float(c.compute().raw_xy())
        (4.0, 20.0)
    """

    def __init__(self, *, xx: bool = True, yy: bool = True) -> None:
        self.kept = (xx, True, yy)
        self.count = 0
        self.shifts: tuple[torch.Tensor, ...] = ()  # the first rows: an offset costs no digits
        self.means: tuple[torch.Tensor, ...] = ()  # of x - shift and y - shift
        self.sums: list[torch.Tensor | None] = [None, None, None]

    def update(self, x: torch.Tensor, y: torch.Tensor) -> Self:
        """Take in rows ``[N, p]`` and ``[N, q]``, or maps ``[N, C, ...]`` of one size.

        A position of a map counts as a row, its channels (axis 1) as columns.

        Raises:
            DataError: x and y have different numbers of rows, or other widths than before.
        """
        x, y = rows(x), rows(y)
        if len(x) != len(y):
            raise DataError(
                "x and y do not pair up",
                got=f"{len(x)} and {len(y)} rows",
                expected="one row of y for each of x",
                fix="Bring maps to one size first.",
            )
        if not len(x):
            return self
        x, y = x.double(), y.double()
        if not self.count:
            self.shifts = (x[0].clone(), y[0].clone())
        check_shape(x.shape[1:], self.shifts[0].shape, "x")
        check_shape(y.shape[1:], self.shifts[1].shape, "y")
        x, y = x - self.shifts[0], y - self.shifts[1]
        means = (x.mean(0), y.mean(0))
        x, y = x - means[0], y - means[1]
        pairs = ((x, x), (x, y), (y, y))
        return self._add(
            len(x), means, [a.T @ b if keep else None for keep, (a, b) in zip(self.kept, pairs)]
        )

    def merge(self, other: Self) -> Self:
        """Take in what another one has seen."""
        if not other.count:
            return self
        if not self.count:
            self.shifts = other.shifts
        for mine, theirs, name in zip(self.shifts, other.shifts, "xy"):
            check_shape(theirs.shape, mine.shape, name)
        means = tuple(
            m + (theirs - mine) for m, mine, theirs in zip(other.means, self.shifts, other.shifts)
        )
        return self._add(other.count, means, other.sums)

    def _add(self, n: int, means: tuple, sums: list[torch.Tensor | None]) -> Self:
        if not self.count:
            self.count, self.means, self.sums = n, tuple(means), list(sums)
            return self
        total = self.count + n
        dx, dy = (theirs - mine for mine, theirs in zip(self.means, means))
        weight = self.count * (n / total)
        for i, (a, b) in enumerate(((dx, dx), (dx, dy), (dy, dy))):
            mine, theirs = self.sums[i], sums[i]
            if mine is not None and theirs is not None:
                self.sums[i] = mine + theirs + weight * torch.outer(a, b)
        self.means = tuple(m + d * (n / total) for m, d in zip(self.means, (dx, dy)))
        self.count = total
        return self

    def compute(self) -> Cross:
        """The moments so far.

        Raises:
            DataError: Nothing has been seen.
        """
        if not self.count:
            raise DataError("no rows were seen", expected="at least one batch")
        xx, xy, yy = self.sums
        x, y = (s + m for s, m in zip(self.shifts, self.means))
        return Cross(self.count, x, y, xx, _kept(xy), yy)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that `load_state_dict` takes back."""
        return {
            "kept": self.kept,
            "count": self.count,
            "shifts": self.shifts,
            "means": self.means,
            "sums": self.sums,
        }

    def load_state_dict(self, state: dict[str, Any]) -> Self:
        """Become the statistic that gave the state."""
        self.kept, self.count = tuple(state["kept"]), int(state["count"])
        self.shifts, self.means = tuple(state["shifts"]), tuple(state["means"])
        self.sums = list(state["sums"])
        return self


def rows(x: torch.Tensor) -> torch.Tensor:
    """Activations ``[N, C, ...]`` as rows of channels ``[N * positions, C]``."""
    return x.movedim(1, -1).reshape(-1, x.shape[1]) if x.dim() > 2 else x


def _kept(moments: torch.Tensor | None) -> torch.Tensor:
    if moments is None:
        raise DataError("these moments were not kept", expected="CrossMoments(xx=True, yy=True)")
    return moments

"""Maps against moved maps: the simple distance, and the interpolation floor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from isogon.actions import Family
from isogon.measures.orbits.distances import Gaps, quotient
from isogon.stats import TwoWayMoments


class Moved:
    """The simple distance ``|a(T x) - T a(x)|``, and the variances of ``T^-1 T a(x)``.

    Args:
        shape: ``(C, h, w)`` of the maps.
        family: The transformations, identity first.
        measures: Which of ``simple`` and ``floor``.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        family: Family,
        measures: Sequence[str],
    ) -> None:
        self.shape, self.family = shape, family
        self.gaps: Gaps | None = None
        self.simple = "simple" in measures
        self.floor = TwoWayMoments(len(family)) if "floor" in measures else None

    def update(self, a: Tensor, x: Tensor) -> Self:
        """Take in maps ``[n, T, C, h, w]``, not moved back, of inputs ``[n, T, C, H, W]``."""
        size = x.shape[-2:]
        moved = self.family.act(a[:, 0], size)
        if self.simple:
            if self.gaps is None:
                self.gaps = Gaps(self.shape, a.device)
            self.gaps.update(a.transpose(0, 1), moved)
        if self.floor is not None:
            self.floor.update(self.family.undo(moved, size).transpose(0, 1))
        return self

    def merge(self, other: Self) -> Self:
        """Take in what another one has seen."""
        if self.gaps is None:
            self.gaps = other.gaps
        elif other.gaps is not None:
            self.gaps.merge(other.gaps)
        if self.floor is not None and other.floor is not None:
            self.floor.merge(other.floor)
        return self

    def compute(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Columns per unit, and per channel."""
        unit: dict[str, Tensor] = {}
        channel: dict[str, Tensor] = {}
        if self.gaps is not None:
            unit["simple_distance"], channel["simple_distance"] = self.gaps.compute()
        if self.floor is not None:
            layout = self.floor.compute()
            within, across = layout.within_rows(), layout.within_columns()
            unit["transformation_floor"] = within
            unit["sample_floor"] = across
            unit["normalized_floor"] = quotient(within, across)
        return unit, channel

    def columns(self, aggregate: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`compute`, with the distance once: of whole maps where rows are channels."""
        unit, channel = self.compute()
        if aggregate == "channel":
            unit.pop("simple_distance", None)
        else:
            channel.clear()
        return unit, channel

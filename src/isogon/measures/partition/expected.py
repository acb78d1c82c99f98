"""`Forecast`: what a partition of a slice is likely to be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from isogon import options
from isogon.errors import OptionError


class Sizes(Protocol):
    """Slices of other sizes around the same middle."""

    def scale(self, whole: Forecast, regions: float) -> float:
        """By what the slice is to be scaled so that it holds so many regions."""
        ...


@dataclass(frozen=True)
class Forecast:
    """What a partition of a slice is likely to be.

    Attributes:
        regions: Number of regions.
        boundary_length: Length of the decision boundary (one output: zero set), in slice
            coordinates.
        seconds: Time that cutting takes, one thread; NaN where no part was cut to see.
        memory: Bytes of the finished partition and of what its cutting holds at a time.
        spread: Standard error of `regions`, relative: how far chords and windows scatter, and how
            far the two are apart.
        density: Breakpoints per unit of length on random lines.
        area: Of the slice, in slice coordinates.
        perimeter: Likewise.
        chords: How many lines were looked at.
        most: Regions that fit in the memory which is free now.
        crossings: Breakpoints on the border; NaN where nobody looked there.
        windows: Parts of the slice whose regions were counted.
    """

    regions: float
    boundary_length: float
    seconds: float
    memory: float
    spread: float
    density: float
    area: float
    perimeter: float
    chords: int
    most: int
    crossings: float = math.nan
    windows: int = 0
    smaller: Sizes | None = field(default=None, repr=False, compare=False)

    @property
    def radius(self) -> float:
        """Half the side of a square of the slice's area."""
        return math.sqrt(self.area) / 2

    def radius_for(self, regions: float) -> float:
        """The radius of a slice with so many regions, with this one's shape and middle.

        For a square that is half its side, as in `Slice.anchors`. Slices of other sizes are
        forecast in turn until one holds so many, since regions crowd in the middle: their density
        on this slice says little of a much smaller one. Up to some thousand regions such a slice
        is cut and they are counted. Infinite where a larger slice has no more regions; where all
        meet in one point, no radius holds few, and a small one is returned.

        Raises:
            OptionError: Fewer than one region.
        """
        regions = options.number("regions", regions)
        if not regions >= 1:
            raise OptionError("no slice has so few regions", got=regions, expected=">= 1")
        if self.smaller is None:
            return self.scale_for(regions) * self.radius
        return self.smaller.scale(self, regions) * self.radius

    def scale_for(self, regions: float) -> float:
        """By what the slice is to be scaled, if regions are as dense everywhere as on it."""
        if math.isnan(self.crossings):
            a = math.pi / 4 * self.density**2 * self.area
            b = self.density * self.perimeter / 2
        else:
            b = self.crossings / 2
            a = max(0.0, self.regions - 1 - b)
        c = 1.0 - regions
        if a + b == 0:
            return math.inf
        # the root of a s^2 + b s + c, written so that a may be 0
        return -2 * c / (b + math.sqrt(b * b - 4 * a * c))

    def __repr__(self) -> str:
        fits = f"memory holds about {self.most:,}"
        if self.regions > self.most:
            fits += f": a radius of {self.radius_for(self.most):.3g} would fit"
        took = "" if math.isnan(self.seconds) else f", about {self.seconds:.2g} s"
        return (
            f"Forecast: about {self.regions:,.0f} regions (standard error "
            f"{100 * self.spread:.0f} %) at radius {self.radius:.3g}, boundary length "
            f"{self.boundary_length:.3g}{took}, {self.memory / 2**20:,.0f} MB; {fits}; from "
            f"{self.chords} chords" + (f" and {self.windows} windows" if self.windows else "")
        )

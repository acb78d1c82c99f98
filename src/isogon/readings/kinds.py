"""What a row of a reading's table is."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from isogon.readings.columns import quantities
from isogon.readings.reading import Reading


class SiteTable(Reading):
    """One row per unit (or channel, or site) of a network."""

    row = "unit"
    places: ClassVar[tuple[str, ...]] = ("unit", "channel", "row", "column", "stage", "block")

    def summary(self) -> pd.DataFrame:
        """Per site: number of rows, and the mean of every number over its finite values."""
        if "summary" in self.meta or "site" not in self.table or self.table.empty:
            return super().summary()
        numbers = self.table[quantities(self.table)].astype(float)
        finite = numbers.where(np.isfinite(numbers))
        groups = finite.groupby(self.table["site"], sort=False)
        counts = self.table.groupby("site", sort=False).size().rename("units")
        return pd.concat([counts, groups.mean()], axis=1).reset_index()


class SampleTable(Reading):
    """One row per sample."""

    row = "sample"


class Curve(Reading):
    """One row per point of one or more curves."""

    row = "point"


class Path(Reading):
    """One row per step of one or more walks; frames, where kept, are an array."""

    row = "step"


class Share(Reading):
    """What a share of the data has given so far: a row per pass, its state in arrays and meta."""

    row = "pass"


class Grid(Reading):
    """One row per cell of a grid, e.g. per pair of sites; the grid itself is an array."""

    row = "cell"

    @classmethod
    def of(
        cls,
        measure: str,
        values: np.ndarray | Mapping[str, np.ndarray],
        axes: Mapping[str, Sequence],
        name: str = "similarity",
        **kwargs: Any,
    ) -> Self:
        """A grid from an array and the labels along its axes.

        Args:
            measure: Registered name of the measure.
            values: Array ``[len(labels) for each axis]``, or several of them by name.
            axes: Labels by axis, in the array's order.
            name: Name of the array, where there is one.
            **kwargs: Further fields of the reading.

        Returns:
            The grid; its table has a column per axis and per array, one row per cell.
        """
        many = dict(values) if isinstance(values, Mapping) else {name: values}
        arrays = {key: np.asarray(a) for key, a in many.items()}
        labels = {axis: list(v) for axis, v in axes.items()}
        cells = list(itertools.product(*labels.values()))
        columns: dict[str, Any] = {
            axis: [cell[i] for cell in cells] for i, axis in enumerate(labels)
        }
        grid = {"axes": {key: tuple(labels) for key in arrays}, "coords": labels}
        reading = cls(measure, arrays=arrays, **{**grid, **kwargs})
        columns |= {key: a.reshape(-1) for key, a in arrays.items()}
        reading.table = pd.DataFrame(columns)
        return reading

    def summary(self) -> pd.DataFrame:
        """The grid as people read it: first axis down, second across (two axes, one array)."""
        if "summary" not in self.meta and len(self.arrays) == 1:
            (name, array), *_ = self.arrays.items()
            axes = self.axes.get(name, ())
            if len(axes) == 2 and all(a in self.coords for a in axes) and array.size <= 10_000:
                down, across = (list(map(str, self.coords[a])) for a in axes)
                frame = pd.DataFrame(array, columns=across)
                frame.insert(0, axes[0], down, allow_duplicates=True)
                return frame
        return super().summary()

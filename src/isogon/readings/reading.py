"""The base of all readings."""

from __future__ import annotations

import json
import os
import pathlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from isogon import context, registry, storage
from isogon.errors import OptionError
from isogon.readings.columns import quantities
from isogon.readings.files import save

EMPTY = pd.DataFrame()  # made once: to make one takes longer than to copy it


@dataclass(eq=False, repr=False)
class Reading:
    """The result of a measure.

    Attributes:
        measure: Registered name of the measure.
        table: Tidy table, one row per site and unit, sample, step or pair.
        arrays: Further numbers, by name.
        axes: Named axes of each array, e.g. ``{"frames": ("step", "channel", "row", "column")}``.
        coords: Labels along a named axis, e.g. ``{"step": [0, 1, 2]}``.
        units: Unit of a column or an array, where it has one.
        meta: Facts in JSON's types: options, counts, captions, notes.
        complete: False where the measure stopped before its end.
    """

    measure: str
    table: pd.DataFrame = field(default_factory=lambda: EMPTY.copy())
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    coords: dict[str, list] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    complete: bool = True

    row: ClassVar[str] = "row"  # what one row of the table is

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        registry.register("reading", cls.__name__)(cls)

    def __post_init__(self) -> None:
        self.arrays = {name: np.asarray(a) for name, a in self.arrays.items()}
        self.axes = {name: tuple(map(str, axes)) for name, axes in self.axes.items()}
        self.coords = {axis: storage.plain(list(labels)) for axis, labels in self.coords.items()}
        self.meta = storage.plain(self.meta)
        if not context.checked():  # measured on a model that was not examined first
            self.meta["check"] = False
        for name, axes in self.axes.items():
            self._check_axes(name, axes)

    def _check_axes(self, name: str, axes: tuple[str, ...]) -> None:
        if name not in self.arrays:
            raise OptionError(
                f"axes of {name!r}, which is no array", got=axes, expected=sorted(self.arrays)
            )
        shape = self.arrays[name].shape
        wrong = len(axes) != len(shape) or any(
            axis in self.coords and len(self.coords[axis]) != size
            for axis, size in zip(axes, shape)
        )
        if wrong:
            lengths = {a: len(self.coords[a]) for a in axes if a in self.coords}
            raise OptionError(
                f"array {name!r} does not fit its axes",
                got=f"shape {shape}",
                expected=f"axes {axes} with labels {lengths}",
            )

    def to_frame(self) -> pd.DataFrame:
        """The tidy table (a copy)."""
        return self.table.copy()

    def summary(self) -> pd.DataFrame:
        """A short table for people: the one the measure gave, else count, mean and range."""
        if isinstance(given := self.meta.get("summary"), dict):
            return pd.DataFrame(given)
        numbers = self.table[quantities(self.table)].astype(float)
        if numbers.empty:
            return self.table.head(20).copy()
        finite = numbers.where(np.isfinite(numbers))
        return pd.DataFrame(
            {
                "column": list(map(str, numbers.columns)),
                "count": finite.count().to_numpy(),
                "mean": finite.mean().to_numpy(),
                "min": numbers.min().to_numpy(),
                "max": numbers.max().to_numpy(),
            }
        )

    def save(self, directory: str | os.PathLike) -> pathlib.Path:
        """Write the reading to a folder, as a whole.

        A manifest ``reading.json`` names a Parquet table and a safetensors file by their
        content; it is replaced last, in one step, so that the folder holds the old reading
        or the new one at every moment. Other files in the folder are left alone.

        Args:
            directory: The folder; made where it is missing.

        Returns:
            The folder.

        Raises:
            FileError: The folder can't be written.
        """
        return save(self, directory)

    def to_html(self, path: str | os.PathLike, **options: Any) -> pathlib.Path:
        """Write a page of the reading: one file that opens offline, with everything inside.

        Args:
            path: Of the file.
            **options: Of the page, e.g. ``title`` and the classes' ``names``.

        Returns:
            The path.

        Raises:
            OptionError: Readings of this measure have no page.
            FileError: The file can't be written.
        """
        if not registry.has("page", self.measure):
            raise OptionError(
                f"{self.measure} has no page of its own",
                expected=f"a reading of {', '.join(registry.names('page'))}",
                fix="isogon.draw draws its figure.",
            )
        text = registry.get("page", self.measure).build(self, **options)
        with storage.atomic(path) as temporary:
            temporary.write_text(text, "utf-8")
        return pathlib.Path(path)

    def equals(self, other: object) -> bool:
        """Whether the other reading holds the same, bit by bit (NaN equals NaN).

        Columns that a clock gave, which ``meta["clock"]`` names, are left out.
        """
        if type(other) is not type(self) or not isinstance(other, Reading):
            return False
        facts = ("measure", "axes", "units", "complete")
        same = all(getattr(self, f) == getattr(other, f) for f in facts)
        for mine, theirs in ((self.coords, other.coords), (self.meta, other.meta)):
            same = same and json.dumps(mine, sort_keys=True) == json.dumps(theirs, sort_keys=True)
        same = same and self.arrays.keys() == other.arrays.keys()
        clock = self.meta.get("clock")
        named = [c for c in clock if isinstance(c, str)] if isinstance(clock, list) else []
        mine, theirs = (t.drop(columns=named, errors="ignore") for t in (self.table, other.table))
        return (
            same
            and mine.equals(theirs)
            and all(
                a.dtype == other.arrays[k].dtype
                and a.shape == other.arrays[k].shape
                and a.tobytes() == other.arrays[k].tobytes()
                for k, a in self.arrays.items()
            )
        )

    def findings(self) -> list:
        """What the reading says, as sentences with their numbers; see `isogon.findings`."""
        return registry.get("embeds", "findings").build(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: findings, figure, summary."""
        return registry.get("embeds", "Reading").build(self)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        rows = f"{len(self.table)} {self.row}{'' if len(self.table) == 1 else 's'}"
        lines = [f"{type(self).__name__} of {self.measure}: {rows}"]
        if not self.complete:
            lines[0] += " (incomplete)"
        for name, array in self.arrays.items():
            axes = self.axes.get(name)
            sizes = [f"{a} {n}" for a, n in zip(axes, array.shape)] if axes else array.shape
            lines.append(f"  {name} [{', '.join(map(str, sizes))}] {array.dtype}")
        if len(self.table.columns):
            lines.append(self.table.head(5).to_string(index=False, max_cols=10, max_colwidth=24))
            if len(self.table) > 5:
                lines.append("  ...")
        return "\n".join(lines)


registry.register("reading", "Reading")(Reading)

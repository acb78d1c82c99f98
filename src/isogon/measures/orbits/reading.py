"""From statistics per unit to a table: options, rows, and their summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from isogon.errors import OptionError
from isogon.measures.orbits.distances import quotient
from isogon.measures.orbits.statistics import Threshold
from isogon.nets.sites import Site
from isogon.readings import SiteTable

Aggregate = Literal["unit", "channel", "site"]
Pooling = Literal["activations", "moments", "scores"]
Reduce = Literal["mean", "max", "sum"]


@dataclass(frozen=True)
class OrbitOptions:
    """Which statistics, and how they are put together; see `isogon.invariance`."""

    measures: tuple[str, ...] = ("variance",)
    aggregate: Aggregate = "unit"
    pooling: Pooling = "moments"
    reduce: Reduce = "mean"
    by_class: bool = False
    bootstrap: int = 0
    threshold: Threshold = "normal"
    seed: int = 0
    stability: bool = False

    def check(self, known: Sequence[str]) -> None:
        """Refuse what does not exist or does not go together."""
        for name in self.measures:
            if name not in known:
                raise OptionError(
                    "unknown statistic", got=repr(name), expected=f"some of: {', '.join(known)}"
                )
        if not self.measures:
            raise OptionError("nothing to measure", expected=f"some of: {', '.join(known)}")
        if self.bootstrap < 0:
            raise OptionError("negative bootstrap", got=self.bootstrap, expected="0 or more")


class OrbitTable(SiteTable):
    """Statistics per unit; `summary` gives the mean per site."""

    places: ClassVar[tuple[str, ...]] = (*SiteTable.places, "label")

    def summary(self) -> pd.DataFrame:
        """Per site (and class): units, live units, and the mean of each column.

        Means are over finite values: of quotients, 0/0 counts as 1 and infinities are left
        out. ``live_*`` beside a normalised column is its mean over the units that vary across
        samples at all.
        """
        keys = ["site", *(["class"] if "class" in self.table else [])]
        rows = []
        for key, group in self.table.groupby(keys, sort=False, dropna=False):
            row: dict[str, Any] = dict(zip(keys, key if isinstance(key, tuple) else (key,)))
            row["units"] = len(group)
            for name in self._columns():
                values = group[name].to_numpy(float)
                row[name] = finite_mean(values)
                across = name.replace("normalized_", "sample_")
                if name.startswith("normalized_") and across in group:
                    row[f"live_{name}"] = finite_mean(values[group[across].to_numpy(float) > 0])
            rows.append(row)
        return pd.DataFrame(rows)

    def _columns(self) -> list[str]:
        numbers = self.table.select_dtypes("number").columns
        return [c for c in numbers if c not in self.places and c != "class"]


def rows_of(
    site: Site,
    label: int | float | None,
    names: Sequence[str] | None,
    columns: dict[str, Tensor],
    places: dict[str, np.ndarray],
) -> pd.DataFrame:
    """The rows of one site (and class).

    Args:
        site: The site.
        label: Of the class; None where there are none.
        names: Names of the classes, by label.
        columns: Values per row; one of no name says how many rows there are.
        places: Where each row's unit is.
    """
    count = next(iter(columns.values())).numel()
    frame: dict[str, Any] = {"site": text(site, count)}
    if label is not None:
        named = names is not None and isinstance(label, int) and 0 <= label < len(names)
        frame["class"] = text(names[int(label)] if named and names else label, count)
    frame |= places
    for name, values in columns.items():
        if name:
            frame[name] = values.cpu().double().numpy().reshape(-1)
    return pd.DataFrame(frame)


def text(value: Any, count: int) -> Any:
    """A column of one text."""
    return pd.Series([str(value)]).array.repeat(count)


def aggregated(columns: dict[str, Tensor], options: OrbitOptions) -> dict[str, Tensor]:
    """Columns per unit put together per channel or site."""
    if options.aggregate == "unit":
        return columns
    found = {}
    for name, values in columns.items():
        axes = tuple(range(values.dim()))
        if options.aggregate == "channel":  # maps [C, h, w], tokens [L, C], vectors [C]
            axes = axes[:-1] if values.dim() == 2 else axes[1:]
        found[name] = _finite(values, axes, options.reduce)
    if options.pooling == "scores":
        return found
    for name in found:
        if name.startswith("normalized_"):
            kind = name.removeprefix("normalized_")
            found[name] = quotient(found[f"transformation_{kind}"], found[f"sample_{kind}"])
    return found


def _finite(values: Tensor, axes: tuple[int, ...], reduce: Reduce) -> Tensor:
    """Mean, maximum or sum over the finite values along axes; NaN where there are none."""
    if not axes:
        return values
    good = values.isfinite()
    count = good.sum(axes)
    if reduce == "max":
        top = torch.where(good, values, -torch.inf).amax(axes)
        return torch.where(count > 0, top, torch.nan)
    total = torch.where(good, values, 0.0).sum(axes)
    return torch.where(count > 0, total if reduce == "sum" else total / count, torch.nan)


def finite_mean(values: np.ndarray) -> float:
    """Mean of the finite values; NaN where there are none."""
    good = values[np.isfinite(values)]
    return float(good.mean()) if len(good) else float("nan")

"""From orbits to a table: what invariance and equivariance have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from isogon import context
from isogon.actions.distances import PairDistances, quotient
from isogon.actions.family import Family
from isogon.actions.orbits import Orbit, orbits, prepare
from isogon.actions.scores import (
    BlockMoments,
    Firing,
    Threshold,
    anova_columns,
    thresholds,
    variance_columns,
)
from isogon.errors import DataError, OptionError
from isogon.nets.sites import Site
from isogon.readings import SiteTable
from isogon.stats import Quantiles

Aggregate = Literal["unit", "channel", "site"]
Pooling = Literal["activations", "moments", "scores"]
Reduce = Literal["mean", "max", "sum"]
Change = Callable[[Site, Tensor, Orbit], Tensor]

BLOCKS = 32  # of samples, for the bootstrap


@dataclass(frozen=True)
class Plan:
    """What is measured, and how it is put together; see `isogon.invariance`."""

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
                row[name] = _finite_mean(values)
                across = name.replace("normalized_", "sample_")
                if name.startswith("normalized_") and across in group:
                    row[f"live_{name}"] = _finite_mean(values[group[across].to_numpy(float) > 0])
            rows.append(row)
        return pd.DataFrame(rows)

    def _columns(self) -> list[str]:
        numbers = self.table.select_dtypes("number").columns
        return [c for c in numbers if c not in self.places and c != "class"]


def measure_orbits(
    name: str,
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    family: Family,
    sites: str | Sequence[Site],
    plan: Plan,
    *,
    change: Change | None = None,
    applies: Callable[[Site], bool] = lambda site: True,
    extra: Callable[[Site], Any] | None = None,
) -> OrbitTable:
    """Statistics of activations along orbits.

    Args:
        name: Registered name of the measure.
        model: Any module.
        batches: Re-iterable pairs of inputs and labels.
        family: T transformations.
        sites: Sites or a selector.
        plan: What to measure.
        change: What is done to the activations ``[T, n, *shape]`` of a site first.
        applies: Whether a site can be measured.
        extra: Makes a further statistic of a site, with ``update(values, changed, orbit)`` and
            ``columns(aggregate)``.

    Returns:
        The table.
    """
    found = prepare(model, batches, family, sites)
    chosen = [s for s in found if applies(s)]
    work = [_SiteWork(site, plan, len(family), extra) for site in chosen]
    by_site = dict(zip(chosen, work))
    total = getattr(batches, "count", None)
    curve: dict[int, list[float]] = {}
    passes = 2 if "goodfellow" in plan.measures else 1
    for k in range(passes):
        seen = 0

        def receive(site: Site, values: Tensor, orbit: Orbit, k: int = k) -> None:
            changed = values if change is None else change(site, values, orbit)
            by_site[site].update(k, changed, values, orbit)

        for orbit in orbits(model, batches, family, chosen, receive=receive) if chosen else ():
            before, seen = seen, seen + len(orbit.x)
            if plan.stability and k == 0 and seen.bit_length() > before.bit_length() > 1:
                curve[seen] = [item.so_far() for item in work]
            context.progress()(k * (total or 0) + seen, total and total * passes, name)
        for item in work:
            item.close(k, seen)
    strata = sorted({label for item in work for label in item.strata}, key=str)
    names = getattr(batches, "classes", None)
    tables = [item.table(label, names) for item in work for label in strata if label in item.strata]
    left_out = [str(s) for s in found if s not in chosen]
    meta = {
        **asdict(plan),
        "family": family.facts(),
        "sites": [str(s) for s in chosen],
        "shapes": {str(s): list(s.shape) for s in chosen},
        "samples": work[0].seen if work else 0,
        "transformations": len(family),
        "not_applicable": left_out,
    }
    table = (
        pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"site": [], "unit": []})
    )
    reading = OrbitTable(name, table, meta=meta)
    if plan.stability and work:
        curve[work[0].seen] = [item.so_far() for item in work]
        reading.arrays["stability"] = np.array(list(curve.values())).T
        reading.axes["stability"] = ("site", "samples")
        reading.coords = {"site": [str(s) for s in chosen], "samples": list(curve)}
    return reading


class _Stratum:
    """Everything that is kept of one site for one class of samples (or for all)."""

    def __init__(self, plan: Plan, treatments: int, maps: bool) -> None:
        self.layout = BlockMoments(treatments, BLOCKS if plan.bootstrap else 0)
        wholes = maps and plan.aggregate == "channel" and plan.pooling != "activations"
        wanted = "distance" in plan.measures
        self.distances = PairDistances(channels=wholes) if wanted else None
        ordered = "goodfellow" in plan.measures and plan.threshold == "quantile"
        self.first: list[Tensor] | None = [] if ordered else None
        self.firing: Firing | None = None

    def update(self, a: Tensor) -> None:
        self.layout.update(a)
        if self.distances is not None:
            self.distances.update(a)
        if self.first is not None:
            self.first.append(a[0].clone())


class _SiteWork:
    """The statistics of one site, by class of samples."""

    def __init__(self, site: Site, plan: Plan, treatments: int, extra: Any) -> None:
        self.site, self.plan, self.treatments = site, plan, treatments
        self.strata: dict[Any, _Stratum] = {}
        self._make_extra = extra
        self._extras: dict[Any, Any] = {}
        self.shape: tuple[int, ...] = ()
        self.seen = 0

    def update(self, k: int, changed: Tensor, values: Tensor, orbit: Orbit) -> None:
        """Take in ``[T, n, *shape]`` in pass k."""
        a = self._pooled(changed)
        self.shape = tuple(a.shape[2:])
        for label, rows in self._split(orbit.labels):
            part = a if rows is None else a[:, rows]
            if k == 1:
                firing = self.strata[label].firing
                if firing is not None:
                    firing.update(part)
                continue
            if label not in self.strata:
                self.strata[label] = _Stratum(self.plan, self.treatments, len(self.shape) == 3)
                if self._make_extra is not None:
                    self._extras[label] = self._make_extra(self.site)
            self.strata[label].update(part)
            if label in self._extras:
                self._extras[label].update(values, changed, orbit, rows)

    def close(self, k: int, seen: int) -> None:
        """After pass k: thresholds for the next one."""
        self.seen = seen
        if k or "goodfellow" not in self.plan.measures:
            return
        for label, stratum in self.strata.items():
            layout = stratum.layout.compute()
            _enough(layout.samples, label)
            order = None
            if stratum.first is not None:
                order = Quantiles(0.99, total=layout.samples)
                for part in stratum.first:
                    order.update(part)
                stratum.first = []
            stratum.firing = Firing(*thresholds(layout, order))

    def so_far(self) -> float:
        """Mean normalised variance of the samples seen, over all strata."""
        means = []
        for stratum in self.strata.values():
            layout = stratum.layout.compute()
            values = variance_columns(layout)["normalized_variance"].cpu().numpy()
            means.append(_finite_mean(values) if layout.samples > 1 else np.nan)
        return float(np.nanmean(means)) if np.isfinite(means).any() else float("nan")

    def table(self, label: Any, names: Sequence[str] | None) -> pd.DataFrame:
        """Rows of this site and class."""
        stratum, plan = self.strata[label], self.plan
        layout = stratum.layout.compute()
        _enough(layout.samples, label)
        columns: dict[str, Tensor] = {}
        if "variance" in plan.measures:
            columns |= variance_columns(layout)
        if "squared" in plan.measures:
            columns |= variance_columns(layout, squared=True)
        if "anova" in plan.measures:
            columns |= anova_columns(layout)
        channels: dict[str, Tensor] = {}
        if stratum.distances is not None:
            (channels if stratum.distances.channels else columns).update(
                stratum.distances.columns()
            )
        if stratum.firing is not None:
            columns |= stratum.firing.columns()
        if label in self._extras:
            unit, channel = self._extras[label].columns(plan.aggregate)
            columns |= unit
            channels |= channel
        found = _aggregated(columns, plan) | channels
        if plan.bootstrap:
            found |= self._intervals(stratum)
        if not found:  # columns that are added to the table later
            found = {"": next(iter(_aggregated(variance_columns(layout), plan).values()))}
        count = next(iter(found.values())).numel()
        frame: dict[str, Any] = {"site": _text(self.site, count)}
        if plan.by_class:
            named = names is not None and isinstance(label, int) and 0 <= label < len(names)
            frame["class"] = _text(names[label] if named and names else label, count)
        frame |= self._places(count)
        found.pop("", None)
        for name, values in found.items():
            frame[name] = values.cpu().double().numpy().reshape(-1)
        return pd.DataFrame(frame)

    def _intervals(self, stratum: _Stratum) -> dict[str, Tensor]:
        """Percentile intervals (2.5 %, 97.5 %) of the variance columns over samples."""
        generator = torch.Generator().manual_seed(self.plan.seed)
        kept: dict[str, list[Tensor]] = {}
        for layout in stratum.layout.replicates(self.plan.bootstrap, generator):
            for name, values in _aggregated(variance_columns(layout), self.plan).items():
                kept.setdefault(name, []).append(values.reshape(-1))
        ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
        found = {}
        for name, values in kept.items():
            stacked = torch.stack(values).cpu()
            finite = torch.where(stacked.isfinite(), stacked, torch.nan)
            low, high = finite.nanquantile(ends, 0)
            found |= {f"{name}_low": low, f"{name}_high": high}
        return found

    def _pooled(self, a: Tensor) -> Tensor:
        if self.plan.pooling != "activations" or a.dim() < 4:
            return a
        if self.plan.aggregate == "unit":
            return a
        axes = tuple(range(3, a.dim())) if a.dim() != 4 else (2,)
        return _REDUCE[self.plan.reduce](a, axes)

    def _split(self, labels: Tensor) -> list[tuple[Any, Tensor | None]]:
        if not self.plan.by_class:
            return [("all", None)]
        return [
            (int(v) if float(v).is_integer() else float(v), (labels == v).nonzero()[:, 0])
            for v in labels.unique()
        ]

    def _places(self, count: int) -> dict[str, np.ndarray]:
        places = {"unit": np.arange(count)}
        if self.plan.aggregate == "unit" and len(self.shape) == 3:
            grid = np.indices(self.shape).reshape(3, -1)
            places |= dict(zip(("channel", "row", "column"), grid))
        elif self.plan.aggregate == "channel":
            places["channel"] = np.arange(count)
        return places


def _text(value: Any, count: int) -> Any:
    """A column of one text."""
    return pd.Series([str(value)]).array.repeat(count)


def _aggregated(columns: dict[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Columns per unit put together per channel or site."""
    if plan.aggregate == "unit":
        return columns
    found = {}
    for name, values in columns.items():
        axes = tuple(range(values.dim()))
        if plan.aggregate == "channel":  # maps [C, h, w], tokens [L, C], vectors [C]
            axes = axes[:-1] if values.dim() == 2 else axes[1:]
        found[name] = _finite(values, axes, plan.reduce)
    if plan.pooling == "scores":
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


_REDUCE: dict[str, Callable[[Tensor, tuple[int, ...]], Tensor]] = {
    "mean": lambda a, axes: a.double().mean(axes),
    "max": lambda a, axes: a.amax(axes),
    "sum": lambda a, axes: a.double().sum(axes),
}


def _finite_mean(values: np.ndarray) -> float:
    good = values[np.isfinite(values)]
    return float(good.mean()) if len(good) else float("nan")


def _enough(samples: int, label: Any) -> None:
    if samples < 2:
        raise DataError(
            "too few samples to vary" + ("" if label == "all" else f" in class {label}"),
            got=samples,
            expected="at least two",
            fix="Take more samples, or set by_class to false.",
        )

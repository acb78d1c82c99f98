"""The watcher of one site along orbits, and the pass that serves invariance and equivariance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from isogon.actions import Family
from isogon.errors import DataError, OptionError
from isogon.measures.orbits.distances import PairDistances
from isogon.measures.orbits.moved import Moved
from isogon.measures.orbits.reading import (
    OrbitOptions,
    OrbitTable,
    aggregated,
    finite_mean,
    rows_of,
)
from isogon.measures.orbits.statistics import (
    Firing,
    anova_columns,
    order_statistic,
    thresholds,
    variance_columns,
)
from isogon.nets.behaviour import examine
from isogon.nets.channel_axis import channel_axis
from isogon.nets.finite import check_finite
from isogon.nets.hygiene import precision
from isogon.nets.labels import Classed
from isogon.nets.layout import check_images
from isogon.nets.origin import check_classes
from isogon.nets.outputs import outputs_of
from isogon.nets.passes import INPUT, all_passes
from isogon.nets.sites import Site, called
from isogon.nets.sites import sites as select_sites
from isogon.stats import Blocks, ByClass, Kept, TwoWay, TwoWayMoments
from isogon.stats.base import Stat
from isogon.stats.wrappers import feed, pool

if TYPE_CHECKING:
    from isogon.nets.watchers import Key


BLOCKS = 32  # of samples, for the bootstrap


def measure_orbits(
    name: str,
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    family: Family,
    sites: str | Sequence[Site],
    options: OrbitOptions,
    *,
    undone: bool = False,
) -> OrbitTable:
    """Statistics of activations along orbits.

    Args:
        name: Registered name of the measure.
        model: Any module.
        batches: Re-iterable pairs of inputs and labels.
        family: T transformations.
        sites: Sites or a selector.
        options: What to measure.
        undone: Whether maps are moved back first; sites without maps are then left out.

    Returns:
        The table.

    Raises:
        ModelError: A model that is random, depends on the batch, or takes images with the channels
            last; and as `prepare`.
        DataError: Labels that are no classes, where they are asked for; and as `prepare`.
    """
    if options.by_class:
        check_classes(model, batches)
    found = prepare(model, batches, family, sites)
    x = next(iter(batches))[0]
    check_images(model, x)
    examine(model, x)
    if options.by_class:  # names of classes say how many there are, else the outputs
        named = getattr(batches, "classes", None)
        batches = Classed(batches, len(named) if named else outputs_of(model, x))
    chosen = [s for s in found if not undone or len(s.shape) == 3]
    last = channels_last(model, x, chosen)
    watchers = [OrbitWatcher(site, options, family, undone, site in last) for site in chosen]
    passes = 2 if "goodfellow" in options.measures else 1
    seen = 0
    if watchers:
        seen = all_passes(model, batches, watchers, orbit=family, passes=passes, what=name)
    labels = sorted({label for w in watchers for label in w.labels}, key=str)
    names = getattr(batches, "classes", None)
    tables = [w.table(label, names) for w in watchers for label in labels if label in w.labels]
    meta = {
        **asdict(options),
        "family": family.facts(),
        "sites": [str(s) for s in chosen],
        "shapes": {str(s): list(s.shape) for s in chosen},
        "samples": seen,
        "dtype": precision(model),
        "transformations": len(family),
        "not_applicable": [str(s) for s in found if s not in chosen],
    }
    table = (
        pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"site": [], "unit": []})
    )
    reading = OrbitTable(name, table, meta=meta)
    if options.stability and watchers:
        curves = [w.curve | {seen: w.so_far()} for w in watchers]
        reading.arrays["stability"] = np.array([list(curve.values()) for curve in curves])
        reading.axes["stability"] = ("site", "samples")
        reading.coords = {"site": [str(s) for s in chosen], "samples": list(curves[0])}
    return reading


def prepare(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    family: Family,
    sites: str | Sequence[Site],
) -> list[Site]:
    """The sites, after the checks that come before an expensive pass.

    Raises:
        ModelError: Weights that are not finite.
        OptionError: The selector matches nothing, or the family is the identity alone.
        DataError: No data.
    """
    check_finite(model)
    if len(family) < 2:
        raise OptionError(
            "a family of one member can't move anything",
            got=repr(family),
            expected="at least two members",
            fix="Ask for more, e.g. rotations(16).",
        )
    x = next(iter(batches), (torch.empty(0), None))[0]
    if not isinstance(x, Tensor) or not len(x):
        raise DataError("no samples", got="an empty data set", expected="at least two samples")
    return select_sites(model, sites, example=x[:2]) if isinstance(sites, str) else list(sites)


def channels_last(model: nn.Module, x: Tensor, chosen: Sequence[Site]) -> set[Site]:
    """Those of some sites that are maps ``[h, w, C]``, as the layers of the model tell.

    Such are the linear layers and activation functions within blocks of ConvNeXt and Swin.

    Args:
        model: The model.
        x: Inputs ``[n, ...]``, of which two are run.
        chosen: The sites.
    """
    maps = [site for site in chosen if len(site.shape) == 3]
    every = called(model, x[:2]) if maps else []
    return {site for site in maps if channel_axis(site, every) == 3}


class OrbitWatcher:
    """The statistics of one site, within classes where asked for.

    Args:
        site: The site.
        options: What to measure.
        family: The transformations of the orbit.
        undone: Whether its maps are moved back before anything is measured.
        last: Whether its maps are ``[h, w, C]``; units keep that order.
    """

    def __init__(
        self, site: Site, options: OrbitOptions, family: Family, undone: bool, last: bool = False
    ) -> None:
        self.site, self.options, self.family, self.undone = site, options, family, undone
        self.last = last
        shape = (site.shape[-1], *site.shape[:-1]) if last else site.shape
        self.sites: tuple[Site, ...] = (site, INPUT) if undone else (site,)
        self.shape: tuple[int, ...] = ()
        self.seen = 0
        self.curve: dict[int, float] = {}
        wanted, t = set(options.measures), len(family)
        wholes = options.aggregate == "channel" and options.pooling != "activations"
        maps = len(site.shape) == 3
        self.layout = self._stat(
            (lambda: Blocks(lambda: TwoWayMoments(t), BLOCKS))
            if options.bootstrap
            else (lambda: TwoWayMoments(t))
        )
        self.distances: Any = None
        self.first: Any = None
        self.moved: Any = None
        self.firing: Any = None  # in the second pass
        if "distance" in wanted:
            self.distances = self._stat(lambda: PairDistances(channels=wholes and maps))
        if "goodfellow" in wanted and options.threshold == "quantile":
            self.first = self._stat(Kept)
        if undone and {"simple", "floor"} & wanted:
            self.moved = self._stat(lambda: Moved(shape, family, options.measures))

    def _stat(self, make: Callable[[], Any]) -> Any:
        return ByClass(make) if self.options.by_class else make()

    @property
    def labels(self) -> list[int | float | None]:
        """The classes that were seen; None for all samples together."""
        return list(self.layout.parts) if self.options.by_class else [None]

    # ------------------------------------------------------------------ a watcher

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in ``[n, T, *shape]``."""
        if self.last:
            values = {k: v.movedim(-1, 2) if k == self.site else v for k, v in values.items()}
        changed = values[self.site]
        if self.undone:
            size = values[INPUT].shape[-2:]
            changed = self.family.undo(changed.transpose(0, 1), size).transpose(0, 1)
        changed = self._pooled(changed)
        self.shape = tuple(changed.shape[2:])
        if self.firing is not None:
            feed(self.firing, changed, labels=labels, rows=rows)
            return
        for stat, *given in (
            (self.layout, changed),
            (self.distances, changed),
            (self.first, changed[:, 0]),
            (self.moved, *values.values()),
        ):
            if stat is not None:
                feed(stat, *given, labels=labels, rows=rows)
        before, self.seen = self.seen, self.seen + len(rows)
        if self.options.stability and self.seen.bit_length() > before.bit_length() > 1:
            self.curve[self.seen] = self.so_far()

    def again(self) -> bool:
        """Whether units are now to be held against their thresholds."""
        if self.firing is not None or "goodfellow" not in self.options.measures:
            return False
        found = {label: self._thresholds(label) for label in self.labels}
        self.firing = self._stat(lambda: None) if self.options.by_class else found[None]
        if self.options.by_class:
            self.firing.parts = found
        return True

    def _thresholds(self, label: int | float | None) -> Firing:
        layout = self._of(self.layout, label).compute()
        enough(layout.samples, label)
        order = None
        if self.first is not None:
            order = order_statistic(self._of(self.first, label))
        return Firing(*thresholds(layout, order))

    def share(self) -> OrbitWatcher:
        """The same for another share of the data."""
        other = OrbitWatcher(self.site, self.options, self.family, self.undone, self.last)
        if self.firing is not None:
            other.firing = self._stat(lambda: None) if self.options.by_class else None
            if other.firing is None:
                other.firing = self.firing.fresh()
            else:
                other.firing.parts = {k: f.fresh() for k, f in self.firing.parts.items()}
        return other

    def merge(self, other: OrbitWatcher) -> OrbitWatcher:
        """Take in what another one has seen in this pass."""
        self.shape = self.shape or other.shape
        if self.firing is not None:
            self.firing.merge(other.firing)
            return self
        self.seen += other.seen
        for name in ("layout", "distances", "first", "moved"):
            if getattr(self, name) is not None:
                getattr(self, name).merge(getattr(other, name))
        return self

    def result(self) -> pd.DataFrame:
        """The rows of all classes."""
        return pd.concat([self.table(label, None) for label in self.labels], ignore_index=True)

    # ------------------------------------------------------------------ its rows

    def so_far(self) -> float:
        """Mean normalised variance of the samples seen, over all classes."""
        means = []
        for label in self.labels:
            layout = self._of(self.layout, label).compute()
            values = variance_columns(layout)["normalized_variance"].cpu().numpy()
            means.append(finite_mean(values) if layout.samples > 1 else np.nan)
        return float(np.nanmean(means)) if np.isfinite(means).any() else float("nan")

    def table(self, label: int | float | None, names: Sequence[str] | None) -> pd.DataFrame:
        """Rows of this site and class."""
        options, stat = self.options, self._of(self.layout, label)
        layout = stat.compute()
        enough(layout.samples, label)
        units, channels = self._columns(layout, label)
        found = aggregated(units, options) | channels
        if options.bootstrap:
            found |= self._intervals(stat)
        if not found:  # columns that are added to the table later
            found = {"": next(iter(aggregated(variance_columns(layout), options).values()))}
        places = self._places(next(iter(found.values())).numel())
        if self.last and "row" in places:  # back to the order of the site's own values
            order = np.arange(len(places["unit"])).reshape(self.shape).transpose(1, 2, 0).ravel()
            found = {k: v.flatten()[torch.from_numpy(order).to(v.device)] for k, v in found.items()}
            places |= {k: v[order] for k, v in places.items() if k != "unit"}
        return rows_of(self.site, label, names, found, places)

    def _columns(
        self, layout: TwoWay, label: int | float | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Columns per unit, and those that are per channel from the start."""
        measures = self.options.measures
        units: dict[str, Tensor] = {}
        channels: dict[str, Tensor] = {}
        if "variance" in measures:
            units |= variance_columns(layout)
        if "squared" in measures:
            units |= variance_columns(layout, squared=True)
        if "anova" in measures:
            units |= anova_columns(layout)
        if self.distances is not None:
            distances = self._of(self.distances, label)
            (channels if distances.channels else units).update(distances.compute())
        if self.firing is not None:
            units |= self._of(self.firing, label).compute()
        if self.moved is not None:
            unit, channel = self._of(self.moved, label).columns(self.options.aggregate)
            units |= unit
            channels |= channel
        return units, channels

    def _of(self, stat: Stat, label: int | float | None) -> Any:
        if not isinstance(stat, ByClass):
            return stat
        assert label is not None
        return stat.parts[label]

    def _intervals(self, stat: Blocks) -> dict[str, Tensor]:
        """Percentile intervals (2.5 %, 97.5 %) of the variance columns over samples."""
        generator = torch.Generator().manual_seed(self.options.seed)
        kept: dict[str, list[Tensor]] = {}
        for layout in stat.replicates(self.options.bootstrap, generator):
            for name, values in aggregated(variance_columns(layout), self.options).items():
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
        if self.options.pooling != "activations" or self.options.aggregate == "unit":
            return a
        # maps [n, T, C, h, w] over space, tokens [n, T, L, C] over their places
        return (
            pool(a, self.options.reduce, 2, 3) if a.dim() == 4 else pool(a, self.options.reduce, 3)
        )

    def _places(self, count: int) -> dict[str, np.ndarray]:
        places = {"unit": np.arange(count)}
        if self.options.aggregate == "unit" and len(self.shape) == 3:
            grid = np.indices(self.shape).reshape(3, -1)
            places |= dict(zip(("channel", "row", "column"), grid))
        elif self.options.aggregate == "channel":
            places["channel"] = np.arange(count)
        return places


def enough(samples: int, label: int | float | None) -> None:
    """Refuse what can't vary."""
    if samples < 2:
        raise DataError(
            "too few samples to vary" + ("" if label is None else f" in class {label}"),
            got=samples,
            expected="at least two",
            fix="Take more samples, or set by_class to false.",
        )

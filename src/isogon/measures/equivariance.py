"""Same-equivariance: whether feature maps move with their inputs."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor
from torch.nn import Module

from isogon.actions import Family
from isogon.actions import family as as_family
from isogon.actions.distances import Gaps, quotient
from isogon.actions.lie import lie_columns, lie_derivatives
from isogon.actions.measuring import Plan, measure_orbits
from isogon.actions.orbits import Orbit, prepare
from isogon.data import Batches, as_batches
from isogon.errors import OptionError
from isogon.nets.sites import Site
from isogon.readings import SiteTable
from isogon.registry import measure
from isogon.stats import TwoWayMoments

EquivarianceMeasure = Literal[
    "variance", "squared", "anova", "distance", "goodfellow", "simple", "floor", "lie"
]
KNOWN = ("variance", "squared", "anova", "distance", "goodfellow", "simple", "floor", "lie")


@measure(cite=("quiroga2023", "lenc2015"), cost=4.0)
def equivariance(
    model: Module,
    batches: Batches,
    family: Family,
    *,
    sites: str = "activations",
    measures: tuple[EquivarianceMeasure, ...] = ("variance", "simple", "floor"),
    aggregate: Literal["unit", "channel", "site"] = "unit",
    pooling: Literal["activations", "moments", "scores"] = "moments",
    reduce: Literal["mean", "max", "sum"] = "mean",
    by_class: bool = False,
    bootstrap: int = 0,
    threshold: Literal["normal", "quantile"] = "normal",
    seed: int = 0,
) -> SiteTable:
    r"""How far feature maps are from moving along with their inputs.

    The statistics of `invariance` after T^-1 was applied to the map of T x: they are 0 where
    a(T x) = T a(x). T acts on a map about its centre, in pixels of the input over the map's
    stride; the inverse is that of the whole transformation, composed. And

    - ``simple``: mean over samples and transformations of \|a(T x) - T a(x)\|; per channel the
      root of its mean square over space.
    - ``floor``: TV and NV of T^-1 T a(x): what interpolation alone costs on maps of this size.
      No network can be told from an equivariant one below it.
    - ``lie``: the infinitesimal limit, the Lie derivative d/ds T_s^-1 a(T_s x) at s = 0 along
      the generators of the family (per radian, pixel or factor of e): root mean square over
      samples and generators, and its quotient by the standard deviation over samples.

    Args:
        model: Any module.
        batches: Images and labels; labels are only used with ``by_class``.
        family: Invertible transformations of images, identity first.
        sites: Where to read. Sites without two space axes are left out and listed in
            ``meta["not_applicable"]``.
        measures: Which statistics.
        aggregate: One row per unit, per channel or per site.
        pooling: As for `invariance`; ``activations`` reduces maps after they were moved back.
        reduce: How units are put together.
        by_class: Statistics within each class.
        bootstrap: Resamples for 95 % intervals of the variance columns; 0: none.
        threshold: Where ``goodfellow`` puts it.
        seed: Of the bootstrap.

    Returns:
        One row per unit: site, unit, channel, row, column, and one column per statistic.

    Raises:
        OptionError: A transformation without an inverse, or a selector that matches nothing.
        DataError: Inputs that are not images, or fewer than two samples.
        ModelError: Weights that are not finite.
    """
    plan = Plan(measures, aggregate, pooling, reduce, by_class, bootstrap, threshold, seed)
    plan.check(KNOWN)
    members = as_family(family)

    def back(site: Site, values: Tensor, orbit: Orbit) -> Tensor:
        return members.undo(values, orbit.x.shape[-2:])

    def extras(site: Site) -> _Extras:
        return _Extras(site, members, measures)

    if "lie" in measures and by_class:
        raise OptionError(
            "the Lie derivative is not taken by class", got="by_class", expected="one of the two"
        )
    data = as_batches(batches)
    reading = measure_orbits(
        "equivariance",
        model,
        data,
        members,
        sites,
        plan,
        change=back,
        applies=lambda site: len(site.shape) == 3,
        extra=extras if {"simple", "floor"} & set(measures) else None,
    )
    if "lie" in measures:
        chosen = [s for s in prepare(model, data, members, sites) if len(s.shape) == 3]
        found = lie_derivatives(model, data, members, chosen)
        columns = [lie_columns(*found[site], aggregate) for site in chosen]
        for name in ("lie_derivative", "lie_normalized") if columns else ():
            parts = [c[name].cpu().numpy().reshape(-1) for c in columns]
            reading.table[name] = np.concatenate(parts)
    return reading


class _Extras:
    """The simple distance, and the interpolation floor."""

    def __init__(self, site: Site, family: Family, measures: tuple[str, ...]) -> None:
        self.site, self.family = site, family
        self.simple = "simple" in measures
        self.floor = TwoWayMoments(len(family)) if "floor" in measures else None
        self.gaps: Gaps | None = None

    def update(self, values: Tensor, changed: Tensor, orbit: Orbit, rows: Tensor | None) -> None:
        """Take in ``[T, n, C, h, w]``, before and after the maps were moved back."""
        values = values if rows is None else values[:, rows]
        moved = self.family.act(values[0], orbit.x.shape[-2:])
        if self.simple:
            if self.gaps is None:
                self.gaps = Gaps(self.site.shape, values.device)
            self.gaps.update(values, moved)
        if self.floor is not None:
            again = self.family.undo(moved, orbit.x.shape[-2:])
            self.floor.update(again.transpose(0, 1))

    def columns(self, aggregate: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Columns per unit, and per channel."""
        unit: dict[str, Tensor] = {}
        channel: dict[str, Tensor] = {}
        if self.gaps is not None:
            per_unit, per_channel = self.gaps.means()
            if aggregate == "channel":
                channel["simple_distance"] = per_channel
            else:
                unit["simple_distance"] = per_unit
        if self.floor is not None:
            layout = self.floor.compute()
            within, across = layout.within_rows(), layout.within_columns()
            unit["transformation_floor"] = within
            unit["sample_floor"] = across
            unit["normalized_floor"] = quotient(within, across)
        return unit, channel

"""Same-equivariance: whether feature maps move with their inputs."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch.nn import Module

from isogon.actions import Family
from isogon.actions import family as as_family
from isogon.data import Batches, as_batches
from isogon.errors import OptionError
from isogon.measures.orbits.lie import lie_columns, lie_derivatives
from isogon.measures.orbits.reading import OrbitOptions
from isogon.measures.orbits.watcher import channels_last, measure_orbits, prepare
from isogon.readings import SiteTable
from isogon.registry import measure

EquivarianceMeasure = Literal[
    "variance", "squared", "anova", "distance", "goodfellow", "simple", "floor", "lie"
]
KNOWN = ("variance", "squared", "anova", "distance", "goodfellow", "simple", "floor", "lie")


@measure(cite=("quiroga2023", "lenc2015"), cost=4.0, joins=True, shards=True)
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
        ModelError: Weights that are not finite; a model that is random, depends on the batch, or
            takes images with the channels last.
    """
    options = OrbitOptions(
        measures, aggregate, pooling, reduce, by_class, bootstrap, threshold, seed
    )
    options.check(KNOWN)
    if "lie" in measures and by_class:
        raise OptionError(
            "the Lie derivative is not taken by class", got="by_class", expected="one of the two"
        )
    members, data = as_family(family), as_batches(batches)
    reading = measure_orbits("equivariance", model, data, members, sites, options, undone=True)
    if "lie" in measures:
        chosen = [s for s in prepare(model, data, members, sites) if len(s.shape) == 3]
        last = channels_last(model, next(iter(data))[0], chosen)
        found = lie_derivatives(model, data, members, chosen, last)
        columns = [lie_columns(*found[site], aggregate, site in last) for site in chosen]
        for name in ("lie_derivative", "lie_normalized") if columns else ():
            parts = [c[name].cpu().numpy().reshape(-1) for c in columns]
            reading.table[name] = np.concatenate(parts)
    return reading

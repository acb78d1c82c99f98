"""Invariance: how far each unit moves along the orbit of an input."""

from __future__ import annotations

from typing import Literal

from torch.nn import Module

from isogon.actions import Family
from isogon.actions import family as as_family
from isogon.data import Batches, as_batches
from isogon.measures.orbits.maps import keep_maps
from isogon.measures.orbits.reading import OrbitOptions
from isogon.measures.orbits.watcher import measure_orbits
from isogon.readings import SiteTable
from isogon.registry import measure

InvarianceMeasure = Literal["variance", "squared", "anova", "distance", "goodfellow"]
KNOWN = ("variance", "squared", "anova", "distance", "goodfellow")


@measure(
    cite=("quiroga2023", "goodfellow2009"),
    cost=3.0,
    joins=True,
    shards=True,
    whole=("maps", "stability"),
)
def invariance(
    model: Module,
    batches: Batches,
    family: Family,
    *,
    sites: str = "activations",
    measures: tuple[InvarianceMeasure, ...] = ("variance",),
    aggregate: Literal["unit", "channel", "site"] = "unit",
    pooling: Literal["activations", "moments", "scores"] = "moments",
    reduce: Literal["mean", "max", "sum"] = "mean",
    by_class: bool = False,
    bootstrap: int = 0,
    threshold: Literal["normal", "quantile"] = "normal",
    maps: int = 0,
    stability: bool = False,
    seed: int = 0,
) -> SiteTable:
    """How far each unit moves along the orbit of an input, against how far across inputs.

    For a[i, t, u], unit u of sample i under transformation t (N samples, T transformations):

    - ``variance``: TV = mean_i sd_t(a), SV = mean_t sd_i(a) (unbiased), NV = TV/SV, in which
      0/0 is 1 and x/0 infinite. 0: the unit ignores the transformations; 1: they move it as
      much as a change of input does. ``squared``: the same with variances.
    - ``anova``: F = MSB/MSW over transformations, MSB = N sum_t (m_t - m)^2 / (T - 1),
      MSW = sum_t sum_i (a - m_t)^2 / (T (N - 1)), its p-value, both corrected for the number
      of units (Bonferroni; Benjamini-Hochberg), and ``repeated``: F and p of the
      repeated-measures design, since the same samples are seen under each transformation.
      NaN for units that never change.
    - ``distance``: TD = mean_i mean_{t<t'} d(a_it, a_it'), SD = mean_t mean_{i<i'} d(a_it, a_i't),
      ND = TD/SD, over all pairs, with d the absolute difference; the Euclidean distance between
      whole maps with ``aggregate="channel"``.
    - ``goodfellow``: threshold per unit from the untransformed samples (mean + z_0.99 sd, or
      their order statistic); G = share of them above it, Z those samples, L = mean over Z and
      t of 1[a > threshold]; the score L/G is large for units that are selective and keep
      firing. Takes a second pass. Also by name ``goodfellow_all`` (L over all samples) and
      ``goodfellow_normal`` (threshold from all samples, over 1 %).

    One pass and flat memory for the moments; all sums in float64; the result does not depend
    on the batches. Distances between samples need every value: they go to a temporary file.

    Args:
        model: Any module.
        batches: Inputs and labels; labels are only used with ``by_class``.
        family: Transformations of inputs, identity first.
        sites: Where to read: ``activations``, ``weights``, a type (``relu``), a name or pattern
            (``layer3.*``), separated by commas; see `isogon.sites`.
        measures: Which statistics, of those above.
        aggregate: One row per unit, per channel or per site.
        pooling: What is put together: ``activations`` (maps are reduced over space before
            anything else), ``moments`` (TV and SV, before their quotient) or ``scores``
            (quotients; infinite ones left out).
        reduce: How units are put together for a channel or a site.
        by_class: Statistics within each class of labels, with a column ``class``.
        bootstrap: Number of resamples of the samples for 95 % intervals of the variance
            columns (``*_low``, ``*_high``), in blocks; 0: none.
        threshold: At which height a unit fires, for ``goodfellow``: mean + z_0.99 sd (``normal``)
            or the 99 % ``quantile``.
        maps: Number of most and of least invariant channels of each site with maps whose
            feature maps, on the first sample, are kept for the figure.
        stability: Whether to keep the mean normalised variance of each site after 2, 4, 8, ...
            samples (array ``stability``): how many samples are enough.
        seed: Of the bootstrap.

    Returns:
        One row per unit: site, unit (channel, row, column for maps), and one column per
        statistic. ``summary()``: means per site.

    Raises:
        OptionError: A family of one member, or a selector that matches nothing.
        DataError: Fewer than two samples (in a class).
        ModelError: Weights that are not finite; a model that is random, depends on the batch, or
            takes images with the channels last.
    """
    options = OrbitOptions(
        measures, aggregate, pooling, reduce, by_class, bootstrap, threshold, seed, stability
    )
    options.check(KNOWN)
    members = as_family(family)
    data = as_batches(batches)
    reading = measure_orbits("invariance", model, data, members, sites, options)
    if maps > 0 and "normalized_variance" in reading.table:
        keep_maps(reading, model, data, members, sites, maps)
    return reading

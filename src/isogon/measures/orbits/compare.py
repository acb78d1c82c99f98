"""Whether models differ in a statistic, site by site."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.stats

from isogon.errors import OptionError
from isogon.readings import Reading, SiteTable


def compare(
    readings: Sequence[Reading],
    names: Sequence[str] = (),
    column: str = "normalized_variance",
    *,
    over: Literal["units", "models"] = "units",
) -> SiteTable:
    """Tests of whether the units of two or more models differ, at each site.

    Sites are paired by their place in the order of depth, so the models need equally many.
    Per pair of models Tukey's honestly significant difference of the means (and its p-value,
    corrected for all pairs of that site); per site the one-way analysis of variance, F and p,
    and the Anderson-Darling k-sample test, whose p-value SciPy holds within [0.001, 0.25].

    Args:
        readings: Of one measure, one per model.
        names: What the models are called; the units of models of one name (seeds) are pooled.
        column: The statistic; infinite and missing values are left out.
        over: What is repeated: the ``units`` of a site, or the ``models`` of one name, of which
            then each counts with the mean of its units. Units of one network are not independent
            of each other, so the second is the stricter claim; it needs several seeds.

    Returns:
        One row per site and pair: site, place, model_a, model_b, difference, tukey_p, anova_f,
        anova_p, anderson, anderson_p.

    Raises:
        OptionError: Fewer than two readings, different numbers of sites, or no such column.
    """
    names = list(names) or [f"model {i}" for i in range(len(readings))]
    models = list(dict.fromkeys(names))
    if len(models) < 2 or len(names) != len(readings):
        raise OptionError(
            "models to compare",
            got=f"{len(readings)} readings and {len(names)} names",
            expected="two or more models, and a name for each reading",
        )
    sites = [list(r.table["site"].unique()) for r in readings]
    if len({len(s) for s in sites}) > 1:
        raise OptionError(
            "models of different depth can't be compared site by site",
            got=[len(s) for s in sites],
            expected="equally many sites in each",
            fix="Choose the sites of each model.",
        )
    for reading in readings:
        if column not in reading.table:
            raise OptionError(
                "no such column", got=column, expected=", ".join(map(str, reading.table.columns))
            )
    rows = []
    for place in range(len(sites[0])):
        units = [_units(r, s[place], column) for r, s in zip(readings, sites)]
        if over == "models":
            units = [u.mean(keepdims=True) if len(u) else u for u in units]
        groups = [np.concatenate([u for u, n in zip(units, names) if n == m]) for m in models]
        facts = {"site": sites[0][place], "place": place, **_together(groups)}
        pairs = list(itertools.combinations(range(len(groups)), 2))
        p = _tukey(groups)
        for i, j in pairs:
            gap = float(np.mean(groups[j]) - np.mean(groups[i])) if _enough(groups) else np.nan
            pair = {"model_a": models[i], "model_b": models[j], "difference": gap}
            rows.append({**facts, **pair, "tukey_p": np.nan if p is None else float(p[i, j])})
    order = ["site", "place", "model_a", "model_b", "difference", "tukey_p"]
    table = pd.DataFrame(rows)
    table = table[[*order, *[c for c in table if c not in order]]]
    return SiteTable("compare", table, meta={"column": column, "models": models})


def _units(reading: Reading, site: str, column: str) -> np.ndarray:
    values = reading.table.loc[reading.table["site"] == site, column].to_numpy(float)
    return values[np.isfinite(values)]


def _enough(groups: list[np.ndarray]) -> bool:
    return all(len(g) >= 2 for g in groups) and len(np.unique(np.concatenate(groups))) > 1


def _together(groups: list[np.ndarray]) -> dict[str, float]:
    if not _enough(groups):
        return dict.fromkeys(("anova_f", "anova_p", "anderson", "anderson_p"), np.nan)
    f, p = scipy.stats.f_oneway(*groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # p at the end of the table
        try:
            found: Any = scipy.stats.anderson_ksamp(groups)
            anderson = float(found.statistic), float(found.pvalue)
        except ValueError:
            anderson = np.nan, np.nan
    return {
        "anova_f": float(f),
        "anova_p": float(p),
        "anderson": anderson[0],
        "anderson_p": anderson[1],
    }


def _tukey(groups: list[np.ndarray]) -> np.ndarray | None:
    if not _enough(groups):
        return None
    return np.asarray(scipy.stats.tukey_hsd(*groups).pvalue)

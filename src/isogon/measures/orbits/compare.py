"""Whether models differ in a statistic, place by place."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.stats

from isogon.errors import OptionError
from isogon.readings import Curve, Grid, Path, Reading, SiteTable

USUAL = "normalized_variance"


def compare(
    readings: Sequence[Reading],
    names: Sequence[str] = (),
    column: str | None = None,
    *,
    over: Literal["units", "models"] = "units",
) -> SiteTable:
    """Tests of whether two or more models differ in what a measure says of them, place by place.

    Places are the sites of a table of units, the steps of walks, all samples of a table of samples;
    of grids, curves and summaries every single number (all points of curves of different lengths).
    They are paired by their order, so the models need equally many. Per pair of models Tukey's
    honestly significant difference of the means (and its p-value, corrected for all pairs of that
    place); per place the one-way analysis of variance, F and p, and the Anderson-Darling k-sample
    test, whose p-value SciPy holds within [0.001, 0.25].

    Args:
        readings: Of one measure, one per model; of any kind.
        names: What the models are called; the units of models of one name (seeds) are pooled.
        column: The number that is compared; the normalised variance where there is one, else the
            first. Infinite and missing values are left out.
        over: What is repeated: the ``units`` of a site (walks of a step, samples), or the
            ``models`` of one name, of which then each counts with the mean of its units. Units of
            one network are not independent of each other, so the second is the stricter claim; it
            needs several seeds, and is the only one where a place has one number.

    Returns:
        One row per place and pair: site, place, model_a, model_b, difference, tukey_p, anova_f,
        anova_p, anderson, anderson_p.

    Raises:
        OptionError: Fewer than two readings, readings of different kinds or with different numbers
            of places, no such column, or places with one number and nothing to repeat it.
    """
    names = list(names) or [f"model {i}" for i in range(len(readings))]
    models = list(dict.fromkeys(names))
    if len(models) < 2 or len(names) != len(readings):
        raise OptionError(
            "models to compare",
            got=f"{len(readings)} readings and {len(names)} names",
            expected="two or more models, and a name for each reading",
        )
    kinds = sorted({type(r).__name__ for r in readings})
    if len(kinds) > 1 or not isinstance(readings[0], Reading):
        raise OptionError(
            "only readings of one kind can be compared",
            got=", ".join(kinds),
            expected="what one measure returned for each model",
        )
    column, found = _column(readings, column), []
    for reading in readings:
        if column and column not in reading.table:
            raise OptionError(
                "no such column", got=column, expected=", ".join(map(str, reading.table.columns))
            )
        found.append(_places(reading, column))
    if len({len(f) for f in found}) > 1 and isinstance(readings[0], Curve):
        found = [
            {f"all {r.row}s": np.concatenate(list(f.values()))} for r, f in zip(readings, found)
        ]
    if len({len(f) for f in found}) > 1:
        raise OptionError(
            "models of different depth can't be compared site by site",
            got=[len(f) for f in found],
            expected="equally many sites, steps or cells in each",
            fix="Choose the sites of each model.",
        )
    if over == "units" and max((len(v) for f in found for v in f.values()), default=0) < 2:
        raise OptionError(
            f"one number per place of a {kinds[0]} can't be tested",
            got='over="units"',
            expected='over="models", with two or more readings of each name (seeds)',
        )
    rows = []
    for place, site in enumerate(found[0]):
        units = [list(f.values())[place] for f in found]
        if over == "models":
            units = [u.mean(keepdims=True) if len(u) else u for u in units]
        groups = [np.concatenate([u for u, n in zip(units, names) if n == m]) for m in models]
        facts = {"site": site, "place": place, **_together(groups)}
        pairs = list(itertools.combinations(range(len(groups)), 2))
        p = _tukey(groups)
        for i, j in pairs:
            gap = float(np.mean(groups[j]) - np.mean(groups[i])) if _enough(groups) else np.nan
            pair = {"model_a": models[i], "model_b": models[j], "difference": gap}
            rows.append({**facts, **pair, "tukey_p": np.nan if p is None else float(p[i, j])})
    if not rows:
        raise OptionError(
            "there is nothing to compare",
            got=f"no row in the reading of {readings[0].measure}",
            expected="readings with at least one row",
        )
    order = ["site", "place", "model_a", "model_b", "difference", "tukey_p"]
    table = pd.DataFrame(rows)
    table = table[[*order, *[c for c in table if c not in order]]]
    return SiteTable("compare", table, meta={"column": column, "models": models})


def _column(readings: Sequence[Reading], column: str | None) -> str:
    """The number that is compared; nothing for readings that have no table."""
    first = readings[0]
    if column is not None:
        return column
    numbers = sorted(  # counts of rows and the like come last
        (str(c) for c in first.table if first.table[c].dtype.kind in "if"),
        key=lambda c: first.table[c].dtype.kind == "i",
    )
    found = [c for c in numbers if c not in (*SiteTable.places, "sample", "label", "step", "walk")]
    if isinstance(first, Grid):
        found = [c for c in found if c in first.arrays]
    if USUAL in found or not found:
        return USUAL if found else ""
    return found[0]


def _places(reading: Reading, column: str) -> dict[str, np.ndarray]:
    """The finite numbers of each place, in the order of the reading."""
    table = reading.table
    if not column:
        summary = reading.summary()
        if summary.shape[1] < 2 or not len(summary):
            raise OptionError(
                "a reading without numbers can't be compared",
                got=reading.measure,
                expected="a table, or a summary with a number in each row",
            )
        values = pd.to_numeric(summary.iloc[:, 1], errors="coerce").to_numpy(float)
        keys = pd.Series(summary.iloc[:, 0].astype(str))
    else:
        values = table[column].to_numpy(float)
        if "site" in table and not isinstance(reading, Grid):
            keys = table["site"].astype(str)
        elif isinstance(reading, Path):
            keys = table["step"].astype(str)
        elif isinstance(reading, Grid | Curve):
            by = [c for c in table if c not in reading.arrays] if isinstance(reading, Grid) else []
            cells = table[by].astype(str).agg(", ".join, axis=1) if by else table.index.astype(str)
            keys = pd.Series(list(cells))
        else:
            keys = pd.Series(f"all {reading.row}s", index=table.index)
    labels = keys.to_numpy()
    return {
        str(key): values[(labels == key) & np.isfinite(values)] for key in dict.fromkeys(labels)
    }


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

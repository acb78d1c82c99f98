"""What the figures of invariance share: which column, its label, the values of a site."""

from __future__ import annotations

import numpy as np

from isogon.errors import OptionError
from isogon.readings import Reading

LABELS = {
    "normalized_variance": "normalised variance  TV / SV",
    "transformation_variance": "transformational variance  TV",
    "sample_variance": "sample variance  SV",
    "normalized_squared": "TV / SV, by variances",
    "anova_f": "F over transformations",
    "normalized_distance": "normalised distance  TD / SD",
    "goodfellow": "Goodfellow's L / G",
    "normalized_floor": "floor of interpolation, TV / SV",
    "lie_normalized": "Lie derivative / SD",
    "simple_distance": "mean |a(Tx) − T a(x)|",
}
PREFERRED = (
    "normalized_variance",
    "normalized_distance",
    "normalized_squared",
    "anova_f",
    "goodfellow",
)


def label(column: str) -> str:
    """What a column is called on an axis."""
    return LABELS.get(column, column.replace("_", " "))


def check_sites(reading: Reading) -> None:
    """Refuse a reading without sites."""
    if "site" not in reading.table or reading.table.empty:
        raise OptionError(
            "nothing to draw",
            got="no site that the measure applies to",
            expected="at least one site",
            fix="Choose other sites.",
        )


def pick(reading: Reading, column: str | None) -> str:
    """The column that is drawn: the one named, else the first of the preferred ones."""
    known = [c for c in (*PREFERRED, *reading.table.columns) if c in reading.table]
    if column is None:
        return known[0]
    if column not in reading.table:
        raise OptionError(
            "no such column", got=repr(column), expected=", ".join(dict.fromkeys(known))
        )
    return column


def values(reading: Reading, site: str, column: str) -> np.ndarray:
    """The values of a site's units."""
    return reading.table.loc[reading.table["site"] == site, column].to_numpy(float)


def finite_mean(v: np.ndarray) -> float:
    """Mean of the finite values; NaN where there are none."""
    v = v[np.isfinite(v)]
    return float(v.mean()) if len(v) else float("nan")

"""Which columns of a table are quantities: numbers whose mean says something."""

from __future__ import annotations

import re

import pandas as pd

# Numbers that name something: a mean of them says nothing.
NAMING = {
    *("sample", "unit", "channel", "row", "column", "stage", "block", "step", "walk", "label"),
    *("prediction", "reference", "curve", "piece", "repeat", "draw", "site", "class", "seed"),
    *("frame", "point", "snapshot", "index", "from", "to", "target"),
}
_NAMING = re.compile(r"class(_\w+)?|\w+_(index|id|label)")


def names_something(column: object) -> bool:
    """Whether a column holds identifiers, labels or indices of classes."""
    return str(column) in NAMING or bool(_NAMING.fullmatch(str(column)))


def quantities(table: pd.DataFrame) -> list[str]:
    """The columns of numbers that are no identifiers, labels or indices, in their order."""
    kinds = (pd.api.types.is_numeric_dtype, pd.api.types.is_bool_dtype)
    numbers = [c for c in table if kinds[0](table[c]) and not kinds[1](table[c])]
    return [str(c) for c in numbers if not names_something(c)]

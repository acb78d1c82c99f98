"""Tables as LaTeX: a ``tabular`` with the rules of ``booktabs``."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any

import pandas as pd

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def latex(frame: pd.DataFrame) -> str:
    r"""A table for a document that loads ``booktabs``; numbers to four digits, to the right.

    Args:
        frame: The table; its index is left out.

    Example:
        >>> print(latex(pd.DataFrame({"by": ["G_relu"], "penalty": [0.12345]})))
        \begin{tabular}{lr}
        \toprule
        by & penalty \\
        \midrule
        G\_relu & 0.1235 \\
        \bottomrule
        \end{tabular}
    """
    columns = [frame.iloc[:, i] for i in range(frame.shape[1])]
    numeric = [pd.api.types.is_numeric_dtype(c) and c.dtype != bool for c in columns]
    lines = [
        f"\\begin{{tabular}}{{{''.join('r' if n else 'l' for n in numeric)}}}",
        "\\toprule",
        _row(map(str, frame.columns)),
        "\\midrule",
        *(_row(map(_cell, row)) for row in zip(*(c.tolist() for c in columns))),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return " & ".join("".join(_ESCAPED.get(c, c) for c in cell) for cell in cells) + r" \\"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "--"
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return f"{float(value):.4g}"
    return str(value).replace("\n", " ")

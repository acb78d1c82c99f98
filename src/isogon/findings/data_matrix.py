"""Findings of the data matrix: directions, and how unevenly the sensitivity is spread."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from isogon.findings.finding import Finding, Names, Number, described, effect, nothing
from isogon.findings.intervals import LEVEL, median, separation
from isogon.findings.sides import of_numbers, of_pairs
from isogon.findings.words import chance, count, interval, number, percent
from isogon.readings import Reading
from isogon.registry import finds

TOP = 0.1  # share of the samples whose part in all of the sensitivity is told
EACH = 5  # samples classified wrong, and right, that a comparison of the two needs


def data_matrix_numbers(reading: Reading) -> list[Number]:
    """Median trace, effective number of directions, and the most sensitive tenth's part."""
    table: pd.DataFrame = reading.table
    trace = table["trace"].to_numpy(float)
    directions = float(table["participation_ratio"].median())
    return [
        Number("the median sensitivity (trace of G)", float(np.median(trace))),
        Number("the effective number of directions", directions),
        Number("the most sensitive tenth's part of all traces", _top(trace)[0], "%", 1.0),
    ]


def differs_data_matrix(a: Reading, b: Reading, names: Names) -> list[Finding]:
    """Traces and directions, sample by sample."""
    both: Any = a.table.merge(b.table, on="sample", suffixes=("_a", "_b"))
    pairs = count(len(both), "sample")
    found = of_pairs(
        "the sensitivity of the output (trace of G)",
        both["trace_a"].to_numpy(),
        both["trace_b"].to_numpy(),
        names,
        pairs,
        ratio=True,
    )
    found += of_pairs(
        "the effective number of sensitive directions",
        both["participation_ratio_a"].to_numpy(),
        both["participation_ratio_b"].to_numpy(),
        names,
        pairs,
    )
    return found + of_numbers(data_matrix_numbers(a)[2:], data_matrix_numbers(b)[2:], names)


@finds("data_matrix", numbers=data_matrix_numbers, differs=differs_data_matrix)
def finds_data_matrix(reading: Reading, names: Names) -> list[Finding]:
    """Rank and effective directions, spread of the trace, samples that it gets wrong."""
    table: pd.DataFrame = reading.table
    trace = table["trace"].to_numpy(float)
    if not np.any(trace > 0):
        text = f"At all of {count(len(table), 'sample')} the output does not change to first order."
        return [described(text, "trace 0", "exact to rounding", 1.0)]
    found = [_directions(reading, table)]
    share, top = _top(trace)
    i = int(np.argmax(trace))
    text = f"The most sensitive {percent(top / len(trace))} of the samples hold "
    text += f"{percent(share)} of all sensitivity (trace of G); the most sensitive is sample "
    text += f"{int(table['sample'].iloc[i])}{_named(reading, table.iloc[i])}"
    text += f" with {number(trace[i])}, {number(trace[i] / max(np.median(trace), 1e-300))}"
    text += " times the median."
    even = top / len(trace)
    against = f"{percent(even)} if it were spread evenly"
    found.append(described(text, percent(share), against, (share - even) / max(1 - even, 1e-9)))
    return found + _wrong(table, trace)


def _directions(reading: Reading, table: pd.DataFrame) -> Finding:
    most = sum(str(c).startswith("eigenvalue_") for c in table)
    spread = table["participation_ratio"].to_numpy(float)
    centre, low, high = median(spread)
    ranks = [c for c in table if str(c).startswith("rank@")]
    text = f"Of the {count(most, 'direction')} in which the output could change, a sample's "
    text += f"sensitivity lies in about {number(centre, 2)} (median participation ratio)"
    if ranks:
        rank = float(table[ranks[0]].median())
        text += f"; the rank at a relative tolerance of {str(ranks[0]).removeprefix('rank@')} is "
        text += f"{number(rank)} in the median"
    size = 1 - centre / most if most else 0.0
    return described(f"{text}.", number(centre, 2), f"{interval(low, high)}; at most {most}", size)


def _top(trace: np.ndarray) -> tuple[float, int]:
    """Part of the summed trace that the most sensitive samples hold, and how many these are."""
    top = max(1, round(TOP * len(trace)))
    total = float(trace.sum())
    return (float(np.sort(trace)[-top:].sum()) / total if total > 0 else 0.0), top


def _named(reading: Reading, row: pd.Series) -> str:
    """What a sample is and what it was taken for."""
    kinds = reading.meta.get("classes")

    def name(value: float) -> str:
        k = int(value)
        return str(kinds[k]) if isinstance(kinds, list) and 0 <= k < len(kinds) else str(k)

    label, said = row.get("label"), row.get("prediction")
    if label is None or said is None or not np.isfinite([label, said]).all() or label != int(label):
        return ""
    taken = f", taken for {name(said)}" if int(said) != int(label) else ""
    return f" (class {name(label)}{taken})"


def _wrong(table: pd.DataFrame, trace: np.ndarray) -> list[Finding]:
    """Samples that are classified wrong against the others."""
    if "label" not in table or not np.isin(table["label"], table["prediction"]).any():
        return []
    wrong = (table["label"] != table["prediction"]).to_numpy()
    if wrong.sum() < EACH or (~wrong).sum() < EACH:
        return []
    share, p = separation(trace[wrong], trace[~wrong])
    ends = f"{number(np.median(trace[wrong]))} against {number(np.median(trace[~wrong]))}"
    against = f"50 % by chance; Mann and Whitney's {chance(p)}"
    if p > LEVEL:
        text = f"Sensitivity does not tell the {wrong.sum()} samples that it gets wrong from the "
        text += f"others (median trace {ends})."
        return [nothing(text, percent(share), against, abs(2 * share - 1))]
    word = "more" if share > 0.5 else "less"
    text = f"The {wrong.sum()} samples that it gets wrong are {word} sensitive than the others: "
    text += f"median trace {ends}; a wrong one has the larger trace in {percent(share)} of pairs."
    return [effect(text, percent(share), against, abs(2 * share - 1))]

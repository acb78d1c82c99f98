"""Findings of integrability: whether the kernel of G is closed under brackets."""

from __future__ import annotations

import numpy as np

from isogon.findings.finding import Finding, Names, Number, effect, nothing
from isogon.findings.intervals import median
from isogon.findings.words import count, interval, number, percent
from isogon.readings import Reading
from isogon.registry import finds

ROUNDING = 1e-6  # residuals below it are not told from 0


def integrability_numbers(reading: Reading) -> list[Number]:
    """Median residual."""
    return [Number("the median residual of the brackets", _residual(reading)[1], span=1.0)]


@finds("integrability", numbers=integrability_numbers)
def finds_integrability(reading: Reading, names: Names) -> list[Finding]:
    """How much of a bracket leaves the range of G."""
    values, centre = _residual(reading)
    beyond = int((values > ROUNDING).sum())
    if not beyond:
        text = f"At all of {count(len(values), 'sample')} the brackets of the logits' gradients "
        text += "stay within their span, as they do inside a linear region."
        return [nothing(text, "residual 0", f"below {ROUNDING:g} at every sample", 1.0)]
    _, low, high = median(values)
    text = f"At {percent(beyond / len(values))} of {count(len(values), 'sample')} brackets leave "
    text += f"the span of the gradients; the median residual is {number(centre)} of their length."
    return [effect(text, number(centre), f"0 if integrable; {interval(low, high)}", centre)]


def _residual(reading: Reading) -> tuple[np.ndarray, float]:
    values = reading.table["residual"].to_numpy(float)
    values = values[np.isfinite(values)]
    return values, float(np.median(values)) if len(values) else float("nan")

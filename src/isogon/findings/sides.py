"""One measure of two networks: the differences of their numbers, paired where they can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from isogon.findings.finding import Finding, Names, Number, described, effect, nothing
from isogon.findings.intervals import apart, mean
from isogon.findings.words import in_points, interval, number, percent, start

SMALL = 0.02  # a difference of exact numbers, as a share of what it could be, that is none
FEW = 3  # pairs that an interval needs


def in_unit(value: float, unit: str) -> str:
    """A headline number with its unit."""
    if unit == "points":
        return f"{in_points(value)} points"
    if unit == "%":
        return percent(value)
    return f"{number(value)} {unit}".strip()


def of_numbers(a: Sequence[Number], b: Sequence[Number], names: Names) -> list[Finding]:
    """Differences of headline numbers that are each one number per network: exact, untested."""
    theirs = {n.name: n for n in b}
    found = []
    for mine in a:
        other = theirs.get(mine.name)
        if other is None or not (math.isfinite(mine.value) and math.isfinite(other.value)):
            continue
        gap = other.value - mine.value
        top = max(abs(mine.value), abs(other.value))
        size = abs(gap) / (mine.span or top) if (mine.span or top) else 0.0
        one, two = in_unit(mine.value, mine.unit), in_unit(other.value, other.unit)
        value = f"{one} and {two}"
        if size < SMALL or one == two:
            text = f"{start(names.a)} and {names.b} hardly differ in {mine.name}: {value}."
            found.append(nothing(text, value, "one number for each network", size))
        else:
            text = f"{start(mine.name)}: {one} for {names.a}, {two} for"
            text += f" {names.b}."
            found.append(
                described(text, value, "one number for each network, untested", 0.5 * size)
            )
    return found


def of_shares(
    what: str,
    a: tuple[float, float, float],
    b: tuple[float, float, float],
    names: Names,
    over: str,
) -> Finding:
    """The difference of two shares, each given with the ends of its interval.

    Args:
        what: What they are shares of, in words.
        a: Of the first network: share, and the ends of its interval.
        b: Of the second one.
        names: What the networks are called.
        over: What they were counted over.
    """
    gap, low, high = apart(a[0], a[1:], b[0], b[1:])
    ends = f"{in_points(a[0])} for {names.a}, {in_points(b[0])} for {names.b}"
    value = f"{in_points(abs(gap))} points"
    against = f"{interval(low, high, in_points)} points; 0 would be no difference; {over}"
    if low <= 0 <= high:
        text = f"{start(what)} does not tell {names.a} from {names.b}: {ends}."
        return nothing(text, value, against, abs(gap))
    return effect(f"{start(what)} differs by {value}: {ends}.", value, against, abs(gap))


def of_pairs(
    what: str,
    a: np.ndarray,
    b: np.ndarray,
    names: Names,
    pairs: str,
    *,
    unit: str = "",
    span: float | None = None,
    ratio: bool = False,
    in_unit: Callable[[float], str] = number,
) -> list[Finding]:
    """The mean difference of paired values, with its interval.

    Args:
        what: What the values are, in words.
        a: Of the first network.
        b: Of the second one, of the same sample or place.
        names: What the networks are called.
        pairs: What was paired: ``437 samples``.
        unit: Of the values.
        span: How large a difference can be; None: the larger mean.
        ratio: Tell the ratio b / a (geometric mean), of positive values, instead.
        shown: How a value is written.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    keep = np.isfinite(a) & np.isfinite(b)
    keep &= (a > 0) & (b > 0) if ratio else True
    a, b = a[keep], b[keep]
    if len(a) < FEW:
        return []
    centre, low, high = mean(np.log(b / a) if ratio else b - a)
    if ratio:
        centre, low, high = (math.exp(v) for v in (centre, low, high))
        middle = 1.0
        size = 1 - min(centre, 1 / centre)
        size_text = f"{number(centre)} times"
        against = f"{interval(low, high)} times; 1 would be no difference; paired over {pairs}"
    else:
        middle = 0.0
        top = span or max(abs(a.mean()), abs(b.mean()), 1e-300)
        size = abs(centre) / top
        size_text = f"{in_unit(abs(centre))} {unit}".strip()
        against = f"{interval(low, high, in_unit)} {unit}".strip()
        against += f"; 0 would be no difference; paired over {pairs}"
    if low <= middle <= high or (not ratio and not np.ptp(b - a) and not centre):
        text = f"{start(what)} does not tell {names.a} from {names.b}."
        return [nothing(text, size_text, against, size)]
    if ratio:
        text = f"{start(what)} is {size_text} as large for {names.b} as for"
        return [effect(f"{text} {names.a}.", size_text, against, size)]
    word = "larger" if centre > 0 else "smaller"
    ends = f"{in_unit(float(a.mean()))} to {in_unit(float(b.mean()))}"
    text = f"{start(what)} is {size_text} {word} for {names.b} than for {names.a}"
    return [effect(f"{text} (from {ends}).", size_text, against, size)]

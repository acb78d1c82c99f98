"""Numbers and names as they are written in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float, digits: int = 3) -> str:
    """A number to so many digits: whole thousands grouped, true minus, powers of ten spelled."""
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "infinite" if value > 0 else "−infinite"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e7 or size < 1e-3:
        mantissa, exponent = f"{value:.{max(digits - 2, 0)}e}".split("e")
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa}·10{power}"
    elif size >= 10 ** (digits - 1):
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{max(digits - 1 - math.floor(math.log10(size)), 0)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−")


def in_points(share: float, digits: int | None = None) -> str:
    """A share in points of a hundred, without the word: 0.583 is ``58``, 0.0031 ``0.3``."""
    value = 100 * share
    digits = (0 if abs(value) >= 9.95 else 1) if digits is None else digits
    text = f"{value:.{digits}f}"
    text = text if float(text) else "0"
    return text.replace("-", "−")


def percent(share: float) -> str:
    """A share of a whole: ``58 %``; one digit behind the point at both ends."""
    value = 100 * share
    inner = 9.95 <= value <= 90.05
    text = f"{value:.0f}" if inner else f"{value:.1f}"
    return f"{text.removesuffix('.0')} %"


def chance(p: float) -> str:
    """A p-value: ``p = 0.03``, ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def span(low: float, high: float, shown=number) -> str:
    """An interval: ``1.2 to 3.4``."""
    return f"{shown(low)} to {shown(high)}"


def interval(low: float, high: float, shown=number) -> str:
    """A 95 % interval, or why there is none."""
    if math.isnan(low) or math.isnan(high):
        return "too few values for an interval"
    return f"95 % interval {span(low, high, shown)}"


def count(n: int, one: str, many: str | None = None) -> str:
    """So many of something: ``1 layer``, ``1,204 layers``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def enumerated(names: Sequence[str], most: int = 4) -> str:
    """Names in a row: ``a``, ``a and b``, ``a, b and c``, ``a, b, c and 5 more``."""
    names = [str(n) for n in names]
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def start(text: str) -> str:
    """A sentence with its first letter large."""
    return text[:1].upper() + text[1:]


def trimmed(names: Sequence[str]) -> dict[str, str]:
    """Each name without the path that all of them begin with; none begins with a bare number."""
    parts = {n: str(n).split(".") for n in dict.fromkeys(names)}
    common = 0
    while len(parts) > 1 and all(len(p) > common + 1 for p in parts.values()):
        if len({p[common] for p in parts.values()}) > 1:
            break
        common += 1
    while common and any(p[common].isdigit() for p in parts.values()):
        common -= 1
    return {n: ".".join(p[common:]) for n, p in parts.items()}

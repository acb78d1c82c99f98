"""Findings of readings: of one, of one for each of two networks, in the order of their weight."""

from __future__ import annotations

from collections.abc import Sequence

from isogon import registry
from isogon.findings.finding import Finding, Names, Number
from isogon.findings.generic import finds_generic, numbers_generic
from isogon.findings.sides import of_numbers
from isogon.readings import Reading

FIRST = 5  # on the first screen of a page


def findings(reading: Reading, names: Names | None = None) -> list[Finding]:
    """What a reading says, most important first.

    Args:
        reading: The result of any measure.
        names: What the networks of a reading of two are called.

    Returns:
        At least one finding; one of a reading that nothing can be said of says so.
    """
    if not len(reading) and not reading.arrays:
        return [_empty(reading)]
    entry = _entry(reading.measure)
    found = entry.build(reading, names or Names()) if entry else finds_generic(reading, names)
    found = [f.of(reading.measure) for f in found] or [_empty(reading)]
    return sorted(found, key=lambda f: -f.weight)


def numbers(reading: Reading) -> list[Number]:
    """The headline numbers of a reading: what is averaged over seeds and told apart."""
    entry = _entry(reading.measure)
    given = entry.extra.get("numbers") if entry else None
    return (given or numbers_generic)(reading)


def differences(a: Reading, b: Reading, names: Names | None = None) -> list[Finding]:
    """What tells two networks apart in one measure, taken of each on the same data.

    Args:
        a: Of the first network.
        b: Of the second one, by the same measure with the same inputs.
        names: What they are called.
    """
    names = names or Names()
    entry = _entry(a.measure)
    own = entry.extra.get("differs") if entry else None
    found = own(a, b, names) if own else of_numbers(numbers(a), numbers(b), names)
    return sorted((f.of(a.measure) for f in found), key=lambda f: -f.weight)


def ordered(found: Sequence[Finding], first: int = FIRST) -> list[Finding]:
    """The findings that matter most, no measure twice as long as others have something to say."""
    ranked = sorted((f for f in found if f.value), key=lambda f: -f.weight)
    best, rest, seen = [], [], set()
    for f in ranked:
        (rest if f.measure in seen else best).append(f)
        seen.add(f.measure)
    return sorted([*best, *rest][:first], key=lambda f: -f.weight)


def _entry(measure: str) -> registry.Entry | None:
    return registry.get("finds", measure) if registry.has("finds", measure) else None


def _empty(reading: Reading) -> Finding:
    return Finding("Nothing was there to be measured.", "0 rows", "no number", 0.0, effect=False)

"""A finding: one sentence of what came out, and how much it matters."""

from __future__ import annotations

from dataclasses import dataclass, replace

DESCRIBED = 0.5  # what a number without a null to be tested against counts, of one with
QUIET = 0.05  # the most that "nothing parts from chance" counts


@dataclass(frozen=True)
class Finding:
    """One sentence, its number, and what the number stands against.

    Attributes:
        text: The sentence in words.
        value: The number by itself, as a reader would say it: ``58 points``.
        against: Its null, its interval, or what it is an exact count of.
        weight: How much it matters, in [0, 1], comparable between measures: how far the number is
            from its null, as a share of how far it could be. A number that has no null counts half
            (`described`), one that its null may explain at most 0.05 (`nothing`).
        effect: Whether the number parts from its null; False also where it has none.
        measure: The measure whose section and figure it points to.
        side: Of a comparison, whose figure: ``a``, ``b``, or empty for both.
    """

    text: str
    value: str
    against: str
    weight: float
    effect: bool = True
    measure: str = ""
    side: str = ""

    @property
    def quiet(self) -> bool:
        """Whether it says that there is nothing to see."""
        return self.weight <= QUIET

    def of(self, measure: str, side: str = "") -> Finding:
        """The finding of a measure."""
        return replace(self, measure=self.measure or measure, side=self.side or side)


@dataclass(frozen=True)
class Names:
    """What the two networks of a reading are called in its findings."""

    a: str = "a"
    b: str = "b"


@dataclass(frozen=True)
class Number:
    """A headline number of a reading, for tables over seeds and differences of two networks.

    Attributes:
        name: In words, with the place it belongs to: ``accuracy lost by resetting conv2``.
        value: The number.
        unit: ``points`` and ``%`` for shares in [0, 1], else a unit in words, or nothing.
        span: How large a difference of it can be, for `Finding.weight`; None: relative to itself.
    """

    name: str
    value: float
    unit: str = ""
    span: float | None = None


def effect(text: str, value: str, against: str, size: float) -> Finding:
    """A number that parts from its null, by ``size`` of how far it could."""
    return Finding(text, value, against, _clipped(size))


def described(text: str, value: str, against: str, size: float = 0.5) -> Finding:
    """A number that stands for itself: there is no null that it could be chance of."""
    return Finding(text, value, against, DESCRIBED * _clipped(size), effect=False)


def nothing(text: str, value: str, against: str, size: float = 0.5) -> Finding:
    """A number that its null explains."""
    return Finding(text, value, against, QUIET * _clipped(size), effect=False)


def _clipped(size: float) -> float:
    return min(max(float(size), 0.0), 1.0) if size == size else 0.0

"""Readings that claim to be exact are certified before they are kept, within a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from isogon.errors import IsogonError

if TYPE_CHECKING:
    from isogon.readings.reading import Reading


FEWEST, MOST = 10.0, 30.0  # seconds; in between as long as the measure itself took
SHARE = 0.25  # of what is left of a budget, at most


def certify_within(reading: Reading, spent: float, until: float | None = None) -> None:
    """Let a reading that has a certificate make it; the reading keeps it.

    Args:
        reading: Of any measure.
        spent: Seconds that the measure took.
        until: End of the budget by `time.monotonic`; None: there is none.
    """
    own = getattr(reading, "certify", None)
    if own is None:
        return
    seconds = min(MOST, max(FEWEST, spent))
    if until is not None:
        seconds = min(seconds, max(SHARE * (until - time.monotonic()), 0.1))
    try:
        own(seconds=seconds)
    except IsogonError as error:  # the reading stands, but nobody has checked it
        reading.meta["certificate"] = {"verdict": f"NOT certified: {error}"}


def verdict(reading: Reading) -> str:
    """The line that a kept certificate says; empty where there is none."""
    kept = reading.meta.get("certificate")
    return str(kept.get("verdict", "")) if isinstance(kept, dict) else ""

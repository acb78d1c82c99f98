"""Data that the calling program handed over."""

from __future__ import annotations

from isogon import context
from isogon.data.batches import Batches
from isogon.data.samples import Samples
from isogon.registry import dataset


@dataset("given")
def given_data(name: str) -> Samples:
    """Data that the calling program handed to `isogon.survey` or `isogon.compare`.

    Args:
        name: What the program's object is called there.
    """
    found: Batches = context.handed(name)
    return found.samples

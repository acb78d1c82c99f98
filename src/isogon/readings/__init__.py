"""What measures return: numbers with named axes and units, that know how to be kept.

A `Reading` is a tidy table beside named arrays. `SiteTable`, `SampleTable`, `Grid`, `Curve`
and `Path` say what a row of the table is. ``reading.save(folder)`` and ``read(folder)`` give
back the same numbers bit by bit, NaN and infinities included.
"""

from __future__ import annotations

from isogon.readings.files import MANIFEST, export, read
from isogon.readings.kinds import Curve, Grid, Path, SampleTable, SiteTable
from isogon.readings.reading import Reading

__all__ = [
    "MANIFEST",
    "Curve",
    "Grid",
    "Path",
    "Reading",
    "SampleTable",
    "SiteTable",
    "export",
    "read",
]

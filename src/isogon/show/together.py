"""Several readings of one measure in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from isogon import registry
from isogon.readings import Reading
from isogon.show import style


@dataclass(frozen=True)
class Panel:
    """Readings that share an axis.

    Attributes:
        title: Of the panel.
        readings: One per curve, or several of one name (seeds), which are pooled.
        names: What they are called.
        column: The statistic; the measure's first where it is None.
    """

    title: str
    readings: tuple[Reading, ...]
    names: tuple[str, ...]
    column: str | None = None


def can_draw_together(measure: str) -> bool:
    """Whether the figure of a measure can hold several readings."""
    return registry.has("draws", measure) and "together" in registry.get("draws", measure).extra


def draw_together(panels: Sequence[Panel]) -> Figure:
    """One figure of several readings, by the function that the measure registered.

    A measure says how with ``@draws("name", together=function of panels)``.
    """
    measure = panels[0].readings[0].measure
    with style.styled():
        return registry.get("draws", measure).extra["together"](panels)


def tables(panels: Sequence[Panel]) -> dict[str, pd.DataFrame]:
    """The numbers behind `draw_together`, where the measure registered ``tables=function``."""
    made = registry.get("draws", panels[0].readings[0].measure).extra.get("tables")
    return {} if made is None else made(panels)

"""Several readings of one measure in one figure."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from isogon import registry
from isogon.show import style
from isogon.show.panel import Panel
from isogon.show.run_figures import draw_runs
from isogon.show.runs import run_table

__all__ = ["Panel", "draw_together", "has_own", "tables"]


def has_own(measure: str) -> bool:
    """Whether the measure says itself how several of its readings are drawn."""
    return registry.has("draws", measure) and "together" in registry.get("draws", measure).extra


def draw_together(panels: Sequence[Panel]) -> Figure:
    """One figure of several readings of a measure.

    By the function that the measure registered, ``@draws("name", together=function of panels)``,
    else by what kind of reading it is, see `isogon.show.run_figures`.
    """
    measure = panels[0].readings[0].measure
    made = registry.get("draws", measure).extra["together"] if has_own(measure) else draw_runs
    with style.styled():
        fig = made(panels)
        left = sum(not r.complete for p in panels for r in p.readings)
        if left:
            style.note(fig, f"{left} of the runs stopped before their end")
        return fig


def tables(panels: Sequence[Panel]) -> dict[str, pd.DataFrame]:
    """The numbers behind `draw_together`: the measure's own ``tables=function``, else by kind."""
    measure = panels[0].readings[0].measure
    extra = registry.get("draws", measure).extra if registry.has("draws", measure) else {}
    found = extra["tables"](panels) if "tables" in extra else {"Mean over runs": run_table(panels)}
    unnamed = not any(n for p in panels for n in p.names)
    return {k: t.drop(columns="name", errors="ignore") if unnamed else t for k, t in found.items()}

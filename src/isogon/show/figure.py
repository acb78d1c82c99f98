"""`draw`: the figure of a reading."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from isogon import registry
from isogon.errors import OptionError, nearest
from isogon.readings import Reading
from isogon.show import style
from isogon.show.generic import draw_generic


def draw(reading: Reading, **options: Any) -> Figure:
    """Draw a reading.

    Args:
        reading: The result of any measure.
        **options: Of the figure of that measure, e.g. ``sample=3``.

    Returns:
        A matplotlib figure, not known to pyplot: ``figure.savefig(path)``.

    Raises:
        OptionError: The figure has no such option, or there is nothing to draw.
    """
    if not isinstance(reading, Reading):
        raise OptionError(
            "only readings can be drawn",
            got=type(reading).__name__,
            expected="what a measure returns, or isogon.read(folder)",
        )
    drawer = draw_generic
    if registry.has("draws", reading.measure):
        drawer = registry.get("draws", reading.measure).build
    _check_options(drawer, reading.measure, options)
    with style.styled():
        fig = drawer(reading, **options)
        kept = reading.meta.get("certificate")
        notes = [] if reading.complete else ["incomplete: stopped before its end"]
        if isinstance(kept, dict) and kept.get("verdict"):
            notes.append(str(kept["verdict"]))
        if notes:
            style.note(fig, "; ".join(notes))
        return fig


def _check_options(drawer: Callable[..., Figure], measure: str, options: dict[str, Any]) -> None:
    parameters = list(inspect.signature(drawer).parameters.values())[1:]
    names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    if len(names) < len(parameters):
        return
    for name in options:
        if name not in names:
            close = nearest(name, names)
            raise OptionError(
                f"the figure of {measure!r} has no option {name!r}",
                expected=", ".join(names) or "no options",
                fix=f"Did you mean {close[0]!r}?" if close else None,
            )

"""Legends that leave their axes room: of several panels one, in as many columns as fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isogon.show import style

MOST = 14  # entries that a legend of a whole figure lists
LINE = 13.5  # points: height of an entry


def above(fig: Figure, axes: Sequence[Axes], order: Sequence[str] | None = None) -> None:
    """One legend of all axes above them; none where there are fewer than two entries.

    Args:
        fig: The figure.
        axes: Whose entries it lists, each text once.
        order: Of the texts; as they come.
    """
    held: dict[str, Artist] = {}
    for ax in axes:
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            held.setdefault(text, handle)
    texts = [t for t in order if t in held] if order is not None else list(held)
    if len(texts) < 2:
        return
    if len(texts) > MOST:
        style.note(fig, f"the first {MOST} of {len(texts)} names are listed")
        texts = texts[:MOST]
    handles, canvas = [held[t] for t in texts], fig.canvas
    renderer: Any = canvas.get_renderer()  # type: ignore[attr-defined]
    for columns in range(len(texts), 0, -1):
        made = fig.legend(handles, texts, loc="outside upper left", ncols=columns)
        if columns == 1 or made.get_window_extent(renderer).width < 0.98 * fig.bbox.width:
            return
        made.remove()


def beside(ax: Axes) -> None:
    """A legend at the right of the axes; above them where it is higher than the figure."""
    fig: Any = ax.figure
    handles, texts = ax.get_legend_handles_labels()
    if len(texts) * LINE < 72 * (fig.get_figheight() - 0.5):
        ax.legend(handles, texts, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    else:
        above(fig, [ax])

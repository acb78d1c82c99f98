"""Readings that share an axis of a figure."""

from __future__ import annotations

from dataclasses import dataclass

from isogon.readings import Reading


@dataclass(frozen=True)
class Panel:
    """Readings that share an axis.

    Attributes:
        title: Of the panel.
        readings: One per curve, or several of one name (seeds), which are pooled.
        names: What they are called.
        column: The statistic; the measure's first where it is None.
        labels: What tells each reading from the others of its name (``seed 0``), where a figure
            shows them one by one.
    """

    title: str
    readings: tuple[Reading, ...]
    names: tuple[str, ...]
    column: str | None = None
    labels: tuple[str, ...] = ()

    def called(self, k: int) -> str:
        """What the k-th reading is called when it is shown alone: name and label."""
        label = self.labels[k] if self.labels else ""
        return ", ".join(t for t in (self.names[k], label) if t)

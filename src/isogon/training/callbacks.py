"""What may watch a run: the callback protocol and the callbacks that isogon brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isogon.training.loop import Run


class Callback:
    """Watches a run; override what is needed.

    Callbacks are called in the main process only, between optimisation steps, with random
    states of their own: what they draw does not change the run. They may measure
    ``run.model`` as any user's model; they must leave it as it was. ``run.stop(reason)`` ends
    training after the current epoch.

    A callback that keeps state across steps returns it from `state` (JSON-able); it is stored
    with every checkpoint and handed to `start` when a run goes on.
    """

    def start(self, run: Run, state: dict[str, Any] | None) -> None:
        """Before the first step; ``state`` is what `state` gave at the checkpoint, or None."""

    def step(self, run: Run) -> None:
        """After each optimisation step (and once before the first, with ``run.step`` 0)."""

    def epoch(self, run: Run, row: dict[str, float]) -> None:
        """After each epoch, with its row of metrics."""

    def finish(self, run: Run) -> None:
        """After training."""

    def state(self) -> dict[str, Any]:
        """What must survive a kill, JSON-able."""
        return {}

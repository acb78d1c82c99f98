"""What may watch a run: the callback protocol and the callbacks that isogon brings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogon.errors import DependencyError
from isogon.training.config import FitConfig

if TYPE_CHECKING:
    from isogon.training.run import Run


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


class Stop(Callback):
    """Ends training on a plateau of the loss, or when the accuracy is reached."""

    def __init__(self, config: FitConfig) -> None:
        self.config = config

    def epoch(self, run: Run, row: dict[str, float]) -> None:
        """Look at the rows so far; nothing else is remembered."""
        which = "validation" if "validation_loss" in row else "running"
        patience, rows = self.config.stop_patience, run.history
        losses = [r[f"{which}_loss"] for r in rows]
        best = min(losses[:-patience], default=float("inf")) if patience else float("inf")
        if patience and min(losses[-patience:]) >= best - self.config.stop_delta:
            run.stop(f"no smaller {which} loss for {patience} epochs")
        if self.config.stop_at and row.get(f"{which}_accuracy", 0.0) >= self.config.stop_at:
            run.stop(f"{which} accuracy {self.config.stop_at} reached")


class TensorBoard(Callback):
    """Writes every metric of every epoch for TensorBoard."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def start(self, run: Run, state: dict[str, Any] | None) -> None:
        """Open the folder; what a killed run wrote beyond its checkpoint is hidden."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise DependencyError(
                "TensorBoard is not installed",
                got=str(error),
                fix="pip install 'isogon[tensorboard]'",
            ) from error
        self.writer = SummaryWriter(self.folder, purge_step=run.step + 1)

    def epoch(self, run: Run, row: dict[str, float]) -> None:
        """One scalar per metric, at the number of steps made."""
        for name, value in row.items():
            if name not in ("epoch", "step"):
                self.writer.add_scalar(name.replace("_", "/", 1), value, run.step)
        self.writer.flush()

    def finish(self, run: Run) -> None:
        """Close the folder."""
        self.writer.close()


class Log(Callback):
    """Appends one JSON line per epoch to a file."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def epoch(self, run: Run, row: dict[str, float]) -> None:
        """One line, written at once."""
        from isogon.storage import write_error

        line = json.dumps({"data": run.facts["data"], "spec": run.facts["spec"], **row}) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise write_error(self.path, error) from error

"""A measure on fixed examples while a network learns: data first, figures later."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogon import registry, storage
from isogon.data import Batches, samples
from isogon.errors import FileError, OptionError
from isogon.readings import Curve, Reading
from isogon.specs import Spec, parse
from isogon.training.callbacks import Callback

if TYPE_CHECKING:
    from isogon.training.run import Run

EXAMPLES = 1000


class Observe(Callback):
    """Runs a measure on fixed examples every so many steps and keeps each table at once.

    Each observation is one Parquet file, ``observe/<measure>/step-00000042.parquet``, written
    before training goes on; at the end they become one reading in ``observe/<measure>``, with
    the columns ``step`` and ``epoch`` before those of the measure.

    Args:
        measure: Spec of a measure of a model and batches: ``data-matrix``,
            ``data_matrix(tolerances=(1e-3,))``.
        every: Steps between two observations; 0 for a tenth of an epoch. The first is before
            training, the last after it.
        data: Spec of the examples; the first 1,000 training samples where None.

    Raises:
        OptionError: The measure wants more than a model and batches.
    """

    def __init__(self, measure: str, *, every: int = 0, data: str | None = None) -> None:
        head, rest = re.match(r"([\w-]*)(.*)", measure, re.DOTALL).groups()  # type: ignore[union-attr]
        self.spec: Spec = parse(head.replace("-", "_") + rest)
        self.every, self.data = every, data
        self.measure = str(self.spec.name)
        inputs = registry.get("measure", self.measure).build.__annotations__
        if "model" not in inputs or "batches" not in inputs:
            raise OptionError(
                "this measure can't be observed",
                got=self.measure,
                expected="a measure of a model and batches, such as data-matrix",
            )

    def start(self, run: Run, state: dict[str, Any] | None) -> None:
        """Fix the examples and the steps."""
        if run.out is None:
            raise OptionError(
                "observing needs a folder", got="no out", expected="a folder", fix="Set out."
            )
        self.folder = run.out / "observe" / self.measure
        found = (
            samples(self.data, split="train") if self.data else run.feed.source.limited(EXAMPLES)
        )
        self.batches = Batches(found, 250)
        self.interval = self.every or max(1, round(run.steps_per_epoch / 10))

    def step(self, run: Run) -> None:
        """Measure, if it is time."""
        if run.step % self.interval and run.step != run.steps:
            return
        reading = self.measured(run)
        table = reading.to_frame()
        table.insert(0, "step", run.step)
        table.insert(1, "epoch", run.step / run.steps_per_epoch)
        storage.write_table(self._file(run.step), table)

    def measured(self, run: Run) -> Reading:
        """The measure's reading of the model as it is now."""
        return registry.build("measure", self.spec, model=run.model, batches=self.batches)

    def finish(self, run: Run) -> None:
        """All observations of this run as one reading."""
        facts = {"spec": run.facts["spec"], "data": run.facts["data"], "seed": run.config.seed}
        gather(self.folder, last=run.step, facts=facts).save(self.folder)

    def _file(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.parquet"


def gather(folder: Path, *, last: int | None = None, facts: dict[str, Any] | None = None) -> Curve:
    """The observations in a folder as one reading, also of a run that was killed.

    Args:
        folder: ``<out>/observe/<measure>``.
        last: Leave out observations after this step.
        facts: What the reading's metadata says beside the measure's name.

    Raises:
        FileError: No observation there.
    """
    import pandas as pd

    found = []
    for path in sorted(folder.glob("step-*.parquet")):
        table = storage.read_table(path)
        if last is None or int(table["step"].iloc[0]) <= last:
            found.append(table)
    if not found:
        raise FileError(f"no observations in {str(folder)!r}", expected="files step-*.parquet")
    meta = {"observes": folder.name, **(facts or {})}
    return Curve("observation", pd.concat(found, ignore_index=True), meta=meta)

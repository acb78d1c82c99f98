"""One measurement of a sweep over many jobs: each sees a share of the data, one merges them.

The job of a share ends in a record like any other, whose reading (`isogon.readings.kinds.Share`)
holds the state of the statistics after each pass so far: tensors and JSON. The whole job reads
these records, merges the states and makes the one reading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from isogon.nets.elsewhere import TurnOver, run_by
from isogon.nets.shares import SharedOut, ShareState
from isogon.readings.kinds import Share
from isogon.readings.reading import Reading
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.job import Job
from isogon.survey.declaring.splitting import Missing, check_splits
from isogon.survey.running.record import Record


def run_share(job: Job, held: Sequence[Record | None], measured: Callable[[], Reading]) -> Reading:
    """The next pass over the job's own share, behind those that it has.

    Args:
        job: With its shard.
        held: The records of all shares, as far as there are any.
        measured: Calls the measure.
    """
    assert job.shard is not None
    check_splits(job.whole(), catalogue.declaration(job.measure), job.shard[1])
    mine = job.shard[0]
    states = [_states(r) for r in held]
    split = SharedOut(states, mine)
    try:
        with run_by(split):
            measured()
    except TurnOver:
        pass
    own = [*states[mine], *([split.added] if split.added is not None else [])]
    arrays = {f"{k}/{name}": a for k, s in enumerate(own) for name, a in s.arrays.items()}
    table = pd.DataFrame({"pass": np.arange(len(own)), "samples": [s.seen for s in own]})
    meta = {"states": [s.tree for s in own], "shard": list(job.shard)}
    return Share(job.measure, table=table, arrays=arrays, meta=meta)


def merge_records(
    job: Job, held: Sequence[Record | None], measured: Callable[[], Reading]
) -> Reading:
    """What the measure makes of all shares.

    Raises:
        Missing: A share is not there, or lacks a pass.
    """
    lacking = [k + 1 for k, record in enumerate(held) if record is None]
    if lacking:
        raise Missing(
            f"shares of {job.measure} are missing",
            got=f"{len(held) - len(lacking)} of {len(held)}",
            expected="all of them",
            fix="Run the sweep again.",
        )
    split = SharedOut([_states(r) for r in held])
    try:
        with run_by(split):
            return measured()
    except TurnOver:
        raise Missing(
            f"{job.measure} wants another pass over its data",
            got=f"{split.step - 1} of each share",
            expected=split.step,
            fix="Run the sweep again.",
        ) from None


def seconds(held: Sequence[Record | None]) -> list[float]:
    """What the shares took, one by one."""
    return [round(float(r.provenance["seconds"]), 6) for r in held if r is not None]


def _states(record: Record | None) -> list[ShareState]:
    if record is None or not isinstance(record.reading, Share):
        return []
    reading = record.reading
    found = []
    for k, tree in enumerate(reading.meta["states"]):
        own = f"{k}/"
        arrays = {n[len(own) :]: a for n, a in reading.arrays.items() if n.startswith(own)}
        found.append(ShareState(tree, arrays, int(reading.table["samples"].iloc[k])))
    return found

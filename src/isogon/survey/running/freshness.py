"""Whether the finished jobs of a sweep still are what their words stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from isogon import storage
from isogon.errors import IsogonError
from isogon.specs import parse
from isogon.storage import references
from isogon.storage.stamps import Stamp, noting, stamp, there

if TYPE_CHECKING:
    from isogon.survey.running.sweep import Sweep

FOLDER = "inputs"
MANY = 1000  # files, above which a job is looked at in full instead
HOST = 4  # entries of a stamp that mean the same on every machine that sees the file


def keep(directory: Path, id: str, files: Mapping[str, Stamp]) -> None:
    """Note which files a job was computed from, in the sweep's folder."""
    found = {p: list(s[:HOST]) for p, s in files.items()} if len(files) <= MANY else None
    storage.write_json(directory / FOLDER / f"{id}.json", {"files": found}, indent=None)


def reopen(sweep: Sweep) -> list[str]:
    """Put finished jobs back whose data, files or code have changed since; their names.

    Where a file was touched, and where a user's code may have read what nobody knows of, the
    inputs are built and the record is looked up under their content. What would have to be
    trained for that is left to those who run the job: they find the record, too.

    Args:
        sweep: As it was typed: what its jobs name may be imported.
    """
    session = None
    back = []
    for id, job in sweep.jobs.items():
        state = sweep.state(id)
        if state.state != "done":
            continue
        specs = [parse(text) for text in job.inputs.values()]
        trains = any(references.within(spec, lambda s: s.name == "trained") for spec in specs)
        opaque = not trains and any(map(references.runs_code, specs))
        if not opaque and _untouched(sweep.directory, id):
            continue
        from isogon.survey.running.run import Session, find_record

        session = session or Session()
        try:
            with noting() as files:
                found = None if trains else find_record(job, out=sweep.records, session=session)
        except IsogonError:
            continue  # can't be told here, e.g. the data are elsewhere: its record stays
        if found is not None:
            keep(sweep.directory, id, files)
            continue
        sweep.put(replace(state, state="queued", record="", error="its inputs were touched"))
        back.append(id)
    return back


def _untouched(directory: Path, id: str) -> bool:
    """Whether all files that a job was computed from are known, and are as they were."""
    try:
        held = storage.read_json(directory / FOLDER / f"{id}.json")["files"]
        now = {path: list(stamp(path)[:HOST]) if there(path) else [] for path in held}
        return now == held
    except (IsogonError, OSError, AttributeError, KeyError, TypeError, ValueError):
        return False

"""The states of the jobs of a sweep."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

STATES: tuple[str, ...] = ("queued", "running", "done", "failed", "died")
_RECORD = re.compile(r"records/[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")


@dataclass
class JobState:
    """What is known of one job; host, boot, space, pid and start are those of who works on it.

    ``died`` is never written: it is what a reader concludes of a job that says it is running
    while nobody runs it.
    """

    id: str
    state: str = "queued"
    attempts: int = 0
    host: str = ""
    pid: int = 0
    slurm: str = ""
    started: float = 0.0
    ended: float = 0.0
    record: str = ""
    error: str = ""
    boot: str = ""
    space: str = ""
    start: str = ""


def waits(state: JobState) -> bool:
    """Whether Slurm was given the job, and has not been seen to end it."""
    return bool(state.slurm) and state.state in ("queued", "running")


def held_by_slurm(state: JobState, alive: set[str] | None) -> bool:
    """Whether Slurm has the job, or may have it."""
    return waits(state) and (alive is None or state.slurm in alive)


def stored(data: Any, id: str) -> JobState:
    """The state that a file holds, every field of its kind."""
    found = JobState(**data)
    for name, value in asdict(JobState(id)).items():
        if isinstance(value, float) and type(data.get(name)) is int:
            setattr(found, name, float(data[name]))
        if type(getattr(found, name)) is not type(value):
            raise TypeError("a field of another kind")
    if found.state not in STATES:
        raise ValueError("no such state")
    if found.id != id or (found.record and not _RECORD.fullmatch(found.record)):
        raise ValueError("names something outside the folder")
    return found


def count_states(states: Iterable[JobState]) -> dict[str, int]:
    """How many jobs are in each state."""
    counts: dict[str, int] = dict.fromkeys(STATES, 0)
    for state in states:
        counts[state.state] = counts.get(state.state, 0) + 1
    return counts

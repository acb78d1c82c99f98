"""Sweeps: the jobs of a plan, each with its state in a file of its own.

The folder of a sweep holds ``plan.json`` (the jobs), ``state/ID.json`` (one per job, written
atomically by whoever works on it), ``logs/ID.txt`` and ``records/``. Nothing else remembers
anything: a sweep that is killed at any moment and started again does what is missing.
"""

from __future__ import annotations

import os
import re
import socket
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from isogon import context, storage
from isogon.errors import FileError, IsogonError
from isogon.survey.plan import Plan
from isogon.survey.record import Job

STATES: tuple[str, ...] = ("queued", "running", "done", "failed", "died")
PLAN = "plan.json"
WORDS = ("title", "about", "command", "figures", "names")  # of a plan, beside its jobs


@dataclass
class State:
    """What is known of one job.

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


@dataclass(frozen=True)
class Surroundings:
    """What jobs need besides themselves, in words: it travels to other processes."""

    device: str = "cpu"
    batch_size: int | None = None
    data_root: str | None = None
    cache_root: str | None = None
    download: bool = False
    threads: int | None = None


@dataclass
class Sweep:
    """A folder with a plan and the state of its jobs."""

    directory: Path
    jobs: dict[str, Job] = field(default_factory=dict)
    title: str = ""
    about: str = ""
    command: str = ""
    figures: list[dict[str, Any]] = field(default_factory=list)
    names: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def create(cls, directory: str | Path, plan: Plan, *, command: str = "") -> Sweep:
        """Write the plan; the states of jobs that are in it already stay."""
        figures = [dict(f) for f in plan.figures]
        words = (plan.title, plan.about, command, figures, plan.names)
        found = cls(Path(directory), plan.ids(), *words)
        data: dict[str, Any] = {n: getattr(found, n) for n in WORDS}
        data["jobs"] = {i: j.to_json() for i, j in found.jobs.items()}
        storage.write_json(found.directory / PLAN, data)
        return found

    @classmethod
    def read(cls, directory: str | Path) -> Sweep:
        """The sweep of a folder.

        Raises:
            FileError: There is none.
        """
        path = Path(directory) / PLAN
        try:
            if not path.is_file():
                raise KeyError(PLAN)
            data = storage.read_json(path)
            jobs = {i: Job.from_json(j) for i, j in data["jobs"].items()}
            if not all(re.fullmatch(r"\w[\w.-]{0,200}", i) for i in jobs):
                raise KeyError("a job's name that is no file's")
            return cls(path.parent, jobs, **{n: data[n] for n in WORDS if n in data})
        except (KeyError, TypeError, AttributeError):
            raise FileError(
                "not a sweep's folder",
                got=str(directory),
                expected=f"a folder with {PLAN}",
                fix="Name the folder that `isogon sweep` wrote.",
            ) from None

    @property
    def records(self) -> Path:
        """Folder of the records."""
        return self.directory / "records"

    def log(self, id: str) -> Path:
        """The log of a job."""
        return self.directory / "logs" / f"{id}.txt"

    def state(self, id: str) -> State:
        """The state of a job as its file says; a damaged file counts as none."""
        try:
            return State(**storage.read_json(self.directory / "state" / f"{id}.json"))
        except (IsogonError, OSError, TypeError, ValueError):
            return State(id)

    def put(self, state: State) -> None:
        """Write a job's state."""
        storage.write_json(self.directory / "state" / f"{state.id}.json", asdict(state))

    def states(self, alive: set[str] | None = None) -> list[State]:
        """All states, with ``died`` where a job is running in nobody's hands.

        Args:
            alive: Slurm jobs that still exist; None where Slurm was not asked.
        """
        found = []
        for id in self.jobs:
            state = self.state(id)
            if state.state in ("running", "queued") and _orphan(state, alive):
                state.state, state.error = "died", state.error or "the process is gone"
            found.append(state)
        return found

    def missing(self, *, retry: bool, alive: set[str] | None = None) -> list[str]:
        """Jobs that are to be run: new and died ones, failed ones on request."""
        run = {"queued", "died", "failed"} if retry else {"queued", "died"}
        return [s.id for s in self.states(alive) if s.state in run and not _waiting(s, alive)]


def work(directory: str, id: str, digest: str, surroundings: Surroundings) -> str:
    """Run one job of a sweep in this process and keep its state; returns the state.

    Every error ends in the job's log and state, so that one bad job costs the others nothing.

    Args:
        directory: The sweep's folder.
        id: Which of its jobs.
        digest: Of the job as the process read it that the plan was named to: what a job names may
            import code, and a file in the folder must not be able to ask for that.
        surroundings: Device, data root, ...
    """
    sweep = Sweep.read(directory)
    state = sweep.state(id)
    state.attempts += 1
    state.state, state.error, state.ended = "running", "", 0.0
    state.host, state.pid, state.started = socket.gethostname(), os.getpid(), time.time()
    state.slurm = _slurm_id()
    sweep.put(state)
    try:
        with context.use(
            data_root=surroundings.data_root,
            cache_root=surroundings.cache_root,
            download=True if surroundings.download else None,
        ):
            record = _run(handed(sweep, id, digest), sweep.records, surroundings)
        state.state = "done"
        state.record = str(record.relative_to(sweep.directory))
    except KeyboardInterrupt:
        state.state, state.error = "queued", "interrupted"
        raise
    except Exception as error:
        state.state = "failed"
        known = isinstance(error, IsogonError)
        state.error = str(error) if known else f"{type(error).__name__}: {error}"
        path = sweep.log(id)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"attempt {state.attempts}\n{traceback.format_exc()}\n")
    finally:
        state.ended = time.time()
        sweep.put(state)
    return state.state


def handed(sweep: Sweep, id: str, digest: str) -> Job:
    """The job, if it is the one that was handed out.

    Raises:
        FileError: The folder's plan says something else by now.
    """
    job = sweep.jobs.get(id)
    if job is None or job.digest() != digest:
        raise FileError(
            "the plan in this folder has changed since its jobs were handed out",
            got=f"another job {id} in {sweep.directory / PLAN}",
            expected="the job of the plan that was named on the command line",
            fix="Run `isogon sweep PLAN` again.",
        )
    return job


_sessions: dict[Surroundings, Any] = {}


def _run(job: Job, records: Path, surroundings: Surroundings) -> Path:
    """One job, with the objects of this process's earlier ones at hand."""
    import torch

    from isogon.survey.run import Session, run

    if surroundings.threads is not None:
        torch.set_num_threads(surroundings.threads)
    if surroundings not in _sessions:
        _sessions[surroundings] = Session(
            device=surroundings.device, batch_size=surroundings.batch_size
        )
    record = run(job, out=records, session=_sessions[surroundings])
    assert record.directory is not None
    return record.directory


def table(states: Iterable[State]) -> dict[str, int]:
    """How many jobs are in each state."""
    counts: dict[str, int] = dict.fromkeys(STATES, 0)
    for state in states:
        counts[state.state] = counts.get(state.state, 0) + 1
    return counts


def _slurm_id() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def _waiting(state: State, alive: set[str] | None) -> bool:
    """Whether Slurm holds the job already."""
    return bool(state.slurm) and alive is not None and state.slurm in alive


def _orphan(state: State, alive: set[str] | None) -> bool:
    if state.slurm:
        return alive is not None and state.slurm not in alive
    if state.state != "running" or state.host != socket.gethostname():
        return False
    if state.pid == os.getpid():
        return False
    try:
        os.kill(state.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False

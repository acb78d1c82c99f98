"""Sweeps: the jobs of a plan, each with its state in a file of its own.

The folder of a sweep holds ``plan.json`` (the jobs), ``state/ID.json`` (one per job, written
atomically by whoever works on it), ``claims/`` (who works on what), ``submitted/ID.json`` (what
Slurm was given), ``inputs/ID.json`` (which files a finished job was computed from),
``logs/ID.txt`` and ``records/``. Nothing else remembers anything: a sweep that
is killed at any moment and started again does what is missing, and any number of them may work
on one folder.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogon import context, hints, storage
from isogon.errors import FileError, IsogonError
from isogon.processes import Process
from isogon.storage.stamps import noting
from isogon.survey.declaring.job import Job
from isogon.survey.declaring.plan import Plan
from isogon.survey.declaring.splitting import Missing
from isogon.survey.running import claims, freshness
from isogon.survey.running.states import JobState, held_by_slurm, stored, waits

if TYPE_CHECKING:
    from isogon.survey.running.run import Session


PLAN = "plan.json"
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")  # what a job's files are called
WORDS = ("title", "about", "command", "figures", "names")  # of a plan, beside its jobs


@dataclass(frozen=True)
class Surroundings:
    """What jobs need besides themselves, in words: it travels to other processes."""

    device: str = "cpu"
    batch_size: int | None = None
    data_root: str | None = None
    cache_root: str | None = None
    download: bool = False
    check: bool = True
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
        claims.tidy(
            found.directory, lambda id: id in found.jobs and found.state(id).state == "done"
        )
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
            if not all(_ID.fullmatch(id) for id in jobs):
                raise KeyError("a file's name")
            words = {n: data[n] for n in WORDS if n in data}
            return hints.made(cls, words, directory=path.parent, jobs=jobs)
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

    def state(self, id: str) -> JobState:
        """The state of a job as its file says; a damaged file counts as none."""
        try:
            found = stored(storage.read_json(self._file("state", id)), id)
        except (IsogonError, OSError, TypeError, ValueError, AttributeError):
            found = JobState(id)
        return self._submitted(found)

    def put(self, state: JobState) -> None:
        """Write a job's state."""
        storage.write_json(self._file("state", state.id), asdict(state))

    def submit(self, id: str, slurm: str) -> None:
        """Note that Slurm has a job now. The job's state is left to whoever works on it."""
        data = {"slurm": slurm, "attempts": self.state(id).attempts}
        storage.write_json(self._file("submitted", id), data)

    def states(
        self, alive: set[str] | None = None, ids: Iterable[str] | None = None
    ) -> list[JobState]:
        """All states, with ``died`` where a job is running in nobody's hands.

        Args:
            alive: Slurm jobs that wait or run; None where that is not known: what Slurm was
                given then stays as it is.
            ids: Which jobs; all of them by default.
        """
        found = []
        for id in self.jobs if ids is None else ids:
            state = self.state(id)
            if self._lost(state, alive):
                state = self.state(id)  # it may have ended while its owner was looked for
                if self._lost(state, alive):
                    state.state, state.error = "died", state.error or "the process is gone"
            found.append(state)
        return found

    def missing(self, *, retry: bool, alive: set[str] | None = None) -> list[str]:
        """Jobs that are to be run: new and died ones, failed ones on request.

        A measurement that is shared out waits until all of its shares are done.
        """
        run = {"queued", "died", "failed"} if retry else {"queued", "died"}
        wanted = [s.id for s in self.states(alive) if s.state in run and not waits(s)]
        parts = self.parts()
        return [id for id in wanted if self.gathered(parts.get(id, []))]

    def parts(self) -> dict[str, list[str]]:
        """The jobs of the shares of each measurement that is shared out."""
        shared = {id: job for id, job in self.jobs.items() if job.shard is not None}
        if not shared:
            return {}
        wholes = {job.digest(): id for id, job in self.jobs.items() if job.shard is None}
        found: dict[str, list[str]] = {}
        for id, job in shared.items():
            if (whole := wholes.get(job.whole().digest())) is not None:
                found.setdefault(whole, []).append(id)
        return found

    def turns(self) -> list[str]:
        """Shares that wait for their next turn, and measurements whose shares wait to be merged."""
        parts = self.parts()
        shared = {*parts, *(id for own in parts.values() for id in own)}
        waiting = (id for id in self.missing(retry=False) if id in shared)
        return [id for id in waiting if self.state(id).state == "queued"]

    def gathered(self, parts: Iterable[str]) -> bool:
        """Whether all of these jobs are done."""
        return all(self.state(id).state == "done" for id in parts)

    def watch(
        self,
        alive: set[str] | None = None,
        ids: Iterable[str] | None = None,
        *,
        pause: float = 1.0,
    ) -> None:
        """Wait until it is clear of each running job whether somebody runs it.

        A job whose owner can't be seen from here (another machine, another container) is
        watched until its heartbeat is renewed, or is too old.
        """
        unsure = self.unsure(alive, ids)
        while unsure:
            time.sleep(pause)
            now = self.unsure(alive, unsure)
            unsure = {id: beat for id, beat in unsure.items() if now.get(id) == beat}

    def unsure(
        self, alive: set[str] | None = None, ids: Iterable[str] | None = None
    ) -> dict[str, float | None]:
        """Last beats of the running jobs whose owners can't be seen from here."""
        found = {}
        for state in self.states(alive, ids):
            if state.state == "running" and not held_by_slurm(state, alive):
                seen, path = self._owner(state)
                if seen is None:
                    found[state.id] = claims.last_beat(path)
        return found

    # ------------------------------------------------------------------ internals

    def _file(self, kind: str, id: str) -> Path:
        return self.directory / kind / f"{id}.json"

    def _submitted(self, state: JobState) -> JobState:
        """The state, or that of a job that was given to Slurm and has not begun there yet."""
        path = self._file("submitted", state.id)
        if state.state == "done" or not path.is_file():
            return state
        try:
            sent = storage.read_json(path)
            if int(sent["attempts"]) < state.attempts:
                return state
            return replace(state, state="queued", slurm=str(sent["slurm"]), error="")
        except (IsogonError, OSError, TypeError, ValueError, KeyError):
            return state

    def _lost(self, state: JobState, alive: set[str] | None) -> bool:
        """Whether a job that is said to wait in Slurm or to run does neither."""
        if held_by_slurm(state, alive) or state.state not in ("queued", "running"):
            return False
        if state.state == "queued":
            return bool(state.slurm)
        seen, path = self._owner(state)
        return not (claims.beating(path) if seen is None else seen)

    def _owner(self, state: JobState) -> tuple[bool | None, Path]:
        """Whether the owner of a running job lives, if it can be seen; the file that beats."""
        held = claims.holder(self.directory, state.id)
        if held is not None:
            return held.owner.alive(), held.path
        return Process.from_json(asdict(state)).alive(), self._file("state", state.id)


def work(
    directory: str,
    id: str,
    digest: str,
    surroundings: Surroundings,
    *,
    begun: int | None = None,
    slurm: str = "",
) -> str:
    """Run one job of a sweep in this process and keep its state; returns the state.

    Every error ends in the job's log and state, so that one bad job costs the others nothing.
    Nothing is done where another process works on the job, or has finished it.

    Args:
        directory: The sweep's folder.
        id: Which of its jobs.
        digest: Of the job as the process read it that the plan was named to: what a job names may
            import code, and a file in the folder must not be able to ask for that.
        surroundings: Device, data root, ...
        begun: Attempts that had been begun when it was decided to run the job: where there are
            more by now, another process was faster. None does not look.
        slurm: The Slurm job that this process is.
    """
    sweep = Sweep.read(directory)
    claim = claims.take(sweep.directory, id, begun=sweep.state(id).attempts, slurm=slurm)
    if claim is None:
        return sweep.state(id).state
    state = sweep.state(id)
    if state.state == "done" or (begun is not None and state.attempts != begun):
        claim.release()
        return state.state
    parts = sweep.parts().get(id, [])
    state = replace(
        state,
        state="running",
        attempts=claim.attempt,
        error="",
        ended=0.0,
        started=time.time(),
        slurm=slurm,
        **asdict(claim.owner),
    )
    with claim.kept():
        sweep.put(state)
        try:
            with context.use(
                data_root=surroundings.data_root,
                cache_root=surroundings.cache_root,
                download=True if surroundings.download else None,
                check=surroundings.check,
            ):
                with noting() as files:
                    job = handed(sweep, id, digest)
                    more = (len(parts),) if parts else ()
                    record = _run(job, sweep.records, surroundings, *more)
                freshness.keep(sweep.directory, id, files)
            state.state = "done"
            state.record = str(record.relative_to(sweep.directory))
        except KeyboardInterrupt:
            state.state, state.error = "queued", "interrupted"
            raise
        except Missing as error:  # each share takes another turn, then this is merged
            state.state, state.error = "queued", str(error)
            for part in parts:
                sweep.put(replace(sweep.state(part), state="queued", record=""))
        except (Exception, SystemExit) as error:
            if slurm and isinstance(error, SystemExit):  # submitit's, for Slurm queues it again
                state.state, state.error = "queued", "interrupted"
                raise
            state.state = "failed"
            known = isinstance(error, IsogonError)
            state.error = str(error) if known else f"{type(error).__name__}: {error}"
            _log(sweep.log(id), state.attempts)
        finally:
            state.ended = time.time()
            if claim.valid():  # else another process has taken over, and its word counts
                sweep.put(state)
                claim.release()
    if state.state == "done" and job.shard is not None:
        merge_shares(sweep, job, surroundings, slurm=slurm)
    return state.state


def merge_shares(sweep: Sweep, job: Job, surroundings: Surroundings, *, slurm: str = "") -> None:
    """Merge the shares of a measurement, where the share that has just ended was the last one."""
    whole = job.whole()
    for id, parts in sweep.parts().items():
        if sweep.jobs[id] == whole and sweep.gathered(parts):
            work(str(sweep.directory), id, whole.digest(), surroundings, slurm=slurm)


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


def _log(path: Path, attempt: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"attempt {attempt}\n{traceback.format_exc()}\n")


_sessions: dict[Surroundings, Session] = {}


def _run(job: Job, records: Path, surroundings: Surroundings, shards: int = 1) -> Path:
    """One job, with the objects of this process's earlier ones at hand."""
    import torch

    from isogon.survey.running.run import Session, run

    if surroundings.threads is not None:
        torch.set_num_threads(surroundings.threads)
    if surroundings not in _sessions:
        _sessions[surroundings] = Session(
            device=surroundings.device, batch_size=surroundings.batch_size
        )
    record = run(job, out=records, session=_sessions[surroundings], shards=shards)
    assert record.directory is not None
    return record.directory

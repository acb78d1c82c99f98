"""Claims: which process works on a job, so that no two do, and when one has left it.

A claim is a file ``claims/ID.N`` for attempt N of a job. It is created with ``O_EXCL``, which
one of any number of takers wins, also on a network file system; it says who the owner is, and
its time of change is renewed every few seconds by a thread of the owner: the heartbeat. Whoever
finds the owner of attempt N gone takes the job over by creating attempt N + 1. A claim is removed
when the job's state has been written.

Where an owner's process can be seen (same boot, same space of process numbers), the process
tells. Else the heartbeat does, and no two machines' clocks are compared: both times, that of the
last beat and that of now, are set by the file server (now is the time of change of a file that is
made to be looked at).
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from isogon import storage
from isogon.errors import FileError
from isogon.processes import Process

FOLDER = "claims"
BEAT = float(os.environ.get("ISOGON_HEARTBEAT") or 5.0)  # seconds between two beats
STALE = 12 * BEAT  # seconds without a beat after which an owner that can't be seen is gone


@dataclass(frozen=True)
class Claim:
    """A job in somebody's hands.

    Attributes:
        path: The file.
        job: Identifier of the job.
        attempt: Which attempt at it.
        owner: Who works on it.
        slurm: The Slurm job that does, or empty.
    """

    path: Path
    job: str
    attempt: int
    owner: Process
    slurm: str = ""

    def alive(self) -> bool:
        """Whether the owner still works on it."""
        seen = self.owner.alive()
        return beating(self.path) if seen is None else seen

    def beat(self) -> None:
        """Renew the heartbeat; the file server sets the time."""
        os.utime(self.path)

    def valid(self) -> bool:
        """Whether nobody has taken the job over, as happens to a machine that was asleep."""
        return self.path.exists() and _attempts(self.path.parent, self.job)[-1:] == [self.attempt]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Beat from a thread inside."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(BEAT):
                with suppress(OSError):
                    self.beat()

        thread = threading.Thread(target=run, name="isogon-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()

    def release(self) -> None:
        """Give the job back, and clear away what dead owners left of it."""
        for attempt in _attempts(self.path.parent, self.job):
            if attempt <= self.attempt:
                with suppress(OSError):
                    _path(self.path.parent, self.job, attempt).unlink()


def take(folder: Path, job: str, *, begun: int, slurm: str = "") -> Claim | None:
    """Claim a job for this process; None where another one has it.

    Args:
        folder: That of the sweep.
        job: Identifier of the job.
        begun: Attempts that the job's state knows of.
        slurm: The Slurm job of this process. Slurm runs one at a time: a claim of the same one
            is that of an earlier life, which was preempted or whose node died.

    Raises:
        FileError: The folder can't be written.
    """
    held = holder(folder, job)
    if held is not None and not (slurm and held.slurm == slurm) and held.alive():
        return None
    attempt = max(begun, 0 if held is None else held.attempt) + 1
    path = _path(folder / FOLDER, job, attempt)
    claim = Claim(path, job, attempt, Process.current(), slurm)
    text = json.dumps({**asdict(claim.owner), "slurm": slurm})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), "w") as file:
            file.write(text)
    except FileExistsError:
        return None
    except OSError as error:
        raise storage.write_error(path, error) from error
    return claim


def holder(folder: Path, job: str) -> Claim | None:
    """The last claim of a job; None where there is none."""
    folder = folder / FOLDER
    for attempt in reversed(_attempts(folder, job)):
        path = _path(folder, job, attempt)
        if not path.exists():
            continue  # just released
        try:
            data = storage.read_json(path)
        except FileError:
            if not path.exists():
                continue  # released while it was read
            data = None
        data = data if isinstance(data, dict) else {}  # about to be written, or cut short
        return Claim(path, job, attempt, Process.from_json(data), str(data.get("slurm") or ""))
    return None


def tidy(folder: Path, done: Callable[[str], bool]) -> None:
    """Remove the claims of finished jobs, whose owners were killed before they could."""
    with suppress(OSError):
        for entry in list(os.scandir(folder / FOLDER)):
            job, _, number = entry.name.rpartition(".")
            if job and number.isdigit() and done(job):
                with suppress(OSError):
                    os.unlink(entry.path)


def beating(path: Path) -> bool:
    """Whether a file was changed a short time ago, by the clock of its file server."""
    changed = last_beat(path)
    # a time far ahead is that of a clock that was wrong
    return changed is not None and abs(_now(path.parent) - changed) < STALE


def last_beat(path: Path) -> float | None:
    """Time of a file's last change, set by its file server; None where it is gone."""
    try:
        with path.open("rb") as file:  # opening makes network file systems look afresh
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return None


def _now(folder: Path) -> float:
    """The time by the clock of a folder's file server; this machine's where that can't be had."""
    probe = folder / f".now-{secrets.token_hex(6)}"
    try:
        with open(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write("now")
            file.flush()
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _path(folder: Path, job: str, attempt: int) -> Path:
    return folder / f"{job}.{attempt}"


def _attempts(folder: Path, job: str) -> list[int]:
    """Numbers of the claims of a job that are there, in order."""
    found = []
    with suppress(OSError):
        for entry in os.scandir(folder):
            name, _, number = entry.name.rpartition(".")
            if name == job and number.isascii() and number.isdigit():
                found.append(int(number))
    return sorted(found)

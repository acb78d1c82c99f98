"""Processes that run the jobs of a sweep, one at a time each; a death costs its job only."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import TYPE_CHECKING

from isogon import context, stopping
from isogon.survey.running.states import JobState
from isogon.survey.running.sweep import Surroundings, Sweep, work

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess


PATIENCE = 5.0  # seconds that a process has to end before it is killed


@dataclass(eq=False)
class Worker:
    """A process with its end of a pipe, and the job that it is at."""

    process: BaseProcess
    connection: Connection
    slot: int
    job: str | None = None


@dataclass(frozen=True)
class Ended:
    """A job that came to an end, or whose process did: ``code`` is then its exit code."""

    job: str
    code: int | None = None


class Pool:
    """At most so many processes; leaving the context ends them all.

    Args:
        workers: How many.
        sweep: Whose jobs they run.
        surroundings: What these need.
    """

    def __init__(self, workers: int, sweep: Sweep, surroundings: Surroundings) -> None:
        self.workers, self.sweep, self.surroundings = workers, sweep, surroundings
        self._spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
        self._crew: list[Worker] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(at_once=kind is not None)

    @property
    def busy(self) -> int:
        """How many jobs are being run."""
        return sum(w.job is not None for w in self._crew)

    def give(self, job: str, begun: int) -> None:
        """Let an idle process, or a new one, run a job; the caller sees to it that one is free."""
        idle = (w for w in self._crew if w.job is None)
        worker = next(idle, None) or self._started()
        worker.job = job
        with suppress(OSError):  # it has died: the next look will show it
            worker.connection.send((job, self.sweep.jobs[job].digest(), begun))

    def ended(self) -> list[Ended]:
        """Wait until a job ends or a process dies: which, and how."""
        sources = [w.connection for w in self._crew] + [w.process.sentinel for w in self._crew]
        ready, found = wait(sources), []
        for worker in list(self._crew):
            if worker.connection in ready and self._answered(worker):
                found.append(Ended(worker.job or ""))
                worker.job = None
            elif worker.connection in ready or worker.process.sentinel in ready:
                self._crew.remove(worker)
                worker.process.join(PATIENCE)
                worker.connection.close()
                if worker.job is not None:
                    found.append(Ended(worker.job, worker.process.exitcode))
        return found

    def close(self, *, at_once: bool) -> None:
        """End all processes; ``at_once`` drops the jobs that they are at, to be queued again."""
        for worker in self._crew:
            if at_once:
                worker.process.terminate()  # their own end of Ctrl-C
            worker.connection.close()
        for worker in self._crew:
            worker.process.join(PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        for worker in self._crew:
            if (
                worker.job is not None
                and (state := self.sweep.state(worker.job)).pid == worker.process.pid
                and state.state == "running"
            ):
                self.sweep.put(replace(state, state="queued", error="interrupted"))
        self._crew.clear()

    def _started(self) -> Worker:
        slot = min(set(range(self.workers)) - {w.slot for w in self._crew})
        here, there = self._spawn.Pipe()
        process = self._spawn.Process(
            target=_serve,
            args=(there, str(self.sweep.directory), self.surroundings, slot),
            name=f"isogon-{slot}",
        )
        process.start()
        there.close()  # so that the pipe closes with the process
        self._crew.append(Worker(process, here, slot))
        return self._crew[-1]

    @staticmethod
    def _answered(worker: Worker) -> bool:
        try:
            worker.connection.recv()
        except (EOFError, OSError):
            return False
        return True


def run(
    sweep: Sweep,
    ids: list[str],
    surroundings: Surroundings,
    *,
    workers: int,
    notify: Callable[[JobState], None],
) -> None:
    """Run jobs in processes.

    A process that dies beside others may have died of them (memory): its job is run once more,
    alone, when the others are done. One that dies alone has failed.
    """
    begun = {id: sweep.state(id).attempts for id in ids}
    left, suspects, report = deque(ids), deque[str](), context.progress()
    with Pool(workers, sweep, surroundings) as pool:
        while left or suspects or pool.busy:
            while left and pool.busy < workers:
                pool.give(left[0], begun[left[0]])
                left.popleft()
            if not pool.busy:
                pool.give(suspects[0], begun[suspects[0]])
                suspects.popleft()
            together = pool.busy > 1
            for end in pool.ended():
                if end.code is None:
                    notify(sweep.state(end.job))
                elif together:
                    begun[end.job] = sweep.state(end.job).attempts
                    suspects.append(end.job)
                else:
                    notify(_failed(sweep, end))
                report(len(ids) - len(left) - len(suspects) - pool.busy, len(ids), "sweep")


def _failed(sweep: Sweep, end: Ended) -> JobState:
    """The state of a job whose process died, with the reason."""
    code = end.code or 0
    if code < 0:
        reason = f"the process was killed by {stopping.signal_name(-code)}"
        reason += " (out of memory?)" if -code == signal.SIGKILL else ""
    else:
        reason = f"the process ended with exit code {code}"
    state = replace(sweep.state(end.job), state="failed", error=reason)
    sweep.put(state)
    return state


def _serve(connection: Connection, directory: str, surroundings: Surroundings, slot: int) -> None:
    """A process of the pool: run what comes through the pipe until it closes."""
    # Ctrl-C in a terminal reaches everybody: the parent decides, and tells by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stopping.tied(), stopping.stoppable() as request:
        try:
            if "" not in sys.path and os.getcwd() not in sys.path:
                sys.path.append(os.getcwd())
            if surroundings.device == "cuda":
                _one_gpu(slot)
            while True:
                job, digest, begun = connection.recv()
                work(directory, job, digest, surroundings, begun=begun)
                connection.send(None)
        except (EOFError, BrokenPipeError):
            return
        except stopping.Stopped:
            pass
    if request.number is not None:  # end as the signal would have
        os.kill(os.getpid(), request.number)


def _one_gpu(slot: int) -> None:
    """Show this process one GPU of those that its parent sees."""
    seen = [n for n in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if n.strip()]
    os.environ["CUDA_VISIBLE_DEVICES"] = seen[slot % len(seen)] if seen else str(slot)

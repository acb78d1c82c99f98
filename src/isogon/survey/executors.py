"""Where the jobs of a sweep run: in this process, in a pool of processes, on Slurm."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any

from isogon import context
from isogon.errors import DependencyError, FileError, OptionError
from isogon.survey.sweep import State, Surroundings, Sweep, work

Notify = Callable[[State], None]
WHERE = ("inline", "processes", "slurm")


@dataclass(frozen=True)
class Resources:
    """What a job may ask of a machine."""

    workers: int | None = None
    minutes: int = 60
    cpus: int = 1
    gpus: int = 0
    memory_gb: int | None = None
    partition: str | None = None
    parallel: int = 256


def execute(
    sweep: Sweep,
    ids: list[str],
    *,
    on: str,
    surroundings: Surroundings,
    resources: Resources,
    notify: Notify,
) -> None:
    """Run jobs of a sweep; their states say how it went.

    Args:
        sweep: The sweep.
        ids: Which of its jobs.
        on: ``inline``, ``processes``, or ``slurm`` (submits and returns).
        surroundings: Device, data root, ...
        resources: Workers, and what Slurm is asked for.
        notify: Called with the state of each job that ended (or was submitted).
    """
    if on == "inline":
        _inline(sweep, ids, surroundings, notify)
    elif on == "processes":
        _processes(sweep, ids, surroundings, resources, notify)
    elif on == "slurm":
        _slurm(sweep, ids, surroundings, resources, notify)
    else:
        raise OptionError("no such place to run", got=on, expected=", ".join(WHERE))


def _inline(sweep: Sweep, ids: list[str], surroundings: Surroundings, notify: Notify) -> None:
    report = context.progress()
    for done, id in enumerate(ids):
        report(done, len(ids), "sweep")
        work(str(sweep.directory), id, sweep.jobs[id].digest(), surroundings)
        notify(sweep.state(id))
    report(len(ids), len(ids), "sweep")


def _processes(
    sweep: Sweep,
    ids: list[str],
    surroundings: Surroundings,
    resources: Resources,
    notify: Notify,
) -> None:
    """A pool with a slot per core or GPU; a worker that dies costs its job only."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    slots = _gpus() if surroundings.device.startswith("cuda") else (cores or 1)
    workers = max(1, min(resources.workers or slots, len(ids)))
    threads = max(1, (cores or 1) // workers)
    surroundings = replace(surroundings, threads=surroundings.threads or threads)
    left, report = list(ids), context.progress()
    suspects: list[str] = []
    while left or suspects:
        # After a death, jobs that were in flight run one at a time: the killer is found alone.
        batch, alone = (suspects, True) if suspects else (left, False)
        batch = batch[:1] if alone else batch
        started: set[str] = set()
        try:
            with _pool(1 if alone else workers, surroundings) as pool:
                futures = {
                    pool.submit(
                        work, str(sweep.directory), i, sweep.jobs[i].digest(), surroundings
                    ): i
                    for i in batch
                }
                try:
                    pending = set(futures)
                    while pending:
                        ended, pending = wait(pending, return_when=FIRST_COMPLETED)
                        for future in ended:
                            future.result()
                            started.add(futures[future])
                            notify(sweep.state(futures[future]))
                            report(len(ids) - len(left) + len(started), len(ids), "sweep")
                except KeyboardInterrupt:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
            left = [i for i in left if i not in started]
            suspects = [i for i in suspects if i not in started]
        except BrokenProcessPool:
            left = [i for i in left if i not in started]
            flying = [i for i in batch if i not in started and sweep.state(i).state == "running"]
            if alone or not flying:
                for id in flying or batch[:1]:
                    state = sweep.state(id)
                    state.state = "failed"
                    state.error = "the process was killed (out of memory?)"
                    sweep.put(state)
                    notify(state)
                gone = set(flying or batch[:1])
                suspects = [i for i in suspects if i not in gone]
                left = [i for i in left if i not in gone]
            else:
                suspects = flying


def _pool(workers: int, surroundings: Surroundings) -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    slots: Any = spawn.Queue()
    for i in range(workers):
        slots.put(i)
    cuda = surroundings.device == "cuda"
    return ProcessPoolExecutor(workers, spawn, initializer=_settle, initargs=(slots, cuda))


def _settle(slots: Any, cuda: bool) -> None:
    """First thing in a worker: one GPU each; Ctrl-C is the parent's to handle."""
    import signal
    import sys

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    if cuda:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(slots.get())


def _gpus() -> int:
    import torch

    return max(1, torch.cuda.device_count())


# --------------------------------------------------------------------------- Slurm


class Task:
    """A job as submitit calls it; preempted or out of time, it is queued again."""

    def __init__(self, directory: str, id: str, digest: str, surroundings: Surroundings) -> None:
        self.directory, self.id, self.digest = directory, id, digest
        self.surroundings = surroundings

    def __call__(self) -> str:
        """Run the job."""
        return work(self.directory, self.id, self.digest, self.surroundings)

    def checkpoint(self) -> Any:
        """What to submit in place of this one: the same; training goes on from its file."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _slurm(
    sweep: Sweep,
    ids: list[str],
    surroundings: Surroundings,
    resources: Resources,
    notify: Notify,
) -> None:
    """One array job; returns when it is submitted."""
    try:
        import submitit
    except ImportError:
        raise DependencyError(
            "Slurm needs an optional package",
            got="no submitit",
            expected="submitit",
            fix="pip install 'isogon[slurm]'",
        ) from None
    if shutil.which("sbatch") is None:
        raise DependencyError(
            "no Slurm here", got="no sbatch", expected="Slurm's commands on the path",
            fix="Log in to the cluster, or use --on processes.",
        )  # fmt: skip
    executor = submitit.AutoExecutor(folder=sweep.directory / "slurm", cluster="slurm")
    asked: dict[str, Any] = {
        "name": "isogon",
        "timeout_min": resources.minutes,
        "cpus_per_task": resources.cpus,
        "slurm_array_parallelism": resources.parallel,
        # Without it a killed task is not queued again by Slurm itself.
        "slurm_additional_parameters": {"requeue": True},
    }
    if resources.gpus:
        asked["gpus_per_node"] = resources.gpus
    if resources.memory_gb:
        asked["mem_gb"] = resources.memory_gb
    if resources.partition:
        asked["slurm_partition"] = resources.partition
    executor.update_parameters(**asked)
    try:
        directory = str(sweep.directory.resolve())
        with executor.batch():
            jobs = [
                executor.submit(Task(directory, i, sweep.jobs[i].digest(), surroundings))
                for i in ids
            ]
    except Exception as error:  # submitit's own kinds of failure
        raise FileError(
            f"Slurm did not take the jobs ({' '.join(str(error).split())[:200]})",
            got=f"{len(ids)} jobs",
            expected="a cluster that accepts them",
            fix="Check --partition and --minutes, and `sinfo`.",
        ) from error
    for id, job in zip(ids, jobs):
        state = sweep.state(id)
        if state.state != "done" and state.slurm != job.job_id:
            sweep.put(replace(state, state="queued", slurm=job.job_id, error=""))
        notify(sweep.state(id))


def slurm_alive() -> set[str] | None:
    """Identifiers of the Slurm jobs that wait or run; None where Slurm can't be asked.

    Asks ``squeue``, which works without accounting.
    """
    if shutil.which("squeue") is None:
        return None
    try:
        done = subprocess.run(
            ["squeue", "--noheader", "--array", "--format=%i"],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return set(done.stdout.split())

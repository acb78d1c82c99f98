"""Where the jobs of a sweep run: in this process, in a pool of processes, on Slurm."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from isogon import context
from isogon.errors import OptionError
from isogon.survey.running import pool, slurm
from isogon.survey.running.states import JobState
from isogon.survey.running.sweep import Surroundings, Sweep, work

Notify = Callable[[JobState], None]
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

    Raises:
        KeyboardInterrupt: By Ctrl-C, or SIGTERM on the command line: what was running is
            queued again.
    """
    if on == "inline":
        _inline(sweep, ids, surroundings, notify)
    elif on == "processes":
        _processes(sweep, ids, surroundings, resources, notify)
    elif on == "slurm":
        slurm.submit(sweep, ids, surroundings, _parameters(resources))
        for id in ids:
            notify(sweep.state(id))
    else:
        raise OptionError("no such place to run", got=on, expected=", ".join(WHERE))


def slurm_alive() -> set[str] | None:
    """Identifiers of the Slurm jobs that wait or run; None where that is not known."""
    return slurm.queue().jobs


def _inline(sweep: Sweep, ids: list[str], surroundings: Surroundings, notify: Notify) -> None:
    report = context.progress()
    begun = {id: sweep.state(id).attempts for id in ids}
    for done, id in enumerate(ids):
        report(done, len(ids), "sweep")
        work(str(sweep.directory), id, sweep.jobs[id].digest(), surroundings, begun=begun[id])
        notify(sweep.state(id))
    report(len(ids), len(ids), "sweep")


def _processes(
    sweep: Sweep,
    ids: list[str],
    surroundings: Surroundings,
    resources: Resources,
    notify: Notify,
) -> None:
    """A slot per core or GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    slots = _gpus() if surroundings.device.startswith("cuda") else (cores or 1)
    workers = max(1, min(resources.workers or slots, len(ids)))
    threads = max(1, (cores or 1) // workers)
    surroundings = replace(surroundings, threads=surroundings.threads or threads)
    pool.run(sweep, ids, surroundings, workers=workers, notify=notify)


def _gpus() -> int:
    import torch

    return max(1, torch.cuda.device_count())


def _parameters(resources: Resources) -> dict[str, Any]:
    """What submitit is told."""
    asked: dict[str, Any] = {
        "name": "isogon",
        "timeout_min": resources.minutes,
        "cpus_per_task": resources.cpus,
        "slurm_array_parallelism": resources.parallel,
        # Warned so long before the limit, a job is queued again; submitit's 90 s would be the
        # whole of a short job.
        "slurm_signal_delay_s": min(90, 15 * resources.minutes),
        # Without it a killed task is not queued again by Slurm itself.
        "slurm_additional_parameters": {"requeue": True},
    }
    if resources.gpus:
        asked["gpus_per_node"] = resources.gpus
    if resources.memory_gb:
        asked["mem_gb"] = resources.memory_gb
    if resources.partition:
        asked["slurm_partition"] = resources.partition
    return asked

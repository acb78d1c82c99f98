"""The jobs of a sweep on Slurm: submitted as one array, followed by ``squeue`` alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from isogon.errors import DependencyError, FileError
from isogon.survey.running.sweep import Surroundings, Sweep, work

PAUSES = (1.0, 3.0)  # seconds before squeue is asked again


@dataclass(frozen=True)
class Queue:
    """What ``squeue`` answered.

    Attributes:
        jobs: The jobs that wait or run; None where that is not known.
        problem: Why it is not known.
        installed: Whether there is a ``squeue`` to ask.
    """

    jobs: set[str] | None
    problem: str = ""
    installed: bool = True


def queue() -> Queue:
    """Ask ``squeue``, which works without accounting, several times where it fails.

    A controller that is restarted or busy answers nothing for a while: that is no empty queue.
    """
    if shutil.which("squeue") is None:
        return Queue(None, "there is no squeue here", installed=False)
    problem = ""
    for pause in (0.0, *PAUSES):
        time.sleep(pause)
        try:
            done = subprocess.run(
                ["squeue", "--noheader", "--array", "--format=%i"],
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
            )
            return Queue(set(done.stdout.split()))
        except subprocess.CalledProcessError as error:
            said = " ".join((error.stderr or "").split())
            problem = f"squeue failed: {said[:200] or f'exit code {error.returncode}'}"
        except subprocess.TimeoutExpired:
            problem = "squeue did not answer within 30 s"
        except OSError as error:
            problem = f"squeue can't be run: {error.strerror or error}"
    return Queue(None, problem)


class SlurmTask:
    """A job as submitit calls it; preempted or out of time, it is queued again."""

    def __init__(self, directory: str, id: str, digest: str, surroundings: Surroundings) -> None:
        self.directory, self.id, self.digest = directory, id, digest
        self.surroundings = surroundings

    def __call__(self) -> str:
        """Run the job; where another machine may be at it still, wait until that is clear."""
        state = self._worked()
        if state == "running":  # in other hands, as it seems
            sweep = Sweep.read(self.directory)
            sweep.watch({identifier()}, (self.id,))
            state = self._worked() if sweep.state(self.id).state == "running" else state
        return state

    def _worked(self) -> str:
        return work(self.directory, self.id, self.digest, self.surroundings, slurm=identifier())

    def checkpoint(self) -> Any:
        """What to submit in place of this one: the same; training goes on from its file."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def identifier() -> str:
    """What ``squeue`` calls the Slurm job that this process is; empty outside Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def check_slurm() -> None:
    """Refuse to go on where Slurm or submitit is missing.

    Raises:
        DependencyError: One of them is.
    """
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise DependencyError(
            "Slurm needs an optional package",
            got="no submitit",
            expected="submitit",
            fix="pip install 'isogon[slurm]'",
        ) from None
    if shutil.which("sbatch") is None:
        raise DependencyError(
            "no Slurm here",
            got="no sbatch",
            expected="Slurm's commands on the path",
            fix="Log in to the cluster, or use --on processes.",
        )


def submit(
    sweep: Sweep, ids: list[str], surroundings: Surroundings, parameters: dict[str, Any]
) -> None:
    """Submit jobs as one array and note which Slurm job each is.

    Raises:
        DependencyError: Slurm or submitit is missing.
        FileError: Slurm does not take them.
    """
    check_slurm()
    import submitit

    executor = submitit.AutoExecutor(folder=sweep.directory / "slurm", cluster="slurm")
    executor.update_parameters(**parameters)
    directory = str(sweep.directory.resolve())
    try:
        with executor.batch():
            jobs = [
                executor.submit(SlurmTask(directory, i, sweep.jobs[i].digest(), surroundings))
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
        sweep.submit(id, job.job_id)

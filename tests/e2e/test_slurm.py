"""A sweep on a real Slurm: submitted as one array, followed by squeue alone, requeued."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isogon.survey.running.states import JobState
from isogon.survey.running.sweep import Sweep

pytestmark = [pytest.mark.slurm, pytest.mark.long]

PLAN = """
model: ["cnn(width=2)", "waits:build()"]
batches: digits(test, 8)
measures: [orientation]
"""
MODULE = """
import pathlib, time, torch
def build():
    here = pathlib.Path(__file__).parent
    (here / "started").touch()
    end = time.time() + 600
    while not (here / "go").exists() and time.time() < end:
        time.sleep(0.1)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""

# Steps are noted, so that it can be seen what was done twice.
SLOW = """
import pathlib, time, torch
class Slow(torch.nn.Sequential):
    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            time.sleep(0.05)
            with open(pathlib.Path(__file__).with_name("steps"), "a") as file:
                file.write(f"{hash(x.double().sum().item())}\\n")
        return super().forward(x)
def build():
    return Slow(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""
TRAINING = """
model: "trained(slow:build(), digits, epochs=30, checkpoint_every=20)"
batches: digits(test, 8)
measures: [orientation]
"""


@pytest.fixture
def cluster():
    """Slurm's environment; skips where no cluster answers (never in CI)."""
    conf = os.environ.get("SLURM_CONF")
    if conf is None:
        root = Path(os.environ.get("TMPDIR", "/tmp")) / "isogon-slurm" / "slurm.conf"
        conf = str(root) if root.is_file() else None
    env = {**os.environ, **({"SLURM_CONF": conf} if conf else {})}
    found = shutil.which("sinfo") and subprocess.run(
        ["sinfo", "-h"], env=env, capture_output=True, timeout=30, check=False
    )
    if not found or found.returncode:
        if os.environ.get("CI"):
            pytest.fail("a Slurm cluster must be running in CI")
        pytest.skip("needs a Slurm cluster")
    return env


def wait_for(what, seconds: float = 90):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.5)
    raise AssertionError("Slurm took too long")


class Site:
    """A folder with a plan, and the commands of isogon and Slurm in it."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        (folder / "plan.yaml").write_text(PLAN)
        (folder / "waits.py").write_text(MODULE)
        source = str(Path(__file__).resolve().parents[2] / "src")
        path = os.pathsep.join(p for p in (source, str(folder), env.get("PYTHONPATH")) if p)
        self.env = {**env, "PYTHONPATH": path, "ISOGON_CACHE": str(folder / "cache")}

    def isogon(self, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "isogon", *words],
            cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=240,
            check=False,
        )  # fmt: skip

    def slurm(self, *words: str) -> str:
        done = subprocess.run(
            words, env=self.env, cwd=self.folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def file(self, name: str) -> Path:
        return self.folder / name

    def waiting(self) -> str:
        """The job that waits for the file ``go``."""
        jobs = Sweep.read(self.folder / "s").jobs
        return next(i for i, j in jobs.items() if "waits" in j.inputs["model"])

    def ended(self) -> JobState | None:
        """The state of the only job once it is done or has failed."""
        (state,) = Sweep.read(self.folder / "s").states()
        return state if state.state in ("done", "failed") else None

    def state(self, id: str) -> JobState:
        return Sweep.read(self.folder / "s").state(id)


@pytest.fixture
def site(tmp_path, cluster):
    found = Site(tmp_path, cluster)
    yield found
    for state in Sweep.read(tmp_path / "s").states() if (tmp_path / "s").is_dir() else ():
        if state.slurm:
            subprocess.run(["scancel", state.slurm], env=found.env, check=False)


def test_a_preempted_job_is_queued_again_by_slurm_and_finished(site):
    if "preempt" not in site.slurm("sinfo", "-h", "-o", "%R").split():
        pytest.skip("needs a partition that others may take nodes from")
    sent = site.isogon("sweep", "plan.yaml", "--out", "s", "--on", "slurm", "--partition",
                       "preempt", "--minutes", "10")  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    wait_for(site.file("started").exists)
    id = site.waiting()
    wait_for(lambda: site.state(id).state == "running")
    nodes = site.slurm("sinfo", "-h", "-o", "%D", "-p", "main")
    site.slurm("sbatch", "-p", "main", "--exclusive", "-N", nodes, "-o", "/dev/null",
               "--wrap", "sleep 5")  # fmt: skip
    site.file("started").unlink()
    task = site.state(id).slurm
    wait_for(lambda: site.slurm("squeue", "-h", "-j", task, "-t", "PD", "-o", "%i"))
    assert site.isogon("status", "s").returncode == 0
    inline = site.isogon("sweep", "plan.yaml", "--out", "s", "--on", "inline")
    assert inline.returncode == 1
    assert "1 of 2 jobs are in other hands" in inline.stdout, "what Slurm queues again is Slurm's"
    wait_for(site.file("started").exists, 200)
    site.file("go").touch()
    wait_for(lambda: "2 jobs: 2 done" in site.isogon("status", "s").stdout)
    assert site.state(id).attempts == 2
    assert not list((site.folder / "s" / "claims").iterdir())


def test_a_job_that_outruns_its_limit_goes_on_from_its_file(site):
    site.file("slow.py").write_text(SLOW)
    site.file("plan.yaml").write_text(TRAINING)
    for _ in range(3):  # a slow machine may need more than the four times that Slurm gives it
        site.isogon("sweep", "plan.yaml", "--out", "s", "--on", "slurm", "--minutes", "1",
                    "--retry")  # fmt: skip
        state = wait_for(site.ended, 1200)
        assert state.state == "done" or "timed-out too many times" in state.error, state.error
        if state.state == "done":
            break
    assert state.state == "done"
    assert state.attempts >= 2
    steps = [int(n) for n in site.file("steps").read_text().split()]
    again = len(steps) - len(set(steps))
    assert again <= 40 * (state.attempts - 1), "from the file, not from the beginning"


def test_slurm_that_does_not_answer_is_given_nothing_twice(site):
    site.isogon("sweep", "plan.yaml", "--out", "s", "--on", "slurm", "--minutes", "15")
    wait_for(site.file("started").exists)
    id = site.waiting()
    wait_for(lambda: site.state(id).state == "running")
    shim = site.file("bin") / "squeue"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    shim.chmod(0o755)
    held, site.env = site.env, {**site.env, "PATH": f"{shim.parent}:{site.env['PATH']}"}
    before = site.slurm(shutil.which("squeue") or "squeue", "-h", "--array", "-o", "%i")
    for on in ("slurm", "inline"):
        found = site.isogon("sweep", "plan.yaml", "--out", "s", "--on", on, "--retry")
        assert found.returncode == 1
        assert "what Slurm holds is not known" in found.stdout
    site.env = held
    after = site.slurm("squeue", "-h", "--array", "-o", "%i")
    assert set(after.split()) <= set(before.split())
    site.file("go").touch()
    wait_for(lambda: "2 jobs: 2 done" in site.isogon("status", "s").stdout)
    assert [s.attempts for s in Sweep.read(site.folder / "s").states()] == [1, 1]


def test_a_task_whose_job_is_in_other_hands_leaves_it(site):
    """Two arrays hold the same jobs, as where the first submission was not noted down."""
    words = ("sweep", "plan.yaml", "--out", "s", "--on", "slurm", "--minutes", "15")
    site.isogon(*words)
    wait_for(site.file("started").exists)
    id = site.waiting()
    wait_for(lambda: site.state(id).state == "running")
    first = site.state(id).slurm
    shutil.rmtree(site.folder / "s" / "submitted")
    state = site.folder / "s" / "state" / f"{id}.json"
    kept = state.read_text()
    state.unlink()
    site.isogon(*words)
    state.write_text(kept)
    wait_for(lambda: len(list((site.folder / "s" / "slurm").glob("*_result.pkl"))) >= 2, 150)
    assert site.state(id).slurm == first
    site.file("go").touch()
    wait_for(lambda: "2 jobs: 2 done" in site.isogon("status", "s").stdout, 150)
    assert site.state(id).attempts == 1


def test_a_sweep_on_slurm_is_followed_requeued_and_finished(site):
    tmp_path, env, isogon = site.folder, site.env, site.isogon
    sent = isogon("sweep", "plan.yaml", "--out", "s", "--on", "slurm", "--minutes", "15")
    assert sent.returncode == 0, sent.stderr
    assert "2 queued" in sent.stdout
    wait_for((tmp_path / "started").exists)
    twice = isogon("sweep", "plan.yaml", "--out", "s", "--on", "slurm")
    assert "  queued" not in twice.stdout, "what Slurm holds is not submitted again"

    # The node takes the job away, as a preemption or a reboot would.
    sweep = Sweep.read(tmp_path / "s")
    waiting = next(i for i, j in sweep.jobs.items() if "waits" in j.inputs["model"])
    wait_for(lambda: sweep.state(waiting).state == "running")
    job = sweep.state(waiting).slurm
    (tmp_path / "started").unlink()
    subprocess.run(["scontrol", "requeue", job], env=env, check=True)
    wait_for((tmp_path / "started").exists, 150)
    (tmp_path / "go").touch()
    done = wait_for(lambda: "2 jobs: 2 done" in isogon("status", "s").stdout)
    assert done
    assert sweep.state(waiting).attempts == 2

    # A job that is cancelled is seen to have died, without any accounting, and is retried.
    (tmp_path / "go").unlink()
    (tmp_path / "started").unlink()
    shutil.rmtree(tmp_path / "s")
    isogon("sweep", "plan.yaml", "--out", "s", "--on", "slurm", "--minutes", "15")
    wait_for(lambda: sweep.state(waiting).state == "running")
    subprocess.run(["scancel", sweep.state(waiting).slurm], env=env, check=True)
    status = wait_for(lambda: (r := isogon("status", "s")).returncode == 1 and r.stdout)
    assert f"died  {waiting}" in status
    (tmp_path / "go").touch()
    isogon("sweep", "plan.yaml", "--out", "s", "--on", "inline")
    assert "2 jobs: 2 done" in isogon("status", "s").stdout

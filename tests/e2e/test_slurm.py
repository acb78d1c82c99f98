"""A sweep on a real Slurm: submitted as one array, followed by squeue alone, requeued."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
    end = time.time() + 120
    while not (here / "go").exists() and time.time() < end:
        time.sleep(0.1)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
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


def test_a_sweep_on_slurm_is_followed_requeued_and_finished(tmp_path, cluster):
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "waits.py").write_text(MODULE)
    source = str(Path(__file__).resolve().parents[2] / "src")
    path = os.pathsep.join(p for p in (source, str(tmp_path), cluster.get("PYTHONPATH")) if p)
    env = {**cluster, "PYTHONPATH": path, "ISOGON_CACHE": str(tmp_path / "cache")}

    def isogon(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "isogon", *words],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    sent = isogon("sweep", "plan.yaml", "--out", "s", "--on", "slurm", "--minutes", "5")
    assert sent.returncode == 0, sent.stderr
    assert "2 queued" in sent.stdout
    wait_for((tmp_path / "started").exists)
    twice = isogon("sweep", "plan.yaml", "--out", "s", "--on", "slurm")
    assert "  queued" not in twice.stdout, "what Slurm holds is not submitted again"

    # The node takes the job away, as a preemption or a reboot would.
    from isogon.survey.sweep import Sweep

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
    isogon("sweep", "plan.yaml", "--out", "s", "--on", "slurm", "--minutes", "5")
    wait_for(lambda: sweep.state(waiting).state == "running")
    subprocess.run(["scancel", sweep.state(waiting).slurm], env=env, check=True)
    status = wait_for(lambda: (r := isogon("status", "s")).returncode == 1 and r.stdout)
    assert f"died  {waiting}" in status
    (tmp_path / "go").touch()
    isogon("sweep", "plan.yaml", "--out", "s", "--on", "inline")
    assert "2 jobs: 2 done" in isogon("status", "s").stdout

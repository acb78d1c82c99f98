"""Sweeps on processes: what a death costs; a signal, or the parent's death, ends everybody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isogon.survey.running.sweep import Sweep

PLAN = """
model: ["own:build(0)", "own:build(1)", "own:build(2)", "own:build(3)"]
batches: digits(test, 8)
measures: [orientation]
"""
MODULE = """
import os, pathlib, signal, time, torch
here = pathlib.Path(__file__).parent
def build(k):
    (here / f"started-{k}").touch()
    how = here / f"how-{k}"
    if how.exists():
        number = int(how.read_text())
        while not (here / f"started-{1 - k}").exists():  # beside another one
            time.sleep(0.01)
        how.unlink() if number < 0 else None
        os.kill(os.getpid(), abs(number))
    end = time.time() + 100
    while not (here / "go").exists() and k < 2 and time.time() < end:
        time.sleep(0.01)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10 + k))
"""
WORDS = ("sweep", "plan.yaml", "--out", "s")


@pytest.fixture
def here(tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "own.py").write_text(MODULE)
    return tmp_path


def heeding() -> None:
    """Where tests run in the background, Ctrl-C is ignored, also by what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def isogon(here, *words) -> subprocess.Popen:
    source = str(Path(__file__).resolve().parents[2] / "src")
    path = os.pathsep.join(p for p in (source, os.environ.get("PYTHONPATH")) if p)
    return subprocess.Popen(
        [sys.executable, "-m", "isogon", *words],
        cwd=here, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=heeding,
    )  # fmt: skip


def wait_for(what, seconds: float = 60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("took too long")


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def both_run(here) -> list[int]:
    """The processes of the two jobs that wait, once they do."""
    wait_for(lambda: all((here / f"started-{k}").exists() for k in (0, 1)))
    states = Sweep.read(here / "s").states()
    return [s.pid for s in states if s.state == "running"]


ON = ("--on", "processes", "--workers", "2")


LONG = [pytest.param(how, marks=pytest.mark.long) for how in ("SIGTERM", "SIGTERM to all")]


@pytest.mark.parametrize("how", ["parent killed", "SIGINT", *LONG])
def test_an_end_from_outside_ends_everybody_and_loses_nothing(here, how):
    parent = isogon(here, *WORDS, *ON)
    crew = both_run(here)
    assert len(crew) == 2
    assert parent.pid not in crew
    began = time.monotonic()
    if how == "parent killed":
        parent.kill()
    elif how == "SIGTERM to all":
        os.killpg(parent.pid, signal.SIGTERM)
    else:
        parent.send_signal(getattr(signal, how))
    out, err = parent.communicate(timeout=20)
    wait_for(lambda: not any(map(runs, crew)), 10)
    assert time.monotonic() - began < 10
    states = Sweep.read(here / "s").states()
    if how == "parent killed":
        assert sorted(s.state for s in states) == ["died", "died", "queued", "queued"]
    else:
        assert parent.returncode == {"SIGINT": 130}.get(how, 143)
        assert "run the same command to go on" in err
        assert err.count("\n") == 1
        assert {s.state for s in states} == {"queued"}
        assert "4 queued" in out
    if how == "SIGINT":
        return  # the others show that it goes on
    (here / "go").touch()
    again = isogon(here, *WORDS, "--on", "inline")
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert "4 jobs: 4 done" in out
    assert sorted(s.attempts for s in Sweep.read(here / "s").states()) == [1, 1, 2, 2]


def test_a_death_costs_its_own_job_and_says_the_signal(here):
    (here / "how-0").write_text(str(int(signal.SIGSEGV)))  # dies also alone
    (here / "how-1").write_text(str(-signal.SIGKILL))  # dies once, beside the other
    parent = isogon(here, *WORDS, *ON)
    wait_for(lambda: not (here / "how-1").exists())
    (here / "go").touch()
    out, _ = parent.communicate(timeout=90)
    assert parent.returncode == 1
    assert "4 jobs: 3 done, 1 failed" in out
    assert "the process was killed by SIGSEGV\n" in out
    by = {Sweep.read(here / "s").jobs[s.id].inputs["model"]: s
          for s in Sweep.read(here / "s").states()}  # fmt: skip
    assert [by[f"own:build({k})"].attempts for k in range(4)] == [2, 2, 1, 1]
    assert "memory" not in by["own:build(0)"].error

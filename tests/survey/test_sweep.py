"""Sweeps: states, resuming, failures and retries, here and in processes."""

from __future__ import annotations

import json
import os
import sys

import pytest

from isogon.cli import main
from isogon.survey.declaring import plan
from isogon.survey.running import executors
from isogon.survey.running.states import JobState, count_states
from isogon.survey.running.sweep import Surroundings, Sweep, work

PLAN = """
model: [cnn(width=2), "broken:build()"]
batches: digits(test, 8)
measures: [orientation, data-matrix]
"""
MODULE = """
import os, pathlib, torch
def build():
    how = pathlib.Path(__file__).with_name("how").read_text()
    if how == "die":
        os.kill(os.getpid(), 9)
    if how == "raise":
        raise RuntimeError("as told")
    return torch.nn.Linear(64, 10) if how == "flat" else torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOGON_CACHE", str(tmp_path / "cache"))
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "broken.py").write_text(MODULE)
    (tmp_path / "how").write_text("raise")
    yield tmp_path
    sys.modules.pop("broken", None)


def out(capsys, code, *words):
    assert main([*words]) == code
    return capsys.readouterr().out


def test_inline_failures_are_listed_and_retried(here, capsys):
    assert "4 jobs, valid throughout" in out(capsys, 0, "sweep", "plan.yaml", "--check")
    assert not (here / "s").exists()
    text = out(capsys, 1, "sweep", "plan.yaml", "--out", "s")
    assert "4 jobs: 2 done, 2 failed" in text
    assert "RuntimeError: as told" in text
    log = next(line.split()[-1] for line in text.splitlines() if line.strip().startswith("log "))
    assert "as told" in (here / log).read_text()
    (here / "how").write_text("well")
    assert "failed" in out(capsys, 1, "sweep", "plan.yaml", "--out", "s"), "not without --retry"
    text = out(capsys, 0, "sweep", "plan.yaml", "--out", "s", "--retry")
    assert "4 jobs: 4 done" in text
    states = Sweep.read(here / "s").states()
    assert sorted(s.attempts for s in states) == [1, 1, 2, 2]
    assert "4 jobs: 4 done" in out(capsys, 0, "status", "s", "--all")
    assert "4 jobs: 4 done" in out(capsys, 0, "sweep", "plan.yaml", "--out", "s")


def test_a_process_that_is_killed_costs_its_job_only(here, capsys):
    (here / "how").write_text("die")
    words = ("sweep", "plan.yaml", "--out", "s", "--on", "processes", "--workers", "1")
    text = out(capsys, 1, *words)
    assert "4 jobs: 2 done, 2 failed" in text
    assert "killed" in text
    (here / "how").write_text("well")
    assert "4 jobs: 4 done" in out(capsys, 0, *words, "--retry")


def test_a_dead_runner_is_noticed_and_its_job_done_again(here):
    sweep = Sweep.create(
        here / "s", plan.expand({"model": "cnn(width=2)", "measures": ["orientation"]})
    )
    (id,) = sweep.jobs
    gone = 2**22 + 1  # above the largest process number
    import socket

    sweep.put(JobState(id, "running", 1, socket.gethostname(), gone))
    assert count_states(sweep.states())["died"] == 1
    assert sweep.missing(retry=False) == [id]
    sweep.put(JobState(id, "running", 1, "another-host", gone))
    assert count_states(sweep.states())["running"] == 1, "another machine's processes can't be seen"
    assert work(str(sweep.directory), id, sweep.jobs[id].digest(), Surroundings()) == "done"
    assert sweep.state(id).attempts == 2
    assert sweep.missing(retry=True) == []


def test_slurm_states_follow_the_queue(here):
    sweep = Sweep.create(
        here / "s", plan.expand({"model": "cnn(width=2)", "measures": ["orientation"]})
    )
    (id,) = sweep.jobs
    sweep.put(JobState(id, "queued", slurm="7_0"))
    assert count_states(sweep.states({"7_0"}))["queued"] == 1
    assert sweep.missing(retry=True, alive={"7_0"}) == [], "Slurm holds it already"
    assert count_states(sweep.states(set()))["died"] == 1
    assert sweep.missing(retry=False, alive=set()) == [id]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"id": 3, "evil": 1}', "null"])
def test_damaged_state_files_mean_not_done(here, damage):
    sweep = Sweep.create(
        here / "s", plan.expand({"model": "cnn(width=2)", "measures": ["orientation"]})
    )
    (id,) = sweep.jobs
    assert work(str(sweep.directory), id, sweep.jobs[id].digest(), Surroundings()) == "done"
    (here / "s" / "state" / f"{id}.json").write_text(damage)
    assert sweep.missing(retry=False) == [id]


def test_slurm_that_is_not_there_is_told(here, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(here))
    assert executors.slurm_alive() is None
    assert main(["sweep", "plan.yaml", "--out", "s", "--on", "slurm"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert json.loads((here / "s" / "plan.json").read_text())["title"] == "plan"
    assert os.listdir(here / "s")

"""What Slurm holds: known, not known, or not to be asked; "don't know" submits nothing."""

from __future__ import annotations

import os
import sys
import time

import pytest

from isogon.cli import main
from isogon.survey.running import claims, slurm
from isogon.survey.running.states import JobState, count_states
from isogon.survey.running.sweep import Sweep

PLAN = """
model: ["cnn(width=2)", "cnn(width=3)", "cnn(width=4)"]
batches: digits(test, 8)
measures: [orientation]
"""
SQUEUE = """#!/bin/sh
echo asked >> asked
n=$(wc -l < asked)
{squeue}
"""
SBATCH = """#!/bin/sh
echo "$@" >> submitted
echo "Submitted batch job 7"
"""
FAILS = 'echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1'


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with commands of Slurm that do as told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOGON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(slurm, "PAUSES", (0.0, 0.0))
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "bin").mkdir()
    command(tmp_path, "sbatch", SBATCH)
    return tmp_path


def command(here, name: str, text: str) -> None:
    path = here / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def squeue(here, text: str) -> None:
    (here / "asked").unlink(missing_ok=True)
    command(here, "squeue", SQUEUE.format(squeue=text))


def counts(here) -> dict[str, int]:
    return {k: n for k, n in count_states(Sweep.read(here / "s").states()).items() if n}


def sweep(here, *words: str) -> int:
    return main(["sweep", "plan.yaml", "--out", "s", *words])


def test_an_answer_an_error_and_no_squeue_are_told_apart(here, monkeypatch):
    squeue(here, "echo 7_0; echo 7_1")
    assert slurm.queue() == slurm.Queue({"7_0", "7_1"})
    squeue(here, "exit 0")
    assert slurm.queue() == slurm.Queue(set()), "nothing is there: that is an answer"
    squeue(here, FAILS)
    found = slurm.queue()
    assert found.jobs is None
    assert "Unable to contact" in found.problem
    assert found.installed
    assert len((here / "asked").read_text().split()) == 3
    squeue(here, f"[ $n -ge 3 ] && echo 7_0 && exit 0; {FAILS}")
    assert slurm.queue().jobs == {"7_0"}, "asked again"
    monkeypatch.setenv("PATH", str(here / "nowhere"))
    found = slurm.queue()
    assert found.jobs is None
    assert not found.installed


def test_what_is_not_known_is_not_submitted(here, capsys):
    squeue(here, FAILS)
    assert sweep(here, "--on", "slurm") == 1
    assert not (here / "submitted").exists(), "not even the first time"
    assert "nothing was submitted" in capsys.readouterr().out
    squeue(here, "for k in 0 1 2; do echo 7_$k; done")
    assert sweep(here, "--on", "slurm") == 0
    assert len((here / "submitted").read_text().splitlines()) == 1
    assert {s.slurm for s in Sweep.read(here / "s").states()} == {"7_0", "7_1", "7_2"}
    capsys.readouterr()
    for words in ((), ("--retry",)):
        squeue(here, FAILS)
        assert sweep(here, "--on", "slurm", *words) == 1
        assert len((here / "submitted").read_text().splitlines()) == 1, words
        assert "Unable to contact" in capsys.readouterr().out
        assert counts(here) == {"queued": 3}
        assert sweep(here, "--on", "inline", *words) == 1, "nor is it done here"
        assert counts(here) == {"queued": 3}
        assert "3 jobs that Slurm was given stay" in capsys.readouterr().out
    squeue(here, FAILS)
    assert main(["status", "s"]) == 0
    assert "3 queued" in capsys.readouterr().out
    squeue(here, "echo 7_2")
    assert sweep(here) == 1, "what Slurm lost is done, what it has is not"
    assert counts(here) == {"done": 2, "queued": 1}
    squeue(here, "exit 0")
    assert sweep(here) == 0
    assert [s.attempts for s in Sweep.read(here / "s").states()] == [1, 1, 1]


def test_where_there_is_no_squeue_the_user_may_take_over(here, capsys, monkeypatch):
    squeue(here, "for k in 0 1 2; do echo 7_$k; done")
    assert sweep(here, "--on", "slurm") == 0
    held = Sweep.read(here / "s")
    ids = list(held.jobs)
    held.put(JobState(ids[0], "running", 1, "node1", 12, "7_0", boot="b", space="s"))
    path = here / "s" / claims.FOLDER / f"{ids[0]}.1"
    path.parent.mkdir()
    path.write_text('{"host": "node1", "boot": "b", "space": "s", "pid": 12, "slurm": "7_0"}')
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    assert sweep(here) == 1
    assert counts(here) == {"queued": 2, "running": 1}
    assert "--retry" in capsys.readouterr().out
    monkeypatch.setattr(claims, "STALE", 3.0)
    path.touch()
    began = time.monotonic()
    assert sweep(here, "--retry") == 0, "its heart had stopped"
    assert time.monotonic() - began > 2
    assert counts(here) == {"done": 3}
    assert held.state(ids[0]).attempts == 2


def test_slurm_is_not_asked_where_it_was_given_nothing(here):
    squeue(here, FAILS)
    assert sweep(here) == 0
    assert not (here / "asked").exists()


def test_a_job_that_begins_while_it_is_noted_down_keeps_its_state(here):
    squeue(here, "echo 7_0")
    assert sweep(here) == 0
    held = Sweep.read(here / "s")
    one = next(iter(held.jobs))
    held.put(JobState(one, "failed", 1))
    held.submit(one, "9_0")
    assert (held.state(one).state, held.state(one).slurm) == ("queued", "9_0")
    held.put(JobState(one, "running", 2, slurm="9_0"))
    assert held.state(one).state == "running"
    held.put(JobState(one, "failed", 2, slurm="9_0"))
    assert held.state(one).state == "failed"
    assert count_states(held.states(set()))["died"] == 0

"""Who works on a job: owners that can be seen, heartbeats of others, many sweeps at once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from isogon import processes
from isogon.processes import Process
from isogon.storage import files
from isogon.survey.declaring import plan
from isogon.survey.running import claims, executors
from isogon.survey.running import sweep as sweeps
from isogon.survey.running.states import JobState, count_states
from isogon.survey.running.sweep import Surroundings, Sweep, work

JOBS = 24
GONE = 2**22 + 1  # above the largest process number


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A sweep of jobs that only note that they ran."""
    found = plan.expand({"axes": {"seed": list(range(JOBS))}, "seed": "{seed}",
                         "model": "cnn(width=2)", "measures": ["orientation"]})  # fmt: skip
    sweep = Sweep.create(tmp_path / "s", replace_seeds(found))
    monkeypatch.setattr(sweeps, "_run", noted)
    return sweep


def replace_seeds(found):
    (job,) = {j.measure: j for j in found.jobs}.values()
    return replace(found, jobs=tuple(replace(job, seed=k) for k in range(JOBS)))


def noted(job, records, surroundings):
    path = records / f"orientation-{job.seed}"
    path.mkdir(parents=True, exist_ok=True)
    with (records / "runs").open("a") as file:
        file.write(f"{job.seed}\n")
    return path


def run(sweep, id, **options) -> str:
    return work(str(sweep.directory), id, sweep.jobs[id].digest(), Surroundings(), **options)


def claimed(sweep, id, owner: Process, *, attempt: int = 1, age: float = 0.0, **more):
    """Somebody else's claim, and the state that goes with it."""
    sweep.put(JobState(id, "running", attempt, **asdict(owner)))
    path = sweep.directory / claims.FOLDER / f"{id}.{attempt}"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**asdict(owner), **more}))
    os.utime(path, (time.time() - age,) * 2)
    return path


ME = Process.current()
ELSEWHERE = {
    "another machine": replace(ME, host="other", boot="b", pid=os.getpid()),
    "a container of this machine": replace(ME, space="pid:[1]", pid=1),
    "the same name after a reboot": replace(ME, boot="b"),
    "nothing but a name": Process("other", pid=7),
    "nothing": Process(),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_an_owner_that_cant_be_seen_is_judged_by_its_heartbeat(here, kind):
    id = next(iter(here.jobs))
    path = claimed(here, id, ELSEWHERE[kind], age=claims.STALE - 5)
    assert here.states(ids=[id])[0].state == "running"
    assert run(here, id) == "running"
    assert id not in here.missing(retry=True)
    os.utime(path, (time.time() - claims.STALE - 5,) * 2)
    assert here.states(ids=[id])[0].state == "died"
    assert id in here.missing(retry=False)
    assert run(here, id) == "done"
    assert here.state(id).attempts == 2
    assert not list(path.parent.iterdir()), "what the dead left is cleared away"


@pytest.mark.parametrize(
    ("owner", "lives"),
    [
        (ME, True),
        (replace(ME, host="renamed"), True),
        (replace(ME, start="12"), False),  # the number was given to another process
        (replace(ME, pid=GONE), False),
        (replace(ME, pid=GONE, host="renamed"), False),  # restarted under another name
        (Process(socket.gethostname(), pid=GONE), False),
        (Process(socket.gethostname(), pid=os.getpid()), None),
        (Process(socket.gethostname(), pid=0), None),
        (Process(socket.gethostname(), pid=-1), None),
        (Process(pid=os.getpid()), None),
    ],
)
def test_an_owner_that_can_be_seen_is_judged_by_itself(here, owner, lives):
    assert owner.alive() is lives
    id = next(iter(here.jobs))
    claimed(here, id, owner, age=claims.STALE + 5 if lives else 0)
    if lives is not None:
        assert count_states(here.states())["running" if lives else "died"] == 1


def test_a_process_that_nobody_waited_for_does_not_live():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = replace(ME, pid=child.pid, start=processes._start(child.pid) or "")
    assert owner.start
    assert owner.alive()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owner.alive() is False, "it is a zombie"
    child.wait()
    assert owner.alive() is False


def test_where_there_is_no_proc_the_system_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "PROC", tmp_path)
    asked = []

    def said(*command):
        asked.append(command)
        return "S    Tue Nov  3 10:00:00 2026" if "-p" in command else "boot"

    monkeypatch.setattr(processes, "_said", said)
    assert processes._start(os.getpid()) == "Tue Nov 3 10:00:00 2026"
    monkeypatch.setattr(processes, "_said", lambda *c: "Z+   Tue Nov  3 10:00:00 2026")
    assert processes._start(os.getpid()) == ""
    monkeypatch.setattr(processes, "_said", lambda *c: None)
    assert processes._start(os.getpid()) is None


def test_a_heartbeat_beats_and_clocks_are_those_of_the_file_server(here, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.02)
    id = next(iter(here.jobs))
    claim = claims.take(here.directory, id, begun=0)
    assert claim is not None
    os.utime(claim.path, (0, 0))
    assert not claims.beating(claim.path)
    with claim.kept():
        end = time.monotonic() + 5
        while not claims.beating(claim.path) and time.monotonic() < end:
            time.sleep(0.02)
        assert claims.beating(claim.path)
    assert not [t for t in threading.enumerate() if t.name == "isogon-heartbeat" and stays(t)]
    monkeypatch.setattr(claims.time, "time", lambda: 1e9)  # this machine's clock is years off
    assert claims.beating(claim.path)
    os.utime(claim.path, (time.time_ns() / 1e9 + 1e6,) * 2)
    assert not claims.beating(claim.path), "nor does a time far ahead keep a job for ever"


def stays(thread) -> bool:
    thread.join(1)
    return thread.is_alive()


def test_a_sweep_waits_until_it_is_clear_who_lives(here, monkeypatch):
    monkeypatch.setattr(claims, "STALE", 0.6)
    beating, silent = list(here.jobs)[:2]
    lives = claimed(here, beating, ELSEWHERE["another machine"])
    claimed(here, silent, ELSEWHERE["another machine"])
    assert set(here.unsure()) == {beating, silent}
    timer = threading.Timer(0.2, lambda: os.utime(lives))
    timer.start()
    began = time.monotonic()
    here.watch(pause=0.05)
    timer.join()
    assert 0.4 < time.monotonic() - began < 5
    os.utime(lives)
    assert {s.id: s.state for s in here.states(ids=[beating, silent])} == {
        beating: "running", silent: "died",
    }  # fmt: skip


def test_slurm_takes_over_from_its_own_earlier_life_only(here):
    id = next(iter(here.jobs))
    claimed(here, id, ELSEWHERE["another machine"], slurm="7_0")
    assert run(here, id, slurm="8_0") == "running"
    assert run(here, id) == "running"
    assert run(here, id, slurm="7_0") == "done", "the node was taken away"
    assert here.state(id).slurm == "7_0"


def test_a_job_that_was_taken_over_leaves_the_new_owners_word(here, monkeypatch):
    id = next(iter(here.jobs))

    def slept(job, records, surroundings):
        claimed(here, id, ELSEWHERE["another machine"], attempt=2)
        return noted(job, records, surroundings)

    monkeypatch.setattr(sweeps, "_run", slept)
    run(here, id)
    assert here.state(id).attempts == 2
    assert here.state(id).host == "other"
    assert here.states(ids=[id])[0].state == "running"


def test_what_another_sweep_did_meanwhile_is_not_done_again(here, monkeypatch):
    first, second = list(here.jobs)[:2]
    assert run(here, first, begun=0) == "done"
    assert run(here, first, begun=0) == "done"
    assert here.state(first).attempts == 1

    def fails(job, records, surroundings):
        raise RuntimeError

    monkeypatch.setattr(sweeps, "_run", fails)
    assert run(here, second, begun=0) == "failed"
    assert run(here, second, begun=0) == "failed"
    assert here.state(second).attempts == 1
    assert run(here, second, begun=1) == "failed"
    assert here.state(second).attempts == 2
    assert not list((here.directory / claims.FOLDER).iterdir())


SCRIPT = """
import sys, time
from pathlib import Path
from isogon.survey.running import executors, sweep
held = sweep.Sweep.read(sys.argv[1])
def run(job, records, surroundings):
    records.mkdir(exist_ok=True)
    with (records / "runs").open("a") as file:
        file.write(f"{job.seed}\\n")
    time.sleep(0.01)
    path = records / f"orientation-{job.seed}"
    path.mkdir()
    return path
sweep._run = run
while not (held.directory / "go").exists():
    time.sleep(0.001)
executors.execute(held, list(held.jobs), on="inline", surroundings=sweep.Surroundings(),
                  resources=executors.Resources(), notify=lambda state: None)
"""


def test_a_claim_that_is_released_while_it_is_read_is_none(here, monkeypatch):
    """Its owner had finished: between the look at the folder and the file."""
    id = next(iter(here.jobs))
    path = claimed(here, id, ME)

    class Gone(type(path)):
        def open(self, *words, **named):
            path.unlink(missing_ok=True)
            return super().open(*words, **named)

    monkeypatch.setattr(files, "Path", Gone)
    assert claims.holder(here.directory, id) is None


@pytest.mark.parametrize("dead", [False, True])
def test_many_sweeps_on_one_folder_start_each_job_once(here, dead):
    if dead:  # all of them find the same owners gone, and take over once
        for id in here.jobs:
            claimed(here, id, replace(ME, pid=GONE))
    crew = [subprocess.Popen([sys.executable, "-c", SCRIPT, str(here.directory)]) for _ in range(4)]
    time.sleep(1.0)
    (here.directory / "go").touch()
    assert [c.wait(60) for c in crew] == [0] * 4
    states = here.states()
    assert {s.state for s in states} == {"done"}
    assert {s.attempts for s in states} == {1 + dead}
    runs = (here.records / "runs").read_text().split()
    assert sorted(map(int, runs)) == list(range(JOBS))


@pytest.mark.parametrize(
    "data",
    [
        {"id": "../../x"}, {"record": "../../../etc"}, {"record": "/etc"}, {"attempts": "2"},
        {"pid": None}, {"state": 3}, {"state": "x"}, {"evil": 1},
    ],
)  # fmt: skip
def test_a_state_that_names_something_else_is_none(here, data):
    id = next(iter(here.jobs))
    good = asdict(JobState(id, "done", 3, started=5.0, record="records/orientation-1"))
    path = here.directory / "state" / f"{id}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**good, "started": 5}))
    assert here.state(id).attempts == 3
    path.write_text(json.dumps({**good, **data}))
    assert here.state(id) == JobState(id)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x", "host": 3}', "null"])
def test_a_damaged_claim_is_judged_by_its_time(here, text):
    id = next(iter(here.jobs))
    path = claimed(here, id, ME)
    path.write_text(text)
    assert run(here, id) == "running"
    os.utime(path, (0, 0))
    assert run(here, id) == "done"


def test_claims_of_finished_jobs_are_cleared_away(here):
    found = plan.Plan("", tuple(here.jobs.values()))
    first, second = list(here.jobs)[:2]
    assert run(here, first) == "done"
    left = here.directory / claims.FOLDER / f"{first}.1"
    left.touch()
    kept = claimed(here, second, replace(ME, pid=GONE))
    Sweep.create(here.directory, found)
    assert not left.exists()
    assert kept.exists()


def test_executors_leave_alone_what_others_run(here):
    ids = list(here.jobs)
    claimed(here, ids[0], ELSEWHERE["another machine"])
    seen = []
    executors.execute(
        here, ids, on="inline", surroundings=Surroundings(), resources=executors.Resources(),
        notify=seen.append,
    )  # fmt: skip
    assert count_states(seen) == count_states(here.states())
    assert count_states(seen)["done"] == JOBS - 1

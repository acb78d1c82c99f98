"""One measurement over many jobs: shares of the data, merged to the one reading."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from isogon import registry
from isogon.cli import main
from isogon.errors import FileError, OptionError
from isogon.stats import Blocks, ByClass, Kept, Moments, TwoWayMoments
from isogon.stats.state import read_state, write_state
from isogon.survey.declaring import plan
from isogon.survey.declaring.job import Job
from isogon.survey.declaring.splitting import Missing
from isogon.survey.running.run import Session, run
from isogon.survey.running.sweep import Surroundings, Sweep, work

MODEL, DATA = "cnn(width=2)", "digits(test, 40)"
ORBITS = {"model": MODEL, "batches": DATA, "family": "rotations(4)"}
EVERY = ("variance", "squared", "anova", "distance", "goodfellow")
CASES = [
    Job("data_matrix", {"model": MODEL, "batches": DATA}, {"eigenvectors": 2}),
    Job("integrability", {"model": MODEL, "batches": DATA}),
    Job("invariance", ORBITS, {"measures": EVERY}),
    Job("invariance", ORBITS, {"measures": EVERY, "threshold": "quantile", "by_class": True}),
    Job("invariance", ORBITS, {"bootstrap": 20, "aggregate": "channel"}),
    Job("equivariance", ORBITS, {"measures": ("variance", "simple", "floor", "lie")}),
]


def shared(job: Job, count: int, out, session: Session) -> tuple:
    """Turns of all shares until they merge; the record and the number of turns."""
    for turn in range(1, 5):
        for part in job.shares(count):
            run(part, out=out, session=session)
        try:
            return run(job, out=out, session=session, shards=count), turn
        except Missing:
            continue
    pytest.fail("no end")


@pytest.mark.parametrize(("job", "count"), list(zip(CASES, (3, 2, 4, 2, 3, 7))), ids=str)
def test_shares_merge_to_the_whole(job, count, tmp_path):
    session = Session(batch_size=8)
    whole = run(job, session=session).reading
    record, turns = shared(job, count, tmp_path, session)
    passes = {"goodfellow", "lie"} & set(job.options.get("measures", ()))
    assert turns == 1 + len(passes), "a turn of each share per pass over the data"
    reading = record.reading
    assert type(reading) is type(whole)
    pd.testing.assert_frame_equal(reading.table, whole.table, rtol=1e-9, atol=1e-12)
    assert reading.meta == whole.meta
    assert reading.arrays.keys() == whole.arrays.keys()
    for name, array in whole.arrays.items():
        np.testing.assert_allclose(reading.arrays[name], array, rtol=1e-6, atol=1e-9)
    assert len(record.provenance["shares"]) == count
    assert record.provenance["seconds"] >= sum(record.provenance["shares"])
    again = run(job, out=tmp_path, session=session)  # addressed as if measured in one go
    assert again.reused
    assert again.key == record.key


def test_the_table_above_tells_every_measure_that_can_be_shared_out():
    able = {n for n in registry.names("measure") if registry.get("measure", n).extra.get("shards")}
    assert able == {job.measure for job in CASES}


def test_states_are_data_and_come_back(generator):
    x = torch.randn(9, 3, 4, generator=generator)
    y = torch.arange(9) % 2

    def make():
        return ByClass(lambda: Blocks(lambda: TwoWayMoments(3), 4))

    seen = make().update(x, labels=y, rows=torch.arange(9))
    arrays: dict = {}
    tree = write_state(seen, arrays)
    back = read_state(tree, arrays, make())
    for label, found in seen.compute().items():
        assert torch.equal(back.compute()[label].row_m2, found.row_m2)
    for stat in (Moments().update(x), Kept().update(x)):
        arrays = {}
        again = read_state(write_state(stat, arrays), arrays, type(stat)())
        assert again.count == stat.count
    odd = (1, -0.0, float("inf"), True, None, "é", np.int64(3), [np.float32(0.1)])
    tree = write_state(odd, {})
    plain = (1, -0.0, float("inf"), True, None, "é", 3, [float(np.float32(0.1))])
    assert str(read_state(tree, {})) == str(plain)


@pytest.mark.parametrize(
    "tree",
    [
        {"object": "os:system", "own": False, "state": []},
        {"object": "isogon.cli.entry:main", "own": False, "state": []},
        {"object": "isogon.readings.reading:Reading", "own": False, "state": []},
        {"tensor": "9", "device": "cpu"},
        {"call": "x"},
        {"int": "x"},
        {},
    ],
)
def test_a_state_makes_nothing_but_statistics(tree):
    with pytest.raises(FileError, match="does not fit"):
        read_state(tree, {})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "partition", "plane": "x"}, "partition can't be shared out over jobs"),
        (
            {"name": "invariance", "family": "rotations(4)", "stability": True},
            "can't be shared out over jobs with stability",
        ),
        ({"name": "data-matrix", "shards": 0}, "no such number of shares"),
        ({"name": "data-matrix", "shards": 10**9}, "plan too large"),
        ({"name": "data-matrix", "shards": "two"}, "must be a number"),
    ],
)
def test_what_cannot_be_split_is_refused_by_name(entry, message):
    data = {"model": MODEL, "batches": DATA, "measures": [{"shards": 3, **entry}]}
    if entry["name"] == "partition":
        entry["plane"] = "through(digits(test)[0], digits(test)[1], digits(test)[2])"
        data["measures"] = [{"shards": 3, **entry}]
    with pytest.raises(OptionError, match=message):
        plan.expand(data)


def test_the_number_of_shares_stands_in_an_entry_in_the_plan_or_on_the_command_line():
    data = {"model": MODEL, "batches": DATA, "measures": ["data-matrix", "integrability"]}
    assert len(plan.expand(data).jobs) == 2
    assert len(plan.expand({**data, "shards": 3}).jobs) == 2 + 6
    assert len(plan.expand({**data, "shards": 3}, shards=2).jobs) == 2 + 4
    mixed = {**data, "measures": [{"name": "data-matrix", "shards": 2}, "integrability"]}
    assert len(plan.expand(mixed).jobs) == 2 + 2
    plain, parts = plan.expand(data).ids(), plan.expand({**data, "shards": 2}).ids()
    assert set(plain) < set(parts), "the whole is the same job"


@pytest.fixture
def sweep(tmp_path):
    """A plan of two passes in three shares, not run."""
    data = {
        "shards": 3, "model": MODEL, "batches": "digits(test, 12)",
        "measures": [{"name": "invariance", "family": "rotations(4)",
                      "measures": ["variance", "goodfellow"]}],
    }  # fmt: skip
    return Sweep.create(tmp_path / "out", plan.expand(data))


def turn(sweep: Sweep, ids) -> None:
    around = Surroundings(batch_size=2)
    for id in ids:
        work(str(sweep.directory), id, sweep.jobs[id].digest(), around)


def test_the_last_share_merges_and_asks_for_the_next_pass(sweep):
    (whole,) = (i for i, j in sweep.jobs.items() if j.shard is None)
    first = sweep.missing(retry=False)
    assert len(first) == 3
    assert whole not in first
    turn(sweep, first[:2])
    assert sweep.state(whole).attempts == 0
    turn(sweep, first[2:])
    assert sweep.state(whole).state == "queued"  # a second pass is wanted
    assert "another pass" in sweep.state(whole).error
    assert sorted(sweep.turns()) == sorted(first)
    turn(sweep, first)
    assert {s.state for s in sweep.states()} == {"done"}
    assert not sweep.missing(retry=False)


def test_a_share_that_was_killed_is_run_again_alone(sweep):
    (whole,) = (i for i, j in sweep.jobs.items() if j.shard is None)
    first = sweep.missing(retry=False)
    turn(sweep, first)
    turn(sweep, first[:1])
    dead = sweep.state(first[1])  # begun by a process that is gone
    dead.state, dead.pid, dead.start, dead.record = "running", 2**22 + 1, "0", ""
    sweep.put(dead)
    assert first[1] in sweep.missing(retry=False)
    turn(sweep, first[1:])
    assert sweep.state(first[0]).attempts == 2
    assert sweep.state(whole).state == "done"


def test_shares_whose_records_are_lost_are_run_again(sweep):
    first = sweep.missing(retry=False)
    turn(sweep, first[:2])
    shutil.rmtree(sweep.directory / sweep.state(first[0]).record)
    turn(sweep, first[2:])  # merges, and finds one missing
    assert sorted(sweep.turns()) == sorted(first)
    turn(sweep, first)
    turn(sweep, first)
    assert {s.state for s in sweep.states()} == {"done"}


def test_shares_on_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ISOGON_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "plan.yaml"
    path.write_text(f"model: {MODEL}\nbatches: digits(test, 12)\nmeasures: [data-matrix]\n")
    words = ["sweep", str(path), "--batch-size", "4", "--out"]
    assert main([*words, str(tmp_path / "one")]) == 0
    assert main([*words, str(tmp_path / "many"), "--shards", "2"]) == 0
    one, many = (Sweep.read(tmp_path / n) for n in ("one", "many"))
    (id,) = one.jobs
    assert len(many.jobs) == 3
    from isogon.survey.running.record import load

    a, b = (load(s.directory / s.state(id).record) for s in (one, many))
    assert a is not None
    assert b is not None
    assert a.key == b.key
    pd.testing.assert_frame_equal(a.reading.table, b.reading.table, rtol=1e-9)
    page = " ".join((tmp_path / "many" / "report.html").read_text().split())
    assert "<dt>jobs done</dt><dd>1 <small>of 1</small>" in page
    assert "share 2 of 2" in page
    path.write_text("model: cnn\nmeasures: [orientation]\n")
    assert main(["sweep", str(path), "--shards", "2", "--check"]) == 2
    assert "orientation can't be shared out" in capsys.readouterr().err

"""Measures of a survey that share a pass: the same readings, the model run once."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from isogon.actions import Family
from isogon.errors import DataError
from isogon.measures.orbits.equivariance import equivariance
from isogon.measures.orbits.invariance import invariance
from isogon.nets.meeting import Meeting
from isogon.nets.passes import LOGITS, all_passes
from isogon.nets.watchers import Of
from isogon.stats import Moments
from isogon.survey.running.run import Session
from isogon.survey.whole.survey import survey

MODEL, DATA = "cnn(width=2)", "digits(test, 60)"
BOTH = ("invariance", "equivariance")


class Counted:
    """How often orbits are made, and of how many images."""

    def __init__(self, monkeypatch) -> None:
        self.images = 0
        orbit = Family.orbit

        def noted(family, x):
            self.images += len(x)
            return orbit(family, x)

        monkeypatch.setattr(Family, "orbit", noted)


def test_a_survey_shares_passes_and_its_readings_are_those_of_separate_runs(tmp_path, monkeypatch):
    counted = Counted(monkeypatch)
    alone = {}
    for name in BOTH:
        alone |= survey(MODEL, DATA, out=tmp_path / name, only=(name,)).records()
    separate, counted.images = counted.images, 0
    found = survey(MODEL, DATA, out=tmp_path / "both", only=BOTH)
    together = found.records()
    assert counted.images == separate // 2 == 60
    for name in BOTH:
        assert together[name].reading.equals(alone[name].reading), "bit by bit"
        assert together[name].key == alone[name].key
        (other,) = set(BOTH) - {name}
        assert together[name].provenance["shared_pass"]["with"] == [other]
        assert "shared_pass" not in alone[name].provenance
    shared = together["invariance"].provenance["shared_pass"]["seconds"]
    spent = sum(r.provenance["seconds"] for r in together.values())
    assert shared < spent <= found.seconds, "what each took adds up"
    counted.images = 0
    again = survey(MODEL, DATA, out=tmp_path / "both", only=BOTH)
    assert {line.status for line in again.lines} == {"reused"}
    assert counted.images == 0


@pytest.mark.long
def test_every_measure_of_a_survey_reads_the_same(tmp_path):
    model = "trained(cnn(width=2), digits(train, 100), epochs=1)"
    whole = survey(model, DATA, out=tmp_path / "all", budget=600.0).records()
    for name, record in whole.items():
        found = survey(model, DATA, out=tmp_path / name, only=(name,), budget=600.0)
        (alone,) = found.records().values()
        assert record.reading.equals(alone.reading), name
        assert record.key == alone.key


def test_what_is_there_is_not_met_again(tmp_path):
    survey(MODEL, DATA, out=tmp_path, only=("invariance",))
    found = survey(MODEL, DATA, out=tmp_path, only=BOTH)
    assert [line.status for line in found.lines] == ["reused", "done"]
    assert "shared_pass" not in found.records()["equivariance"].provenance


def test_one_that_fails_harms_no_other(tmp_path, monkeypatch):
    from isogon.measures.orbits import watcher

    update = watcher.OrbitWatcher.update

    def fails(self, values, labels, rows):
        if self.undone:
            raise DataError("of its own", got="x", expected="y")
        return update(self, values, labels, rows)

    expected = survey(MODEL, DATA, out=tmp_path / "a", only=("invariance",)).records()
    monkeypatch.setattr(watcher.OrbitWatcher, "update", fails)
    found = survey(MODEL, DATA, out=tmp_path / "b", only=BOTH)
    lines = {line.measure: line for line in found.lines}
    assert lines["invariance"].status == "done"
    assert "of its own" in lines["equivariance"].reason
    assert found.records()["invariance"].reading.equals(expected["invariance"].reading)


def test_the_budget_ends_a_shared_pass(tmp_path):
    found = survey(MODEL, "digits(test, 1500)", out=tmp_path, only=BOTH, budget=0.02)
    assert {line.status for line in found.lines} == {"skipped"}
    assert all("budget" in line.reason for line in found.lines)


def test_ctrl_c_in_a_shared_pass_stops_the_survey(tmp_path, monkeypatch):
    from isogon.measures.orbits import watcher

    def stops(self, values, labels, rows):
        raise KeyboardInterrupt

    monkeypatch.setattr(watcher.OrbitWatcher, "update", stops)
    found = survey(MODEL, DATA, out=tmp_path, only=BOTH)
    assert found.interrupted
    assert {line.status for line in found.lines} == {"skipped"}
    monkeypatch.undo()
    again = survey(MODEL, DATA, out=tmp_path, only=BOTH)
    assert {line.status for line in again.lines} == {"done"}


def watch(model, batches, sites=LOGITS):
    """A measure of one pass."""
    watcher = Of(sites, Moments)
    seen = all_passes(model, batches, [watcher])
    return seen, watcher.result().mean


def test_only_what_is_alike_meets_and_every_later_pass_is_its_own():
    torch.manual_seed(0)
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    data = [(torch.rand(4, 3), torch.zeros(4).long())]

    def twice(model, batches):
        return watch(model, batches), watch(model, batches)

    calls = {
        "a": lambda: watch(net, data),
        "b": lambda: twice(net, data),
        "c": lambda: watch(other, data),
        "d": lambda: watch(net, list(data)),
        "e": lambda: 1 / 0,
        "f": lambda: "no pass at all",
    }
    meeting = Meeting()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, call in calls.items():
            meeting.ask(name, call)
    runs = []
    net.register_forward_hook(lambda *a: runs.append(1))
    meeting.run(all_passes)
    assert sorted(meeting.held) == ["a", "b"]
    assert len(runs) == 1
    with meeting.met("a"):
        seen, mean = calls["a"]()
    assert seen == 4
    assert torch.equal(mean, watch(net, data)[1])
    runs.clear()
    with meeting.met("b"):
        first, second = calls["b"]()
    assert len(runs) == 1, "the second pass is its own"
    assert torch.equal(first[1], second[1])
    with meeting.met("c"):
        assert torch.equal(calls["c"]()[1], watch(other, data)[1])


def test_several_passes_meet_until_nobody_wants_another_one():
    session = Session()
    data = session.get("Batches", DATA)
    model, family = session.get("Module", MODEL, like=data), session.get("Family", "rotations(4)")

    def one():
        return invariance(model, data, family, measures=("variance", "goodfellow"))

    def two():
        return equivariance(model, data, family, measures=("variance", "simple", "lie"))

    meeting = Meeting()
    for name, call in zip(BOTH, (one, two)):
        meeting.ask(name, call)
    meeting.run(all_passes)
    assert sorted(meeting.held) == sorted(BOTH)
    for name, call in zip(BOTH, (one, two)):
        with meeting.met(name):
            found = call()
        assert found.equals(call())

from __future__ import annotations

import pytest

import isogon as ig
from isogon import readings
from isogon.errors import OptionError
from isogon.survey.experiments import evolution as evolving


def test_a_partition_is_followed_through_training(tmp_path):
    spec = "trained(mlp(4), two_moons(train, 40), epochs=4, snapshot_every=2)"
    found = evolving.partition_evolution(
        model=ig.load(spec),
        snapshots=evolving.states_of(spec),
        plane=ig.Slice.box2d((-1, -1), (2, 1)),
        train=ig.batches("two_moons(train, 40)"),
        test=ig.batches("two_moons(test, 40)"),
        out=str(tmp_path),
    )
    assert found.frames == [0, 1]
    for file in ("figure.png", "evolution.gif", "table.csv"):
        assert (tmp_path / file).stat().st_size > 100
    assert readings.read(tmp_path / "reading").equals(found)
    with pytest.raises(OptionError, match="history"):
        evolving.partition_evolution(model=ig.load(spec), out=str(tmp_path / "none"))


def test_the_settings_of_the_evolution_can_be_parsed():
    from isogon.specs import parse

    for course in evolving.COURSES.values():
        assert [str(parse(spec)) for spec in course]

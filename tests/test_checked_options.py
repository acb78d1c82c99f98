"""Options that are numbers: every type that holds one is taken, the rest is refused at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon import options
from isogon.errors import OptionError
from isogon.measures.partition.forecast import forecast

BOX = ig.Slice.box2d((-1, -1), (1, 1))


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 3))


@pytest.mark.parametrize(
    "value", [3, 3.0, np.int64(3), np.float32(3), np.array([3]), torch.tensor(3), torch.ones(1) * 3]
)
def test_numbers_of_every_type(value):
    assert options.whole("n", value) == 3
    assert type(options.whole("n", value)) is int
    assert options.number("x", value) == 3.0
    assert type(options.number("x", value)) is float


@pytest.mark.parametrize("value", ["3", None, True, np.True_, torch.tensor(True), 1j, [3]])
def test_what_is_no_number(value):
    with pytest.raises(OptionError, match=r"n is no whole number: got .*expected a whole number"):
        options.whole("n", value)
    with pytest.raises(OptionError, match="x is no number: got"):
        options.number("x", value)


@pytest.mark.parametrize("value", [2.5, float("nan"), float("inf"), torch.tensor(0.5)])
def test_a_fraction_is_no_whole_number(value):
    with pytest.raises(OptionError, match="n is no whole number"):
        options.whole("n", value)
    options.number("x", value)


def test_numbers_larger_than_floats():
    assert options.number("x", 10**400) == float("inf")
    assert options.number("x", -(10**400)) == float("-inf")


def test_sources_of_random_numbers():
    source = torch.Generator()
    assert options.generator(source) is source
    assert options.generator(None) is None
    with pytest.raises(OptionError, match=r"no source .* Give generator=torch.Generator\(\)"):
        options.generator(3)


@pytest.mark.parametrize("wrong", [2.5, True, "x"])
def test_measures_refuse_what_is_no_whole_number(net, wrong):
    points = torch.zeros(1, 2)
    for measured in (
        lambda: ig.partition(net, BOX, max_regions=wrong),
        lambda: ig.boundary(net, BOX, grid=wrong),
        lambda: ig.boundary(net, BOX, max_pieces=wrong),
        lambda: ig.boundary(net, BOX, classes=(0, wrong)),
        lambda: forecast(net, BOX, chords=wrong),
        lambda: ig.local_complexity(net, points, radius=1, directions=wrong),
        lambda: ig.local_complexity(net, points, radius=1, slices=wrong),
        lambda: ig.local_complexity(net, points, radius=1, chords=wrong),
        lambda: ig.local_complexity(net, points, radius=1, max_regions=wrong),
        lambda: ig.evolution(net, {}, BOX, frames=wrong),
        lambda: ig.evolution(net, {}, BOX, max_regions=wrong),
    ):
        with pytest.raises(OptionError, match="is no whole number"):
            measured()


def test_measures_refuse_what_is_no_number_or_generator(net):
    found = forecast(net, BOX)
    p, b = ig.partition(net, BOX), ig.boundary(net, BOX, grid=20)
    s = ig.segments(net, torch.zeros(2), torch.ones(2))
    for measured in (
        lambda: found.radius_for("a"),
        lambda: ig.boundary(net, BOX, seconds="x"),
        lambda: ig.local_complexity(net, torch.zeros(1, 2), radius="x"),
        lambda: p.certify(seconds="x"),
    ):
        with pytest.raises(OptionError, match="is no number"):
            measured()
    for measured in (
        lambda: forecast(net, BOX, generator=3),
        lambda: ig.local_complexity(net, torch.zeros(1, 2), radius=1, generator=3),
        lambda: p.certify(generator=3),
        lambda: p.sample_boundary(3, generator=3),
        lambda: b.certify(generator=3),
        lambda: s.certify(generator=3),
    ):
        with pytest.raises(OptionError, match="manual_seed"):
            measured()
    for reading in (p, b, s):
        with pytest.raises(OptionError, match="points is no whole number"):
            reading.certify(points=1.5)
    with pytest.raises(OptionError, match="no such classes"):
        ig.boundary(net, BOX, classes="01")
    with pytest.raises(OptionError, match="no such classes"):
        ig.boundary(net, BOX, classes=1)


def test_whole_floats_and_tensors_count_as_before(net):
    assert len(ig.partition(net, BOX, max_regions=1e5)) == len(ig.partition(net, BOX))
    assert ig.boundary(net, BOX, grid=torch.tensor(20)).meta["grid"] == 20
    reading = ig.local_complexity(net, torch.zeros(1, 2), radius=torch.tensor(0.5))
    assert reading.meta["radius"] == 0.5

"""How many regions to expect, from chords, against how many there are."""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.cpwl.program import mlp
from isogon.errors import IncompleteWarning, OptionError
from isogon.measures.partition import forecast as module
from isogon.measures.partition.forecast import Outlook, changes, chord, forecast

SQUARE = ig.Slice.box2d((-3, -3), (3, 3))


def net(width=32, depth=3, outputs=3, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(2, width), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs)).eval()


def test_random_lines_in_a_disc_have_the_regions_that_they_must_have():
    """One layer of k isotropic lines: the formula's own case, up to chance."""
    rng, k = np.random.default_rng(0), 60
    angle = rng.uniform(0, np.pi, k)
    first = torch.from_numpy(np.stack([np.cos(angle), np.sin(angle)], 1))
    program = mlp(
        [first, torch.ones(1, k).double()],
        [torch.from_numpy(rng.uniform(-1, 1, k)), torch.zeros(1).double()],
    )
    turn = 2 * np.pi * np.arange(24) / 24
    disc = ig.Slice.polygon(np.zeros(2), np.eye(2), np.stack([np.cos(turn), np.sin(turn)], 1))
    true = len(ig.partition(program, disc))
    found = forecast(program, disc, chords=200)
    assert found.regions == pytest.approx(true, rel=0.15)
    assert found.spread < 0.1


def test_it_is_within_a_factor_of_two_of_the_count_and_of_the_boundary():
    model = net()
    p = ig.partition(model, SQUARE)
    found = forecast(model, SQUARE)
    assert 0.5 < found.regions / len(p) < 2
    length = np.linalg.norm(p.boundary[:, 1] - p.boundary[:, 0], axis=1).sum()
    assert forecast(model, SQUARE, chords=100).boundary_length == pytest.approx(length, rel=0.5)
    assert found.seconds > 0
    assert found.memory > 0
    assert "Forecast: about" in repr(found)


def test_a_radius_for_so_many_regions():
    found = forecast(net(), SQUARE)
    assert found.radius == pytest.approx(3)
    assert found.radius_for(found.regions) == pytest.approx(3)
    assert found.radius_for(found.regions / 4) < 1.7
    small = ig.Slice.box2d(*(np.array([[-1, -1], [1, 1]]) * found.radius_for(100)))
    assert 50 < len(ig.partition(net(), small)) < 400
    with pytest.raises(OptionError, match="so few"):
        found.radius_for(0.5)
    with pytest.raises(OptionError, match="too few chords"):
        forecast(net(), SQUARE, chords=1)


def test_it_is_the_same_for_the_same_generator_and_leaves_the_global_one_alone():
    model = net()
    state = torch.get_rng_state()
    one, two = (forecast(model, SQUARE, chords=4).regions for _ in range(2))
    assert one == two
    other = torch.Generator().manual_seed(5)
    assert forecast(model, SQUARE, chords=4, generator=other).regions != one
    assert torch.equal(state, torch.get_rng_state())


def test_chords_meet_the_polygon_and_are_isotropic():
    """Crofton: the mean length of the chords of a convex set is pi A / P."""
    generator = torch.Generator().manual_seed(0)
    corners = np.array([[0, 0], [4, 0], [4, 1], [0, 1.0]])
    ends = np.stack([chord(corners, generator) for _ in range(4000)])
    on = np.isclose(ends, [0, 0]) | np.isclose(ends, [4, 1])
    assert on.any(2).all()
    mean = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1).mean()
    assert mean == pytest.approx(math.pi * 4 / 10, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_class_changes_along_a_line(seed):
    """Against dense sampling of the same piecewise-linear outputs; one output against zero."""
    rng = np.random.default_rng(seed)
    for classes in (1, 2, 5):
        outputs = rng.normal(size=(7, classes))
        dense = np.array(
            [np.interp(np.linspace(0, 6, 200_001), np.arange(7), column) for column in outputs.T]
        )
        label = dense[0] > 0 if classes == 1 else dense.argmax(0)
        assert changes(outputs) == (np.diff(label.astype(int)) != 0).sum()


def test_a_huge_class_is_followed_by_the_one_that_is_highest_there():
    outputs = np.array([[1e20, 2.0, 1.0], [-6e20, -1.0, 1.1]])  # both meet it at 1/7
    for order in ([0, 1, 2], [0, 2, 1]):
        assert changes(outputs[:, order]) == 2


def test_partition_tells_what_to_expect_once_it_has_lasted(monkeypatch):
    """After `PATIENCE`; with a warning where that does not fit, and the radius that would."""
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    monkeypatch.setattr(module, "BUDGET", 1e6)
    told = []
    with pytest.warns(IncompleteWarning, match="A radius of") as caught:
        ig.partition(net(), SQUARE, max_regions=200, progress=lambda *a: told.append(a[2]))
    early = [w for w in caught if "to be expected" in str(w.message)]
    assert len(early) == 1
    assert "max_regions allows 200" in str(early[0].message)
    assert any("to be expected" in text for text in told)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ig.partition(net(), SQUARE)


def test_a_forecast_takes_a_twentieth_of_the_time_at_most(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    program, plane = module.lowered(net(), SQUARE)
    look = Outlook(lambda *a: None, program, plane, None)

    def slow(enough):
        time.sleep(0.01)
        look.lines.found.append((1.0, 1, 0))

    monkeypatch.setattr(look.lines, "look", slow)
    start = time.monotonic()
    while time.monotonic() - start < 1.0:
        look(0, None, "")
        time.sleep(0.001)
    assert 0 < look.spent < 0.05 * (time.monotonic() - look.start) + 0.05

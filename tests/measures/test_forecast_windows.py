"""Forecasts where lines do not lie at random: counted windows, the border, and smaller slices."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import IncompleteWarning
from isogon.measures.partition import forecast as module
from isogon.measures.partition.lowering import lowered
from isogon.measures.partition.slices import signed_area
from isogon.measures.partition.windows import (
    Grid,
    Windows,
    clipped,
    cut_part,
    excess,
    within,
)

SQUARE = ig.Slice.box2d((-3, -3), (3, 3))


def net(*widths, bias=True, seed=1):
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in zip((2, *widths), (*widths, 3), strict=True):
        layers += [nn.Linear(a, b, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def stripes(width=1000):
    model = net(width)
    with torch.no_grad():
        model[0].weight[:, 1] = 0
    return model


CASES = {
    "without biases": (net(200, 100, bias=False), SQUARE),
    "few, without biases": (net(20, 20, bias=False), SQUARE),
    "parallel": (stripes(), SQUARE),
    "thin": (net(64, 64), ig.Slice.box2d((-3, 0), (3, 1e-3))),
    "a line": (net(64, 64), ig.Slice.box2d((-3, 0), (3, 1e-9))),
    "far out, where all meet": (net(64, 64), ig.Slice.box2d((-100, -100), (100, 100))),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_formula_is_wrong_about_is_counted(name):
    model, plane = CASES[name]
    true = len(ig.partition(model, plane))
    for seed in range(3):
        found = ig.forecast(model, plane, generator=torch.Generator().manual_seed(seed))
        assert found.regions == pytest.approx(true, rel=0.15)
        assert "windows" in repr(found)


def test_lines_that_meet_at_a_place_not_looked_at_are_part_of_the_error():
    model, plane = net(200, 100, bias=False), ig.Slice.box2d((-1, -1), (3, 2))
    true = len(ig.partition(model, plane))
    found = ig.forecast(model, plane)
    assert 0.4 < found.regions / true < 2
    assert abs(found.regions - true) < 2 * found.spread * found.regions


@pytest.mark.parametrize("aspect", [10, 100])
def test_a_long_rectangle_is_not_always_too_low(aspect):
    model, plane = net(64, 64), ig.Slice.box2d((-3, 0), (3, 6 / aspect))
    true = len(ig.partition(model, plane))
    generators = (torch.Generator().manual_seed(seed) for seed in range(8))
    found = [ig.forecast(model, plane, generator=g) for g in generators]
    assert np.mean([f.regions for f in found]) == pytest.approx(true, rel=0.15)
    off = [abs(f.regions - true) / f.regions / f.spread for f in found]
    assert np.median(off) < 1.5


def test_the_sum_over_vertices_is_that_of_the_parts():
    program, plane = lowered(net(32, 32), SQUARE)
    whole = cut_part(program, plane, plane.corners)
    parts = [
        ig.Slice.box2d((x, y), (x + dx, y + dy)).corners
        for x, dx in ((-3, 2.5), (-0.5, 3.5))
        for y, dy in ((-3, 4), (1, 2))
    ]
    sums = [excess(cut_part(program, plane, part)) for part in parts]
    assert sum(sums) == excess(whole)
    assert [within(whole, plane.corners, part) for part in parts] == sums
    assert within(whole, plane.corners, plane.corners + 10) == 0


def test_all_cells_together_are_the_slice_and_windows_have_no_bias():
    turn = 2 * np.pi * np.arange(24) / 24
    disc = np.stack([2 * np.cos(turn), np.sin(turn)], 1) @ np.array([[0.8, 0.6], [-0.6, 0.8]])
    grid = Grid(disc, 0.05)
    area = 0.0
    for block in grid.blocks:
        for x in range(grid.shape[0]):
            for y in range(grid.shape[1]):
                low = np.array(block) * grid.shape + (x, y)
                square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
                part = clipped(grid.origin + (low + square) * grid.size @ grid.axes, disc)
                area += 0 if part is None else signed_area(part)
    assert area == pytest.approx(signed_area(disc), rel=1e-4)

    program, plane = lowered(net(24, 24), ig.Slice.polygon(np.zeros(2), np.eye(2), disc))
    true = excess(cut_part(program, plane, disc))
    totals = []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        windows = Windows(program, plane, true, true / 4, generator)
        for _ in windows.cut():
            pass
        totals.append(windows.total)
        assert windows.error > 0
    assert abs(np.mean(totals) - true) < 3 * np.std(totals) / math.sqrt(len(totals))


@pytest.mark.parametrize("wanted", [100, 1000, 4000])
def test_the_radius_that_is_proposed_holds_so_many(wanted):
    """Regions crowd in the middle: the density on the whole would give three times as many."""
    model = net(64, 64)
    found = ig.forecast(model, SQUARE)
    radius = found.radius_for(wanted)
    assert len(ig.partition(model, SQUARE.zoom((0, 0), radius))) == pytest.approx(wanted, rel=0.25)
    assert found.radius_for(wanted) == radius


def test_a_larger_slice_is_looked_at_too():
    model = net(64, 64)
    found = ig.forecast(model, ig.Slice.box2d((-0.1, -0.1), (0.1, 0.1)))
    radius = found.radius_for(1000)
    assert len(ig.partition(model, SQUARE.zoom((0, 0), radius))) == pytest.approx(1000, rel=0.25)
    thin = ig.forecast(model, ig.Slice.box2d((-3, 0), (3, 1e-3)))
    assert 0 < thin.radius_for(100) < thin.radius < thin.radius_for(300) < math.inf
    nothing = ig.forecast(model, ig.Slice.box2d((0, 0), (1e-7, 1e-7)))
    assert nothing.regions == pytest.approx(1)
    assert nothing.radius_for(10) == math.inf


def test_while_cutting_nothing_is_warned_of_that_fits_and_the_radius_does(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    monkeypatch.setattr(module, "BUDGET", 1e6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ig.partition(net(200, 100, bias=False), SQUARE, max_regions=2000)  # chords say 36,000
    model = net(64, 64)
    with pytest.warns(IncompleteWarning) as caught:
        ig.partition(model, SQUARE, max_regions=1000)
    (text,) = [str(w.message) for w in caught if "to be expected" in str(w.message)]
    radius = float(re.search(r"A radius of ([\d.]+) instead of 3 would", text)[1])
    assert len(ig.partition(model, SQUARE.zoom((0, 0), radius))) == pytest.approx(1000, rel=0.1)


def counted(sums, usual, inside=0.0, part=0.01):
    """Windows that were cut with such results: a 400th of the slice each."""
    program, plane = lowered(net(4), ig.Slice.box2d((0, 0), (1, 1)))
    windows = Windows(program, plane, 1000, 100, torch.Generator())
    windows.sums, windows.random = list(sums), list(usual)
    windows.inside, windows.part, windows.cells = inside, part, 25
    windows.looked = len(windows.sums) / 400
    return windows


def test_how_chords_and_windows_are_weighed():
    near = counted([3, 2, 3, 2] * 4, [2.5] * 16).joined(1000, 50, 100)
    assert near[0] == pytest.approx(1000, rel=0.02)
    assert near[1] < 120
    # few of the windows hold most: that they have missed a crowd does not count against the chords
    missed = counted([0, 1, 0, 1] * 4, [0.5] * 16).joined(1000, 50, 100)
    assert 900 < missed[0] < 1000
    assert missed[1] > near[1]
    # a middle forty times as dense as the rest: there may be other such places
    crowd = counted([3, 2, 3, 2] * 4, [2.5] * 16, inside=400).joined(1000, 50, 100)
    assert crowd[1] > 1.85 * near[1]
    # lines that do not meet: chords do not count, but all may meet somewhere
    apart = counted([0] * 16, [2.5] * 16).joined(1000, 50, 400)
    assert apart[0] == pytest.approx(0, abs=1e-9)
    assert apart[1] >= 200
    assert counted([0] * 16, [2.5] * 16, inside=400).joined(1000, 50, 400)[1] < 30

"""Inputs that are no numbers are refused by name; what memory can't hold, with its size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import isogon as ig
from isogon.cpwl.lower import lower
from isogon.errors import DataError, OptionError
from isogon.measures.partition.mesh import memory

NET = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
BAD = [math.nan, math.inf, -math.inf]


def three(value=None, at=0):
    points = torch.rand(3, 6, generator=torch.Generator().manual_seed(0))
    if value is not None:
        points[at, 2:4] = value
    return points


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("program", [False, True])
def test_segments(bad, program):
    model = lower(NET, torch.zeros(2, 6)) if program else NET
    for at, name in enumerate("ab"):
        a, b, _ = three(bad, at)
        with pytest.raises(DataError, match=rf"in input {name}: got 2 of 6 numbers"):
            ig.segments(model, a, b)


@pytest.mark.parametrize("bad", BAD)
def test_local_complexity(bad):
    with pytest.raises(DataError, match=r"got 2 of"):
        ig.local_complexity(lower(NET, torch.zeros(2, 6)), three(bad, 1), radius=0.1)
    with pytest.raises(OptionError, match="no neighbourhood"):
        ig.local_complexity(NET, three(), radius=bad)


@pytest.mark.parametrize("bad", BAD)
def test_slices(bad):
    for at, name in enumerate("abc"):
        with pytest.raises(DataError, match=rf"in input {name}: got 2 of 6 numbers"):
            ig.Slice.through(*three(bad, at))
        with pytest.raises(DataError, match=rf"in input x{at + 1}: got 2 of 6 numbers"):
            ig.Slice.anchors(*three(bad, at), radius=1.0)
    for at, name in enumerate(("center", "u", "v")):
        with pytest.raises(DataError, match=rf"in input {name}: got 2 of 6 numbers"):
            ig.Slice.square(*three(bad, at), radius=1.0)
    with pytest.raises(DataError, match=r"in low: got 1 of 2"):
        ig.Slice.box2d([0, bad], [1, 1])
    with pytest.raises(DataError, match=r"in high: got 1 of 2"):
        ig.Slice.box2d([0, 0], [1, bad])
    corners = np.array([[0, 0], [1, 0], [1, bad]])
    with pytest.raises(DataError, match=r"in the vertices: got 1 of 6"):
        ig.Slice.polygon(torch.zeros(6), torch.eye(6)[:, :2], corners)
    with pytest.raises(DataError, match=r"in the origin: got 2 of 6"):
        ig.Slice.polygon(three(bad)[0], torch.eye(6)[:, :2], np.eye(3, 2))
    with pytest.raises(DataError, match=r"in the basis: got 1 of 12"):
        ig.Slice.polygon(torch.zeros(6), torch.eye(6)[:, :2].index_fill(0, torch.tensor(3), 0.0)
                         + torch.eye(6)[:, 3:5].mul(0).index_put((torch.tensor([0]),
                         torch.tensor([0])), torch.tensor(bad)), np.eye(3, 2))  # fmt: skip
    with pytest.raises(DataError, match=r"in the corners: got 2 of 18"):
        ig.Slice.polygon_of(three(bad))
    for wrong in (math.nan, math.inf, -1.0, 0.0):
        with pytest.raises(OptionError, match="the square has no"):
            ig.Slice.anchors(*three(), radius=wrong)
        with pytest.raises(OptionError, match="the square has no"):
            ig.Slice.through(*three(), margin=wrong - 0.5 if wrong <= 0 else wrong)


@pytest.mark.parametrize("bad", BAD)
def test_questions_to_a_partition(bad):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    p = ig.partition(net, ig.Slice.anchors(*three(), radius=50.0))
    assert len(p.boundary)
    with pytest.raises(DataError, match=r"points hold NaN or infinite values: got 1 of 4 numbers"):
        p.locate([[0.0, 0.0], [0.1, bad]])
    with pytest.raises(DataError, match="no points of the slice"):
        p.locate(three())
    for ask in (p.statistics, lambda near: p.sample_boundary(3, near=near), p.plane.project):
        with pytest.raises(DataError, match=r"in the inputs: got 2 of 18 numbers"):
            ask(three(bad))


def test_networks_that_overflow():
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    net = net.double()
    with torch.no_grad():
        net[2].weight.fill_(1e300)
    plane = ig.Slice.anchors(*three() * 1e10, radius=1.0)
    with pytest.raises(DataError, match="NaN or infinite at the slice's corners"):
        ig.partition(net, plane)
    with pytest.raises(DataError, match="NaN or infinite at the line's ends"):
        ig.segments(net, *three()[:2] * 1e10)


@pytest.mark.parametrize(("size", "expected"), [(2, 2), (6, 6), (40, 16)])
def test_directions_by_default(size, expected):
    net = torch.nn.Sequential(torch.nn.Linear(size, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    found = ig.local_complexity(net, torch.rand(2, size), radius=0.1)
    assert found.meta["directions"] == expected
    with pytest.raises(OptionError, match="directions don't fit"):
        ig.local_complexity(net, torch.rand(2, size), radius=0.1, directions=size + 1)


def test_many_classes(monkeypatch):
    """Slopes of all regions are refused with their size, and drawn a few at a time."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3000))
    p = ig.partition(net, ig.Slice.box2d([-1, -1], [1, 1]))
    monkeypatch.setattr("isogon.show.partition.BLOCK", 20_000)
    expected = np.linalg.norm(p.gradients(), axis=(1, 2))
    from isogon.show.partition import slope_norms

    np.testing.assert_allclose(slope_norms(p), expected, rtol=1e-8)
    monkeypatch.setattr(memory, "free", lambda: 1 << 20)
    with pytest.raises(OptionError, match=r"the slopes of these regions: got [0-9.]+ GiB"):
        p.gradients()
    q = ig.partition(net, ig.Slice.box2d([-1, -1], [1, 1]), max_regions=10_000)
    assert not q.complete  # the outputs of more would not fit
    assert len(q) < len(p)

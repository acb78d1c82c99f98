"""Slices as users think of them: around images, between them, at the decision boundary."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon import registry
from isogon.errors import DataError, OptionError
from isogon.measures.partition.crossings import first_crossing


def net(outputs=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, outputs))


def pair(model, seed=0):
    """Two inputs of different classes."""
    x = 3 * torch.randn(200, 5, generator=torch.Generator().manual_seed(seed))
    z = model(x).detach()
    label = (z[:, 0] > 0).long() if z.shape[1] == 1 else z.argmax(1)
    return x[0], x[int((label != label[0]).nonzero()[0])]


@pytest.mark.parametrize("outputs", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_the_crossing_is_where_the_top_two_tie(outputs, seed):
    model = net(outputs, seed)
    a, b = pair(model)
    at, before, behind = first_crossing(model, a, b)
    exact = model.double().requires_grad_(False)
    z = exact(a.double() + at * (b.double() - a.double()))
    gap = abs(float(z[0])) if outputs == 1 else float(z[before] - z[behind])
    assert abs(gap) < 1e-12
    for t, label in ((at - 1e-9, before), (at + 1e-9, behind)):
        z = exact(a.double() + t * (b.double() - a.double()))
        assert int(z[0] > 0 if outputs == 1 else z.argmax()) == label
    line = ig.segments(exact, a.double(), b.double())
    before_it = torch.linspace(0, at - 1e-6, 50, dtype=torch.float64)
    z = exact(a.double() + before_it[:, None] * (b.double() - a.double()))
    found = (z[:, 0] > 0) if outputs == 1 else z.argmax(1)
    assert bool((found == before).all()), "the first one"
    assert len(line) > 1


def test_a_square_at_the_boundary_holds_both_classes():
    model = net()
    a, b = pair(model)
    plane = ig.Slice.crossing(model, a, b, radius=0.2)
    p = ig.partition(model, plane)
    assert len(np.unique(p.boundary_classes)) >= 2
    start, step = p.boundary[:, 0], p.boundary[:, 1] - p.boundary[:, 0]
    t = np.clip(-(start * step).sum(1) / (step**2).sum(1), 0, 1)
    assert np.linalg.norm(start + t[:, None] * step, axis=1).min() < 1e-6, "through the middle"
    assert plane.marks.shape == (2, 2)
    assert plane.marks[:, 1] == pytest.approx(0, abs=1e-6)
    whole = float((b - a).norm())
    assert ig.Slice.crossing(model, a, b).area == pytest.approx((whole / 5) ** 2)
    c = torch.ones(5)
    third = ig.Slice.crossing(model, a, b, c, radius=0.2)
    on = third.embed(third.project(c[None]))[0]
    torch.testing.assert_close(on, c.double(), rtol=0, atol=1e-9)


def test_no_change_of_class_is_refused():
    model = net()
    a, _ = pair(model)
    with pytest.raises(DataError, match="the class does not change between the two inputs"):
        ig.Slice.crossing(model, a, a * 1.0001, radius=1.0)


def test_specs_of_the_same():
    model = "trained(mlp(8, inputs=64), digits(train, 200), epochs=1)"
    a, b = "digits(test)[0]", "digits(test)[1]"
    build = registry.get("noun", "Slice").build
    plane = build(f"crossing({model}, {a}, {b}, radius=0.5)")
    x, y = (ig.batches("digits(test)").samples[i][0] for i in (0, 1))
    at, _, _ = first_crossing(ig.load(model), x, y)
    same = build(f"between({a}, {b}, at={at!r}, radius=0.5)")
    for name in ("origin", "basis", "corners", "marks"):
        np.testing.assert_array_equal(getattr(plane, name), getattr(same, name))


def test_anchors_outside_of_their_square_are_told():
    a, b = torch.zeros(5), torch.ones(5)
    with pytest.warns(UserWarning, match=r"2 of 2 anchors lie outside .* radius=1.12 holds them"):
        plane = ig.Slice.anchors(a, b, radius=0.5)
    assert "0 of 2 anchors inside" in repr(plane)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plane = ig.Slice.anchors(a, b, radius=1.2)
    assert repr(plane) == "Slice: square, 2.4 x 2.4 in inputs of shape [5], 2 of 2 anchors inside"


def test_zoom_has_the_axes_of_the_slice():
    images = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    plane = ig.Slice.through(*images)
    small = plane.zoom((0.3, -0.2), 0.1)
    assert small.shape == plane.shape
    np.testing.assert_allclose(small.corners.mean(0), (0.3, -0.2), atol=1e-12)
    np.testing.assert_allclose(small.area, 0.04, rtol=1e-12)
    same = np.array([[0.25, -0.15]])
    assert torch.equal(small.embed(same), plane.embed(same))
    with pytest.raises(OptionError, match="no inside"):
        plane.zoom((0, 0), 0.0)

"""Both ways to trace against rational arithmetic, on networks of small integers.

Many units vanish in one point or on one line, classes tie on lines and on areas.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_boundary import SQUARE
from test_boundary_carried import both
from torch import nn

from isogon.cpwl.program import mlp
from isogon.measures.boundary.junctions import Junctions
from isogon.measures.boundary.measure import traced
from isogon.measures.partition.measure import partition
from reference.exact_boundary import boundary_of, compared, exact_boundary, length_of
from reference.exact_cells import rational

# two ways that differed, or agreed on a wrong boundary; the last two end on the slice's border
SEEDS = [(41, True), (65, False), (80, False), (89, True), (104, False), (188, True), (363, True)]
MORE = [(4, False), (8, False), (71, True), (82, False), (89, False), (120, True), (143, True)]


def integers(seed, bias):
    """Weights and biases of a network of two inputs and two hidden layers."""
    rng = np.random.default_rng(seed)
    shapes = (6, 2), (5, 6), (1 + seed % 3, 5)
    weights = [rng.integers(-3, 4, s).astype(float) for s in shapes]
    return weights, [bias * rng.integers(-1, 2, s[0]).astype(float) for s in shapes]


def exact(weights, biases):
    return exact_boundary(
        [w.tolist() for w in weights], [b.tolist() for b in biases], SQUARE.corners.tolist()
    )


def checked(seed, bias):
    """Fails where a boundary that counts as complete is wrong; returns how many are complete."""
    weights, biases = integers(seed, bias)
    ends, pairs = exact(weights, biases)
    net = mlp([torch.from_numpy(w) for w in weights], [torch.from_numpy(b) for b in biases])
    complete = 0
    for b in both(net, SQUARE, 20):
        found = compared(b, ends, pairs)
        if b.complete:
            assert found["spurious"] < 1e-9
            if found["open"] > 1e-9:  # begins and ends on one stretch of the border: as documented
                assert found["open"] < 2 * 6 / 20
                finer = traced(net, SQUARE, 100)
                assert finer.complete
                assert compared(finer, ends, pairs)["open"] < 1e-9
            elif not found["closed"]:
                assert b.length == pytest.approx(length_of(ends), rel=1e-9)
            b.certify(50).require()
        complete += b.complete
    return complete


def of_a_partition(net, ends, pairs):
    """Fails where a partition's boundary is not this one, or its classes don't share the slice."""
    p = partition(net, SQUARE)
    size = np.linalg.norm(p.boundary[:, 1] - p.boundary[:, 0], axis=1).sum()
    assert size == pytest.approx(length_of(ends), rel=1e-9, abs=1e-9)
    assert len(np.unique(p.boundary.mean(1).round(9), axis=0)) == len(p.boundary)
    found = compared(
        SimpleNamespace(
            plane=SQUARE,
            segments=p.boundary,
            segment_classes=p.boundary_classes,
            arrays={"image_x": np.zeros(20)},
        ),
        ends,
        pairs,
    )
    assert max(found.values()) < 1e-9
    table = p.topology()
    assert table["area"].sum() == pytest.approx(SQUARE.area, rel=1e-9)
    assert (table["area"] > 0).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.booleans())
@example(20_138, True)  # two outputs are equal on a region, to rounding: the first of them counts
def test_partitions_of_networks_of_small_integers_have_their_exact_boundary(seed, bias):
    weights, biases = integers(seed, bias)
    net = mlp([torch.from_numpy(w) for w in weights], [torch.from_numpy(b) for b in biases])
    of_a_partition(net, *exact(weights, biases))


@pytest.mark.parametrize(
    ("seed", "bias"), [*SEEDS, *(pytest.param(*m, marks=pytest.mark.long) for m in MORE)]
)
def test_networks_on_which_the_ways_differed_have_their_exact_boundary(seed, bias):
    assert checked(seed, bias) == 2


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.booleans())
def test_networks_of_small_integers_have_their_exact_boundary(seed, bias):
    assert checked(seed, bias) == 2


@pytest.mark.long
@pytest.mark.parametrize("low", range(1000, 1400, 50))
def test_many_networks_of_small_integers_have_it(low):
    complete = [checked(seed, bias) for seed in range(low, low + 50) for bias in (False, True)]
    assert sum(complete) >= 0.98 * 2 * len(complete)


class Maxima(nn.Module):
    """Four maxima of three behind a hidden layer, of small integers without biases."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        shapes = (4, 2), (12, 4), (2 + seed % 3, 4)
        weights = [torch.from_numpy(rng.integers(-2, 3, s).astype(float)) for s in shapes]
        self.weights = nn.ParameterList(weights)

    def forward(self, x):
        first, second, last = self.weights
        h = torch.relu(x @ first.T) @ second.T
        return torch.maximum(torch.maximum(h[:, :4], h[:, 4:8]), h[:, 8:]) @ last.T


@pytest.mark.parametrize("seed", [24, 40, 52, 68])
def test_maxima_of_integers_have_their_exact_boundary(seed):
    net = Maxima(seed)
    layers = []
    for w in net.weights:
        layers.append(("affine", rational(w.tolist()), [0] * len(w)))
    groups = [[i, i + 4, i + 8] for i in range(4)]
    before = [layers[0], ("relu", 4), layers[1], ("max", groups), layers[2]]
    ends, pairs = boundary_of(before, len(net.weights[2]), SQUARE.corners.tolist())
    for b in both(net, SQUARE, 20):
        found = compared(b, ends, pairs)
        assert b.complete
        assert max(found["spurious"], found["open"], found["closed"]) < 1e-9
        b.certify(50).require()
    of_a_partition(net, ends, pairs)


def test_the_exact_boundary_of_a_diamond_and_of_an_area_of_ties():
    first = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    diamond = [first, np.array([[-1.0, -1, -1, -1]])], [np.zeros(4), np.ones(1)]
    ends, pairs = exact(*diamond)
    assert length_of(ends) == pytest.approx(4 * math.sqrt(2))
    # counter-clockwise around it the positive class is on the left
    turn = np.cross(np.pad(ends[:, 0], ((0, 0), (0, 1))), np.pad(ends[:, 1], ((0, 0), (0, 1))))
    assert (pairs[:, 0] == (turn[:, 2] > 0)).all()
    # relu(x) - relu(y): zero where neither is positive, which counts as class 0
    quarter = [np.eye(2), np.array([[1.0, -1.0]])], [np.zeros(2), np.zeros(1)]
    ends, pairs = exact(*quarter)
    assert length_of(ends) == pytest.approx(3 + 3 * math.sqrt(2))


@pytest.mark.parametrize("seed", [41, 120])
def test_a_boundary_without_some_rays_is_not_complete(seed, monkeypatch):
    """Traces that don't start in crowded points leave these torn."""
    meet = Junctions.meet
    monkeypatch.setattr(Junctions, "meet", lambda *a: meet(*a)[:0])
    weights, biases = integers(seed, True)
    ends, pairs = exact(weights, biases)
    net = mlp([torch.from_numpy(w) for w in weights], [torch.from_numpy(b) for b in biases])
    for b in both(net, SQUARE, 20):
        found = compared(b, ends, pairs)
        assert max(found["spurious"], found["open"]) < 1e-9 or not b.complete
        assert not b.complete

"""The boundary of networks with one huge part: where it is off, rounding of it hides nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.cpwl.rounding import ROUNDING, errors
from isogon.measures.boundary.frozen import Frozen
from isogon.measures.boundary.measure import traced
from isogon.measures.partition.lowering import lowered
from isogon.measures.partition.measure import partition
from reference.same_curves import compared, lengths
from reference.spoiled import Net

SQUARE = ig.Slice.box2d([-1, -1], [1, 1])
CASES = [
    (236194, "max", "row", 20), (564142, "max", "bias", 16), (441216, "conv", "row", 15),
    (106161, "skip", "row", 18), (11210, "skip", "bias", 20), (106262, "padded", "row", 17),
    (248127, "masked", "row", 19), (824001, "mlp", "row", 10), (929928, "mlp", "bias", 20),
    (835623, "where", "row", 10), (725863, "where", "row", 12), (666993, "max", "row", 10),
    (886075, "conv", "row", 11), (989031, "where", "row", 15), (583109, "where", "bias", 16),
]  # fmt: skip


@pytest.mark.parametrize(("seed", "kind", "how", "power"), CASES)
def test_what_is_huge_in_a_part_hides_nothing_elsewhere(seed, kind, how, power):
    """Over all of the slice its rounding is more than the outputs are where it is off.

    Where it is on, the boundary runs along its line so closely that only the other side tells
    where it leaves.
    """
    program = Net(seed, kind, 2).spoil(how, 10.0**power).program()
    assert Frozen(program, SQUARE).noisy
    p, b = partition(program, SQUARE), traced(program, SQUARE, 100)
    found = compared(b, p)
    assert len(p.boundary) >= 7
    assert (found["spurious"], found["open"], found["closed"]) == (0, 0, 0)
    assert found["length"] < 1e-9
    assert b.complete
    assert b.certify().passed


def test_a_boundary_along_the_line_of_a_huge_unit_leaves_it_where_it_should():
    """On the side where the unit is off the classes are tied in a point only."""
    program = Net(763128, "skip", 2).spoil("row", 1e17).program()
    p, b = partition(program, SQUARE), traced(program, SQUARE, 100)
    assert lengths(b.segments).sum() == pytest.approx(lengths(p.boundary).sum(), abs=1e-9)
    assert b.certify().passed


@pytest.mark.parametrize("size", [-1e16, -1e9])
def test_a_dead_unit_hides_nothing(size):
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    with torch.no_grad():
        net[2].bias -= net(2 * torch.rand(256, 2).double() - 1).mean(0)
        net[0].weight[5] = 0.0
        net[0].bias[5] = size
    b = traced(net, SQUARE, 50)
    with torch.no_grad():
        net[0].bias[5] = -1.0
    plain = traced(net, SQUARE, 50)
    assert len(plain.segments) > 8
    assert np.array_equal(b.segment_classes, plain.segment_classes)
    assert np.abs(b.segments - plain.segments).max() < 1e-12
    assert b.certify().passed
    assert not Frozen(*lowered(net, SQUARE)).noisy


@pytest.mark.parametrize(("seed", "kind", "how", "power"), CASES[:6])
def test_errors_of_frozen_pieces_are_those_of_the_network(seed, kind, how, power):
    """On the network's own pieces, within a small factor: places are told otherwise."""
    program = Net(seed, kind, 2).spoil(how, 10.0**power).program()
    frozen = Frozen(program, SQUARE)
    at = np.random.default_rng(0).uniform(-1, 1, (200, 2))
    here, seen = frozen.held(at, frozen.natural(at))
    options = {"given": frozen.space.given, "directions": frozen.directions, "reach": 1.0}
    *cuts, last = errors(program, frozen.embed(at), **options)
    pairs = [(own.zero.value, e) for own, e in zip(seen, cuts, strict=True)]
    for found, e in [*pairs, (torch.from_numpy(here.slack), last)]:
        found = found.expand(e.shape)[e > 0] / (ROUNDING * e[e > 0])
        assert found.median() < 4
        assert found.median() > 0.25

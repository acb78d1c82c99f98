"""Carried states against the literal step: the same curves; matrices against their maps."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from test_boundary import SQUARE, Parts, residual
from torch import nn

import isogon as ig
from isogon.cpwl.matrices import TooManyEntries, matrix
from isogon.cpwl.stages import Affine
from isogon.errors import IncompleteWarning, OptionError
from isogon.measures.boundary import carried, trace
from isogon.measures.boundary import frozen as frozen_module
from isogon.measures.boundary.frozen import Frozen
from isogon.measures.boundary.measure import boundary, traced
from isogon.measures.boundary.suffix import suffix_of
from isogon.measures.partition.lowering import lowered

NEVER = sys.maxsize
SHORT = 1e-11  # of the slice's extent: pieces that rounding may pass over


def both(net, plane, grid):
    """The boundary by literal steps, and by carried states from the first region on."""
    found = []
    for patience in (NEVER, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trace, "PATIENCE", patience)
            found.append(traced(net, plane, grid))
    return found


def same(a, b):
    """Fails unless two boundaries have the same pieces, within 1e-9 of the extent."""
    extent = float(np.ptp(a.plane.corners, axis=0).max())
    pieces, classes = [], []
    for own in (a, b):
        real = np.linalg.norm(own.segments[:, 1] - own.segments[:, 0], axis=1) > SHORT * extent
        pieces.append(own.segments[real])
        classes.append(own.segment_classes[real])
    assert len(pieces[0]) == len(pieces[1])
    if not len(pieces[0]):
        return
    _, which = cKDTree(pieces[1].mean(1)).query(pieces[0].mean(1))
    assert len(np.unique(which)) == len(which)
    assert (classes[0] == classes[1][which]).all()
    ends = pieces[1][which]
    off = np.abs(pieces[0] - ends).max((1, 2)), np.abs(pieces[0] - ends[:, ::-1]).max((1, 2))
    assert np.minimum(*off).max() < 1e-9 * extent
    assert a.meta["tied"] == b.meta["tied"]


@pytest.mark.parametrize(
    "seed", [*range(8), *(pytest.param(n, marks=pytest.mark.long) for n in range(8, 50))]
)
def test_carried_states_trace_the_curves_of_literal_steps(seed):
    """Skips, maxima, pooling, shared weights, four kinds of kink."""
    literal, own = both(Parts(seed, 1 + seed % 4).eval(), SQUARE, 50)
    same(literal, own)
    assert literal.complete
    assert own.complete
    assert own.meta["carried"] < 1e-11


@pytest.mark.parametrize("radius", [0.1, pytest.param(0.8, marks=pytest.mark.long)])
def test_they_do_on_a_residual_network_with_pooling(radius):
    net, images = residual()
    label = net(images).argmax(1)
    plane = ig.Slice.crossing(net, images[0], images[label != label[0]][0], radius=radius)
    literal, own = both(net, plane, 8)
    assert own.meta["pieces"] > 20
    same(literal, own)


def test_a_wrong_column_is_told(monkeypatch):
    """States that are carried wrongly differ from those computed afresh."""
    monkeypatch.setattr(trace, "PATIENCE", 0)
    good = traced(Parts(3, 4).eval(), SQUARE, 50)
    assert good.complete

    def wrong(frozen, most):
        suffix, place = suffix_of(frozen, most)
        return suffix._replace(values=suffix.values * (1 + 1e-6)), place

    monkeypatch.setattr(carried, "suffix_of", wrong)
    bad = traced(Parts(3, 4).eval(), SQUARE, 50)
    assert bad.meta["carried"] > 1e-9
    assert not bad.complete
    assert "carried" in {c.name for c in bad.certify(10) if not c.passed}


def test_a_network_that_is_too_large_keeps_to_literal_steps(monkeypatch):
    monkeypatch.setattr(trace, "PATIENCE", 0)
    monkeypatch.setattr(carried, "MOST", 5)
    b = traced(Parts(3, 4).eval(), SQUARE, 50)
    assert b.complete
    assert b.meta["carried"] == 0


class Ops(nn.Module):
    """One of each kind of linear map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 4, 3, 2, 1, dilation=1)
        self.b = nn.Conv2d(4, 4, 3, 1, 2, dilation=2, groups=2)
        self.up = nn.ConvTranspose2d(4, 2, 2, 2)
        self.norm = nn.BatchNorm2d(2)
        self.one = nn.Conv1d(2, 3, 3)
        self.last = nn.Linear(9, 3)

    def forward(self, x):
        h = torch.relu(self.a(x))
        h = self.up(torch.cat([h, self.b(h)], 1)[:, 2:6] - 0.5 * h)
        h = nn.functional.avg_pool2d(torch.relu(self.norm(h)), 2)
        h = nn.functional.interpolate(h, scale_factor=2, mode="bilinear").mean(3)
        h = torch.relu(self.one(h[:, :, :5])).permute(0, 2, 1).flatten(1)
        return self.last(h)


def test_matrices_are_those_of_the_maps():
    x = torch.rand(3, 3, 9, 10)
    program, _ = lowered(Ops().eval(), ig.Slice.through(*x))
    stages = [s for s in program.stages if isinstance(s, Affine)]
    assert len(stages) > 8
    rng = torch.Generator().manual_seed(0)
    for stage in stages:
        shapes = [program.shapes[name] for name in stage.inputs]
        for k in range(len(shapes)):
            own = matrix(stage, k, shapes, 10**6)
            v = [torch.zeros(2, *s, dtype=torch.float64) for s in shapes]
            v[k] = torch.randn(2, *shapes[k], generator=rng, dtype=torch.float64)
            want = stage.linear(*v).reshape(2, -1).numpy()
            assert np.abs(v[k].reshape(2, -1).numpy() @ own.T - want).max() < 1e-13
            other = matrix(replace(stage, weights=None), k, shapes, 10**6)  # of unknown weights
            assert (own != other).nnz == 0
            with pytest.raises(TooManyEntries):
                matrix(stage, k, shapes, own.nnz - 1)


def test_a_state_behind_a_flip_is_that_of_the_flipped_pieces():
    """One flip per unit: columns times the change of the unit, against a pass of the network."""
    net = Parts(4, 3).eval()
    program, plane = lowered(net, SQUARE)
    frozen = Frozen(program, plane)
    tracer = trace.Tracer(frozen, lambda *a: None)
    carrier = carried.Carrier.of(frozen, tracer.regions, tracer.extent)
    assert carrier is not None
    at = np.array([[0.3, -0.4]])
    pieces = frozen.natural(at)
    before = carrier.states(at, *frozen.held(at, pieces))[0].state
    s = carrier.suffix
    for unit in range(len(s.cut_of)):
        cut = int(s.cut_of[unit])
        own = unit - int(s.unit_start[cut])
        other = [x.clone() for x in pieces]
        now = int(pieces[cut][0, own])
        to = 1 - now if now < 2 else 1
        other[cut][0, own] = to
        after = carrier.states(at, *frozen.held(at, other))[0].state
        moved = moved_by(carrier, before, pieces, unit, now, to, at[0])
        assert np.abs(moved - after).max() < 1e-12 * max(1, np.abs(after).max())


def moved_by(carrier, state, pieces, unit, now, to, at):
    """The same by columns, slope by slope, without compiled loops."""
    s, state = carrier.suffix, state.copy()
    piece = np.concatenate([x[0].numpy() for x in pieces])
    row = np.zeros(len(state))

    def spread(unit, weight):
        for k in range(s.column_start[unit], s.column_start[unit + 1]):
            first, size, low = s.run_row[k], s.run_size[k], s.run_value[k]
            row[first : first + size] += weight * s.values[low : low + size]

    cut = s.cut_of[unit]
    if s.is_max[cut]:
        entry = s.entry[s.first_max[cut] + unit - s.unit_start[cut]]
        change = state[entry[to]] - state[entry[now]]
    else:
        i, steep = s.argument_of[unit], s.slope[to, unit] - s.slope[now, unit]
        change = steep * (state[i] - [s.knot[max(to, now), unit], 0, 0])
    spread(unit, 1.0)
    for later in range(cut + 1, len(s.is_max)):
        own = range(s.unit_start[later], s.unit_start[later + 1])
        for u in own:
            if s.is_max[later]:
                rows = s.entry[s.first_max[later] + u - s.unit_start[later]]
                spread(u, row[rows[piece[u]]])
            else:
                spread(u, row[s.argument_of[u]] * s.slope[piece[u], u])
    return state + row[:, None] * change


def test_single_precision_decides_only_what_it_can(monkeypatch):
    """Classes on a grid of a residual network, among them points on its boundary."""
    net, images = residual()
    label = net(images).argmax(1)
    plane = ig.Slice.crossing(net, images[0], images[label != label[0]][0], radius=4)
    program, plane = lowered(net, plane)
    frozen = Frozen(program, plane)
    assert program.chunk() <= frozen_module.NARROW
    at = np.random.default_rng(0).uniform(-4, 4, (200, 2))
    at = np.concatenate([at, np.zeros((1, 2)), 1e-9 * at[:20]])  # the middle is on the boundary
    double = []
    values = Frozen.values
    monkeypatch.setattr(Frozen, "values", lambda f, p: double.append(len(p)) or values(f, p))
    found = frozen.largest(at)
    assert 20 < sum(double) < 60
    monkeypatch.setattr(frozen_module, "NARROW", 0)
    assert np.array_equal(found, frozen.largest(at))


def test_tracing_stops_at_its_limits():
    net = Parts(3, 4).eval()
    whole = traced(net, SQUARE, 50)
    with pytest.warns(IncompleteWarning, match=r"stopped at its limit.*to be expected"):
        b = boundary(net, SQUARE, grid=50, max_pieces=40)
    assert not b.complete
    assert b.meta["stopped"]
    assert 40 <= b.meta["pieces"] < 200
    assert b.meta["expected_length"] == pytest.approx(whole.length, rel=0.1)
    assert "not whole" in repr(b)
    middles = cKDTree(whole.segments.mean(1)).query(b.segments.mean(1))[0]
    assert middles.max() < 1e-9
    with pytest.warns(IncompleteWarning, match="stopped"):
        assert not boundary(net, SQUARE, grid=50, seconds=1e-9).complete
    for wrong in ({"max_pieces": 0}, {"seconds": -1.0}):
        with pytest.raises(OptionError, match="no room"):
            boundary(net, SQUARE, **wrong)


def test_progress_tells_the_pieces_to_be_expected(monkeypatch):
    monkeypatch.setattr(trace, "MOMENT", 0.0)
    told = []
    b = boundary(Parts(3, 4).eval(), SQUARE, grid=50, progress=lambda *a: told.append(a))
    pieces = [t for t in told if "to be expected" in t[2]]
    assert pieces
    assert all(total > done for done, total, _ in pieces)
    assert pieces[-1][1] == pytest.approx(b.meta["pieces"], rel=0.3)

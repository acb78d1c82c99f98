"""Partitions that stop early: never too many regions, and nothing said that is not so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_partition import random_mlp
from test_partition_graphs import Graphs
from test_partition_tiles import tiled

from isogon.cpwl.program import mlp
from isogon.measures.partition.measure import partition
from isogon.measures.partition.slices import Slice

SQUARE = Slice.box2d([-1, -1], [1, 1])
pytestmark = pytest.mark.filterwarnings("ignore::isogon.errors.IncompleteWarning")


def values(p, xy):
    """The network's outputs `[N, C]` (one output: and zero) at slice coordinates."""
    if not len(xy):
        return np.zeros((0, 2))
    x = p.plane.embed(xy).reshape(-1, *p.program.shape)
    out = p.program.evaluate(x).numpy().reshape(len(x), p.outputs.shape[1])
    return np.concatenate([np.zeros_like(out), out], 1) if out.shape[1] == 1 else out


def assert_honest(p, limit):
    assert len(p) <= limit
    assert p.complete == bool(p.finished.all())
    assert len(p.vertices) - len(p.edges) + len(p) == 1
    assert p.area.sum() == pytest.approx(p.plane.area, rel=1e-9)
    assert p.area.min() > -1e-15
    assert np.array_equal(p.label >= 0, p.finished)
    out = values(p, p.centroid)
    top = np.sort(out, 1)
    clear = p.finished & (top[:, -1] - top[:, -2] > 1e-9)
    assert np.array_equal(p.label[clear], out.argmax(1)[clear])
    size = max(1.0, float(np.abs(out).max()))
    for t in (0.0, 0.3, 1.0):
        top = np.sort(values(p, p.boundary[:, 0] + t * (p.boundary[:, 1] - p.boundary[:, 0])), 1)
        assert (top[:, -1] - top[:, -2]).max(initial=0) < 1e-9 * size
    # what was cut is right: the pattern at the centroid, of the sites that cut the region
    large = np.flatnonzero(p.area > 1e-6)
    x = p.plane.embed(p.centroid[large]).reshape(-1, *p.program.shape)
    seen = p.program.preactivations(x)
    for n, i in enumerate(large):
        pattern = p.pattern(int(i))
        assert list(pattern) == p.sites[: p.depth[i]]
        for site, kind in zip(p.sites[: p.depth[i]], p.meta["kinds"], strict=False):
            z = seen[site][n]
            if kind == "kink":
                stage = p.program.cuts[p.sites.index(site)]
                piece = stage.piece(z.reshape(1, *p.program.shapes[stage.output])).reshape(-1)
                near = torch.stack([(z - k.expand(p.program.shapes[stage.output]).reshape(-1)).abs()
                                    for k in stage.knots]).amin(0) < 1e-12  # fmt: skip
                same = torch.from_numpy(pattern[site]) == piece
                assert bool((same | near).all())
            else:
                rows = torch.arange(len(z))
                assert bool((z[rows, pattern[site].astype(int)] >= z.amax(-1) - 1e-12).all())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    depth=st.integers(1, 3),
    limit=st.sampled_from([1, 2, 3, 10, 30, 100, 300]),
)
def test_random_graphs(seed, depth, limit):
    program = Graphs(seed).program(depth)
    p = partition(program, SQUARE, max_regions=limit)
    assert_honest(p, limit)
    assert {c.name for c in p.certify(100) if not c.passed} <= {"finished"}


@pytest.mark.parametrize("limit", [1, 2, 10, 100, 1000])
def test_wide_networks(limit):
    p = partition(random_mlp([2, 64, 64, 3], scale=2), SQUARE, max_regions=limit)
    assert not p.complete
    assert_honest(p, limit)


@pytest.mark.parametrize("limit", [1, 20, 60, 250])
def test_tiles(limit):
    program = random_mlp([2, 16, 16, 16, 3], seed=1, scale=1.5)
    p, _ = tiled(program, SQUARE, 8_000, 2_000, max_regions=limit)
    assert not p.complete
    assert_honest(p, limit)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_limit_that_suffices_changes_nothing(seed):
    program = Graphs(seed).program(2)
    p = partition(program, SQUARE)
    q = partition(program, SQUARE, max_regions=len(p))
    assert q.complete
    assert all(np.array_equal(p.arrays[k], q.arrays[k]) for k in p.arrays)
    if len(p) > 1:
        assert not partition(program, SQUARE, max_regions=len(p) - 1).complete


def test_lines_through_one_point_count_once():
    """Without biases k lines make 2 k regions, not k (k + 1) / 2 + 1."""
    g = torch.Generator().manual_seed(0)
    w = [torch.randn(40, 2, generator=g).double(), torch.randn(2, 40, generator=g).double()]
    p = partition(mlp(w, [None, None]), SQUARE, max_regions=80)
    assert p.complete
    assert len(p) == 80


def test_regions_of_the_anchors_come_first():
    """Each anchor's own region is cut to the end, where the rest is left."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.MaxPool2d(2), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(64, 10),
    ).eval()  # fmt: skip
    plane = Slice.through(*torch.rand(3, 1, 8, 8))
    p = partition(net, plane, max_regions=500)
    assert not p.complete
    assert_honest(p, 500)
    own = p.locate(plane.marks)
    assert p.finished[own].all()
    x = plane.embed(plane.marks)
    assert np.array_equal(values(p, plane.marks).argmax(1), net.double()(x).argmax(1))
    for i, point in zip(own, plane.marks, strict=True):
        a, b = p.affine(i)
        assert np.allclose(a @ point + b, values(p, point[None])[0], atol=1e-12)

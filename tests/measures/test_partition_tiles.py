"""A mesh grown tile by tile is the mesh grown in one piece."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_partition import random_mlp
from test_partition_graphs import Graphs

from isogon.cpwl.lower import lower
from isogon.measures.partition import grow
from isogon.measures.partition.measure import partition
from isogon.measures.partition.mesh import memory
from isogon.measures.partition.slices import Slice
from isogon.measures.partition.tiles import seams, tiles

SQUARE = Slice.box2d([-1, -1], [1, 1])


def tiled(model, plane, large, tile, **options):
    """The partition by tiles, and in how many rounds."""
    rounds = []
    with pytest.MonkeyPatch.context() as patch:
        by_tiles = grow.by_tiles
        patch.setattr(grow, "by_tiles", lambda *a: rounds.append(a[-1]) or by_tiles(*a))
        patch.setattr(memory, "LARGE", large)
        patch.setattr(memory, "TILE", tile)
        return partition(model, plane, **options), rounds


def assert_same(p, q):
    assert (len(p), len(p.vertices), len(p.edges)) == (len(q), len(q.vertices), len(q.edges))
    assert np.abs(np.sort(p.area) - np.sort(q.area)).max() < 1e-12
    order_p, order_q = (np.lexsort(r.vertices.round(9).T) for r in (p, q))
    assert np.abs(p.vertices[order_p] - q.vertices[order_q]).max() < 1e-9
    # the same regions with the same patterns, whatever their order
    at = q.locate(p.centroid[p.area > 1e-9])
    for i, j in zip(np.flatnonzero(p.area > 1e-9)[::7], at[::7], strict=True):
        left, right = p.pattern(i), q.pattern(j)
        # (of entries that tie all over a region, any may stand for the maximum)
        kinks = [s for s, kind in zip(p.sites, p.meta["kinds"], strict=True) if kind == "kink"]
        assert all(np.array_equal(left[s], right[s]) for s in kinks)
        assert p.label[i] == q.label[j]
    cuts = [np.bincount(r.edge_site + 1, minlength=len(p.sites) + 1) for r in (p, q)]
    assert np.array_equal(*cuts)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), depth=st.integers(1, 3), tile=st.sampled_from([200, 1000]))
def test_random_graphs(seed, depth, tile):
    program = Graphs(seed).program(depth)
    p = partition(program, SQUARE)
    q, _ = tiled(program, SQUARE, 2 * tile, tile)
    assert_same(p, q)
    q.certify(300).require()


def test_tiles_of_tiles():
    program = random_mlp([2, 16, 16, 16, 3], seed=1, scale=1.5)
    p = partition(program, SQUARE)
    q, rounds = tiled(program, SQUARE, 12_000, 4_000)
    assert len(rounds) > 3
    assert max(rounds) > 3
    assert_same(p, q)
    q.certify(2000).require()


def test_convolutions_and_max_pooling(generator):
    torch.manual_seed(3)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 6, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(6, 4),
    ).eval()  # fmt: skip
    x = torch.rand(3, 1, 8, 8, generator=generator)
    plane = Slice.anchors(*x, radius=0.4)
    p = partition(net, plane)
    q, rounds = tiled(net, plane, 300_000, 150_000)
    assert rounds
    assert_same(p, q)
    q.certify(100).require()


@pytest.mark.parametrize("limit", [3, 60, 250])
def test_stops_at_the_limit(limit):
    program = random_mlp([2, 16, 16, 16, 3], seed=1, scale=1.5)
    p, _ = tiled(program, SQUARE, 8_000, 2_000, max_regions=limit)
    assert not p.complete
    assert len(p) <= limit
    assert len(p) >= limit / 4 or limit < 10
    assert len(p.vertices) - len(p.edges) + len(p) == 1
    assert p.area.sum() == pytest.approx(4, rel=1e-12)
    assert p.area.min() > 0
    x = torch.from_numpy(p.vertices)
    assert np.abs(p.outputs - program.evaluate(x).numpy()).max() < 1e-12
    assert len(p.patterns.keys()) == len(p)
    assert all(list(p.pattern(i)) == program.sites[: p.depth[i]] for i in range(len(p)))


def test_progress_never_goes_back():
    program = random_mlp([2, 16, 16, 3], seed=1, scale=1.5)
    seen = []
    tiled(program, SQUARE, 6_000, 2_000, progress=lambda done, total, what: seen.append(done))
    assert seen == sorted(seen)
    assert len(set(seen)) > 6


def test_tiles_are_compact_and_even():
    p = partition(random_mlp([2, 60, 1]), SQUARE)
    mesh = grow.Mesh.of_polygon(p.vertices[:4])
    mesh.xy, mesh.loops, mesh.offsets = p.vertices, p.face_vertices, p.face_offsets
    group = tiles.assigned(mesh, 7)
    sizes = np.bincount(group)
    assert len(sizes) == 7
    assert np.ptp(sizes) <= 7
    extent = [np.ptp(p.centroid[group == g], axis=0).prod() for g in range(7)]
    assert sum(extent) < 1.5 * 4  # they hardly overlap


def test_width_counts_what_is_alive_at_the_next_cut():
    class Skip(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(5, 7), torch.nn.Linear(7, 7)

        def forward(self, x):
            h = self.a(x).relu()
            return (self.b(h).relu() + h).sum(1, keepdim=True)

    program = lower(Skip(), torch.zeros(2, 5))
    first = next(i for i, s in enumerate(program.stages) if s in program.cuts)
    assert memory.width(program, first) == 14  # the second pre-activation, and h for the skip
    last = max(i for i, s in enumerate(program.stages) if s in program.cuts)
    assert memory.width(program, last) == 1


def envelope_bends(p, q, tol):
    """Pairs that meet at the bends of max_k (1 - t) p_k + t q_k, by brute force."""
    grid = []
    for a in range(len(p)):
        for b in range(a):
            d, e = p[a] - p[b], q[a] - q[b]
            if d * e < 0 and min(abs(d), abs(e)) > tol:
                t = d / (d - e)
                if (1 - t) * p[a] + t * q[a] >= ((1 - t) * p + t * q).max() - 1e-12:
                    grid.append((t, b, a))
    return sorted(grid)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 6))
def test_bends_of_an_envelope(seed, size):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((2, size))
    entry = np.arange(size)[None]
    tops = np.empty((2, 1), np.uint64)
    error = np.full((1, size), 1e-15), np.zeros(2, np.int64), np.zeros(2, bool)
    seams.winner_masks(z, entry, *error[:2], 0, error[2], tops)
    ends = np.array([[0, 1]], np.int32)
    count = seams.edge_bends(ends, z, entry, tops, *error, np.empty((0, 4), np.int64))
    found = np.empty((count, 4), np.int64)
    seams.edge_bends(ends, z, entry, tops, *error, found)
    expected = envelope_bends(z[0], z[1], 1e-14)
    assert [tuple(row[2:]) for row in found] == [pair[1:] for pair in expected]
    assert (found[:, :2] == 0).all()

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import isogon as ig
from isogon.cpwl.program import mlp
from isogon.errors import DataError, OptionError
from isogon.measures.partition.measure import partition
from isogon.measures.partition.mesh import stream
from isogon.measures.partition.slices import Slice

SQUARE = Slice.box2d([-1, -1], [1, 1])


def random_mlp(widths, seed=0, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    pairs = list(itertools.pairwise(widths))
    weights = [
        torch.randn(o, i, generator=g, dtype=torch.float64) * scale / i**0.5 for i, o in pairs
    ]
    biases = [0.5 * torch.randn(o, generator=g, dtype=torch.float64) for _, o in pairs]
    return mlp(weights, biases)


@pytest.fixture(scope="module")
def deep():
    program = random_mlp([2, 16, 16, 3], scale=1.5)
    return program, partition(program, SQUARE)


def line_arrangement(weights, biases):
    """Regions, vertices, edges of lines in the square [-1, 1]^2, by counting."""
    meets = [abs(b) < abs(w).sum() for w, b in zip(weights, biases, strict=True)]
    w, b = weights[meets], biases[meets]
    crossings = 0
    for i in range(len(w)):
        for j in range(i):
            x = np.linalg.solve(w[[i, j]], -b[[i, j]])
            crossings += bool((np.abs(x) < 1).all())
    regions = 1 + len(w) + crossings
    vertices = 4 + 2 * len(w) + crossings
    return regions, vertices, regions + vertices - 1


@pytest.mark.parametrize("count", [1, 7, 60, pytest.param(400, marks=pytest.mark.long)])
def test_random_lines(count):
    rng = np.random.default_rng(count)
    w, b = rng.standard_normal((count, 2)), 0.4 * rng.standard_normal(count)
    program = mlp([torch.from_numpy(w), torch.ones(1, count)], [torch.from_numpy(b), None])
    p = partition(program, SQUARE)
    assert (len(p), len(p.vertices), len(p.edges)) == line_arrangement(w, b)
    certificate = p.certify(2000)
    assert certificate.passed, str(certificate)


def test_every_sampled_pattern_is_a_region(deep, generator):
    program, p = deep
    x = 2 * torch.rand(20_000, 2, generator=generator, dtype=torch.float64) - 1
    found = p.locate(x)
    z = program.preactivations(x)
    for site, row in ((s, p.patterns.sites[i]) for i, s in enumerate(p.sites)):
        at = p.patterns.ancestors(found)[p.sites.index(site)]
        assert np.array_equal(row.rows(at), (z[site] > 0).numpy())
    assert len({tuple(np.concatenate(list(p.pattern(i).values()))) for i in range(len(p))}) == len(
        p
    )


def test_affine_maps_and_labels(deep, generator):
    program, p = deep
    for i in range(0, len(p), 17):
        a, b = p.affine(i)
        corners = p.polygon(i)
        inside = 0.9 * corners + 0.1 * corners.mean(0)
        out = program.evaluate(torch.from_numpy(inside)).numpy()
        assert np.abs(inside @ a.T + b - out).max() < 1e-12
        center = program.evaluate(torch.from_numpy(p.centroid[[i]]))
        assert p.label[i] == int(center.argmax())
    assert np.allclose(p.gradients([3])[0], p.affine(3)[0])


def test_boundary_is_where_the_largest_two_are_equal(deep, generator):
    program, p = deep
    assert len(p.boundary)
    t = np.linspace(0.01, 0.99, 5)[:, None, None]
    points = p.boundary[:, 0] * (1 - t) + p.boundary[:, 1] * t
    out = program.evaluate(torch.from_numpy(points.reshape(-1, 2))).reshape(*points.shape[:2], -1)
    top = out.sort(-1)
    assert (top.values[..., -1] - top.values[..., -2]).max() < 1e-12
    pairs = top.indices[..., -2:].sort(-1).values.numpy()
    assert (pairs == p.boundary_classes).all()
    # labels of a fine grid change only where a segment is crossed: total length against sampling
    line = np.stack([np.linspace(-1, 1, 20_001), np.full(20_001, 0.1234)], 1)
    changes = np.count_nonzero(np.diff(program.evaluate(torch.from_numpy(line)).argmax(1)))
    y = p.boundary[..., 1]
    assert changes == np.count_nonzero((y[:, 0] > 0.1234) != (y[:, 1] > 0.1234))


def test_sample_boundary(deep, generator):
    program, p = deep
    xy = p.sample_boundary(200, generator)
    top = program.evaluate(p.plane.embed(xy)).sort(-1).values
    assert (top[:, -1] - top[:, -2]).max() < 1e-12
    near = p.sample_boundary(50, generator, near=torch.tensor([[0.0, 0.0]]))
    nearest = np.linalg.norm(xy, axis=1).min()
    assert np.linalg.norm(near, axis=1).min() < nearest + 0.2


def test_zero_set_of_one_output(generator):
    program = next(
        m for m in (random_mlp([2, 12, 12, 1], seed=s, scale=2) for s in range(20))
        if len(m.evaluate(torch.rand(99, 2) * 2 - 1).sign().unique()) == 2
    )  # fmt: skip
    p = partition(program, SQUARE)
    values = program.evaluate(torch.from_numpy(p.boundary.reshape(-1, 2)))
    assert len(p.boundary)
    assert values.abs().max() < 1e-12


def test_locate(deep):
    _, p = deep
    inside = np.stack([p.polygon(i).mean(0) for i in range(len(p))])
    big = p.area > 1e-10
    assert np.array_equal(p.locate(inside)[big], np.arange(len(p))[big])
    assert p.locate([[5, 5]])[0] == -1


def test_mutations_are_caught(deep):
    program, good = deep
    assert good.certify(2000).passed

    def broken(**arrays):
        meta = {**good.meta}
        p = type(good)("partition", arrays={**good.arrays, **arrays}, meta=meta)
        p.program = program
        return p.certify(2000)

    # one pattern flipped: the smallest region, last site
    bits = good.arrays["site1_bits"].copy()
    bits[good.area.argmin(), 0] ^= np.uint64(1)
    assert not broken(site1_bits=bits).passed
    # one tiny face dropped
    keep = np.ones(len(good), bool)
    keep[good.area.argmin()] = False
    assert not without_faces(good, keep, broken).passed
    # one cut deleted: two neighbours become one region
    assert not broken(**joined(good)).passed


def without_faces(good, keep, broken):
    size = np.diff(good.face_offsets)
    half = np.repeat(keep, size)
    return broken(
        face_offsets=np.concatenate([[0], np.cumsum(size[keep])]),
        face_edges=good.face_edges[half],
        face_vertices=good.face_vertices[half],
        site1_bits=good.arrays["site1_bits"][keep],
        site1_parent=good.arrays["site1_parent"][keep],
    )


def joined(good):
    """Merge the two faces beside an edge of the last site (keeping every other number right)."""
    candidates = np.nonzero(good.edge_site == 1)[0]
    size = np.minimum(*good.area[good.edge_faces[candidates]].T)
    edge = candidates[size.argmin()]
    a, b = good.edge_faces[edge]

    def loop(i):
        part = slice(good.face_offsets[i], good.face_offsets[i + 1])
        edges, vertices = good.face_edges[part], good.face_vertices[part]
        at = int(np.nonzero(edges == edge)[0][0]) + 1
        return np.roll(edges, -at)[:-1], np.roll(vertices, -at)[:-1]

    loops = []
    for i in range(len(good)):
        if i == b:
            continue
        part = slice(good.face_offsets[i], good.face_offsets[i + 1])
        own = (good.face_edges[part], good.face_vertices[part])
        if i == a:
            own = tuple(np.concatenate(pair) for pair in zip(loop(a), loop(b), strict=True))
        loops.append(own)
    keep = np.arange(len(good)) != b
    edges = np.concatenate([e for e, _ in loops])
    edges = np.where(edges > edge, edges - 1, edges)
    rest = np.arange(len(good.edges)) != edge
    return {
        "face_offsets": np.concatenate([[0], np.cumsum([len(e) for e, _ in loops])]),
        "face_edges": edges,
        "face_vertices": np.concatenate([v for _, v in loops]),
        "edges": good.edges[rest],
        "edge_site": good.edge_site[rest],
        "edge_unit": good.edge_unit[rest],
        "site1_bits": good.arrays["site1_bits"][keep],
        "site1_parent": good.arrays["site1_parent"][keep],
    }


def test_max_regions_stops_with_a_sound_mesh():
    program = random_mlp([2, 40, 40, 2], scale=2)
    p = partition(program, SQUARE, max_regions=100)
    assert not p.complete
    assert 50 <= len(p) <= 100
    certificate = p.certify(100)
    assert not certificate.passed
    assert [c.name for c in certificate if not c.passed] == ["finished"]


def test_round_trip(deep, tmp_path):
    program, p = deep
    p.save(tmp_path / "p")
    q = ig.read(tmp_path / "p")
    assert len(q) == len(p)
    assert np.array_equal(q.label, p.label)
    assert np.array_equal(q.boundary, p.boundary)
    assert all(np.array_equal(q.pattern(5)[s], p.pattern(5)[s]) for s in p.sites)
    assert np.allclose(q.affine(5)[0], p.affine(5)[0], atol=1e-8)
    q.program = program
    assert q.certify(500).passed


def test_slices():
    a, b, c = (torch.tensor(v, dtype=torch.float32) for v in ([0, 0, 0], [2, 0, 0], [1, 1, 0]))
    s = Slice.through(a, b, c, margin=0.5)
    assert np.allclose(s.marks, [[0, 0], [2, 0], [1, 1]])
    assert np.allclose(s.corners, [[-1, -1.5], [3, -1.5], [3, 2.5], [-1, 2.5]])
    assert np.allclose(s.embed(s.marks), torch.stack([a, b, c]))
    assert np.allclose(s.project(torch.stack([a, b, c])), s.marks)
    quad = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]])
    s = Slice.polygon_of(quad)
    assert s.area == pytest.approx(1)
    assert np.allclose(np.sort(s.embed(s.corners), 0), np.sort(quad, 0))
    generator = torch.Generator().manual_seed(1)
    s = Slice.anchors(a, radius=2.0, generator=generator)
    assert s.area == pytest.approx(16)
    assert np.allclose(s.basis.T @ s.basis, np.eye(2))
    s = Slice.polygon(torch.zeros(1, 2, 2), torch.eye(4)[:, :2], [[0, 0], [0, 1], [1, 0]])
    assert s.shape == (1, 2, 2)
    assert s.area == pytest.approx(0.5)  # clockwise corners are turned round
    with pytest.raises(DataError, match="no plane"):
        Slice.through(a, b, 2 * b)
    with pytest.raises(DataError, match="convex"):
        Slice.polygon(np.zeros(2), np.eye(2), [[0, 0], [1, 1], [0, 1], [1, 0]])
    with pytest.raises(DataError, match="one plane"):
        Slice.polygon_of([[0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0]])


def test_wrong_arguments(deep):
    program, p = deep
    with pytest.raises(DataError, match="do not fit"):
        partition(program, Slice.polygon(np.zeros(3), np.eye(3)[:, :2], SQUARE.corners))
    with pytest.raises(OptionError, match="max_regions"):
        partition(program, SQUARE, max_regions=0)
    with pytest.raises(OptionError, match="no such region"):
        p.polygon(len(p))


def test_statistics(deep):
    _, p = deep
    table = p.statistics(near=torch.zeros(1, 2), radius=0.5).set_index("regions")
    assert table.loc["near", "count"] + table.loc["far", "count"] == table.loc["all", "count"]
    assert table.loc["all", "share_of_area"] == pytest.approx(1)
    assert table.loc["all", "area_mean"] == pytest.approx(4 / len(p))
    length = np.linalg.norm(p.boundary[:, 1] - p.boundary[:, 0], axis=1).sum()
    assert table.loc["all", "boundary_length"] == pytest.approx(length)
    assert list(p.to_frame().columns[:6]) == ["region", "area", "x", "y", "vertices", "label"]


def test_merged_dissolves_units_that_do_not_matter(deep):
    _, p = deep
    assert len(p.merged()) == len(p)  # a generic network bends at every edge
    w = torch.tensor([[1.0, 0], [0, 1]], dtype=torch.float64)
    program = mlp([w, torch.tensor([[1.0, 0]])], [torch.zeros(2), None])
    q = partition(program, SQUARE)
    assert len(q) == 4
    m = q.merged()
    assert len(m) == 2
    assert m.area == pytest.approx([2, 2])


def test_pending_vertices_give_the_same_partition(deep, monkeypatch):
    program, p = deep
    monkeypatch.setattr(stream, "LARGE", 0)
    monkeypatch.setattr(stream, "CHUNK", 64)
    q = partition(program, SQUARE)
    for name, array in p.arrays.items():
        other = q.arrays[name]
        assert np.array_equal(array, other) or np.allclose(array, other, atol=1e-14), name
    assert q.certify(500).passed


@pytest.mark.parametrize("color", ["class", "area", "slope", "random"])
def test_draw(deep, color):
    fig = ig.draw(deep[1], color=color)
    assert [ax.get_title(loc="left") or ax.get_title() for ax in fig.axes][1].endswith("layer")


def test_too_little_memory_stops_with_a_sound_mesh(monkeypatch):
    from isogon.measures.partition.mesh import memory

    monkeypatch.setattr(memory, "free", lambda: 400_000)
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(2, 40), torch.nn.ReLU(), torch.nn.Linear(40, 40), torch.nn.ReLU()
    ).double()
    p = partition(net, Slice.box2d([-3, -3], [3, 3]))
    assert not p.complete
    assert p.area.sum() == pytest.approx(36, rel=1e-9)
    assert len(p.vertices) - len(p.edges) + len(p) == 1

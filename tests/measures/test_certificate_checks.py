"""Each check of a partition's certificate has a fault that no other check sees."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from test_partition import random_mlp
from test_partition_certificate import merged_across

from isogon.cpwl.certificate import Certificate
from isogon.cpwl.program import Program, dense, mlp
from isogon.cpwl.stages import Affine, Kink, relu
from isogon.measures.partition.measure import partition
from isogon.measures.partition.mesh.mesh import Mesh
from isogon.measures.partition.reading import Partition
from isogon.measures.partition.slices import Slice

SQUARE = Slice.box2d([-1, -1], [1, 1])
NAMES = (
    "finished", "euler", "area", "orientation", "convex", "watertight", "distinct", "edges",
    "complete", "located", "patterns", "decided", "outputs", "neighbours", "boundary",
)  # fmt: skip


def rows(*lines):
    """Weights and biases `a x + b y + c` as tensors."""
    table = torch.tensor(lines, dtype=torch.float64)
    return table[:, :2].contiguous(), table[:, 2].contiguous()


def one_layer(lines, out=None, through=None, kink=None):
    """A program with one site that sees some lines; `out` weighs its units."""
    w, b = rows(*lines)
    out = torch.ones(1, len(lines), dtype=torch.float64) if out is None else torch.tensor([out])
    stages = [dense("z", "input", w, b)]
    last = "z"
    if through is not None:
        stages.append(through)
        last = through.output
    stages.append(kink or relu("h", last, "h"))
    stages.append(dense("out", "h", out, torch.zeros(1, dtype=torch.float64)))
    return Program(stages, (2,))


def noisy(lines, size):
    """The same, with pre-activations that are off by about `size` eps."""
    w, b = rows(*lines)
    one = torch.eye(len(lines), dtype=torch.float64)
    far = torch.full((len(lines),), float(size), dtype=torch.float64)
    out = torch.ones(1, len(lines), dtype=torch.float64)
    stages = [dense("a", "input", w, b + far), dense("z", "a", one, -far), relu("h", "z", "h"),
              dense("out", "h", out, None)]  # fmt: skip
    return Program(stages, (2,))


def tampered(p, program=None, **arrays):
    found = Partition("partition", arrays={**p.arrays, **arrays}, meta=dict(p.meta))
    found.program = program or p.program
    return found


def outputs(program, xy):
    return program.evaluate(torch.from_numpy(xy)).numpy()


def finished():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return partition(random_mlp([2, 20, 20, 2]), SQUARE, max_regions=60)


def euler():
    """A vertex that no edge knows."""
    p = partition(random_mlp([2, 8, 2]), SQUARE)
    xy = np.concatenate([p.vertices, [[0.1, 0.2]]])
    return tampered(p, vertices=xy, outputs=outputs(p.program, xy))


def area():
    """A slice that is a little larger than what was cut."""
    p = partition(random_mlp([2, 8, 2]), SQUARE)
    return tampered(p, slice_corners=p.plane.corners * (1 + 1e-7))


CROSSING = [(0.0, 1.0, 0.0), (1.0, -0.5, 0.0)]  # y = 0, x = y / 2


def orientation():
    """A sliver turned inside out, by less than the units' noise, while nothing has a dent."""
    h = 1e-7  # height of the triangle of y = 0 and two lines that meet in (0, h)
    lines = [
        (0.0, 1.0, 0.0),
        (-2 * h, 1.0, -h),
        (2 * h, 1.0, -h),
        (1.0, 0.0, 0.5),
        (1.0, 0.0, -0.5),
    ]
    p = partition(one_layer(lines), SQUARE)
    program = noisy(lines, 1e8)
    xy = p.vertices.copy()
    xy[np.hypot(xy[:, 0], xy[:, 1] - h) < h / 2, 1] = -h
    return tampered(p, program, vertices=xy, outputs=outputs(program, xy))


def convex():
    """An edge with a bend, smaller than the units' noise."""
    p = partition(one_layer(CROSSING), SQUARE)
    edge = np.flatnonzero(p.edge_site >= 0)[0]
    mesh = Mesh(p.vertices, p.edges, p.edge_site, p.edge_unit, p.face_offsets, p.face_vertices,
                p.face_edges)  # fmt: skip
    mesh.divide(np.concatenate([np.zeros(edge + 1, int), np.ones(len(p.edges) - edge, int)]))
    xy = np.concatenate([p.vertices, p.vertices[p.edges[edge]].mean(0, keepdims=True) + 1e-7])
    program = noisy(CROSSING, 1e8)
    return tampered(
        p, program, vertices=xy, outputs=outputs(program, xy), edges=mesh.ends,
        edge_site=mesh.site, edge_unit=mesh.unit, face_offsets=mesh.offsets,
        face_vertices=mesh.loops, face_edges=mesh.borders,
    )  # fmt: skip


def watertight():
    """An edge without regions, and a vertex, so that V - E + F stays 1."""
    p = euler()
    return tampered(
        p, edges=np.concatenate([p.edges, [[0, 1]]]).astype(np.int32),
        edge_site=np.append(p.edge_site, -1), edge_unit=np.append(p.edge_unit, -1),
    )  # fmt: skip


def watertight_sides():
    """A border edge without a region, and one inside that is said to be the border's.

    In numbers there are as many sides of edges as there should be.
    """
    p = watertight()
    site, unit = p.edge_site.copy(), p.edge_unit.copy()
    inner = np.flatnonzero(site >= 0)[0]
    site[inner] = unit[inner] = -1
    found = tampered(p, edge_site=site, edge_unit=unit)
    borders = int((site < 0).sum())
    assert 2 * (len(site) - borders) + borders == len(found.face_edges)
    return found


def watertight_loops():
    """A tiny region whose loop runs back and forth along an edge: both its sides are there."""
    p = partition(one_layer([(1.0, 0.0, 0.0), CORNER], [1.0, 1.0]), SQUARE)
    order = np.argsort(p.area)  # the tiny one first: its neighbour writes the edge's sides last
    parts = [np.arange(*p.face_offsets[i : i + 2]) for i in order]
    half, tiny = np.concatenate(parts), 0
    p = tampered(
        p, face_offsets=np.cumsum([0, *map(len, parts)]), face_vertices=p.face_vertices[half],
        face_edges=p.face_edges[half], site0_bits=p.arrays["site0_bits"][order],
    )  # fmt: skip
    assert p.certify(100).passed
    low, high = p.face_offsets[tiny : tiny + 2]
    inner = np.flatnonzero(p.edge_site[p.face_edges[low:high]] >= 0)
    # its region on the other side is written last, so that the edge has both
    k = next(h for h in low + inner if p.edge_faces[p.face_edges[h]].max() > tiny)
    a, b = p.face_vertices[k], p.face_vertices[k + 1 if k + 1 < high else low]
    e = p.face_edges[k]
    offsets = p.face_offsets.copy()
    offsets[tiny + 1 :] += 2
    found = tampered(
        p, face_offsets=offsets, face_vertices=np.insert(p.face_vertices, k + 1, [b, a]),
        face_edges=np.insert(p.face_edges, k + 1, [e, e]),
    )  # fmt: skip
    assert (found.edge_faces[p.edge_site >= 0] >= 0).all()
    return found


def distinct():
    """A unit that is zero everywhere is said to be off in one strip and on beside it, twice."""
    lines = [(1.0, 0.0, 0.0), (0.0, 1.0, -0.3), (0.0, 1.0, -0.1)]
    p = partition(one_layer(lines, [1.0, 0.0, 0.0]), SQUARE)
    assert np.array_equal(p.patterns.sites[0].unit, [0, 1, 2])
    low, middle = p.centroid[:, 1] < 0.1, (p.centroid[:, 1] > 0.1) & (p.centroid[:, 1] < 0.3)
    bits = p.arrays["site0_bits"].copy()
    bits[low, 0] |= np.uint64(0b110)
    assert (bits[middle, 0] & np.uint64(0b010) == 0).all()
    dead = one_layer([(1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)], [1.0, 0.0, 0.0])
    unit = np.where(p.edge_unit == 2, 1, p.edge_unit)
    return tampered(p, dead, site0_bits=bits, edge_unit=unit)


def edges():
    """An edge that is said to be another unit's."""
    p = partition(one_layer(CROSSING), SQUARE)
    unit = p.edge_unit.copy()
    unit[np.flatnonzero(unit == 0)[0]] = 1
    return tampered(p, edge_unit=unit)


CORNER = (1.0, 1.0, -2 + 1e-6)  # cuts off an area of 5e-13


def complete():
    """A cut of a unit without influence is missing, where no random point falls."""
    p = partition(one_layer([(1.0, 0.0, 0.0), CORNER], [1.0, 0.0]), SQUARE)
    return merged_across(p, np.flatnonzero(p.edge_unit == 1)[0])


def located():
    """What was cut lies beside the slice; the network does not depend on where."""
    p = partition(one_layer([(0.0, 1.0, 0.3), (0.0, 1.0, -0.2)]), SQUARE)
    return tampered(p, vertices=p.vertices + np.array([0.01, 0.0]))


def hill(height):
    """`z + height` on a disc that holds no vertex; not affine at all."""
    tall = torch.tensor(height, dtype=torch.float64)

    def apply(z):
        inside = (z[:, :1] - 0.5).square() + (z[:, 1:2] - 0.25).square() < 0.1**2
        return z + inside * tall

    return Affine(output="y", inputs=("z",), linear=lambda z: z.clone(), apply=apply)


def patterns():
    """A unit without influence changes inside a region only."""
    lines = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
    p = partition(one_layer(lines, [1.0, 0.0]), SQUARE)
    return tampered(p, one_layer(lines, [1.0, 0.0], hill([0.0, -5.0])))


def decided():
    """Units whose noise is of the size of the slice."""
    p = partition(one_layer(CROSSING), SQUARE)
    program = noisy(CROSSING, 1e14)
    return tampered(p, program, outputs=outputs(program, p.vertices))


def outputs_of_a_vertex():
    p = partition(random_mlp([2, 8, 2]), SQUARE)
    wrong = p.outputs.copy()
    wrong[3, 1] += 1e-9
    return tampered(p, outputs=wrong)


def outputs_inside():
    """The network's output differs from a region's map between its corners."""
    lines = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
    p = partition(one_layer(lines), SQUARE)
    return tampered(p, one_layer(lines, None, hill([1e-9, 0.0])))


class Jump(Kink):
    """A kink whose third piece is not where it should be."""

    def on_piece(self, z, piece):
        return super().on_piece(z, piece) + 1e-3 * (piece == 2)


def neighbours():
    """The map of one tiny region does not join on to those around it."""
    knots, slopes = torch.tensor([0.0, 2 - 1e-6]).double(), torch.tensor([0.0, 1.0, 2.0]).double()
    clean = Kink(output="h", inputs=("z",), site="h", knots=knots, slopes=slopes)
    wrong = Jump(output="h", inputs=("z",), site="h", knots=knots, slopes=slopes)
    p = partition(one_layer([(1.0, 1.0, 0.0)], kink=clean), SQUARE)
    return tampered(p, one_layer([(1.0, 1.0, 0.0)], kink=wrong))


def with_boundary(rows, classes=None, program=None):
    """A partition whose decision boundary has these of its pieces, or others of its classes."""
    p = partition(program or random_mlp([2, 8, 8, 4], seed=3), SQUARE)
    assert len(p.boundary) > 5
    held = [a[rows(p)] for a in p._boundary]
    if classes is not None:
        held[1] = classes(held[1])
    p.__dict__["_boundary"] = tuple(held)
    return p


def boundary():
    """A piece within a region is missing."""
    return with_boundary(lambda p: np.delete(np.arange(len(p.boundary)), 2))


def every_piece_is_missed():
    """Whichever it is; also one that joins two others, and all of them."""
    p = partition(random_mlp([2, 8, 8, 4], seed=3), SQUARE)
    whole = p._boundary
    for k in range(len(whole[0])):
        p.__dict__["_boundary"] = tuple(np.delete(a, k, 0) for a in whole)
        assert p.certify(10)["boundary"].value > 0, k
    p.__dict__["_boundary"] = tuple(a[:0] for a in whole)
    return p


def an_edge_from_border_to_border():
    """Outputs -v - relu(v), v + relu(v): they tie along one edge, and nothing else is there."""
    w, out = torch.tensor([[0.0, 1], [0, -1]]).double(), torch.tensor([[-2.0, 1], [2, -1]]).double()
    p = partition(mlp([w, out], [torch.zeros(2).double(), torch.zeros(2).double()]), SQUARE)
    assert (p.boundary_edge >= 0).all()
    assert len(p.boundary) > 0
    p.__dict__["_boundary"] = tuple(a[:0] for a in p._boundary)
    return p


def a_piece_where_another_class_is_larger():
    """From border to border: around its ends nothing has to close up."""
    w, out = torch.tensor([[0.0, 1], [0, -1]]).double(), torch.tensor([[1.0, -1], [-1, 1], [0, 0]])
    bias = torch.tensor([0.0, 0.0, 2.0]).double()
    p = partition(mlp([w, out.double()], [torch.ones(2).double(), bias]), SQUARE)
    assert len(p.boundary) == 0, "the third one is larger than both"
    row = np.array([[[-1.0, 0.0], [1.0, 0.0]]]), np.array([[0, 1]]), np.array([0]), np.array([-1])
    p.__dict__["_boundary"] = row
    return p


def a_piece_twice():
    return with_boundary(lambda p: np.r_[np.arange(len(p.boundary)), 1])


def a_piece_of_other_classes():
    def others(pairs):
        free = [k for k in range(4) if k not in pairs[2]]
        return np.concatenate([pairs[:2], [sorted([pairs[2, 0], free[0]])], pairs[3:]])

    return with_boundary(lambda p: np.arange(len(p.boundary)), others)


def on_an_edge(gone):
    """Outputs v + relu(v), -v - relu(v), u: the first two tie along a half of an edge."""
    w = torch.tensor([[0.0, 1], [0, -1], [1, 0], [-1, 0]]).double()
    out = torch.tensor([[2.0, -1, 0, 0], [-2, 1, 0, 0], [0, 0, 1, -1]]).double()
    program = mlp([w, out], [torch.zeros(4).double(), torch.zeros(3).double()])
    p = partition(program, SQUARE)
    held = [a[~gone(p)] for a in p._boundary]
    p.__dict__["_boundary"] = tuple(held)
    return p


def a_piece_of_an_edge():
    p = on_an_edge(lambda p: p.boundary_edge >= 0)
    assert len(p.boundary) == 2
    return p


FAULTS = {
    name: globals()[name] for name in NAMES if name != "outputs"
} | {"outputs": outputs_of_a_vertex, "outputs ": outputs_inside,
     "boundary     ": an_edge_from_border_to_border,
     "boundary      ": a_piece_where_another_class_is_larger,
     "boundary    ": every_piece_is_missed, "boundary ": a_piece_twice,
     "boundary  ": a_piece_of_other_classes,
     "boundary   ": a_piece_of_an_edge,
     "watertight ": watertight_sides, "watertight  ": watertight_loops}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_only_this_check_fails(name):
    certificate = FAULTS[name]().certify(20_000)
    assert tuple(c.name for c in certificate) == NAMES
    assert {c.name for c in certificate if not c.passed} == {name.strip()}, str(certificate)
    assert not certificate.passed
    assert certificate.verdict.startswith("NOT certified: ")


def test_regions_that_are_not_finished_hide_none_that_share_a_pattern():
    """Two pairs share one; the two others, of patterns of their own, were left half cut."""
    p = distinct()
    middle = (p.centroid[:, 1] > 0.1) & (p.centroid[:, 1] < 0.3)
    assert middle.sum() == 2
    found = tampered(p, depth=np.where(middle, 0, 1).astype(np.int32))
    found.complete = False
    assert (found.finished == ~middle).all()
    assert found.certify(100)["distinct"].value == 2


def test_sound_partitions_pass():
    """What the faults were made from."""
    for program in (one_layer(CROSSING), one_layer([CORNER]), random_mlp([2, 8, 2])):
        certificate = partition(program, SQUARE).certify(2000)
        assert certificate.passed, str(certificate)
        assert certificate.verdict == "certified: 15 of 15 checks, 2,000 points"
    assert on_an_edge(lambda p: p.boundary_edge < -1).certify(2000).passed


@pytest.mark.parametrize("radius", [1e-2, 1e-3, 1e-6, 1e-9])
def test_no_false_alarm_on_small_slices(radius):
    """Nothing is relative to the size of outputs: what cancels inside counts."""
    for seed in range(4):
        g = torch.Generator().manual_seed(seed)
        widths = [784, 64, 64, 10]
        w = [torch.randn(o, i, generator=g).double() / i**0.5
             for i, o in itertools.pairwise(widths)]  # fmt: skip
        b = [torch.randn(len(m), generator=g).double() for m in w]
        plane = Slice.anchors(*torch.rand(3, 784, generator=g), radius=radius, generator=g)
        certificate = partition(mlp(w, b), plane).certify(2000)
        assert certificate.passed, str(certificate)


@pytest.mark.parametrize("bias", [-1e16, 1e13, 1e9, 0.0])
def test_a_huge_unit_hides_no_missing_cut_of_its_neighbours(bias):
    """A tolerance relative to the site's largest value would let all of them pass."""
    g = torch.Generator().manual_seed(2)
    w = [torch.randn(17, 2, generator=g).double(), torch.randn(3, 17, generator=g).double()]
    b = [0.3 * torch.randn(17, generator=g).double(), torch.randn(3, generator=g).double()]
    b[0][5] = bias
    w[1][:, 5] *= 1.0 if bias < 0 else 1e-9 / max(bias, 1e-9)
    p = partition(mlp(w, b), SQUARE)
    assert len(p) > 20
    certificate = p.certify(1000)
    assert certificate.passed, str(certificate)
    rng = np.random.default_rng(0)
    inner = np.flatnonzero((p.edge_site >= 0) & (p.edge_unit != 5))
    for edge in rng.choice(inner, 12, replace=False):
        missing = merged_across(p, edge).certify(10)
        assert not missing["complete"].passed, str(missing)


def test_it_is_bounded_in_time_and_says_so():
    p = partition(random_mlp([2, 64, 64, 3], scale=2), SQUARE)
    certificate = p.certify(seconds=1e-9)
    assert certificate.passed
    assert not certificate.whole
    assert 0 < certificate.facts["corners"] < len(p.vertices)
    assert certificate.facts["points"] == 200
    assert certificate.verdict.startswith(
        "certified in part: 15 of 15 checks, 2,048 of 4,747 corners"
    )
    assert p.certify(50, seconds=1e9).whole


def test_it_stays_with_the_reading(tmp_path):
    import isogon as ig

    p = partition(random_mlp([2, 8, 2]), SQUARE)
    assert p.certificate is None
    certificate = p.certify(100)
    p.save(tmp_path / "p")
    kept = ig.read(tmp_path / "p").certificate
    assert isinstance(kept, Certificate)
    assert kept.verdict == certificate.verdict
    assert [c.value for c in kept] == [c.value for c in certificate]
    broken = outputs_of_a_vertex()
    broken.arrays["outputs"][0] = np.nan
    assert not broken.certify(100)
    assert "outputs" in broken.certificate.verdict

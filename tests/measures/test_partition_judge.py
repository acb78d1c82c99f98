"""`mesh.zeros` by itself: what counts as zero, where it is looked up, and what is set to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from isogon.cpwl.bounds import Bounds
from isogon.cpwl.program import mlp
from isogon.cpwl.rounding import EPS, ROUNDING, ErrorWalk
from isogon.cpwl.stages import Kink, Max
from isogon.measures.partition.kernels.edges import WIDE
from isogon.measures.partition.measure import partition
from isogon.measures.partition.mesh import cut_maxima, zeros
from isogon.measures.partition.mesh.cut_kinks import every_function
from isogon.measures.partition.mesh.mesh import Mesh
from isogon.measures.partition.slices import Slice
from isogon.measures.partition.tiles.seams import strings

PLANE = Slice.polygon(
    np.array([10.0, -20.0, 0.5]), np.array([[1.0, 0], [0, -2], [0.5, 1]]),
    [[-3, -1], [2, -1], [2, 2], [-3, 2]],
)  # fmt: skip


def network(outputs=2):
    g = torch.Generator().manual_seed(0)
    shapes = [(5, 3), (4, 5), (outputs, 4)]
    return mlp(
        [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes],
        [torch.randn(s[0], generator=g, dtype=torch.float64) for s in shapes],
    )


def test_the_space_of_a_slice():
    program = network()
    space = zeros.Space.of_slice(program, PLANE)
    assert space.program is program
    assert space.reach == 3
    assert torch.equal(space.given, EPS * torch.tensor([10 + 3, 20 + 6, 0.5 + 4.5]).double())
    assert torch.equal(space.directions, torch.tensor([[1.0, 0, 0.5], [0, -2, 1]]).double())
    at = np.array([[1.0, 2.0], [-3.0, 0.0]])
    expected = torch.from_numpy(PLANE.embed(at).reshape(2, 3).numpy())
    assert torch.equal(space.embed(at), expected)
    ends = np.array([[[0.0, 0], [1, 1]], [[1, 2], [-3, 2]]])
    line = space.along(ends)
    found = line.embed(np.array([[0.25, 1.0], [0.5, 0.0]]))
    assert torch.equal(found, space.embed(np.array([[0.0, 2.0], [0.5, 0.5]])))
    assert (line.reach, line.given, line.program) == (3, space.given, program)
    assert line.directions is space.directions


@pytest.mark.parametrize("position", [1, 3, 5])
def test_zero_is_a_multiple_of_the_carried_errors(position):
    """Of both cuts, and of the output."""
    program = network()
    space = zeros.Space.of_slice(program, PLANE)
    at = np.random.default_rng(0).uniform(-1, 1, (11, 2))
    walk = ErrorWalk(program, space.embed(at), space.given, space.directions, 3, meant=True)
    walk.to(position)
    expected = ROUNDING * walk.entries()[1]
    assert np.allclose(space.zero(position, at), expected, rtol=1e-9, atol=0)
    judge = zeros.Judge(space, Bounds(program, space.embed(PLANE.corners)), position)
    assert np.allclose(judge.zero(at), expected, rtol=1e-9, atol=0)
    known = Bounds(program, space.embed(PLANE.corners)).at(position).numpy()
    assert np.array_equal(judge.bound(), ROUNDING * known)
    assert (judge.bound() > expected.numpy().max(0)).all()


class FakeJudge:
    """Sizes that count as zero are given; counts what is asked for."""

    def __init__(self, sizes, bound=None, position=0):
        self.sizes, self.limit, self.position = sizes, bound, position
        self.asked, self.ranges = [], []
        self.bounds = SimpleNamespace(cut=lambda *a: self.ranges.append(a))

    def bound(self):
        return self.limit

    def zero(self, xy):
        self.asked.append(len(xy))
        return self.sizes[xy[:, 1].astype(int)]


def test_errors_are_half_of_what_counts_as_zero():
    rng = np.random.default_rng(1)
    count = 2500  # vertices: more than are looked up at once
    judge = FakeJudge(rng.uniform(1, 2, (count, 4)))
    mesh = SimpleNamespace(xy=np.stack([np.zeros(count), np.arange(count)], 1))
    entry, other = np.array([3, 2, 1]), np.array([-1, 0, -1])
    errors = zeros.Errors(judge, mesh, entry, other, np.array([1.0, 2.0, 4.0, 8.0]))
    assert errors.bound.tolist() == [4.0, np.hypot(4, 1) / 2, 1.0]
    vertices, functions = rng.integers(0, count, 6000), rng.integers(0, 3, 6000)
    size = judge.sizes[vertices, entry[functions]]
    size = np.hypot(size, np.where(functions == 1, judge.sizes[vertices, 0], 0.0))
    assert np.allclose(errors.at(vertices, functions), size / 2)
    assert sum(judge.asked) == len(np.unique(vertices)), "each vertex once"
    assert max(judge.asked) == 1024


def test_a_table_looks_up_what_is_unclear_until_nothing_is():
    calls = []

    def exact(vertices):
        assert len(vertices), "nothing to look up"
        return np.stack([vertices, -vertices], 1).astype(float)

    table = zeros.Table(np.array([9.0, 9.0]), 4, exact)

    def kernel(error, row, unclear):
        calls.append(row.copy())
        if len(calls) < 3:
            unclear[[3, 1] if len(calls) == 1 else [2]] = True
        return error[row]

    found = table.settled(kernel)
    assert found.tolist() == [[9, 9], [1, -1], [2, -2], [3, -3]]
    assert [c.tolist() for c in calls] == [[0, 0, 0, 0], [0, 1, 0, 2], [0, 1, 3, 2]]
    table.extended(6)
    assert table.row.tolist() == [0, 1, 3, 2, 0, 0]
    table.settle(np.zeros(0, np.int64))
    assert len(table.error) == 4
    plain = zeros.Table(np.array([9.0]), 2, None)
    plain.settle(np.array([1]))
    assert plain.settled(lambda error, row, unclear: (unclear.fill(True), row)[1]).tolist() == [
        0,
        0,
    ]


def values(table):
    """A mesh whose vertices hold a table under "z"; the second coordinate is the vertex."""
    mesh = strings({"z": torch.from_numpy(table)}, len(table) // 2)
    mesh.xy[:, 1] = np.arange(len(table))
    return mesh


def test_clear_sets_to_its_knot_what_is_within_true_errors_and_tells_the_ranges():
    """Two knots per unit; more vertices than are looked up at once; units on one side of zero."""
    count, rng = 3000, np.random.default_rng(2)
    knots = torch.tensor([[0.0, -1.0, 2.0, 1.0], [1.0, 0.5, 3.0, 2.0]]).double()
    stage = Kink(
        output="h", inputs=("z",), site="h", knots=knots, slopes=torch.arange(3.0).double()
    )  # fmt: skip
    table = np.stack([rng.uniform(a, b, count) for a, b in ((-1, 2), (-2, 1), (-9, -5), (5, 6))], 1)
    sizes = rng.choice([1e-12, 1e-9], (count, 4))
    near = rng.integers(0, 2, (count, 4))  # the knot that half of the values lie at
    off = rng.choice([0.0, 0.5, -0.5, 2.0, -2.0, 1e4], (count, 4))
    table[:, :2] = np.where(
        rng.random((count, 2)) < 0.5,
        knots.numpy()[near, np.arange(4)][:, :2] + (off * sizes)[:, :2],
        table[:, :2],
    )
    table[7, 0] = sizes[7, 0] = 2.0**-40  # just as large as what counts as zero
    expected = table.copy()
    for knot in knots.numpy():
        expected = np.where(np.abs(expected - knot) <= sizes, knot, expected)
    bound = np.full(4, 1e-8)
    mesh, judge = values(table.copy()), FakeJudge(sizes, bound, position=7)
    functions = every_function(stage, torch.Size([4]))
    returned, signs = zeros.clear(mesh, stage, functions, judge)
    assert returned is bound
    assert np.array_equal(mesh.values("z"), expected)
    above = (expected[:, None] - knots.numpy()).reshape(count, -1)  # knot by knot
    for mask, want in zip(signs, (above > 0, above < 0), strict=True):
        bits = np.unpackbits(mask.view(np.uint8), axis=1, bitorder="little")
        assert np.array_equal(bits[:, :8], want)
        assert not bits[:, 8:].any()
    assert expected[7, 0] == 0
    assert (expected != table).sum() > 500
    ((position, low, high),) = judge.ranges
    assert position == 7
    assert np.array_equal(low, table.min(0))
    assert np.array_equal(high, table.max(0))
    assert high[2] < 0 < low[3], "the range of a unit begins with its own values"
    gap = np.abs(table[:, None] - knots.numpy())
    looked = ((gap > 0) & (gap <= WIDE * 1e-8)).any((1, 2))
    assert sum(judge.asked) == looked.sum() > 1024
    assert max(judge.asked) == 1024


def test_a_unit_that_is_always_off_hands_on_no_bound():
    program = network()
    xy = PLANE.corners
    space = zeros.Space.of_slice(program, PLANE)
    judge = zeros.Judge(space, Bounds(program, space.embed(xy)), 1)
    stage = program.cuts[0]
    table = np.tile([-1.0, 3.0, 1e-30, -2.0, 5.0], (4, 1))
    mesh = values(table)
    mesh.live = {stage.inputs[0]: mesh.live["z"]}
    mesh.xy = xy
    zeros.clear(mesh, stage, every_function(stage, torch.Size([5])), judge)
    size, square = judge.bounds.held[stage.output]
    assert size.tolist() == [[0.0, 3.0, 1e-30, 0.0, 5.0]]
    assert ((square > 0) == torch.tensor([False, True, True, False, True])).all()
    assert mesh.values(stage.inputs[0])[0].tolist() == [-1.0, 3.0, 0.0, -2.0, 5.0]


def test_known_zeros_are_stored_at_their_own_stage():
    mesh = values(np.ones((6, 3)))
    mesh.pins = np.array([[4, 1, 2, -1], [5, 0, 0, -1], [4, 3, 0, -1]])
    functions = SimpleNamespace(column=np.array([2, 1, 0]), offset=np.array([7.0, 8.0, 9.0]))
    zeros.pin(mesh, 4, functions, "z")
    expected = np.ones((6, 3))
    expected[1, 0], expected[3, 2] = 9.0, 7.0
    assert np.array_equal(mesh.values("z"), expected)
    held, none = torch.ones(3, 6).T, np.zeros(0, np.int64)
    mesh.live["z"] = held  # not laid out to be written to: a copy for nothing
    zeros.store(mesh, "z", none, none, functions.column, functions.offset)
    assert mesh.live["z"] is held


@pytest.mark.parametrize("outputs", [1, 3])
def test_what_counts_as_zero_of_outputs(outputs):
    """One output is compared with a constant 0, that comes first and is exact."""
    p = partition(network(outputs), PLANE)
    first = [0.0] * (outputs == 1)
    table = zeros.outputs_at(p)
    assert table.error.tolist() == [[*first, *p.arrays["output_zero"]]]
    assert len(table.row) == len(p.vertices)
    rows = np.array([2, 0])
    own = zeros.Space.of_slice(p.program, p.plane).zero(5, p.vertices[rows])
    assert table.exact is not None
    assert np.array_equal(table.exact(rows), np.concatenate([np.tile(first, (2, 1)), own], 1))
    old = {k: v for k, v in p.arrays.items() if k != "output_zero"}
    old["outputs"] = np.concatenate([-2 * np.abs(p.outputs).max(0, keepdims=True), p.outputs])
    q: Any = SimpleNamespace(
        arrays=old, outputs=old["outputs"], vertices=p.vertices, program=None, plane=p.plane
    )
    table = zeros.outputs_at(q)
    assert table.exact is None
    size = 2 * np.abs(p.outputs).max(0)
    assert np.allclose(table.error, [[*first, *(ROUNDING * EPS * size)]], rtol=1e-12, atol=0)


def test_equal_entries_have_the_value_of_the_one_that_is_known_best():
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    mesh = Mesh.of_polygon(square)
    mesh.live["input"] = torch.tensor([[1.0, 1.25, 7.0]] * 4, dtype=torch.float64)
    stage = Max(
        output="out", inputs=("input",), site="max", index=torch.tensor([[0, 1, 2]]), shape=(1,)
    )
    used, entry = np.arange(3), np.array([[0, 1, 2]])
    sizes = zeros.Table(np.ones(3), 4, lambda rows: np.tile([0.5, 0.1, 0.2], (len(rows), 1)))
    sizes.settle(np.array([2]))
    masks = np.array([[0b100], [0b011], [0b011], [0b100]], np.uint64)
    cut_maxima.equal(mesh, stage, used, entry, sizes, masks)
    found = mesh.live["input"].tolist()
    assert found == [[1, 1.25, 7], [1, 1.25, 7], [1.25, 1.25, 7], [1, 1.25, 7]]

"""The graph of regions and the topology of decision regions, against a fine grid of points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

import isogon as ig
from isogon.errors import DependencyError, IncompleteWarning, OptionError
from isogon.measures.partition import adjacency as module
from isogon.measures.partition.decisions import along

PLANE = ig.Slice.box2d((-3, -3), (3, 3))


def net(outputs, seed, width=10):
    torch.manual_seed(seed)
    layers = (nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    model = nn.Sequential(*layers, nn.Linear(width, outputs)).double()
    with torch.no_grad():  # as much of every class as there can be
        z = model(6 * torch.rand(500, 2, dtype=torch.float64) - 3)
        model[-1].weight *= 4
        model[-1].bias -= 4 * z.mean(0) - 3 * model[-1].bias
    return model


def by_grid(model, outputs, n):
    """b0 and b1 of every class, from labels on an n x n grid; areas of one pixel are no areas."""
    axis = torch.linspace(-3, 3, n + 1, dtype=torch.float64)[:-1] + 3 / n
    x = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        z = model(x)
    label = ((z[:, 0] > 0).long() if outputs == 1 else z.argmax(1)).reshape(n, n).numpy()
    found = {}
    for c in np.unique(label):
        _, b0 = ndimage.label(label == c, np.ones((3, 3)))
        rest, count = ndimage.label(label != c)
        rim = np.unique(np.concatenate([rest[0], rest[-1], rest[:, 0], rest[:, -1]]))
        found[int(c)] = (b0, count - len(rim[rim > 0]))
    return found


@pytest.mark.parametrize("outputs", [1, 2, 3, 6])
def test_pieces_and_holes_are_those_of_a_fine_grid(outputs):
    compared = holes = pieces = 0
    for seed in range(12):
        model = net(outputs, seed)
        coarse, fine = (by_grid(model, outputs, n) for n in (400, 900))
        if coarse != fine:
            continue  # something smaller than the grid
        p = ig.partition(model, PLANE)
        table = p.topology().set_index("class")
        found = {int(c): (int(r.b0), int(r.b1)) for c, r in table.iterrows()}
        assert found == fine, f"seed {seed}"
        assert table["area"].sum() == pytest.approx(36, rel=1e-9)
        assert (table["euler"] == table["b0"] - table["b1"]).all()
        compared += 1
        holes += table["b1"].sum()
        pieces += (table["b0"] > 1).sum()
    assert compared >= 6
    assert pieces + holes > 0, "the trial could not fail"


def ring():
    """max(|x|, |y|) in [1, 2]: class 1 is a square ring around class 0, which has two parts."""
    first = nn.Linear(2, 4).double()
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]]))
        first.bias.zero_()

    class Ring(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = first

        def forward(self, x):
            r = self.first(x).max(1, keepdim=True).values
            return 0.5 - (r - 1.5).abs()

    return Ring()


def test_a_ring_has_a_hole():
    p = ig.partition(ring(), PLANE)
    table = p.topology().set_index("class")
    assert table.loc[1, ["b0", "b1", "euler"]].tolist() == [1, 1, 0]
    assert table.loc[0, ["b0", "b1", "euler"]].tolist() == [2, 1, 1]
    assert table.loc[1, "area"] == pytest.approx(16 - 4)
    assert not table.loc[1, "reaches_border"]
    assert table.loc[0, "reaches_border"]


def test_the_graph_is_that_of_the_mesh():
    p = ig.partition(net(3, 0), PLANE)
    graph = p.graph()
    inner = (p.edge_faces >= 0).all(1)
    assert len(graph.regions) == inner.sum()
    for k in range(0, len(graph.regions), 7):
        a, b = graph.regions[k]
        middle = p.vertices[p.edges[graph.edge[k]]].mean(0)
        step = np.diff(p.vertices[p.edges[graph.edge[k]]], axis=0)[0][::-1] * (1, -1)
        beside = middle + np.array([[1e-7], [-1e-7]]) * step
        assert set(p.locate(beside).tolist()) == {a, b}
        assert graph.length[k] == pytest.approx(np.linalg.norm(step))
        one, other = (p.pattern(i)[p.sites[graph.site[k]]] for i in (a, b))
        assert one[graph.unit[k]] != other[graph.unit[k]]
    matrix = graph.to_sparse()
    assert abs(matrix - matrix.T).max() == 0
    closed = [np.vstack([q, q[:1]]) for q in (p.polygon(i) for i in range(len(p)))]
    perimeter = [np.linalg.norm(np.diff(q, axis=0), axis=1).sum() for q in closed]
    outer = np.flatnonzero(~inner)
    length = np.linalg.norm(np.diff(p.vertices[p.edges[outer]], axis=1)[:, 0], axis=1)
    rim = np.bincount(p.edge_faces[outer].max(1), length, minlength=len(p))
    np.testing.assert_allclose(matrix.sum(1) + rim, perimeter, rtol=1e-9)
    assert len(graph.to_frame()) == len(graph.regions)


def test_networkx_where_it_is_installed(monkeypatch):
    p = ig.partition(net(2, 1), PLANE)
    graph = pytest.importorskip("networkx") and p.graph().to_networkx()
    assert graph.number_of_nodes() == len(p)
    assert graph.number_of_edges() == len(p.graph().regions)
    monkeypatch.setitem(__import__("sys").modules, "networkx", None)
    with pytest.raises(DependencyError, match="networkx is not installed"):
        p.graph().to_networkx()


def test_one_that_stopped_early_has_no_topology():
    with pytest.warns(IncompleteWarning):
        p = ig.partition(net(3, 0), PLANE, max_regions=20)
    with pytest.raises(OptionError, match="stopped early"):
        p.topology()
    assert module.adjacency(p).count == len(p)


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2, 1]])
def test_along_an_edge_a_huge_class_is_followed_by_the_one_that_is_highest_there(order):
    outputs = np.array([[1e20, 2.0, 1.0], [-6e20, -1.0, 1.1]])[:, order]  # all meet it at 1/7
    assert [order[c] for _, _, c in along(*outputs)] == [0, 1, 2]


class Given(nn.Module):
    """A function of two coordinates."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x[:, :1], x[:, 1:], torch.relu)


TIES = {  # class: (area, b0, b1)
    "|v|, positive on both sides of a line": (
        lambda u, v, r: r(v) + r(-v) + 0 * r(u),
        {1: (4, 1, 0)},
    ),
    "a pyramid": (
        lambda u, v, r: 1 - torch.maximum(r(u) + r(-u), r(v) + r(-v)),
        {1: (4, 1, 0)},
    ),
    "a class that is the largest on a line alone": (
        lambda u, v, r: torch.cat([0 * v, -v + 0 * r(u), v], 1),
        {1: (2, 1, 0), 2: (2, 1, 0)},
    ),
    "on an edge alone": (
        lambda u, v, r: torch.cat([-r(v) - r(-v), -v - r(v) + 0 * r(u), v + r(v)], 1),
        {1: (2, 1, 0), 2: (2, 1, 0)},
    ),
    "two that tie on a part of an edge": (
        lambda u, v, r: torch.cat([v + r(v), -v - r(v), u], 1),
        {0: (1.75, 1, 0), 1: (1.5, 1, 0), 2: (0.75, 1, 0)},
    ),
    "two that tie on an area": (
        lambda u, v, r: torch.cat([r(u) - v / 2, 0 * u - v / 2, v], 1),
        {0: (2 + 1 / 3, 1, 0), 2: (2 - 1 / 3, 1, 0)},
    ),
}


@pytest.mark.parametrize("name", TIES)
def test_what_ties_counts_once_and_what_has_no_area_does_not(name):
    function, expected = TIES[name]
    p = ig.partition(Given(function), ig.Slice.box2d((-1, -1), (1, 1)))
    table = p.topology().set_index("class")
    found = {int(c): (r.area, int(r.b0), int(r.b1)) for c, r in table.iterrows()}
    assert found.keys() == expected.keys()
    for c, values in expected.items():
        assert found[c] == pytest.approx(values)


def test_of_outputs_that_are_one_but_for_rounding_the_first_counts():
    """0.3 h and 0.1 h + 0.2 h, which rounding makes larger."""

    def function(u, v, r):
        h = r(u) + 1
        return torch.cat([0.3 * h, 0.1 * h + 0.2 * h, 0.5 * (v + 0.7)], 1)

    p = ig.partition(Given(function), ig.Slice.box2d((-1, -1), (1, 1)))
    assert (p.outputs[:, 1] > p.outputs[:, 0]).any()
    assert 1 not in p.label
    assert set(p.boundary_classes.ravel()) == {0, 2}
    assert p.topology()["class"].tolist() == [0, 2]

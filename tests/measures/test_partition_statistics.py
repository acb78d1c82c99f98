"""Statistics of partitions against numbers worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import isogon as ig
from isogon.cpwl.program import mlp
from isogon.errors import OptionError
from isogon.measures.partition.statistics import corner_ratio, region_table


def lines(weights, biases, low=(-1.0, -1.0), high=(1.0, 1.0)):
    """The partition by the lines w . x + b = 0 (the output: the sum of the two coordinates)."""
    w = torch.tensor([*weights, (1.0, 0.0), (0.0, 1.0)], dtype=torch.float64)
    b = torch.tensor([*biases, 10.0, 10.0], dtype=torch.float64)  # always on: they pass x, y on
    top = torch.tensor([[0.0] * len(biases) + [1.0, 1.0]], dtype=torch.float64)
    program = mlp([w, top], [b, torch.tensor([-20.0], dtype=torch.float64)])
    return ig.partition(program, ig.Slice.box2d(low, high))


def test_two_rectangles():
    p = lines([(1.0, 0.0)], [-0.5])  # x = 1/2 cuts the square into 1.5 x 2 and 0.5 x 2
    table = region_table(p).sort_values("area")
    assert table["area"].tolist() == pytest.approx([1, 3])
    assert table["vertices"].tolist() == [4, 4]
    assert table["perimeter"].tolist() == pytest.approx([5, 7])
    # second moments of a x b: a^2 / 12, b^2 / 12
    ratio = [0.5 / 2, 1.5 / 2]
    assert table["eccentricity"].tolist() == pytest.approx([np.sqrt(1 - r * r) for r in ratio])
    # diagonal over shorter side
    assert table["corner_ratio"].tolist() == pytest.approx(
        [np.hypot(0.5, 2) / 0.5, np.hypot(1.5, 2) / 1.5]
    )
    # centroids at (0.75, 0) and (-0.25, 0), corners of the square at distance sqrt(2)
    assert table["centrality"].tolist() == pytest.approx([0.75 / 2**0.5, 0.25 / 2**0.5])
    s = p.statistics().iloc[0]
    assert (s["count"], s["density"], s["share_of_area"]) == (2, 0.5, 1)
    assert (s["area_mean"], s["area_sd"], s["area_median"]) == pytest.approx((2, 1, 2))
    assert s["boundary_length"] == pytest.approx(8**0.5)  # x + y = 0
    # corners: 4 of the square and (1/2, +-1), which both regions have; mean of the six vertices
    corners = np.array([(-1, -1), (-1, 1), (0.5, -1), (0.5, 1), (1, -1), (1, 1)])
    mean = corners.mean(0)
    every = np.linalg.norm(corners[[0, 1, 2, 3, 2, 3, 4, 5]] - mean, axis=1)
    assert s["corner_spread_mean"] == pytest.approx(every.mean())
    assert s["corner_spread_sd"] == pytest.approx(every.std())


def test_near_and_far():
    p = lines([(1.0, 0.0), (0.0, 1.0)], [0.0, 0.0])  # four quadrants
    s = p.statistics(near=torch.tensor([[0.5, 0.5]]), radius=0.1).set_index("regions")
    assert s["count"].to_dict() == {"all": 4, "near": 1, "far": 3}
    assert s["share_of_area"].to_dict() == {"all": 1, "near": 0.25, "far": 0.75}
    assert s["density"].tolist() == [1, 1, 1]
    # x + y = 0 runs through the second and the fourth quadrant only
    assert s["boundary_length"].tolist() == pytest.approx([8**0.5, 0, 8**0.5])
    # a region that holds a point is near it, however far its centroid
    s = p.statistics(near=torch.tensor([[0.9, 0.9], [-0.9, 0.9]]), radius=0.01)
    assert s.set_index("regions").loc["near", "count"] == 2
    s = p.statistics(near=torch.tensor([[0.5, 0.5]]), radius=1.0).set_index("regions")
    assert s.loc["near", "count"] == 3
    with pytest.raises(OptionError, match="radius"):
        p.statistics(near=torch.zeros(1, 2), radius=0.0)


def test_boundary_along_an_edge_is_counted_once():
    w, top = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[1.0], [0.0]]).double()
    # relu(x) against 1e-300: their boundary is the edge x = 0 between the two regions
    program = mlp([w, torch.tensor([[1.0], [-1.0]]).double() * top], [torch.zeros(1).double()] * 2)
    p = ig.partition(program, ig.Slice.box2d((-1, -1), (1, 1)))
    s = p.statistics(near=torch.tensor([[0.5, 0.0]]), radius=0.1).set_index("regions")
    length = s["boundary_length"]
    assert length["near"] + length["far"] == pytest.approx(length["all"])


def test_shapes_that_are_known():
    square = lines([(1.0, 0.0)], [5.0])
    assert region_table(square)["eccentricity"][0] == pytest.approx(0, abs=1e-7)
    assert corner_ratio(square)[0] == pytest.approx(2**0.5)
    triangles = lines([(1.0, -1.0)], [0.0])  # the diagonal: legs 2, hypotenuse sqrt(8)
    table = region_table(triangles)
    # moments along and across the hypotenuse: base^2 / 24, height^2 / 18
    ratio = (2 / 18) / (8 / 24)
    assert table["eccentricity"].tolist() == pytest.approx([np.sqrt(1 - ratio)] * 2)
    assert table["corner_ratio"].tolist() == pytest.approx([2**0.5] * 2)


def test_against_the_loops():
    g = torch.Generator().manual_seed(4)
    w = torch.randn(12, 2, generator=g).tolist()
    p = lines(w, (0.4 * torch.randn(12, generator=g)).tolist())
    table = region_table(p)
    rng = np.random.default_rng(0)
    for i in range(0, len(p), 5):
        corners = p.polygon(i)
        pairs = [np.linalg.norm(a - b) for a, b in itertools.combinations(corners, 2)]
        assert table["corner_ratio"][i] == pytest.approx(max(pairs) / min(pairs))
        # moments by sampling the polygon's triangles
        fan = [(corners[0], a, b) for a, b in itertools.pairwise(corners[1:])]
        area = [abs(np.linalg.det(np.stack([b - a, c - a]))) for a, b, c in fan]
        which = rng.choice(len(fan), 40_000, p=np.array(area) / sum(area))
        u = np.sort(rng.random((40_000, 2)), axis=1)
        bary = np.stack([u[:, 0], u[:, 1] - u[:, 0], 1 - u[:, 1]], 1)
        points = np.einsum("nk,nkc->nc", bary, np.array(fan)[which])
        low, high = np.linalg.eigvalsh(np.cov(points.T))
        assert 1 - table["eccentricity"][i] ** 2 == pytest.approx(low / high, rel=0.1)

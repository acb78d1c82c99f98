"""Partitions against rational arithmetic; kernels against plain loops."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.cpwl.program import mlp
from isogon.measures.partition.kernels import edges as ek
from isogon.measures.partition.measure import partition
from isogon.measures.partition.slices import Slice

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
import itertools

import slow_partition as slow

CORNERS = [[-1, -1], [1, -1], [1, 1], [-1, 1]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    widths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    grain=st.sampled_from([1, 2, 8]),
    slope=st.sampled_from([0.0, 0.25]),
)
def test_combinatorics_equal_rational_arithmetic(seed, widths, grain, slope):
    """Small integer weights: lines through corners, parallel, equal, concurrent, dead units."""
    rng = np.random.default_rng(seed)
    sizes = [2, *widths, 1]
    shapes = [(o, i) for i, o in itertools.pairwise(sizes)]
    weights = [rng.integers(-2 * grain, 2 * grain + 1, shape) / grain for shape in shapes]
    biases = [rng.integers(-grain, grain + 1, o) / grain for o in sizes[1:]]
    exact = slow.rational(weights, biases, CORNERS, Fraction(slope))
    program = mlp(
        [torch.from_numpy(w) for w in weights], [torch.from_numpy(b) for b in biases], slope=slope
    )
    p = partition(program, Slice.polygon(np.zeros(2), np.eye(2), CORNERS))
    points = {point for polygon in exact for point in polygon}
    assert len(p) == len(exact)
    assert len(p.vertices) == len(points)
    assert len(p.edges) == len(points) + len(exact) - 1
    areas = sorted(float(slow.shoelace(q)) for q in exact)
    assert np.sort(p.area) == pytest.approx(areas, abs=1e-14)
    certificate = p.certify(200)
    assert certificate.passed, str(certificate)


def test_masks_and_crossings_equal_plain_loops():
    rng = np.random.default_rng(0)
    z = rng.integers(-2, 3, (30, 70)).astype(float)
    column, offset = np.arange(70), rng.integers(-1, 2, 70).astype(float)
    up, down = np.empty((30, 2), np.uint64), np.empty((30, 2), np.uint64)
    ek.sign_masks(z, column, offset, 0.5, up, down)
    twin = slow.sign_masks(z, column, offset, 0.5)
    assert np.array_equal(up, twin[0])
    assert np.array_equal(down, twin[1])
    ends = rng.integers(0, 30, (40, 2)).astype(np.int32)
    first = np.empty(41, np.int64)
    ek.edge_crossings(ends, up, down, first, np.empty(0, np.int64))
    found = np.empty(first[-1], np.int64)
    ek.edge_crossings(ends, up, down, first, found)
    expected = slow.crossings(ends, up, down, 70)
    assert [list(found[a:b]) for a, b in itertools.pairwise(first)] == expected
    offsets, loops = np.arange(0, 31, 5), rng.permutation(30).astype(np.int32)
    first = np.empty(7, np.int64)
    ek.face_functions(offsets, loops, up, down, first, np.empty(0, np.int64))
    found = np.empty(first[-1], np.int64)
    ek.face_functions(offsets, loops, up, down, first, found)
    expected = slow.crossings(loops.reshape(6, 5), up, down, 70)
    assert [list(found[a:b]) for a, b in itertools.pairwise(first)] == expected

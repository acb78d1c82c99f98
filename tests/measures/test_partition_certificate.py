"""The certificate: a missing cut is never hidden, whatever its tolerances; how many points."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from isogon.cpwl.program import Program, dense, mlp
from isogon.cpwl.stages import Kink, Max
from isogon.measures.partition.certificate import certify
from isogon.measures.partition.certificate.contradictions import KinkCheck, MaxCheck
from isogon.measures.partition.measure import partition
from isogon.measures.partition.patterns import SitePattern
from isogon.measures.partition.slices import Slice

SQUARE = Slice.box2d([-1, -1], [1, 1])


def random_net(seed):
    """Two or three layers of 3 to 10 units, with scales over six orders of magnitude."""
    g = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    widths = [2, *rng.integers(3, 11, rng.integers(1, 3)).tolist(), 3]
    scale = 10.0 ** rng.uniform(-3, 3, len(widths))
    pairs = list(enumerate(itertools.pairwise(widths)))
    w = [scale[k] * torch.randn(o, i, generator=g, dtype=torch.float64) for k, (i, o) in pairs]
    b = [0.3 * scale[k] * torch.randn(o, generator=g, dtype=torch.float64) for k, (_, o) in pairs]
    for k in range(1, len(b)):  # of the size of what the layer sees
        b[k] *= float(np.prod(scale[:k]))
    return mlp(w, b), rng


def uncut(program, position, unit):
    """The network with one unit's kink moved out of reach: the identity on that unit."""
    stage = program.cuts[position]
    units = program.units(stage)
    knot = torch.zeros(1, units, dtype=torch.float64)
    reach = 4 * max(float(v.abs().max()) for v in values_at_corners(program, position))
    knot[0, unit] = -reach
    slopes = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, units)
    moved = dataclasses.replace(stage, knots=knot, slopes=slopes, value=knot[0], apply=None)
    return Program([moved if s is stage else s for s in program.stages], program.shape)


def values_at_corners(program, position):
    points = torch.cartesian_prod(*(torch.linspace(-1, 1, 41, dtype=torch.float64),) * 2)
    yield program.preactivations(points)[program.sites[position]]


def merged_across(p, edge):
    """The partition without one edge: its two regions are one, of the left one's pattern."""
    a, b = p.edge_faces[edge]
    rings = []
    for i in (a, b):
        part = slice(p.face_offsets[i], p.face_offsets[i + 1])
        edges, vertices = p.face_edges[part], p.face_vertices[part]
        at = int(np.nonzero(edges == edge)[0][0]) + 1
        rings.append((np.roll(edges, -at)[:-1], np.roll(vertices, -at)[:-1]))
    loops = []
    for i in range(len(p)):
        part = slice(p.face_offsets[i], p.face_offsets[i + 1])
        own = p.face_edges[part], p.face_vertices[part]
        if i == a:
            own = tuple(np.concatenate(pair) for pair in zip(*rings, strict=True))
        if i != b:
            loops.append(own)
    keep, rest = np.arange(len(p)) != b, np.arange(len(p.edges)) != edge
    edges = np.concatenate([e for e, _ in loops])
    last = f"site{len(p.sites) - 1}"
    arrays = {
        **p.arrays,
        "face_offsets": np.concatenate([[0], np.cumsum([len(e) for e, _ in loops])]),
        "face_edges": np.where(edges > edge, edges - 1, edges),
        "face_vertices": np.concatenate([v for _, v in loops]),
        "edges": p.edges[rest],
        "edge_site": p.edge_site[rest],
        "edge_unit": p.edge_unit[rest],
        f"{last}_bits": p.arrays[f"{last}_bits"][keep],
        f"{last}_parent": p.arrays[f"{last}_parent"][keep],
    }
    found = type(p)("partition", arrays=arrays, meta={**p.meta})
    found.program = p.program
    return found


@pytest.mark.parametrize("seed", range(30))
def test_a_missing_cut_is_never_hidden(seed):
    """One edge removed; then all cuts of one unit: of a random site and unit each time."""
    program, rng = random_net(seed)
    p = partition(program, SQUARE)
    certificate = p.certify(50)
    assert certificate.passed, str(certificate)
    inner = np.nonzero(p.edge_site >= 0)[0]
    for edge in rng.choice(inner, min(3, len(inner)), replace=False):
        certificate = merged_across(p, edge).certify(50)
        assert not certificate["complete"].passed, (edge, str(certificate))
    edge = rng.choice(inner)
    q = partition(uncut(program, int(p.edge_site[edge]), int(p.edge_unit[edge])), SQUARE)
    q.program = program
    assert not q.certify(50)["complete"].passed


def test_one_sign_that_is_wrong_is_found_at_any_scale():
    """The flipped bit of any region and unit, the smallest region's included."""
    program, rng = random_net(3)
    p = partition(program, SQUARE)
    for site in range(len(p.sites)):
        bits = p.arrays[f"site{site}_bits"]
        for _ in range(5):
            face, f = rng.integers(len(bits)), rng.integers(len(p.patterns.sites[site].unit))
            wrong = bits.copy()
            wrong[face, f // 64] ^= np.uint64(1 << (int(f) % 64))
            q = type(p)("partition", arrays={**p.arrays, f"site{site}_bits": wrong}, meta=p.meta)
            q.program = program
            certificate = q.certify(10)
            assert not certificate["complete"].passed
            # in the middle of that region, whether or not one of the ten points is in it
            assert certificate["patterns"].value >= 1


def test_units_that_vary_nowhere_are_checked_too():
    program, _ = random_net(4)
    p = partition(program, Slice.box2d([0.5, 0.5], [0.51, 0.51]))
    fixed = [
        (i, u) for i, s in enumerate(p.patterns.sites) for u in range(len(s.base))
        if u not in s.unit
    ]  # fmt: skip
    assert fixed
    assert p.certify(50).passed
    for site, unit in fixed:
        base = p.arrays[f"site{site}_base"].copy()
        base[unit] ^= 1
        q = type(p)("partition", arrays={**p.arrays, f"site{site}_base": base}, meta=p.meta)
        q.program = program
        assert not q.certify(50)["complete"].passed


def test_values_that_are_not_finite_do_not_pass():
    program, _ = random_net(5)
    p = partition(program, SQUARE)
    last = program.stages[-1]
    wide = program.shapes[last.inputs[0]][0]
    broken = dense(last.output, last.inputs[0], torch.full((3, wide), torch.nan), None)
    p.program = Program([*program.stages[:-1], broken], program.shape)
    certificate = p.certify(20)
    failed = {c.name for c in certificate if not c.passed}
    assert {"complete", "outputs", "neighbours"} <= failed


def pieces_off(stage, z, piece, shape):
    """How far values lie outside the interval of their piece, knot by knot."""
    off = np.zeros_like(z)
    for k, knot in enumerate(stage.knots):
        d = z - knot.expand(shape).reshape(-1).numpy()
        off = np.maximum(off, np.where(piece > k, -d, d))
    return off


@pytest.mark.parametrize("seed", range(10))
def test_contradictions_of_kinks_equal_intervals(seed):
    """Three knots per unit, of which each varies or not: words of bits against intervals."""
    rng = np.random.default_rng(seed)
    units, points, faces = int(rng.integers(1, 90)), 7, 5
    knots = torch.from_numpy(
        np.sort(rng.integers(-3, 4, (3, units)) + 0.25 * rng.random(3)[:, None], 0)
    )
    kink = Kink(
        output="h", inputs=("z",), site="h", knots=knots, slopes=torch.arange(4.0).double()
    )  # fmt: skip
    base = rng.integers(0, 3, units)
    count = rng.integers(0, 4 - base)  # so many further knots vary
    piece = base + rng.integers(0, count + 1, (faces, units))
    functions = [
        (k, u) for k in range(3) for u in range(units) if base[u] <= k < base[u] + count[u]
    ]
    unit = np.array([u for _, u in functions], np.int64)
    flags = np.array([[piece[i, u] > k for k, u in functions] for i in range(faces)], bool)
    flags = flags.reshape(faces, -1)
    words = -(-len(functions) // 64)
    padded = np.zeros((faces, 64 * words), bool)
    padded[:, : len(functions)] = flags
    bits = np.packbits(padded, axis=1, bitorder="little").view(np.uint64).reshape(faces, words)
    pattern = SitePattern("h", "kink", base.astype(np.int16), unit, bits, np.zeros(faces, int), 0.0)
    z = rng.integers(-4, 5, (points, units)) + 0.0
    at, face = rng.integers(0, points, 20), rng.integers(0, faces, 20)
    at[:points] = range(points)
    found = KinkCheck(kink, pattern, (units,)).contradictions(z, at, face)
    off = pieces_off(kink, z[at], piece[face], (units,))
    worst, seen = off.max(1), np.zeros(len(at))
    np.maximum.at(seen, found.row, found.off)
    per_point = np.zeros(points)  # a fixed knot counts once per point, at its first pair
    np.maximum.at(per_point, at, worst)
    mine = np.zeros(points)
    np.maximum.at(mine, at, seen)
    assert np.array_equal(mine, per_point)


@pytest.mark.parametrize("seed", range(10))
def test_contradictions_of_maxima_equal_differences(seed):
    rng = np.random.default_rng(seed)
    points, faces, groups, size = 6, 4, 5, 3
    values = rng.integers(0, 4, (points, groups, size)).astype(float)
    unit = np.array([1, 3])
    base = np.array([1, 0, 6, 0, 4], np.uint64)
    bits = rng.integers(0, 8, (faces, 2)).astype(np.uint64)
    pattern = SitePattern("m", "max", base, unit, bits, np.zeros(faces, int), 0.0)
    at, face = np.arange(points), rng.integers(0, faces, points)
    found = MaxCheck(pattern).contradictions(values, at, face)
    seen = np.zeros(points)
    np.maximum.at(seen, found.row, found.off)
    for n in range(points):
        worst = 0.0
        for g in range(groups):
            word = int(bits[face[n], list(unit).index(g)]) if g in unit else int(base[g])
            own = values[n, g]
            gaps = [own.max() - own[k] for k in range(size) if word >> k & 1]
            worst = max([worst, *gaps]) if gaps else np.inf
        assert seen[n] == worst


def test_points_follow_the_cost_of_the_network():
    program, _ = random_net(6)
    p = partition(program, SQUARE)
    assert certify.affordable(p) == 100_000
    assert p.certify().facts["points"] == 100_000
    assert p.certify(123).facts["points"] == 123
    wide = Program(list(program.stages), program.shape)
    wide.shapes = dict.fromkeys(program.shapes, (1 << 20,))
    p.program = wide
    assert certify.affordable(p) == 2_000


def test_maximum_whose_winner_is_flipped():
    w = torch.tensor([[1.0, 0], [0, 1], [-1, -1]], dtype=torch.float64)
    stage = Max(output="m", inputs=("z",), site="m", index=torch.arange(3)[None], shape=(1,))
    p = partition(Program([dense("z", "input", w, None), stage], (2,)), SQUARE)
    assert p.certify(500).passed
    for wrong in (1, 2, 3, 0):
        bits = p.arrays["site0_bits"].copy()
        held = bits[0, 0]
        bits[0, 0] = wrong
        q = type(p)("partition", arrays={**p.arrays, "site0_bits": bits}, meta=p.meta)
        q.program = p.program
        assert q.certify(500)["complete"].passed == (held == wrong)

"""Every kernel, compiled and interpreted, against its literal twin, on meshes and values full of
coincidences."""

from __future__ import annotations

import functools
import importlib
import itertools
import pkgutil
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon import jit as loops
from isogon.cpwl.program import mlp
from isogon.measures import partition as package
from isogon.measures.partition.kernels import boundary as bd
from isogon.measures.partition.kernels import chords as ch
from isogon.measures.partition.kernels import contenders as ct
from isogon.measures.partition.kernels import edges as ek
from isogon.measures.partition.kernels import envelope as ev
from isogon.measures.partition.kernels import geometry as geo
from isogon.measures.partition.kernels import jit
from isogon.measures.partition.kernels import sides as sd
from isogon.measures.partition.measure import partition
from isogon.measures.partition.mesh import cutting as cut
from isogon.measures.partition.mesh import mesh as ms
from isogon.measures.partition.mesh import zeros
from isogon.measures.partition.slices import Slice
from isogon.measures.partition.tiles import seams

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
import slow_kernels as slow
import slow_partition

SEEDS = range(8)
INDEX = np.int32
tested: set[str] = set()


@pytest.fixture(autouse=True, params=["compiled", "interpreted"])
def how(request, monkeypatch):
    """Both ways in which kernels run: small calls of a fresh process are interpreted."""
    if request.param == "compiled":
        monkeypatch.setattr(loops, "PATIENCE", -1.0)
        return
    for name, module in list(sys.modules.items()):
        if name == __name__ or name.startswith("isogon.measures"):
            for key, value in list(vars(module).items()):
                if any(value is kernel for kernel in jit.kernels):
                    run = functools.partial(
                        loops._timed, loops.interpreted(value), loops.Interpreted()
                    )
                    monkeypatch.setattr(module, key, run)


def twin(*names):
    """Marks the test of some kernels, over several seeds."""
    tested.update(names)
    return pytest.mark.parametrize("seed", SEEDS)


def test_every_kernel_has_a_twin():
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
    own = {k.__name__ for k in jit.kernels if k.__module__.startswith(package.__name__)}
    assert own == tested


def integer_lines(rng, count):
    """Lines a x + b y + c with small integer coefficients: parallel, equal, concurrent ones."""
    found = rng.integers(-2, 3, (count, 3))
    found[(found[:, :2] == 0).all(1), 0] = 1
    return found


class Lattice:
    """The mesh of an arrangement of such lines on the square, with exact vertices."""

    def __init__(self, seed, lines=6):
        self.rng = np.random.default_rng(seed)
        w = integer_lines(self.rng, lines).astype(float)
        program = mlp(
            [torch.from_numpy(w[:, :2].copy()), torch.ones(1, lines)],
            [torch.from_numpy(w[:, 2].copy()), None],
        )
        p = partition(program, Slice.box2d([-2, -2], [2, 2]))
        self.xy, self.ends, self.sides = p.vertices, p.edges, p.edge_faces
        self.offsets, self.loops, self.borders = p.face_offsets, p.face_vertices, p.face_edges
        self.rings = slow.rings(self.offsets, self.loops)
        self.points = [tuple(Fraction(v).limit_denominator(1000) for v in x) for x in self.xy]
        self.polygons = [[self.points[v] for v in ring] for ring in self.rings]

    def affine(self, count):
        """Affine functions with small integer coefficients and their values at the vertices."""
        f = self.rng.integers(-2, 3, (count, 3))
        return f.tolist(), self.xy @ f[:, :2].T + f[:, 2]

    def signs(self, count):
        z = self.rng.integers(-1, 2, (len(self.xy), count)).astype(float)
        none = np.zeros(count)
        up, down = (np.empty((len(z), -(-count // 64)), np.uint64) for _ in range(2))
        ek.sign_masks(z, np.arange(count), none, 0.5, up, down)
        return z, up, down


def unpacked(words, count):
    raw = np.ascontiguousarray(words).view(np.uint8)
    return np.unpackbits(raw, axis=-1, bitorder="little")[..., :count].astype(bool)


def counted(kernel, *arguments, columns):
    """Run a kernel that counts with an empty array, then fills."""
    empty = [np.empty((0, *c), d) for c, d in columns]
    count = kernel(*arguments, *empty)
    full = [np.empty((count, *c), d) for c, d in columns]
    kernel(*arguments, *full)
    return full


@twin("append_between", "interpolated")
def test_interpolated_rows(seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-4, 5, (9, 3)).astype(float)
    source, ratio = rng.integers(0, 5, (4, 2)), rng.integers(0, 5, 4) / 4
    expected = [(1 - t) * rows[p] + t * rows[q] for (p, q), t in zip(source, ratio, strict=True)]
    alone, grown = np.empty((4, 3)), rows.copy()
    ek.interpolated(rows, source, ratio, alone)
    ek.append_between(grown, source, ratio, 5)
    assert np.array_equal(alone, expected)
    assert np.array_equal(grown, [*rows[:5], *expected])


@twin("close_up")
def test_rows_that_stay(seed):
    rng = np.random.default_rng(seed)
    rows, gone = rng.standard_normal((12, 3)), rng.random(12) < rng.random()
    expected = rows[~gone]
    ek.close_up(rows, gone)
    assert np.array_equal(rows[: len(expected)], expected)


@twin("sign_masks", "either", "edge_crossings", "face_functions")
def test_signs(seed):
    m = Lattice(seed)
    count = int(m.rng.integers(1, 130))
    z, up, down = m.signs(count)
    assert np.array_equal(unpacked(up, count), z > 0.5)
    assert np.array_equal(unpacked(down, count), z < -0.5)
    assert np.array_equal(np.stack([up, down]), slow_partition.sign_masks(z, range(count), 0, 0.5))
    above, below = np.zeros((2, up.shape[1]), np.uint64)
    ek.either(up, down, above, below)
    assert np.array_equal(unpacked(above, count), (z > 0.5).any(0))
    assert np.array_equal(unpacked(below, count), (z < -0.5).any(0))
    groups = (
        (ek.edge_crossings, (m.ends,), m.ends),
        (ek.face_functions, (m.offsets, m.loops), m.rings),
    )
    for kernel, where, members in groups:
        first = np.empty(len(members) + 1, np.int64)
        kernel(*where, up, down, first, np.empty(0, np.int64))
        found = np.empty(first[-1], np.int64)
        kernel(*where, up, down, first, found)
        expected = slow_partition.crossings(members, up, down, count)
        assert slow.rings(first, found) == expected


@twin("face_bits", "both_sides", "contrary")
def test_sides_of_faces_and_of_the_vertices_between_them(seed):
    m = Lattice(seed)
    count = int(m.rng.integers(1, 130))
    z, mask, _ = m.signs(count)
    bits = np.empty((len(m.rings), mask.shape[1]), np.uint64)
    sd.face_bits(m.offsets, m.loops, mask, bits)
    positive = np.array([(z[ring] > 0.5).any(0) for ring in m.rings])
    assert np.array_equal(unpacked(bits, count), positive)
    stopped = np.where(m.rng.random(len(m.rings)) < 0.2, 3, -1)
    up, down = np.empty((2, len(m.xy), mask.shape[1]), np.uint64)
    sd.both_sides(m.offsets, m.loops, stopped, bits, up, down)
    faces = [
        [i for i, ring in enumerate(m.rings) if v in ring and stopped[i] < 0]
        for v in range(len(m.xy))
    ]
    assert np.array_equal(unpacked(up, count), [positive[f].any(0) for f in faces])
    assert np.array_equal(unpacked(down, count), [(~positive[f]).any(0) for f in faces])
    column, offset = m.rng.permutation(count), m.rng.integers(-1, 2, count) / 1.0
    expected = [
        (v, f)
        for v, own in enumerate(faces)
        for f in range(count)
        if any((z[v, column[f]] - offset[f]) * (1 if positive[i, f] else -1) < 0 for i in own)
    ]
    found = np.empty((2, len(expected)), np.int64)
    values = z, column, offset, up, down
    assert sd.contrary(*values, *np.empty((2, 0), np.int64)) == len(expected)
    assert sd.contrary(*values, *found) == len(expected)
    assert list(zip(*found.tolist(), strict=True)) == expected


@twin("cut_edges", "divide_edges", "divide_loops", "edge_sides")
def test_edges_are_cut_once(seed):
    m = Lattice(seed)
    lines, z = m.affine(7)
    tol = 1e-9
    crossing = [[f for f in range(7) if z[a, f] * z[b, f] < -(tol**2)] for a, b in m.ends]
    first = np.concatenate([[0], np.cumsum([len(c) for c in crossing])])
    which = np.array([f for c in crossing for f in c], np.int64)
    source, ratio = np.empty((len(which), 2), np.int64), np.empty(len(which))
    chain = np.empty(len(m.ends) + 1, np.int64)
    column, other, offset = np.arange(7), np.full(7, -1), np.zeros(7)
    room = np.empty(8), np.empty(8, np.int64)
    place, unclear = np.empty(len(which), np.int64), np.ones(len(m.ends), bool)
    error = np.full(len(which), tol)
    made = ek.cut_edges(
        m.ends, z, column, other, offset, error, first, which, source, ratio, chain, place, unclear,
        *room,
    )  # fmt: skip
    assert chain[-1] == made
    assert not unclear.any()  # equal crossings are equal, others far apart
    for e, (a, b) in enumerate(m.ends):  # each function vanishes where it is said to
        for k in range(first[e], first[e + 1]):
            n, f = place[k], which[k]
            assert chain[e] <= n < chain[e + 1]
            assert abs((1 - ratio[n]) * z[a, f] + ratio[n] * z[b, f]) < 1e-12
    along = []  # vertices along each edge
    for e, (a, b) in enumerate(m.ends):
        new = range(chain[e], chain[e + 1])
        assert all(tuple(source[n]) == (a, b) for n in new)
        expected = slow.crossing_ratios(z[a], z[b], crossing[e], tol)
        assert ratio[chain[e] : chain[e + 1]] == pytest.approx(expected, abs=1e-12)
        # exactly: as many points as different zeros between the two ends
        ends = m.points[a], m.points[b]
        exact = {(x := slow.affine(lines[f], ends[0])) / (x - slow.affine(lines[f], ends[1]))
                 for f in crossing[e]}  # fmt: skip
        assert len(new) == len(exact)
        along.append([a, *(len(m.xy) + n for n in new), b])
    size = len(m.loops) + sum(len(along[e]) - 2 for e in m.borders)
    offsets = np.empty_like(m.offsets)
    loops, borders = np.empty(size, INDEX), np.empty(size, INDEX)
    old, count, vertex = m.ends, len(m.ends), len(m.xy)
    ek.divide_loops(
        m.offsets, m.loops, m.borders, old, chain, vertex, count, offsets, loops, borders
    )
    ends = np.concatenate([old, np.zeros((made, 2), INDEX)])
    site = np.concatenate([np.arange(count), np.zeros(made, int)]).astype(INDEX)
    unit = site + 100
    ek.divide_edges(ends, site, unit, chain, vertex, count)
    pieces = {(p, q, e) for e, path in enumerate(along) for p, q in itertools.pairwise(path)}
    assert {(*pair, s) for pair, s in zip(ends.tolist(), site.tolist(), strict=True)} == pieces
    assert np.array_equal(unit, site + 100)
    for i, ring in enumerate(m.rings):
        expected = []
        for v, e in zip(ring, m.borders[m.offsets[i] : m.offsets[i + 1]], strict=True):
            path = along[e] if along[e][0] == v else along[e][::-1]
            expected += path[:-1]
        part = slice(offsets[i], offsets[i + 1])
        assert list(loops[part]) == expected
        for pair, e in zip(slow.neighbours(expected), borders[part], strict=True):
            assert set(ends[e]) == set(pair)
    sides = np.empty((len(ends), 2), INDEX)
    ek.edge_sides(offsets, loops, borders, ends, sides)
    seen = {
        pair: i
        for i, ring in enumerate(slow.rings(offsets, loops))
        for pair in slow.neighbours(ring)
    }
    for (a, b), (left, right) in zip(ends, sides, strict=True):
        assert (left, right) == (seen.get((a, b), -1), seen.get((b, a), -1))


@twin("find_chords", "count_meetings", "keep_chords")
def test_chords(seed):
    """Any values on the loops: also such as no affine function has."""
    m = Lattice(seed)
    count = 12
    z = m.rng.integers(-3, 4, (len(m.xy), count)) / 2
    z[:, 0], z[:, 1] = 0, m.affine(1)[1][:, 0]
    which = np.tile(np.arange(count), len(m.rings))
    first = count * np.arange(len(m.rings) + 1)
    (start, end), above = np.empty((2, len(which)), np.int64), np.empty(len(which), bool)
    column, other, offset = np.arange(count), np.full(count, -1), np.zeros(count)
    other[2:4] = 5
    # what counts as zero: 0.6 at half of the vertices, 0.1 at the others; of a difference the sum
    error, row = np.array([[0.6] * count, [0.1] * count]), m.rng.integers(0, 2, len(z))
    error[:, 5] = 0.0
    arguments = m.offsets, m.loops, first, which, z, column, other, offset, error, row
    ch.find_chords(*arguments, start, end, above, np.empty(np.diff(m.offsets).max()))
    chords, whole = [], np.zeros((len(m.rings), count), bool)
    for i, ring in enumerate(m.rings):
        own = []
        for f in range(count):
            d = [float(z[v, f] - (z[v, 5] if f in (2, 3) else 0)) for v in ring]
            d = [0.0 if abs(x) <= error[row[v], f] else x for v, x in zip(ring, d, strict=True)]
            own.append(slow.chord_ends(d, 0.0))
            k = first[i] + f
            assert (start[k], end[k]) == (own[-1] or (-1, -1))
            if own[-1] is None:
                whole[i, f] = above[k]
                assert above[k] == (max(d) > -min(d))
            else:  # the largest value is on the way, or it is an end of the way
                top = d.index(max(d))
                inside = start[k] < top < end[k]
                assert above[k] == inside or top in (start[k], end[k])
                way = d[start[k] : end[k] + 1] if above[k] else d[end[k] :] + d[: start[k] + 1]
                assert max(way) == max(d)
        chords.append(own)
    functions, side = which.copy(), above.copy()
    bits = np.full((len(m.rings), 1), ~np.uint64(0))
    kept, low, high = np.empty(len(first), np.int64), start.copy(), end.copy()
    total = ch.keep_chords(first, low, high, side, functions, kept, bits)
    has = np.array([[c is not None for c in own] for own in chords])
    assert np.array_equal(unpacked(bits, count), whole | has)
    assert np.array_equal(side[:total], above[has.reshape(-1)])
    expected = [[(f, *c) for f, c in enumerate(own) if c] for own in chords]
    table = list(zip(functions[:total], low[:total], high[:total], strict=True))
    assert slow.rings(kept, table) == expected
    # regions so far: one per face, one per chord and one per crossing
    meetings = np.empty(len(m.rings), np.int64)
    assert ch.count_meetings(kept, low, high, 1 << 40, meetings) == total
    crossings = [
        sum(slow.alternate(c[1:], d[1:]) for c, d in itertools.combinations(own, 2))
        for own in expected
    ]
    assert list(meetings) == crossings
    regions, allowed, limit = 0, 0, int(m.rng.integers(1, 3 * len(m.rings)))
    for own in expected:
        regions += 1
        for k, c in enumerate(own):
            regions += 1 + sum(slow.alternate(c[1:], d[1:]) for d in own[:k])
            allowed += regions <= limit
    assert ch.count_meetings(kept, low, high, limit, meetings) == allowed


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 9))
def test_what_shares_a_vertex_has_that_place_in_common(seed, n):
    """However long a chain of crossings is of which each is near the next."""
    rng = np.random.default_rng(seed)
    own = 10.0 ** -rng.integers(2, 5) * rng.uniform(0.5, 1, n)  # how uncertain each is
    t = 0.3 + np.cumsum(rng.uniform(0, 4, n) * own.max())
    t = np.minimum(t, 0.9)
    z = np.stack([-t, 1 - t])  # an edge from 0 to 1, functions of slope 1
    first, which = np.array([0, n]), rng.permutation(n)
    source, ratio = np.empty((n, 2), np.int64), np.empty(n)
    chain, place, unclear = np.empty(2, np.int64), np.empty(n, np.int64), np.ones(1, bool)
    made = ek.cut_edges(
        np.array([[0, 1]], INDEX), z, np.arange(n), np.full(n, -1), np.zeros(n), own[which], first,
        which, source, ratio, chain, place, unclear, np.empty(n), np.empty(n, np.int64),
    )  # fmt: skip
    assert (np.diff(ratio[:made]) > 0).all()
    assert (np.abs(ratio[place] - t[which]) <= own[which] + 1e-12).all()
    # as few as can be, from the left: a new one where the last ones' common place is passed
    expected, high = 0, -1.0
    for k in np.argsort(t, kind="stable"):
        if t[k] - own[k] > high + 1e-12:
            expected, high = expected + 1, t[k] + own[k]
        high = min(high, t[k] + own[k])
    assert made == expected


@twin("split_faces", "put")
def test_faces_are_split_as_by_knife(seed):
    """All cells of further lines in every face of a lattice, against cutting one by one."""
    m = Lattice(seed, lines=4)
    lines, z = m.affine(9)
    mesh = ms.Mesh(
        m.xy.copy(), m.ends.copy(), np.zeros(len(m.ends), INDEX), np.zeros(len(m.ends), INDEX),
        m.offsets.copy(), m.loops.copy(), m.borders.copy(), {"z": torch.from_numpy(z)}, {}, 4,
    )  # fmt: skip
    tol, z[np.abs(z) < 1e-12] = 1e-12, 0.0
    functions = cut.Functions(np.arange(9), np.full(9, -1), np.zeros(9), np.arange(9))
    edges = [[f for f in range(9) if min(z[a, f], z[b, f]) < -tol and max(z[a, f], z[b, f]) > tol]
             for a, b in mesh.ends]  # fmt: skip
    faces = [[f for f in range(9) if z[r, f].min() < -tol and z[r, f].max() > tol] for r in m.rings]
    csr = [
        (np.cumsum([0, *map(len, rows)]), np.array([f for r in rows for f in r], np.int64))
        for rows in (edges, faces)
    ]
    errors, old = Flat(np.full(9, 1e-13)), len(z)
    vertex, f = cut.cut_edges(mesh, "z", functions, errors, *csr[0])
    table = mesh.writable("z")
    assert np.abs(table[vertex, f]).max(initial=0) < 1e-12
    ek.put(table, vertex, f, functions.column, functions.offset)
    assert not table[vertex, f].any()
    exact = np.empty((0, 0)), np.empty(0, np.int64)
    bits = np.full((len(m.rings), 1), 512, np.uint64)  # of a tenth function, positive everywhere
    parent, new, _, (vertex, f), bits = cut.cut_faces(
        mesh, "z", functions, errors, exact, 1, *csr[1], bits, 1 << 40
    )
    rings = slow.rings(mesh.offsets, mesh.loops)
    largest = np.array(
        [v[np.abs(v).argmax(0), range(9)] for v in (mesh.values("z")[r] for r in rings)]
    )
    cuts = np.array([[g in faces[i] for g in range(9)] for i in parent])
    assert np.array_equal(unpacked(bits, 9) & cuts, (largest > 0) & cuts)
    assert unpacked(bits, 10)[:, 9].all()
    assert len(mesh) <= len(new) + new.sum()
    assert errors.asked == 0
    values = mesh.values("z")
    assert np.abs(values[vertex, f]).max(initial=0) < 1e-12
    assert set(vertex) == set(range(len(mesh.xy))) - set(range(len(table)))
    zeros = {(v, g) for v, g in zip(*np.nonzero(np.abs(values) < 1e-9), strict=True) if v >= old}
    assert set(zip(vertex, f, strict=True)) <= zeros
    cells = []
    for i, polygon in enumerate(m.polygons):
        parts = [polygon]
        for f in lines:
            parts = [half for part in parts for half in slow_partition.halves(part, f)]
        cells += [(i, *map(float, slow.area_and_centroid(part)[1])) for part in parts]
    found = []
    for i, ring in zip(parent, slow.rings(mesh.offsets, mesh.loops), strict=True):
        polygon = mesh.xy[ring].tolist()
        found.append((int(i), *map(float, slow.area_and_centroid(polygon)[1])))
    assert len(found) == len(cells)
    assert np.array(sorted(found, key=np_round)) == pytest.approx(
        np.array(sorted(cells, key=np_round)), abs=1e-9
    )
    assert len(mesh.xy) - len(mesh.ends) + len(mesh) == 1


class Flat:
    """What counts as zero of each function, whatever the place."""

    def __init__(self, bound):
        self.bound, self.asked = bound, 0

    def at(self, vertices, functions):
        self.asked += len(vertices)
        return self.bound[functions]


def np_round(row):
    return tuple(round(v, 7) for v in row)


@twin("face_means", "convexity")
def test_means_and_dents(seed):
    m = Lattice(seed)
    functions, outputs = m.affine(3)
    n = len(m.rings)
    area, centroid, center = np.empty(n), np.empty((n, 2)), np.empty((n, 3))
    geo.face_means(m.offsets, m.loops, m.xy, outputs, area, centroid, center)
    for i, polygon in enumerate(m.polygons):
        a, c = slow.area_and_centroid(polygon)
        assert area[i] == pytest.approx(float(a))
        assert centroid[i] == pytest.approx([float(x) for x in c], abs=1e-12)
        at = [float(slow.affine(f, c)) for f in functions]
        assert center[i] == pytest.approx(at, abs=1e-12)
    sense = np.ones(len(m.offsets) - 1)
    assert geo.convexity(m.offsets, m.loops, m.xy, sense) < 1e-12
    dented = m.xy + 0.2 * m.rng.standard_normal(m.xy.shape)
    depth = [0.0]
    for ring in m.rings:
        for (a, b), (_, c) in zip(
            slow.neighbours(ring), slow.neighbours(ring[1:] + ring[:1]), strict=True
        ):
            p, q = dented[b] - dented[a], dented[c] - dented[b]
            depth.append((p[1] * q[0] - p[0] * q[1]) / max(np.hypot(*p), np.hypot(*q)))
    assert geo.convexity(m.offsets, m.loops, dented, sense) == pytest.approx(max(depth))


@twin("walk_to")
def test_walks_end_where_the_point_is(seed):
    m = Lattice(seed)
    inside = m.rng.uniform(-2, 2, (100, 2))
    points = np.concatenate([inside, m.xy, [[5.0, 0], [-2.1, 1]]])
    starts = m.rng.integers(0, len(m.rings), len(points))
    found = np.empty(len(points), np.int64)
    arguments = m.offsets, m.loops, m.borders, m.ends, m.sides, m.xy
    geo.walk_to(*arguments, points, starts, np.abs(points).max(1) <= 2, found)
    for point, i in zip(points, found, strict=True):
        holding = [
            k for k, ring in enumerate(m.rings) if slow.holds(m.xy[ring].tolist(), point, 1e-12)
        ]
        assert i in holding if np.abs(point).max() <= 2 else i == -1
    # edges without a length that rounding can tell lead anywhere, here out of the domain
    square = np.array([[-1.0, -1], [1, -1], [1, 1], [1 + 2.3e-16, 1], [-1, 1]])
    loop, start = np.arange(5), np.zeros(1, np.int64)
    sides = np.array([[0, -1]] * 5)
    one = np.array([0, 5]), loop, loop, np.stack([loop, np.roll(loop, -1)], 1), sides, square
    for at, allowed in (([0.9, -0.9], 0), ([0.9, -1.1], -1)):
        place = np.array([at])
        geo.walk_to(*one, place, start, np.array([allowed == 0]), found)
        assert found[0] == allowed


def test_no_point_is_far_inside_of_a_face_that_rounding_flattened():
    """Of a triangle of 1e-15 one edge is long enough to tell a direction: that holds nothing."""
    square = [[-1.0, -1], [1, -1], [1, 1], [-1, 1]]
    speck = [[0.75, -0.5], [0.75 - 1.5e-15, -0.5 + 1e-15], [0.75 - 4.5e-15, -0.5 - 1e-15]]
    xy, loop = np.array(square + speck), np.array([0, 1, 2, 3, 4, 5, 6], np.int64)
    ends = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 4]])
    sides = np.array([[0, -1]] * 4 + [[1, 0]] * 3)
    points, found = np.array([[0.72, -0.33], [0.2, 0.9]]), np.empty(2, np.int64)
    mesh = np.array([0, 4, 7]), loop, loop, ends, sides, xy
    geo.walk_to(*mesh, points, np.ones(2, np.int64), np.ones(2, bool), found)
    assert found.tolist() == [0, 0]


def segments_of(polygon, functions):
    """Pairs of functions, and the segment on which they meet: each the first largest on a side."""
    pairs = itertools.combinations(range(len(functions)), 2)
    met = {(i, j): s for i, j in pairs if (s := slow.shared_maximum(polygon, functions, i, j))}
    return {p: s for p, s in met.items() if sorted(slow.winners_beside(s, functions)) == list(p)}


@twin("face_boundary")
def test_segments_of_equal_largest_outputs(seed):
    m = Lattice(seed, lines=3)
    functions, outputs = m.affine(5)
    functions = [tuple(map(Fraction, f)) for f in functions]
    room = bd.boundary_room(m.offsets, len(functions))

    def kernel(*arrays):
        sizes = np.full((1, outputs.shape[1]), 1e-10), np.zeros(len(m.xy), np.int64)
        mesh, unclear = (m.offsets, m.loops, m.xy, outputs), np.zeros(len(m.xy), bool)
        return bd.face_boundary(*mesh, *sizes, unclear, *arrays, room)

    found = counted(kernel, columns=(((2, 2), float), ((2,), np.int64), ((), np.int64)))
    long = np.linalg.norm(found[0][:, 1] - found[0][:, 0], axis=1) > 1e-9
    segments = {
        (int(face), *map(int, pair)): sorted(map(tuple, s.tolist()))
        for s, pair, face in zip(*(a[long] for a in found), strict=True)
    }
    expected = {
        (i, *pair): sorted(tuple(map(float, p)) for p in s)
        for i, polygon in enumerate(m.polygons)
        for pair, s in segments_of(polygon, functions).items()
    }
    assert segments.keys() == expected.keys()
    for key, s in expected.items():
        assert np.array(segments[key]) == pytest.approx(np.array(s), abs=1e-9)


@pytest.mark.parametrize(
    "functions",
    [
        [(0, -1, 0), (0, 0, 0), (0, 1, 0)],  # the middle one is the largest on the line alone
        [(0, 1, 0), (0, -1, 0), (0, 1, 0)],  # the third is the first
        [(0, 0, 0), (0, 1, 0), (0, 0, 0), (0, 1, 0)],
        [(0, -1, 0), (0, 0, 0), (0, 1, 0), (3, 0, -1)],  # and another one above a part of it
    ],
)
def test_a_line_on_which_several_tie_is_a_boundary_once(functions):
    square = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    exact = [tuple(map(Fraction, f)) for f in functions]
    for order in itertools.permutations(range(len(functions))):
        own = [exact[k] for k in order]
        outputs = square @ np.array(own, float)[:, :2].T + np.array(own, float)[:, 2]
        bound, ring = np.full(len(own), 1e-12), np.arange(4)
        segments, classes, *_ = bd.argmax_boundary(
            np.array([0, 4]), ring, square, outputs, np.stack([ring, np.roll(ring, -1)], 1),
            np.array([[0, -1]] * 4), zeros.Table(bound, 4, None),
        )  # fmt: skip
        found = {
            tuple(pair): sorted(map(tuple, s))
            for pair, s in zip(classes.tolist(), segments.tolist(), strict=True)
        }
        assert len(found) == len(segments)
        expected = segments_of([tuple(map(Fraction, p)) for p in square.tolist()], own)
        assert found.keys() == expected.keys()
        for pair, s in expected.items():
            assert np.allclose(found[pair], sorted(tuple(map(float, p)) for p in s))


@twin("tied_outputs")
def test_largest_outputs(seed):
    m = Lattice(seed)
    outputs = m.rng.integers(0, 2, (len(m.xy), 3)).astype(float)
    near = np.empty(outputs.shape, bool)
    error, row = np.full((2, outputs.shape[1]), 1e-9), np.ones(len(outputs), np.int64)
    unclear = np.zeros(len(outputs), bool)
    bd.tied_outputs(outputs, error, row, unclear, near)
    assert np.array_equal(near, outputs >= outputs.max(1, keepdims=True) - 1e-9)
    assert not unclear.any()
    bd.tied_outputs(outputs + 1e-7 * np.arange(outputs.shape[1]), error, 0 * row, unclear, near)
    assert np.array_equal(unclear, (outputs >= outputs.max(1, keepdims=True) - 1e-9).sum(1) > 1)


@twin("edge_boundary")
def test_parts_of_edges_between_winners(seed):
    m = Lattice(seed)
    outputs = m.rng.integers(0, 3, (len(m.xy), 4)).astype(float)
    error, row = np.full((1, 4), 1e-9), np.zeros(len(outputs), np.int64)
    unclear, tied = np.zeros(len(outputs), bool), np.empty(outputs.shape, bool)
    bd.tied_outputs(outputs, error, row, unclear, tied)
    table = zeros.Table(error[0], len(outputs), None)
    edges = bd.candidates(outputs, table, m.ends, m.sides, tied)
    mesh = m.offsets, m.loops, outputs, error, row, unclear, m.ends, m.sides, edges
    room = np.zeros(4, bool), np.empty(2)
    part, classes, owner = counted(
        lambda *arrays: bd.edge_boundary(*mesh, *arrays, room),
        columns=(((2,), float), ((2,), np.int64), ((), np.int64)),
    )
    assert not unclear.any()
    found = sorted(
        (int(e), tuple(pair), *stretch)
        for e, pair, stretch in zip(owner, classes.tolist(), part.tolist(), strict=True)
    )
    expected = []
    for e, ((a, b), sides) in enumerate(zip(m.ends, m.sides, strict=True)):
        if min(sides) >= 0:
            faces = [outputs[m.rings[i]] for i in sides]
            rows = slow.boundary_along(outputs[a], outputs[b], *faces)
            expected += [(e, pair, float(low), float(high)) for pair, low, high in rows]
    assert [row[:2] for row in found] == [row[:2] for row in sorted(expected)]
    assert np.allclose([row[2:] for row in found], [row[2:] for row in sorted(expected)])
    assert any(low > 0 or high < 1 for *_, low, high in expected)
    # what is within many errors of a tie is looked at again
    shifted = outputs + 1e-7 * np.arange(4)
    bd.edge_boundary(*mesh[:2], shifted, *mesh[3:], part, classes, owner, room)
    assert unclear.any()


@twin("winner_masks", "common_winners", "face_winners", "face_pairs", "crossed_edges")
def test_envelopes(seed):
    m = Lattice(seed, lines=3)
    functions, z = m.affine(6)
    entry = np.array([[0, 1, 2], [3, 4, -1], [5, 5, 5]])
    tol = 1e-9
    error, first_row = np.full((1, 6), tol / 2), np.zeros(len(z), np.int64)
    masks, unclear = np.empty((len(z), 3), np.uint64), np.zeros(len(z), bool)
    ev.winner_masks(z, entry, error, first_row, 0, unclear, masks)
    top = np.sort(z[:, :3], 1)
    assert not unclear.any() or np.diff(top)[unclear].min() > 0  # nearly equal, not equal
    unclear[:] = False
    best = [
        [
            {k for k in range(3) if g[k] >= 0 and row[g[k]] >= max(row[g[g >= 0]]) - tol}
            for g in entry
        ]
        for row in z
    ]
    assert [[as_set(v) for v in row] for row in masks] == best
    clear = np.ones(len(z), np.int64), np.concatenate([error, error])  # rows of their own decide
    common = np.full(3, ~np.uint64(0))
    ev.common_winners(z, entry, clear[1], clear[0], unclear, common)
    assert not unclear.any()
    assert [as_set(v) & {0, 1, 2} for v in common] == [
        set.intersection(*(r[g] for r in best)) for g in range(3)
    ]
    common[:] = ~np.uint64(0)
    ev.common_winners(z[:2], entry, clear[1], clear[0], unclear, common)
    assert [as_set(v) for v in common] == [best[0][g] & best[1][g] for g in range(3)]
    moved = z + np.array([0, 1e-8, 0, 0, 0, 0])
    ev.common_winners(moved, entry, error, first_row, unclear, common)
    ties = [{0, 1} <= r[0] or {1, 2} <= r[0] for r in best]
    assert (unclear >= ties).all()
    unclear[:] = False
    found = np.empty((len(m.rings), 3), np.uint64)
    open_ = ev.face_winners(m.offsets, m.loops, z, entry, masks, found)
    pairs, lost = set(), 0
    for i, ring in enumerate(m.rings):
        for g, row in enumerate(entry):
            everywhere = set.intersection(*(best[v][g] for v in ring))
            lost += not everywhere
            means = {k: z[ring, row[k]].mean() for k in range(3) if row[k] >= 0}
            largest = [k for k in means if means[k] > max(means.values()) - 1e-12]
            own = as_set(found[i, g])
            assert own == everywhere or (not everywhere and len(own) == 1 and own <= set(largest))
            if everywhere:
                continue
            used = [functions[k] for k in row if k >= 0]
            pairs |= {(i, g, *pair) for pair in segments_of(m.polygons[i], used)
                      if all(used.index(used[k]) == k for k in pair)}  # fmt: skip
    assert open_ == lost
    room = ct.workplace(m.offsets, 3)

    def kernel(array):
        return ev.face_pairs(
            m.offsets, m.loops, z, entry, masks, error, first_row, unclear, array, room
        )

    (rows,) = counted(kernel, columns=(((4,), np.int64),))
    assert len(rows) == len(set(map(tuple, rows.tolist())))
    assert set(map(tuple, rows.tolist())) == pairs
    # the edges on which some functions of a face change sign
    column, other = np.array([0, 3, 1]), np.array([1, 4, 2])
    first, which = 3 * np.arange(len(m.rings) + 1), np.tile(np.arange(3), len(m.rings))
    rest = column, other, np.zeros(3), error, first_row
    arguments = m.offsets, m.loops, m.borders, first, which, z, *rest
    (rows,) = counted(lambda a: ev.crossed_edges(*arguments, a), columns=(((2,), np.int64),))
    d = z[:, column] - z[:, other]
    both = [
        (min(x, y) < -tol and max(x, y) > tol)
        for a, b in m.ends
        for x, y in zip(d[a], d[b], strict=True)
    ]
    assert set(map(tuple, rows.tolist())) == {(k // 3, k % 3) for k in np.nonzero(both)[0]}


def as_set(mask):
    return {k for k in range(64) if int(mask) >> k & 1}


@twin("chain")
def test_chained_half_edges(seed):
    m = Lattice(seed)
    order = [m.rng.permutation(range(a, b)) for a, b in itertools.pairwise(m.offsets)]
    ends = np.concatenate([np.roll(ring, -1) for ring in m.rings])[np.concatenate(order)]
    starts = m.loops[np.concatenate(order)]
    found = np.empty(len(m.loops), np.int64)
    ev.chain(m.offsets, starts, ends, found)
    for i, ring in enumerate(m.rings):
        loop = list(starts[found[m.offsets[i] : m.offsets[i + 1]]])
        k = ring.index(loop[0])
        assert loop == ring[k:] + ring[:k]


def meet(p, q):
    """Whether three of the lines from p to q go through one point."""
    for i, j, k in itertools.combinations(range(len(p)), 3):
        (a, b), (c, d) = ((p[n] - p[i], q[n] - q[i]) for n in (j, k))
        if a * b < 0 and abs(a * d - b * c) < 1e-6:
            return True
    return False


@twin("edge_bends")
def test_bends_along_edges(seed):
    rng = np.random.default_rng(seed)
    z = rng.integers(-5, 6, (30, 8)).astype(float)
    entry = np.array([[0, 1, 2, 3], [4, 5, 6, -1], [7, 7, 7, 7]])
    ends = rng.permutation(30).reshape(15, 2).astype(INDEX)
    masks = np.empty((30, 3), np.uint64)
    error, row = np.full((1, 8), 1e-9), np.zeros(30, np.int64)
    unclear = np.zeros(30, bool)
    ev.winner_masks(z, entry, error, row, 0, unclear, masks)
    (rows,) = counted(
        lambda a: seams.edge_bends(ends, z, entry, masks, error, row, unclear, a),
        columns=(((4,), np.int64),),
    )
    expected = []
    for e, (p, q) in enumerate(ends):
        if unclear[[p, q]].any():  # which of two passes a third first, where all three meet
            assert any(meet(z[p, own], z[q, own]) for own in ([0, 1, 2, 3], [4, 5, 6]))
        for g, row in enumerate(entry[:2]):
            used = row[row >= 0]
            if len({(z[p, k], z[q, k]) for k in used}) < len(used):
                rows = rows[(rows[:, 0] != e) | (rows[:, 1] != g)]  # equal lines: any may win
                continue
            way = slow.winners_along(z[p, used], z[q, used])
            expected += [(e, g, *sorted(pair)) for pair in itertools.pairwise(way)]
    assert sorted(map(tuple, rows.tolist())) == sorted(expected)


@twin("look")
def test_ranges_signs_and_unclear_signs(seed):
    rng, units = np.random.default_rng(seed), 40  # two knots each: more functions than a word holds
    z = rng.integers(-3, 4, (20, units)).astype(float)
    z[rng.random(z.shape) < 0.1] += 1e-9
    z[3, 2] = -np.inf
    column = np.tile(np.arange(units), 2)
    offset = rng.integers(-1, 2, 2 * units).astype(float)
    least = rng.choice([1e-10, 1e-6], 2 * units)
    low, high, unclear = np.full(units, np.inf), np.full(units, -np.inf), np.empty(20, bool)
    signs = np.empty((20, 2), np.uint64), np.empty((20, 2), np.uint64)
    ek.look(z, column, offset, least, low, high, unclear, *signs)
    assert np.array_equal(low, z.min(0))
    assert np.array_equal(high, z.max(0))
    d = z[:, column] - offset
    near = (d != 0) & (np.abs(d) <= least)
    assert np.array_equal(unclear, near.any(1))
    assert 0 < unclear.sum() < 20
    for mask, expected in zip(signs, (d > 0, d < 0), strict=True):
        bits = np.unpackbits(mask.view(np.uint8), axis=1, bitorder="little").astype(bool)
        assert np.array_equal(bits[:, : 2 * units], expected)
        assert not bits[:, 2 * units :].any()


@twin("tie")
def test_ties_become_equal(seed):
    rng = np.random.default_rng(seed)
    z, error = rng.standard_normal((4, 6)), rng.permutation(6).astype(float)
    vertex, first, second = np.array([[0, 0, 1, 2, 2, 2], [1, 0, 3, 0, 0, 1], [2, 1, 4, 2, 1, 2]])
    before = z.copy()
    ev.tie(z, vertex, first, second, error)
    for v, group in ((1, [3, 4]), (2, [0, 1, 2])):
        best = group[int(np.argmin(error[group]))]
        assert (z[v, group] == before[v, best]).all()
        rest = [c for c in range(6) if c not in group]
        assert np.array_equal(z[v, rest], before[v, rest])
    assert np.array_equal(z[0, 3:], before[0, 3:])
    assert np.array_equal(z[3], before[3])


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_what_is_equal_to_several_gets_the_least(order):
    z, error = np.array([[2.0, 1.0, 1e12]]), np.array([1e-16, 1e-16, 1.0])
    first, second = np.array([0, 1])[order], np.array([2, 2])
    ev.tie(z, np.zeros(2, np.int64), first, second, error)
    assert z.tolist() == [[2, 1, 1]]  # in its groups, neither is below it


def test_a_bend_behind_a_huge_entry_is_at_the_entry_that_is_highest_there():
    z = np.array([[1e20, 2.0, 1.0], [-6e20, -6.0, 2.0]])  # all three times are one number
    masks = np.array([[1], [4]], np.uint64)
    error, row = np.array([[1e6, 1e-14, 1e-14]]), np.zeros(2, np.int64)
    ends, entry = np.array([[0, 1]], INDEX), np.array([[0, 1, 2]])
    (rows,) = counted(
        lambda a: seams.edge_bends(ends, z, entry, masks, error, row, np.zeros(2, bool), a),
        columns=(((4,), np.int64),),
    )
    t = 1 / 7
    assert 2 - 8 * t < 1 + t
    assert rows.tolist() == [[0, 0, 0, 2]]


def test_the_boundary_of_a_huge_class_is_clipped_by_what_is_known_of_it():
    # class 0 (huge) meets class 1 along the middle, class 2 is above both for three tenths of it
    xy = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    outputs = np.array([[-1e20, 0, -0.7], [-1e20, 0, 0.3], [1e20, 0, 0.3], [1e20, 0, -0.7]])
    outputs[:, 0] += [3e5, -5e5, 7e5, 1e5]
    bound = np.array([1e6, 1e-14, 1e-14])
    ring = np.arange(4)
    segments, classes, *_ = bd.argmax_boundary(
        np.array([0, 4]), ring, xy, outputs, np.stack([ring, np.roll(ring, -1)], 1),
        np.array([[0, -1]] * 4), zeros.Table(bound, 4, lambda rows: np.tile(bound, (len(rows), 1))),
    )  # fmt: skip
    length = np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)
    found = {tuple(pair): size for pair, size in zip(classes.tolist(), length, strict=True)}
    assert found == pytest.approx({(0, 1): 1.4, (0, 2): 0.6, (1, 2): 1.0})


# a huge column that says nothing, two that tie within their errors, one that is clearly below
CLOSE = np.array([[5e3, 1.0, 1.0 - 3e-9, 0.5]])
CLOSE_ERRORS = np.array([[1e4, 2e-9, 2e-9, 2e-9]])


def test_what_ties_is_beaten_by_none_by_more_than_both_errors():
    masks, unclear = np.empty((1, 1), np.uint64), np.zeros(1, bool)
    entry, row = np.array([[0, 1, 2, 3]]), np.zeros(1, np.int64)
    ev.winner_masks(CLOSE, entry, CLOSE_ERRORS, row, 0, unclear, masks)
    assert masks[0, 0] == 0b0111, "the last one is within rounding of the huge one alone"
    ev.winner_masks(CLOSE, entry, CLOSE_ERRORS / [1, 2, 2, 2], row, 0, unclear, masks)
    assert masks[0, 0] == 0b0011
    tied = np.empty((1, 4), bool)
    bd.tied_outputs(CLOSE, CLOSE_ERRORS, row, unclear, tied)
    assert tied[0].tolist() == [True, True, True, False]
    bd.tied_outputs(CLOSE, CLOSE_ERRORS / [1, 2, 2, 2], row, unclear, tied)
    assert tied[0].tolist() == [True, True, False, False]

"""The certificate of a partition: soundness, completeness and agreement, as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from isogon.cpwl.certificate import Certificate, Check
from isogon.measures.partition import geometry
from isogon.measures.partition.affine import region_values
from isogon.measures.partition.contradictions import Found, checks_of, seen_by

SLACK = 16.0  # allowance over the rounding that was observed
POINTS = 100_000  # random points where nothing is said and the network is not too large ...
NUMBERS = 300_000_000  # ... to be evaluated there with about so many intermediate numbers
FEWEST = 2_000
SAMPLE = 256  # vertices at which the effect of rounding is observed


class Ledger:
    """Collects the checks and facts of a certificate."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.facts: dict[str, float] = {}

    def check(self, name: str, value: float, limit: float, note: str, **facts: float) -> None:
        """Add a check that passes where `value <= limit`."""
        self.checks.append(Check(name, float(value), float(limit), note))
        self.facts |= {key: float(v) for key, v in facts.items()}


def affordable(p: Any) -> int:
    """Random points that a certificate uses by default: 100,000, or what a large network allows.

    That is as many as are evaluated with 3e8 intermediate numbers, or a quarter of the number
    of vertices at which completeness is checked, and 2,000 at least.
    """
    numbers = sum(torch.Size(shape).numel() for shape in p.program.shapes.values())
    return min(POINTS, max(FEWEST, len(p.vertices) // 4, NUMBERS // max(numbers, 1)))


def certify(p: Any, points: int | None, generator: torch.Generator | None) -> Certificate:
    """Check a partition against its network.

    - *Mesh*: V - E + F = 1; areas are positive within rounding and sum to the slice's area;
      every edge has a region on either side, or one and the border; faces are convex and
      counter-clockwise within rounding.
    - *Completeness*: at every vertex of every region each pre-activation, computed anew by the
      network, lies on the side that the region's pattern says, or is zero within tolerance.
      It is affine on a convex region, so no cut is missing. For a maximum: the region's winners
      are the largest at every vertex.
    - *Distinct*: no two regions have the same pattern.
    - *Edges*: the patterns of two neighbours differ, in the unit that the edge is attributed
      to, and only in units that vanish along the whole edge.
    - *Agreement*: at random points the pattern and the output are those of the region that
      holds the point (units within tolerance of zero are counted apart); the affine maps of
      neighbours agree at the ends of their edge.

    The tolerance of a site is 16 times the change that moving the points by two units in the
    last place of their coordinates makes, plus the tolerance used while cutting.
    """
    points = affordable(p) if points is None else points
    found = Ledger()
    found.facts |= {"regions": len(p), "vertices": len(p.vertices), "edges": len(p.edges)}
    left = int((~p.finished).sum())
    found.check("finished", left, 0, "regions that were not cut to the end")
    _mesh(p, found)
    _distinct(p, found)
    if p.complete:
        tolerances = _completeness(p, found)
        _edges(p, found)
        _agreement(p, found, points, generator or torch.Generator().manual_seed(0), tolerances)
        _neighbours(p, found, points, tolerances[-1])
    subject = f"partition into {len(p)} regions"
    return Certificate(subject, tuple(found.checks), found.facts)


def _mesh(p: Any, found: Ledger) -> None:
    euler = len(p.vertices) - len(p.edges) + len(p)
    found.check("euler", abs(euler - 1), 0, "V - E + F less 1")
    extent = float(np.ptp(p.vertices, axis=0).max())
    total, area = p.plane.area, p.area
    error = abs(float(area.sum()) - total) / total
    found.check("area", error, 1e-9, "sum of the regions' areas against the slice's, relative")
    allowance = 64 * np.finfo(float).eps * max(extent, float(np.abs(p.vertices).max()))
    smallest = float(area.min(initial=np.inf))
    found.check(
        "orientation", -smallest, allowance * extent, "largest clockwise area", min_area=smallest
    )
    bend = geometry.convexity(p.face_offsets, p.face_vertices, p.vertices)
    found.check("convex", bend, allowance, "depth of the deepest dent of a region")
    sides = p.edge_faces
    inner = p.edge_site >= 0
    one_sided = int((sides[inner] < 0).any(1).sum() + ((sides[~inner] >= 0).sum(1) != 1).sum())
    loose = abs(2 * int(inner.sum()) + int((~inner).sum()) - len(p.face_edges))
    note = "edges without a region on a side, or in more than two loops"
    found.check("watertight", one_sided + loose, 0, note)


def _distinct(p: Any, found: Ledger) -> None:
    keys = p.patterns.keys()
    own = keys[p.finished] if len(keys) == len(p) else keys
    distinct = len(np.unique(own, axis=0))
    found.check("distinct", p.finished.sum() - distinct, 0, "regions that share a pattern")


def _chunks(p: Any, rows: int):
    """Slices of rows whose sites' values and incidences stay within some tens of megabytes."""
    chunk = max(1, p.program.chunk() // 4)
    for low in range(0, rows, chunk):
        yield slice(low, min(low + chunk, rows))


def _tolerances(p: Any) -> np.ndarray:
    """Per site (last: the output): how much rounding of the coordinates moves its values."""
    rng = np.random.default_rng(0)
    rows = rng.choice(len(p.vertices), min(len(p.vertices), SAMPLE), replace=False)
    xy = p.vertices[rows]
    ulp = np.finfo(float).eps * float(np.abs(p.vertices).max())
    moved = np.zeros(len(p.program.cuts) + 1)
    for part in _chunks(p, len(rows)):
        before = list(seen_by(p.program, _embed(p, xy[part])))
        for sign in ([1, 1], [1, -1], [-1, 1]):
            after = seen_by(p.program, _embed(p, xy[part] + 2 * ulp * np.array(sign)))
            for i, (a, b) in enumerate(zip(before, after, strict=True)):
                with np.errstate(invalid="ignore"):  # -inf pads of a max
                    moved[i] = max(moved[i], float(np.nanmax(np.abs(a - b), initial=0)))
    size = 32 * np.finfo(float).eps * float(np.abs(p.outputs).max(initial=1e-290))
    return SLACK * moved + np.array([*p.meta["tolerances"], size])


def _embed(p: Any, xy: np.ndarray) -> torch.Tensor:
    return p.plane.embed(xy).reshape(-1, *p.program.shape)


def _contradictions(
    p: Any, checks: list, xy: np.ndarray, at: np.ndarray, region: np.ndarray
) -> tuple[list[Found], np.ndarray]:
    """Per site, where values at points contradict the patterns of regions `region` at `at`.

    Also returns the network's output at the points.
    """
    rows = p.patterns.ancestors(region)
    values = seen_by(p.program, _embed(p, xy))
    found = [
        check.contradictions(next(values), at, faces)
        for check, faces in zip(checks, rows, strict=True)
    ]
    return found, next(values)


@torch.no_grad()
def _completeness(p: Any, found: Ledger) -> np.ndarray:
    """Signs at every (region, vertex) incidence; each vertex is evaluated once."""
    tolerances = _tolerances(p)
    checks = checks_of(p.program, p.patterns.sites)
    order = np.argsort(p.face_vertices, kind="stable")  # incidences by vertex
    region = np.repeat(np.arange(len(p)), np.diff(p.face_offsets))[order]
    vertex = p.face_vertices[order]
    starts = np.searchsorted(vertex, np.arange(len(p.vertices) + 1))
    wrong, worst = 0, 0.0
    for part in _chunks(p, len(p.vertices)):
        mine = slice(starts[part.start], starts[part.stop])
        sites, output = _contradictions(
            p, checks, p.vertices[part], vertex[mine] - part.start, region[mine]
        )
        for site, tolerance in zip(sites, tolerances, strict=False):
            wrong += int((~(site.off <= tolerance)).sum())
            worst = max(worst, float(site.off.max(initial=0)) / tolerance)
        wrong += int((~np.isfinite(output)).sum())
    found.check(
        "complete",
        wrong,
        0,
        "signs at corners that contradict the pattern: a cut is missing or a pattern is wrong",
        worst_sign_in_tolerances=worst,
        sign_tolerance=float(tolerances[:-1].max(initial=0)),
    )
    return tolerances


@torch.no_grad()
def _edges(p: Any, found: Ledger) -> None:
    edges = np.nonzero(p.edge_site >= 0)[0]
    pairs = p.edge_units(edges)
    own = np.zeros(len(edges), bool)
    for s, rows in enumerate(pairs):
        mine = (p.edge_site[edges[rows[:, 0]]] == s) & (
            p.edge_unit[edges[rows[:, 0]]] == rows[:, 1]
        )
        own[rows[mine, 0]] = True
    extra = sum(len(rows) for rows in pairs) - int(own.sum())
    note = "edges whose unit does not change across them"
    found.check("edges", int((~own).sum()), 0, note, further_units_on_edges=extra)


@torch.no_grad()
def _agreement(p: Any, found: Ledger, n: int, generator: Any, tolerances: np.ndarray) -> None:
    xy = random_points(p.plane.corners, n, generator)
    region = p.locate(xy)
    inside = region >= 0
    xy, region = xy[inside], region[inside]
    checks = checks_of(p.program, p.patterns.sites)
    wrong, near, gap = 0, 0, 0.0
    value = region_values(p.program, p.plane, p.patterns, region, xy)
    for part in _chunks(p, len(xy)):
        at = np.arange(part.stop - part.start)
        sites, output = _contradictions(p, checks, xy[part], at, region[part])
        bad, close = np.zeros((2, len(at)), bool)
        for site, tolerance in zip(sites, tolerances, strict=False):
            close[site.row] = True
            bad[site.row[~(site.off <= tolerance)]] = True
        gap = np.maximum(gap, np.abs(value[part] - output).max(initial=0))  # NaN stays NaN
        wrong += int(bad.sum())
        near += int((close & ~bad).sum())
    found.check("located", n - len(xy), 0.001 * n, "random points that no region holds")
    found.check(
        "patterns",
        wrong,
        0,
        "random points where the network's pattern is not the region's",
        points=len(xy),
        points_within_tolerance=near,
    )
    found.check("outputs", gap, tolerances[-1], "largest difference of outputs at these points")


@torch.no_grad()
def _neighbours(p: Any, found: Ledger, n: int, tolerance: float) -> None:
    edges = np.nonzero(p.edge_site >= 0)[0]
    if len(edges) > n:
        edges = edges[:: -(-len(edges) // n)]
    ends = p.vertices[p.edges[edges]].transpose(1, 0, 2).reshape(-1, 2)
    sides = p.edge_faces[edges]
    faces = np.concatenate([sides[:, 0], sides[:, 0], sides[:, 1], sides[:, 1]])
    both = region_values(p.program, p.plane, p.patterns, faces, np.concatenate([ends, ends]))
    left, right = np.split(both, 2)
    gap = float(np.abs(left - right).max(initial=0))
    note = f"largest difference of adjacent maps at the ends of {len(edges)} edges"
    found.check("neighbours", gap, 2 * tolerance, note)


def random_points(corners: np.ndarray, n: int, generator: torch.Generator) -> np.ndarray:
    """Uniform points of a convex polygon, `[n, 2]`."""
    a, b, c = corners[0], corners[1:-1], corners[2:]
    u, v = b - a, c - a
    area = np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
    draw = torch.rand(n, 3, generator=generator, dtype=torch.float64).numpy()
    at = np.searchsorted(np.cumsum(area) / area.sum(), draw[:, 0], side="right")
    at = np.minimum(at, len(area) - 1)
    s, t = draw[:, 1:2], draw[:, 2:3]
    flip = s + t > 1
    s, t = np.where(flip, 1 - s, s), np.where(flip, 1 - t, t)
    return a + s * u[at] + t * v[at]

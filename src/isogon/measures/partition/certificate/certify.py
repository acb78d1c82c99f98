"""The certificate of a partition: soundness, completeness and agreement, as numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from isogon import options
from isogon.cpwl.certificate import Certificate, Ledger
from isogon.measures.partition.affine import region_values
from isogon.measures.partition.certificate.allowances import Allowances, Closeness
from isogon.measures.partition.certificate.boundary import check_boundary
from isogon.measures.partition.certificate.contradictions import Found, checks_of, seen_by
from isogon.measures.partition.certificate.narrow import broad, crowded, largest, narrow
from isogon.measures.partition.certificate.places import Places
from isogon.measures.partition.kernels import geometry

if TYPE_CHECKING:
    from isogon.measures.partition.reading import Partition

POINTS = 100_000  # random points where nothing is said and the network is not too large ...
NUMBERS = 300_000_000  # ... to be evaluated there with about so many intermediate numbers
FEWEST = 2_000
FIRST, BATCH = 200, 4096  # points that are looked at before time is
MOSTLY = 0.5  # share of random points that may be undecided
CORNERS = 0.6  # share of the time that is for corners, where time is bounded


class Clock:
    """How much of a time is left; all of it where there is no bound."""

    def __init__(self, seconds: float | None) -> None:
        self.start = time.monotonic()
        self.seconds = None if seconds is None else options.number("seconds", seconds)

    def over(self, share: float = 1.0) -> bool:
        """Whether a share of the time is spent."""
        return self.seconds is not None and self.spent() > share * self.seconds

    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start


def affordable(p: Partition) -> int:
    """Random points that a certificate uses by default: 100,000, or what a large network allows.

    That is as many as are evaluated with 3e8 intermediate numbers, or a quarter of the number
    of vertices at which completeness is checked, and 2,000 at least.
    """
    numbers = sum(torch.Size(shape).numel() for shape in p.program.shapes.values())
    return min(POINTS, max(FEWEST, len(p.vertices) // 4, NUMBERS // max(numbers, 1)))


def certify(
    p: Partition,
    points: int | None,
    generator: torch.Generator | None,
    seconds: float | None = None,
) -> Certificate:
    """Check a partition against its network.

    - *Finished*: every region was cut to the end. What follows holds for what was cut.
    - *Mesh*: V - E + F = 1 (euler); areas sum to the slice's (area), none is clockwise
      (orientation), faces are convex (convex); every edge has a region on either side, or one
      and the border (watertight).
    - *Completeness*: at every vertex of every region wider than rounding each pre-activation,
      computed anew by the network, lies on the side that the region's pattern says, or is zero
      within rounding. It is affine on a convex region, so no cut is missing. For a maximum: the
      region's winners are the largest at every vertex.
    - *Distinct*: no two regions have the same pattern.
    - *Edges*: the patterns of two neighbours differ in the unit that the edge is attributed to.
    - *Agreement*: at random points, which some region holds (located), the pattern (patterns; at
      the centroids of all regions, too) and the output (outputs; at all vertices, too) are those
      of that region, and most points are no nearer to a knot than rounding (decided); the affine
      maps of neighbours wider than rounding agree at the ends of their edge (neighbours).
    - *Boundary*: where the largest outputs on the two sides of an edge differ, a piece of the
      decision boundary lies between; every piece has its two classes on its sides, and is there
      once (boundary).

    A remark says how many regions are no wider than rounding: at their centroid a unit is within
    rounding of its knot, so that their number is not certain; another at how many vertices lines
    meet that need not, within rounding.

    Rounding is that of each unit at each point: 64 times the rounding error that its computation
    carries (`cpwl.rounding`); nothing is relative to the largest value of a site.
    """
    clock = Clock(seconds)
    n = None if points is None else options.whole("points", points)
    source = options.generator(generator) or torch.Generator().manual_seed(0)
    found = Ledger()
    found.facts |= {"regions": len(p), "vertices": len(p.vertices), "edges": len(p.edges)}
    left = int((~p.finished).sum())
    found.check("finished", left, 0, f"of {len(p)} regions are not cut to the end")
    _mesh(p, found)
    _distinct(p, found)
    _edges(p, found)
    allowances = Allowances.of_slice(p)
    places = Places(p, allowances)
    off = _completeness(p, found, allowances, places, clock)
    if n is None:
        n = affordable(p) if seconds is None else FEWEST
    xy = random_points(p.plane.corners, n, source)
    _agreement(p, found, xy, allowances, off, clock if points is None else Clock(None))
    _neighbours(p, found, max(n, FEWEST), allowances, places, clock)
    check_boundary(p, found, allowances)
    narrow(p, found, allowances, clock)
    crowded(p, found, allowances)
    whole = found.facts["corners"] >= len(p.vertices)
    return found.certificate(f"partition into {len(p)} regions", whole=whole)


def _mesh(p: Partition, found: Ledger) -> None:
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
    bend = geometry.convexity(p.face_offsets, p.face_vertices, p.vertices, np.sign(area))
    found.check("convex", bend, allowance, "depth of the deepest dent of a region")
    sides = p.edge_faces
    inner = p.edge_site >= 0
    one_sided = int((sides[inner] < 0).any(1).sum() + ((sides[~inner] >= 0).sum(1) != 1).sum())
    loose = abs(2 * int(inner.sum()) + int((~inner).sum()) - len(p.face_edges))
    note = "edges without a region on a side, or in more than two loops"
    found.check("watertight", one_sided + loose, 0, note)


def _distinct(p: Partition, found: Ledger) -> None:
    keys = p.patterns.keys()
    own = keys[p.finished] if len(keys) == len(p) else keys
    distinct = len(np.unique(own, axis=0))
    found.check("distinct", p.finished.sum() - distinct, 0, "regions that share a pattern")


def _edges(p: Partition, found: Ledger) -> None:
    edges = np.flatnonzero((p.edge_site >= 0) & (p.edge_faces >= 0).all(1))
    # in a region that the site did not cut to the end, it may have left an edge
    edges = edges[(p.depth[p.edge_faces[edges]] > p.edge_site[edges, None]).all(1)]
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


def _contradictions(
    p: Partition, checks: list, values: Iterator[np.ndarray], at: np.ndarray, region: np.ndarray
) -> list[Found]:
    """Per site, where values at points contradict the patterns of regions `region` at `at`."""
    found = []
    rows = p.patterns.ancestors(region)
    for number, (check, faces) in enumerate(zip(checks, rows, strict=True)):
        own = check.contradictions(next(values), at, faces)
        found.append(own.only(p.depth[region[own.row]] > number))
    return found


@torch.no_grad()
def _completeness(
    p: Partition, found: Ledger, allowances: Allowances, places: Places, clock: Clock
) -> float:
    """Signs at every (region, vertex) incidence; each vertex is evaluated once.

    Returns the largest difference of outputs, in allowances.
    """
    checks, wide = checks_of(p.program, p.patterns), broad(p, allowances)
    region = np.repeat(np.arange(len(p)), np.diff(p.face_offsets))
    # incidences by vertex, those of regions that most sites cut first
    order = np.lexsort([-p.depth[region], p.face_vertices])
    region, vertex = region[order], p.face_vertices[order]
    starts = np.searchsorted(vertex, np.arange(len(p.vertices) + 1))
    corners = np.arange(len(p.vertices))
    if clock.seconds is not None:
        corners = np.random.default_rng(0).permutation(corners)
    wrong, worst, seen, gap = 0, 0.0, 0, 0.0
    for part in allowances.chunks(len(corners)):
        if seen and clock.over(CORNERS):
            break
        own = corners[part]
        sizes = starts[own + 1] - starts[own]
        at = np.repeat(np.arange(len(own)), sizes)
        first = np.cumsum(sizes) - sizes
        rows = np.arange(len(at)) + np.repeat(starts[own] - first, sizes)
        values = seen_by(p.program, allowances.embed(p.vertices[own]))
        sites = _contradictions(p, checks, values, at, region[rows])
        real, most = allowances.judged(
            sites, p.vertices[own], at, lambda k, f, row, own=own: places.of(k, f, own[row])
        )
        for site, contradicts in zip(sites, real, strict=True):
            wrong += int((contradicts & wide[region[rows[site.row]]]).sum())
        worst = max(worst, most)
        output = next(values)
        wrong += int((~np.isfinite(output)).sum())
        off = np.abs(output - p.outputs[own])
        far = allowances.exceeded(
            off, p.vertices[own], 1.0, lambda i, own=own: places.of_output(own[i])
        )
        gap = np.maximum(gap, far)  # NaN stays NaN
        seen += len(own)
    where = "" if seen == len(corners) else f" (at {seen:,} of {len(corners):,})"
    found.check(
        "complete",
        wrong,
        0,
        f"signs at corners{where} that contradict the pattern: a cut is missing or it is wrong",
        worst_sign_in_tolerances=worst,
        corners=seen,
    )
    return float(gap)


@torch.no_grad()
def _agreement(
    p: Partition, found: Ledger, xy: np.ndarray, allowances: Allowances, gap: float, clock: Clock
) -> None:
    """At points, in batches as long as there is time."""
    lost, bad, near, done = 0, 0, 0, 0
    while done < len(xy) and not (done and clock.over(0.5 + CORNERS / 2)):
        batch = xy[done : done + (BATCH if done else FIRST)]
        done += len(batch)
        region = p.locate(batch)
        lost += int((region < 0).sum())
        own = batch[region >= 0]
        wrong, close, off = _at_points(p, own, region[region >= 0], allowances)
        bad, near, gap = bad + wrong, near + close, float(np.maximum(gap, off))
    found.check("located", lost, 0.001 * done, "random points that no region holds")
    note = "random points and middles of regions where the network's pattern is not the region's"
    kept = done - lost
    found.check("patterns", bad, 0, note, points=kept, points_within_tolerance=near)
    note = "share of these points at which a unit is within rounding of its knot"
    share = near / max(kept, 1)
    note += largest(p, allowances) if share > MOSTLY else ""
    found.check("decided", share, MOSTLY, note)
    note = "largest difference of outputs at corners and at these points, in allowances"
    found.check("outputs", gap, 1, note)


def _at_points(
    p: Partition, xy: np.ndarray, region: np.ndarray, allowances: Allowances
) -> tuple[int, int, float]:
    """Points with another pattern, those within rounding, and the difference of outputs."""
    checks = checks_of(p.program, p.patterns)
    wrong, near, gap = 0, 0, 0.0
    whole = np.flatnonzero(p.finished[region])
    value = np.zeros((len(xy), p.outputs.shape[1]))
    if len(whole):
        value[whole] = region_values(p.program, p.plane, p.patterns, region[whole], xy[whole])
    for part in allowances.chunks(len(xy)):
        at = np.arange(part.stop - part.start)
        close_to = Closeness(allowances, xy[part])
        values = _watched(p, seen_by(p.program, allowances.embed(xy[part])), close_to)
        sites = _contradictions(p, checks, values, at, region[part])
        real, _ = allowances.judged(sites, xy[part], at)
        bad, close = np.zeros((2, len(at)), bool)
        for site, contradicts in zip(sites, real, strict=True):
            close[site.row] = True
            bad[site.row[contradicts]] = True
        output, undecided = next(values)
        off = np.where(p.finished[region[part], None], np.abs(value[part] - output), 0.0)
        gap = float(np.maximum(gap, allowances.exceeded(off, xy[part], 2.0)))
        wrong += int(bad.sum())
        near += int(((close | undecided) & ~bad).sum())
    return wrong, near, gap


def _watched(p: Partition, values: Iterator[np.ndarray], close: Closeness) -> Iterator:
    """What the sites see, and last the output with the points at which a site is undecided."""
    undecided = np.zeros(len(close.xy), bool)
    for number, stage in enumerate(p.program.cuts):
        seen = next(values)
        undecided |= close.units(number, stage, seen).any(1)
        yield seen
    yield next(values), undecided


@torch.no_grad()
def _neighbours(
    p: Partition, found: Ledger, n: int, allowances: Allowances, places: Places, clock: Clock
) -> None:
    sides, whole = p.edge_faces, p.finished & broad(p, allowances)
    edges = np.flatnonzero((p.edge_site >= 0) & (sides >= 0).all(1) & whole[sides].all(1))
    if len(edges) > n:
        edges = edges[:: -(-len(edges) // n)]
    if clock.seconds is not None:
        edges = np.random.default_rng(0).permutation(edges)
    gap, done = 0.0, 0
    while done < len(edges) and not (done and clock.over()):
        own = edges[done : done + (BATCH if done else FIRST)]
        done += len(own)
        vertex = p.edges[own].T.reshape(-1)
        ends = p.vertices[vertex]
        left, right = p.edge_faces[own].T
        faces = np.concatenate([left, left, right, right])
        both = region_values(p.program, p.plane, p.patterns, faces, np.concatenate([ends, ends]))
        off = np.abs(np.subtract(*np.split(both, 2)))
        far = allowances.exceeded(off, ends, 4.0, lambda i, v=vertex: places.of_output(v[i]))
        gap = np.maximum(gap, far)
    note = f"largest difference of adjacent maps at the ends of {done} edges, in allowances"
    found.check("neighbours", gap, 1, note)


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

"""The certificate of a partition: soundness, completeness and agreement, as numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from isogon.cpwl.program import Kink, Max
from isogon.measures.partition import geometry
from isogon.measures.partition.affine import affine_maps

SLACK = 16.0  # allowance over the rounding that was observed


@dataclass
class Certificate:
    """What was checked, and the numbers.

    Attributes:
        checks: Name of each check -> whether it holds.
        numbers: What was measured, by name.
        notes: What a failed check means, one line each.
    """

    checks: dict[str, bool] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return bool(self.checks) and all(self.checks.values())

    def __bool__(self) -> bool:
        return self.passed

    def record(self, name: str, holds: bool, note: str, **numbers: float) -> None:
        """Add a check."""
        self.checks[name] = bool(holds)
        self.numbers |= {k: float(v) for k, v in numbers.items()}
        if not holds:
            self.notes.append(f"{name}: {note}")

    def to_frame(self) -> pd.DataFrame:
        """One row per check."""
        return pd.DataFrame({"check": list(self.checks), "holds": list(self.checks.values())})

    def __str__(self) -> str:
        lines = ["certified" if self.passed else "NOT certified"]
        lines += [f"  {'ok  ' if ok else 'FAIL'} {name}" for name, ok in self.checks.items()]
        lines += [f"  {name} = {value:.6g}" for name, value in self.numbers.items()]
        return "\n".join(lines + [f"  {note}" for note in self.notes])

    __repr__ = __str__


def certify(p: Any, points: int, generator: torch.Generator | None) -> Certificate:
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
    found = Certificate()
    found.numbers |= {"regions": len(p), "vertices": len(p.vertices), "edges": len(p.edges)}
    if not p.complete:
        found.record("complete", False, "the partition stopped at max_regions")
    _mesh(p, found)
    _distinct(p, found)
    if p.complete:
        tolerances = _completeness(p, found)
        _edges(p, found)
        _agreement(p, found, points, generator or torch.Generator().manual_seed(0), tolerances)
        _neighbours(p, found, points, tolerances[-1])
    return found


def _mesh(p: Any, found: Certificate) -> None:
    euler = len(p.vertices) - len(p.edges) + len(p)
    found.record("euler", euler == 1, "V - E + F is not 1", euler=euler)
    extent = float(np.ptp(p.vertices, axis=0).max())
    total, area = p.plane.area, p.area
    error = abs(float(area.sum()) - total) / total
    found.record("area", error <= 1e-9, "the regions don't tile the slice", area_error=error)
    allowance = 64 * np.finfo(float).eps * max(extent, float(np.abs(p.vertices).max()))
    smallest = float(area.min(initial=np.inf))
    found.record(
        "orientation", smallest >= -allowance * extent, "a region is clockwise", min_area=smallest
    )
    bend = geometry.convexity(p.face_offsets, p.face_vertices, p.vertices)
    found.record("convex", bend <= allowance, "a region is not convex", concavity=bend)
    sides = p.edge_faces
    inner = p.edge_site >= 0
    watertight = (sides[inner] >= 0).all() and ((sides[~inner] >= 0).sum(1) == 1).all()
    used = 2 * inner.sum() + (~inner).sum() == len(p.face_edges)
    found.record("watertight", bool(watertight and used), "an edge lacks a region on a side")


def _distinct(p: Any, found: Certificate) -> None:
    keys = p.patterns.keys()
    distinct = len(np.unique(keys, axis=0)) if len(keys) == len(p) else 0
    found.record(
        "distinct", distinct == len(p), "two regions share a pattern", distinct_patterns=distinct
    )


def _chunks(p: Any, rows: int, chunk: int):
    for low in range(0, rows, chunk):
        yield slice(low, min(low + chunk, rows))


def _sees(program: Any, x: torch.Tensor) -> list[np.ndarray]:
    """Per site pre-activations `[N, units]` (max: `[N, units, K]`), then the output."""
    values, output = [], x
    for stage, arguments, result in program.steps(x):
        if isinstance(stage, Kink):
            values.append(arguments[0].reshape(len(x), -1).numpy())
        elif isinstance(stage, Max):
            values.append(stage.candidates(*arguments).numpy())
        if stage.output == program.output:
            output = result
    return [*values, output.reshape(len(x), -1).numpy()]


def _tolerances(p: Any) -> np.ndarray:
    """Per site (last: the output): how much rounding of the coordinates moves its values."""
    rng = np.random.default_rng(0)
    rows = rng.choice(len(p.vertices), min(len(p.vertices), 512), replace=False)
    xy = p.vertices[rows]
    ulp = np.finfo(float).eps * float(np.abs(p.vertices).max())
    moved = np.zeros(len(p.program.cuts) + 1)
    with torch.no_grad():
        for part in _chunks(p, len(rows), max(1, p.program.chunk() // 4)):
            before = _sees(p.program, _embed(p, xy[part]))
            for sign in ([1, 1], [1, -1], [-1, 1]):
                after = _sees(p.program, _embed(p, xy[part] + 2 * ulp * np.array(sign)))
                for i, (a, b) in enumerate(zip(before, after, strict=True)):
                    with np.errstate(invalid="ignore"):  # -inf pads of a max
                        moved[i] = max(moved[i], float(np.nanmax(np.abs(a - b), initial=0)))
    size = 32 * np.finfo(float).eps * float(np.abs(p.outputs).max(initial=1e-290))
    return SLACK * moved + np.array([*p.meta["tolerances"], size])


def _embed(p: Any, xy: np.ndarray) -> torch.Tensor:
    return p.plane.embed(xy).reshape(-1, *p.program.shape)


def _stages(p: Any) -> list[Kink | Max]:
    return p.program.cuts


@torch.no_grad()
def _completeness(p: Any, found: Certificate) -> np.ndarray:
    """Signs at every (region, vertex) incidence, vertices in chunks."""
    tolerances = _tolerances(p)
    order = np.argsort(p.face_vertices, kind="stable")  # incidences by vertex
    region = np.repeat(np.arange(len(p)), np.diff(p.face_offsets))[order]
    vertex = p.face_vertices[order]
    starts = np.searchsorted(vertex, np.arange(len(p.vertices) + 1))
    widest = max([b.bits.shape[1] * 64 + len(b.base) for b in p.patterns.sites], default=1)
    chunk = max(1, min(p.program.chunk() // 4, (64 << 20) // (8 * widest)))
    wrong, worst = 0, 0.0
    for part in _chunks(p, len(p.vertices), chunk):
        seen = _sees(p.program, _embed(p, p.vertices[part]))
        low, high = starts[part.start], starts[part.stop]
        at = vertex[low:high] - part.start
        rows = p.patterns.ancestors(region[low:high])
        for i, stage in enumerate(_stages(p)):
            piece = p.patterns.sites[i].rows(rows[i])
            off = _violation(stage, seen[i], at, piece, p.program.shapes[stage.output])
            wrong += int((off > tolerances[i]).sum())
            worst = max(worst, float(off.max(initial=0)) / tolerances[i])
    found.record(
        "complete cuts",
        wrong == 0,
        "a pre-activation changes sign inside a region: a cut is missing or a pattern is wrong",
        wrong_signs=wrong,
        worst_violation_in_tolerances=worst,
        tolerance=float(tolerances[:-1].max(initial=0)),
    )
    return tolerances


def _violation(stage: Kink | Max, seen: np.ndarray, at: np.ndarray, piece: np.ndarray, shape: Any):
    """How far each value lies outside the interval of its piece (or below the largest)."""
    if isinstance(stage, Max):
        values = seen[at]
        held = np.take_along_axis(values, piece[..., None].astype(np.int64), 2)[..., 0]
        return values.max(2) - held
    z = seen[at]
    off = np.zeros_like(z)
    for k, knot in enumerate(stage.knots):
        d = z - knot.expand(shape).reshape(-1).numpy()
        off = np.maximum(off, np.where(piece > k, -d, d))
    return off


@torch.no_grad()
def _edges(p: Any, found: Certificate) -> None:
    edges = np.nonzero(p.edge_site >= 0)[0]
    pairs = p.edge_units(edges)
    own = np.zeros(len(edges), bool)
    for s, rows in enumerate(pairs):
        mine = (p.edge_site[edges[rows[:, 0]]] == s) & (
            p.edge_unit[edges[rows[:, 0]]] == rows[:, 1]
        )
        own[rows[mine, 0]] = True
    extra = sum(len(rows) for rows in pairs) - int(own.sum())
    found.record(
        "edges",
        bool(own.all()),
        "an edge is attributed to a unit that does not change across it",
        edges_not_changed=int((~own).sum()),
        shared_edge_units=extra,
    )


@torch.no_grad()
def _agreement(p: Any, found: Certificate, n: int, generator: Any, tolerances: np.ndarray) -> None:
    xy = random_points(p.plane.corners, n, generator)
    region = p.locate(xy)
    inside = region >= 0
    xy, region = xy[inside], region[inside]
    wrong, near, gap = 0, 0, 0.0
    chunk = max(1, p.program.chunk() // 4)
    for part in _chunks(p, len(xy), chunk):
        seen = _sees(p.program, _embed(p, xy[part]))
        rows = p.patterns.ancestors(region[part])
        bad = np.zeros(part.stop - part.start, bool)
        close = bad.copy()
        for i, stage in enumerate(_stages(p)):
            every = np.arange(len(bad))
            piece = p.patterns.sites[i].rows(rows[i])
            off = _violation(stage, seen[i], every, piece, p.program.shapes[stage.output])
            bad |= (off > tolerances[i]).any(1)
            close |= ((off > 0) & (off <= tolerances[i])).any(1)
        value, _ = affine_maps(p.program, p.plane, p.patterns, region[part], xy[part])
        gap = max(gap, float(np.abs(value - seen[-1]).max(initial=0)))
        wrong += int(bad.sum())
        near += int((close & ~bad).sum())
    found.record(
        "agreement",
        wrong == 0 and gap <= tolerances[-1] and len(xy) >= 0.999 * n,
        "the network and the region that holds a random point differ",
        points=len(xy),
        wrong_points=wrong,
        points_within_tolerance=near,
        output_gap=gap,
        output_tolerance=tolerances[-1],
    )


@torch.no_grad()
def _neighbours(p: Any, found: Certificate, n: int, tolerance: float) -> None:
    edges = np.nonzero(p.edge_site >= 0)[0]
    if len(edges) > n:
        edges = edges[:: -(-len(edges) // n)]
    gap = 0.0
    for end in (0, 1):
        at = p.vertices[p.edges[edges, end]]
        left, _ = affine_maps(p.program, p.plane, p.patterns, p.edge_faces[edges, 0], at)
        right, _ = affine_maps(p.program, p.plane, p.patterns, p.edge_faces[edges, 1], at)
        gap = max(gap, float(np.abs(left - right).max(initial=0)))
    found.record(
        "neighbours", gap <= 2 * tolerance, "affine maps of neighbours differ on their edge",
        neighbour_gap=gap, neighbour_edges=len(edges),
    )  # fmt: skip


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

"""Regions that are no wider than rounding: whether they are there, float64 can't tell.

Those that were found are counted, and the vertices that may hide others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from isogon.cpwl.certificate import Ledger
from isogon.cpwl.rounding import EPS
from isogon.cpwl.stages import Max
from isogon.measures.partition.certificate.allowances import MARGIN, Allowances, Closeness
from isogon.measures.partition.certificate.contradictions import checks_of, seen_by
from isogon.measures.partition.mesh.zeros import NOISY

if TYPE_CHECKING:
    from isogon.measures.partition.certificate.certify import Clock
    from isogon.measures.partition.reading import Partition

WIDTH = 1024 * EPS  # of the largest coordinate: regions wider than that have a centroid
HUGE = 1e6  # times what is usual at its site: a unit whose values drown others


@dataclass
class Middles:
    """What the network says at the centroids of regions.

    Attributes:
        seen: How many were looked at.
        narrow: At how many of them a unit is within rounding of its knot.
        wrong: How many of the others, wide enough to have their centroid inside, have another
            pattern than the network has there.
        blame: Per cut and unit, how many of the narrow ones it is the first to leave undecided.
    """

    seen: int
    narrow: int
    wrong: int
    blame: list[np.ndarray]


@torch.no_grad()
def middles(
    p: Partition,
    allowances: Allowances,
    clock: Clock | None = None,
    fans: bool = False,
) -> Middles:
    """Look at the centroids of all regions, or of random ones as long as the clock allows.

    Where `fans` is set, at those of the triangles between a region's centroid and its edges.
    """
    checks = checks_of(p.program, p.patterns)
    wide, rows = broad(p, allowances), np.flatnonzero(p.finished)
    places = p.centroid[rows]
    if fans:
        half = np.arange(len(p.face_vertices))
        region = np.repeat(np.arange(len(p)), np.diff(p.face_offsets))
        following = np.where(
            half + 1 == p.face_offsets[region + 1], p.face_offsets[region], half + 1
        )
        corners = p.vertices[p.face_vertices] + p.vertices[p.face_vertices[following]]
        kept = p.finished[region]
        rows, places = region[kept], ((p.centroid[region] + corners) / 3)[kept]
    if clock is not None and clock.seconds is not None:
        order = np.random.default_rng(0).permutation(len(rows))
        rows, places = rows[order], places[order]
    found = Middles(0, 0, 0, [np.zeros(p.program.units(s), np.int64) for s in p.program.cuts])
    for part in allowances.chunks(len(rows)):
        if found.seen and clock is not None and clock.over():
            break
        xy = places[part]
        close, own = Closeness(allowances, xy), np.zeros(len(xy), bool)
        values = seen_by(p.program, allowances.embed(xy))
        at, sites = np.arange(len(xy)), []
        patterns = zip(p.program.cuts, checks, p.patterns.ancestors(rows[part]), strict=True)
        for number, (stage, check, faces) in enumerate(patterns):
            z = next(values)
            sites.append(check.contradictions(z, at, faces))
            units = close.units(number, stage, z)
            found.blame[number] += (units & ~own[:, None]).sum(0)  # the first undecided site
            own |= units.any(1)
        bad = np.zeros(len(xy), bool)
        for site, real in zip(sites, allowances.judged(sites, xy, at)[0], strict=True):
            bad[site.row[real]] = True
        found.wrong += _clear(p, allowances, xy[bad & ~own & wide[rows[part]]])
        found.narrow += int(own.sum())
        found.seen += len(xy)
    return found


def broad(p: Partition, allowances: Allowances) -> np.ndarray:
    """`[F]` whether a region is wider than rounding moves its corners.

    What is narrower may be there or not, so that nothing is asked of it but its place in the mesh.
    """
    length = np.linalg.norm(np.subtract(*p.vertices[p.edges].transpose(1, 0, 2)), axis=1)
    around = np.add.reduceat(length[p.face_edges], p.face_offsets[:-1])
    return p.area > WIDTH * allowances.reach * around


def misread(p: Partition) -> int:
    """At how many places in regions the network has another pattern than the region.

    Places are the middles of the triangles that a region's centroid makes with its edges: where a
    border is misplaced, the centroids of both regions may still be right.
    """
    return middles(p, Allowances.of_slice(p), fans=True).wrong


def narrow(p: Partition, found: Ledger, allowances: Allowances, clock: Clock) -> None:
    """Count the regions at whose centroid a unit is within rounding of its knot, and say so.

    Their number is not certain: a unit whose rounding is larger than it, or a neighbour that is
    cut by it, has made or hidden some of them. Others that are misread are added to the check of
    patterns.
    """
    seen = middles(p, allowances, clock)
    found.more("patterns", seen.wrong)
    found.facts["regions_no_wider_than_rounding"] = seen.narrow
    if seen.narrow == 0:
        return
    site = int(np.argmax([units.max(initial=0) for units in seen.blame]))
    name, unit = p.sites[site], int(seen.blame[site].argmax())
    found.remark(
        f"{seen.narrow:,} of {seen.seen:,} regions are no wider than rounding: their number is "
        f"not certain (most by unit {unit} of {name!r}{largest(p, allowances)})"
    )


def _clear(p: Partition, allowances: Allowances, xy: np.ndarray) -> int:
    """How many points are twice as far from all knots as rounding is: what contradicts must be."""
    close, near = Closeness(allowances, xy), np.zeros(len(xy), bool)
    if len(xy):
        values = seen_by(p.program, allowances.embed(xy))
        for number, stage in enumerate(p.program.cuts):
            near |= close.units(number, stage, next(values), MARGIN).any(1)
    return int((~near).sum())


def crowded(p: Partition, found: Ledger, allowances: Allowances) -> None:
    """Count the vertices at which more lines meet than the two that make one, and say so.

    Within rounding they do meet there. If they don't, there are regions between them. Lines along
    which candidates of a maximum tie often do meet others: vertices on them are only counted, but
    behind a unit that drowns others.
    """
    usual = np.full(len(p.vertices), 4)
    border = np.unique(p.edges[p.edge_site < 0])
    corner = (p.vertices[border, None] == p.plane.corners).all(2).any(1)
    usual[border] = np.where(corner, 2, 3)
    many = np.bincount(p.edges.reshape(-1), minlength=len(usual)) > usual
    found.facts["crowded_vertices"] = int(many.sum())
    most = np.concatenate([np.ravel(m) for m in allowances.most])
    if most.max(initial=0) <= NOISY * most[most > 0].min(initial=np.inf):
        ties = np.append([isinstance(s, Max) for s in p.program.cuts], False)  # last: the border
        many[p.edges[ties[p.edge_site]]] = False
    count = int(many.sum())
    if count:
        found.remark(
            f"at {count:,} of {len(usual):,} vertices more lines meet than two: regions between "
            f"them that are no wider than rounding may be missing{largest(p, allowances)}"
        )


@torch.no_grad()
def largest(p: Partition, allowances: Allowances) -> str:
    """Which unit drowns others by its values, and what to do; empty where none does."""
    xy = p.vertices[np.linspace(0, len(p.vertices) - 1, 64).astype(int)]
    worst, text = HUGE, ""
    for name, z in zip(p.sites, seen_by(p.program, allowances.embed(xy)), strict=False):
        size = np.abs(np.where(np.isfinite(z), z, 0.0)).reshape(len(z), z.shape[1], -1)
        size = size.max((0, 2))
        usual = np.median(size[size > 0]) if (size > 0).any() else 0.0
        unit = int(size.argmax())
        if usual and size[unit] > worst * usual:
            worst = float(size[unit] / usual)
            text = (
                f"; unit {unit} of {name!r} has values up to {size[unit]:.1e}: rescale it, its "
                "incoming weights down and its outgoing ones up"
            )
    return text

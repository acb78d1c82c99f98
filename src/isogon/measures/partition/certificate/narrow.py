"""Regions that are no wider than rounding: whether they are there, float64 can't tell.

Those that were found are counted, and the vertices that may hide others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from isogon.cpwl.certificate import Ledger
from isogon.cpwl.rounding import EPS
from isogon.measures.partition.certificate.allowances import MARGIN, Allowances, Closeness
from isogon.measures.partition.certificate.contradictions import checks_of, seen_by

if TYPE_CHECKING:
    from isogon.measures.partition.certificate.certify import Clock
    from isogon.measures.partition.reading import Partition

WIDTH = 1024 * EPS  # of the largest coordinate: regions wider than that have a centroid
HUGE = 1e6  # times what is usual at its site: a unit whose values drown others


@torch.no_grad()
def narrow(p: Partition, found: Ledger, allowances: Allowances, clock: Clock) -> None:
    """Count the regions at whose centroid a unit is within rounding of its knot, and say so.

    Their number is not certain: a unit whose rounding is larger than it, or a neighbour that is
    cut by it, has made or hidden some of them. Of the others, if they are wide enough to have
    their centroid inside, those whose pattern is not the network's there are added to the check of
    patterns.
    """
    checks, wrong = checks_of(p.program, p.patterns), 0
    length = np.linalg.norm(np.subtract(*p.vertices[p.edges].transpose(1, 0, 2)), axis=1)
    around = np.add.reduceat(length[p.face_edges], p.face_offsets[:-1])
    broad = p.area > WIDTH * allowances.reach * around
    rows = np.flatnonzero(p.finished)
    if clock.seconds is not None:
        rows = np.random.default_rng(0).permutation(rows)
    count, seen = 0, 0
    blame = [np.zeros(p.program.units(stage), np.int64) for stage in p.program.cuts]
    for part in allowances.chunks(len(rows)):
        if seen and clock.over():
            break
        xy = p.centroid[rows[part]]
        close, own = Closeness(allowances, xy), np.zeros(len(xy), bool)
        values = seen_by(p.program, allowances.embed(xy))
        at, sites = np.arange(len(xy)), []
        patterns = zip(p.program.cuts, checks, p.patterns.ancestors(rows[part]), strict=True)
        for number, (stage, check, faces) in enumerate(patterns):
            z = next(values)
            sites.append(check.contradictions(z, at, faces))
            units = close.units(number, stage, z)
            blame[number] += (units & ~own[:, None]).sum(0)  # the first site that is undecided
            own |= units.any(1)
        bad = np.zeros(len(xy), bool)
        for site, real in zip(sites, allowances.judged(sites, xy, at)[0], strict=True):
            bad[site.row[real]] = True
        wrong += _clear(p, allowances, xy[bad & ~own & broad[rows[part]]])
        count += int(own.sum())
        seen += len(xy)
    found.more("patterns", wrong)
    found.facts["regions_no_wider_than_rounding"] = count
    if count == 0:
        return
    site = int(np.argmax([units.max(initial=0) for units in blame]))
    name, unit = p.sites[site], int(blame[site].argmax())
    found.remark(
        f"{count:,} of {seen:,} regions are no wider than rounding: their number is not certain "
        f"(most by unit {unit} of {name!r}{largest(p, allowances)})"
    )


def _clear(p: Partition, allowances: Allowances, xy: np.ndarray) -> int:
    """How many points are twice as far from all knots as rounding is: what contradicts must be."""
    close, near = Closeness(allowances, xy), np.zeros(len(xy), bool)
    if len(xy):
        values = seen_by(p.program, allowances.embed(xy))
        for number, stage in enumerate(p.program.cuts):
            near |= close.units(number, stage, next(values), MARGIN).any(1)
    return int((~near).sum())


def crowded(p: Partition, found: Ledger) -> None:
    """Count the vertices at which more lines meet than the two that make one, and say so.

    Within rounding they do meet there. If they don't, there are regions between them.
    """
    usual = np.full(len(p.vertices), 4)
    border = np.unique(p.edges[p.edge_site < 0])
    corner = (p.vertices[border, None] == p.plane.corners).all(2).any(1)
    usual[border] = np.where(corner, 2, 3)
    count = int((np.bincount(p.edges.reshape(-1), minlength=len(usual)) > usual).sum())
    found.facts["crowded_vertices"] = count
    if count:
        found.remark(
            f"at {count:,} of {len(usual):,} vertices more lines meet than two: regions between "
            "them that are no wider than rounding may be missing"
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

"""Regions that are no wider than rounding: whether they are there, float64 can't tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from isogon.cpwl.certificate import Ledger
from isogon.measures.partition.certificate.allowances import Allowances, Closeness
from isogon.measures.partition.certificate.contradictions import seen_by

if TYPE_CHECKING:
    from isogon.measures.partition.certificate.certify import Clock
    from isogon.measures.partition.reading import Partition

HUGE = 1e6  # times what is usual at its site: a unit whose values drown others


@torch.no_grad()
def narrow(p: Partition, found: Ledger, allowances: Allowances, clock: Clock) -> None:
    """Count the regions at whose centroid a unit is within rounding of its knot, and say so.

    Their number is not certain: a unit whose rounding is larger than it, or a neighbour that is
    cut by it, has made or hidden some of them.
    """
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
        for number, stage in enumerate(p.program.cuts):
            units = close.units(number, stage, next(values))
            blame[number] += (units & ~own[:, None]).sum(0)  # the first site that is undecided
            own |= units.any(1)
        count += int(own.sum())
        seen += len(xy)
    found.facts["regions_no_wider_than_rounding"] = count
    if count == 0:
        return
    site = int(np.argmax([units.max(initial=0) for units in blame]))
    name, unit = p.sites[site], int(blame[site].argmax())
    found.remark(
        f"{count:,} of {seen:,} regions are no wider than rounding: their number is not certain "
        f"(most by unit {unit} of {name!r}{largest(p, allowances)})"
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

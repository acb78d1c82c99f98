"""Stopping early: which faces are still cut where there is no room for all of them.

A face that is left at a site keeps the cuts of the sites before it. What is left over of the
room goes, in equal parts, to the sites that are still to come, and to the faces nearest to the
marks first: the regions around the data are cut to the end. Where even the first of them would
become too many, it is divided by the units that change nearest to the marks, and the rest of it
is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from isogon.cpwl.stages import Kink, Max
from isogon.measures.partition.mesh.cutting import Full, Limit
from isogon.measures.partition.mesh.mesh import Mesh

if TYPE_CHECKING:
    from isogon.measures.partition.patterns import SitePattern

FACTOR = 2  # times the limit, as counted beforehand, a cut is still tried ...
FEW = 100_000  # ... and up to so many faces in any case
MARKS = 32  # that are looked at


def limit(faces: int, strict: bool) -> Limit:
    """The limit of a cut; a strict one holds for what is counted beforehand too."""
    return Limit(faces, faces if strict else max(FACTOR * faces, FEW))


def distance(mesh: Mesh, marks: np.ndarray) -> np.ndarray:
    """`[F]` how far the nearest of some points is outside of each (convex) face; 0: inside."""
    ends = np.roll(mesh.loops, -1)
    ends[mesh.offsets[1:] - 1] = mesh.loops[mesh.offsets[:-1]]
    start, step = mesh.xy[mesh.loops], mesh.xy[ends] - mesh.xy[mesh.loops]
    length = np.maximum(np.hypot(*step.T), 1e-300)
    found = np.full(len(mesh), np.inf)
    for mark in marks[:MARKS]:
        x, y = (mark - start).T
        right = (step[:, 1] * x - step[:, 0] * y) / length
        beyond = np.maximum.reduceat(right, mesh.offsets[:-1])
        found = np.minimum(found, np.maximum(beyond, 0.0))
    return found


def asking(mesh: Mesh, new: np.ndarray, marks: np.ndarray) -> tuple[np.ndarray, int]:
    """The faces that a site would divide, the nearest to the marks first.

    And how many of them hold one (the first of them, where none does).
    """
    faces = np.flatnonzero(new)
    far = distance(mesh, marks)[faces]
    return faces[np.argsort(far, kind="stable")], max(1, int((far == 0).sum()))


def leave(mesh: Mesh, site: int, new: np.ndarray, room: int, order: np.ndarray) -> None:
    """Leave the faces at a site for which there is no room, the last ones first.

    Args:
        mesh: Its `stopped` is set.
        site: Number of the site at which they are left.
        new: `[F]` faces that the site would add to each.
        room: How many may be added.
        order: The faces that it would divide, in order.
    """
    over = order[np.cumsum(new[order]) > room]
    over = over if len(over) else order[-1:]
    mesh.stopped = mesh.stopped.copy()
    mesh.stopped[over] = site


def divide(
    mesh: Mesh,
    cut: Callable[[Limit, np.ndarray], SitePattern],
    stage: Kink | Max,
    face: int,
    room: int,
    marks: np.ndarray,
) -> np.ndarray | None:
    """Divide one face by some of a site's units, into at most `room` more faces.

    Args:
        mesh: What to cut.
        cut: Called with the limit and the units; returns the pattern.
        stage: The site's.
        face: Number of the face.
        room: How many faces may be added.
        marks: Points near which the units change.

    Returns:
        The parent of every face; None where not even one unit can be.
    """
    lines = max(len(stage.knots) if isinstance(stage, Kink) else stage.index.shape[1] - 1, 1)
    # k lines make at most 1 + k + k (k - 1) / 2 faces
    most = int((np.sqrt(8 * room + 1) - 1) / 2) // lines
    near = _nearest(mesh, stage, face, marks)
    stopped = mesh.stopped
    while most > 0:
        before = mesh.snapshot()
        mesh.stopped = np.zeros_like(stopped)
        mesh.stopped[face] = -1
        try:
            parent = cut(Limit(len(mesh) + room, len(mesh) + room), near[:most]).parent
        except Full as full:
            mesh.restore(before)
            mesh.stopped, most = stopped, 0 if full.memory else most // 2
            continue
        mesh.stopped = stopped[parent]
        return parent if len(mesh) > len(stopped) else None
    return None


def _nearest(mesh: Mesh, stage: Kink | Max, face: int, marks: np.ndarray) -> np.ndarray:
    """Units that change on a face, those that do so nearest to one of the marks first."""
    corners = mesh.loops[mesh.offsets[face] : mesh.offsets[face + 1]]
    at = torch.from_numpy(corners.astype(np.int64))
    arguments = [mesh.live[name][at] for name in stage.inputs]
    xy = mesh.xy[corners]
    center = xy.mean(0)
    if isinstance(stage, Kink):  # [corners, knots, units]
        z = arguments[0]
        levels = torch.stack([knot.expand(z.shape[1:]) for knot in stage.knots])
        values = (z[:, None] - levels).reshape(len(xy), len(levels), -1).numpy()
        still = ((values > 0).any(0) & (values < 0).any(0)).any(0)
    else:  # [corners, entries, units]
        values = stage.candidates(*arguments).permute(0, 2, 1).numpy()
        always = np.all(values == values.max(1, keepdims=True), axis=0)
        still = ~np.asarray(always).any(0)
        values = np.where(np.isfinite(values), values, -1e300)
    chart = np.column_stack([xy - center, np.ones(len(xy))])
    fitted = (np.linalg.pinv(chart) @ values.reshape(len(xy), -1)).reshape(3, *values.shape[1:])
    found = np.full(values.shape[2], np.inf)
    for mark in marks[:MARKS]:
        here, slope = np.tensordot([*(mark - center), 1.0], fitted, 1), fitted[:2]
        if isinstance(stage, Max):  # how far the largest one is from being overtaken
            top = here.argmax(0)[None]
            here = np.take_along_axis(here, top, 0) - here
            slope = np.take_along_axis(slope, top[None], 1) - slope
            np.put_along_axis(here, top, np.inf, 0)
        gap = np.abs(here) / np.maximum(np.hypot(*slope), 1e-290)
        found = np.minimum(found, gap.min(0))
    order = np.argsort(found, kind="stable")
    return order[np.asarray(still)[order]]

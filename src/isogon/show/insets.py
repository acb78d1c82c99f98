"""Whether a partition is one of a part of a boundary's plane, and of the same network."""

from __future__ import annotations

import warnings

import numpy as np

from isogon.errors import OptionError
from isogon.measures.boundary.reading import Boundary
from isogon.measures.partition.charts import signed_area
from isogon.measures.partition.reading import Partition
from isogon.measures.partition.statistics import distance_to

SAMPLE = 200  # points at which two networks are compared
BESIDE = 1e-6  # of the inset's extent: off the plane, or off its boundary
ALIKE = 1e-6  # of the largest output: outputs of one network, computed twice


def place_of(b: Boundary, p: Partition) -> np.ndarray:
    """`[k, 2]` the corners of a partition's slice in the coordinates of a boundary's.

    Raises:
        OptionError: It is no partition, or not of a part of this plane, or of another network
            (as far as the readings tell; a `UserWarning` where only the boundaries differ).
    """
    if not isinstance(p, Partition):
        raise OptionError(
            "the inset is no partition",
            got=type(p).__name__,
            expected="a Partition",
            fix="isogon.partition(model, boundary.zoom()) makes one.",
        )
    if len(p.plane.origin) != len(b.plane.origin):
        raise OptionError(
            "the inset is not in the boundary's plane",
            got=f"inputs of shape {list(p.plane.shape)}",
            expected=f"inputs of shape {list(b.plane.shape)}",
            fix="boundary.zoom(...) makes a part of the plane.",
        )
    at = p.plane.embed(p.plane.corners).reshape(len(p.plane.corners), -1).numpy()
    found = _coordinates(b, at)
    # beside its own size: a small square that is tilted, or beside the plane, is none of its parts
    extent = float(np.linalg.norm(np.ptp(at, axis=0)))
    off = float(np.abs(b.plane.basis @ found.T + b.plane.origin[:, None] - at.T).max())
    if off > BESIDE * extent + 1e-12 * float(np.abs(at).max()):
        raise OptionError(
            "the inset is not in the boundary's plane",
            got=f"corners {off:.2g} beside it, in a part of size {extent:.2g}",
            expected="the partition of a slice of the same plane",
            fix="boundary.zoom(...) makes one.",
        )
    if not _meet(found, b.plane.corners):
        raise OptionError(
            "the inset lies outside of the boundary's slice",
            got=f"a part around {found.mean(0).round(6).tolist()}",
            expected="a part of the slice",
            fix="boundary.zoom(...) makes one.",
        )
    _check_network(b, p, found)
    return found


def _check_network(b: Boundary, p: Partition, place: np.ndarray) -> None:
    """Refuse the partition of another network, or warn where its boundary is another one."""
    count = p.outputs.shape[1]
    if count != int(b.meta["outputs"]):
        raise OptionError(
            "the inset is of another network",
            got=f"{count} outputs",
            expected=f"{b.meta['outputs']}, as the boundary's",
            fix="Give a partition of the network whose boundary it is.",
        )
    if b.frozen is not None:
        off, most = _difference(b, p)
        if off > 1:
            raise OptionError(
                "the inset is of another network",
                got=f"outputs that differ by {most:.2g}",
                expected="the outputs of the network whose boundary it is",
                fix="Give a partition of that network.",
            )
    elif _elsewhere(b, p, place):
        warnings.warn(
            "the inset's boundary is not this one: it seems to be the partition of another network "
            "(boundary.attach(model) makes sure)",
            stacklevel=5,  # where `draw` was called
        )


def _difference(b: Boundary, p: Partition) -> tuple[float, float]:
    """By how much outputs differ at vertices of a partition: in allowances, and as they are."""
    assert b.frozen is not None
    program = b.frozen.program
    done = np.repeat(p.finished, np.diff(p.face_offsets))
    held = np.unique(p.face_vertices[done])
    held = held[np.linspace(0, len(held) - 1, min(SAMPLE, len(held))).astype(np.int64)]
    if not len(held):
        return 0.0, 0.0
    x = p.plane.embed(p.vertices[held]).reshape(-1, *program.shape)
    gap = np.abs(program.evaluate(x).flatten(1).numpy() - p.outputs[held])
    gap = np.where(np.isfinite(gap), gap, 0.0)  # a class that is masked
    size = np.where(np.isfinite(p.outputs[held]), np.abs(p.outputs[held]), 0.0).max()
    allowed = np.maximum(ALIKE * size + 10 * p.arrays.get("output_zero", 0.0), 1e-300)
    return float((gap / allowed).max()), float(gap.max())


def _elsewhere(b: Boundary, p: Partition, place: np.ndarray) -> bool:
    """Whether corners of the boundary that lie in a partition are off the partition's own."""
    if b.meta.get("classes") is not None or not p.complete:
        return False  # not the boundary that a partition has, or not all of it
    held = _inside(place, b.points)
    held = held[np.linspace(0, len(held) - 1, min(SAMPLE, len(held))).astype(np.int64)]
    if not len(held):
        return False
    if not len(p.boundary):
        return True
    at = p.plane.project(b.plane.embed(b.points[held]))
    extent = float(np.ptp(p.plane.corners, axis=0).max())
    return any(float(distance_to(p.boundary, x).min()) > BESIDE * extent for x in at)


def _coordinates(b: Boundary, at: np.ndarray) -> np.ndarray:
    found, *_ = np.linalg.lstsq(b.plane.basis, (at - b.plane.origin).T, rcond=None)
    return found.T


def _inside(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Numbers of the points `[n, 2]` inside a convex polygon, by more than rounding."""
    corners = polygon if signed_area(polygon) > 0 else polygon[::-1]
    step = np.roll(corners, -1, 0) - corners
    away = points[:, None] - corners[None]
    side = step[:, 0] * away[..., 1] - step[:, 1] * away[..., 0]
    least = BESIDE * np.linalg.norm(step, axis=1) * np.ptp(corners, axis=0).max()
    return np.flatnonzero((side > least).all(1))


def _meet(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two convex polygons overlap: no side of either has all of the other beyond it."""
    for one, other in ((first, second), (second, first)):
        step = np.roll(one, -1, 0) - one
        normal = np.stack([step[:, 1], -step[:, 0]], 1)
        for axis in normal:
            x, y = one @ axis, other @ axis
            if min(x.max(), y.max()) <= max(x.min(), y.min()):
                return False
    return True

"""What a partition looks like in numbers: sizes and shapes of regions, near data and far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from torch import Tensor

from isogon import options
from isogon.cpwl.rounding import EPS, ROUNDING
from isogon.errors import ModelError, OptionError
from isogon.measures.partition.affine import affine_maps
from isogon.measures.partition.mesh.zeros import outputs_at

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from isogon.measures.partition.reading import Partition


@dataclass(frozen=True)
class Merged:
    """Regions joined wherever the network's affine map is the same on both sides of an edge.

    Attributes:
        region_of: `[R]` joined region of each region of the partition.
        edges: Edges of the partition that stay.
        area: `[M]` area of each joined region.
    """

    region_of: np.ndarray
    edges: np.ndarray
    area: np.ndarray

    def __len__(self) -> int:
        return len(self.area)


def corner_ratio(p: Partition) -> np.ndarray:
    """`[R]` largest over smallest distance between two corners of each region, at least 1."""
    sizes = np.diff(p.face_offsets)
    found = np.ones(len(p))
    for k in np.unique(sizes):
        faces = np.flatnonzero(sizes == k)
        for part in np.array_split(faces, len(faces) * int(k) // 2_000_000 + 1):
            corners = p.face_vertices[p.face_offsets[part][:, None] + np.arange(k)]
            x, y = p.vertices[corners, 0], p.vertices[corners, 1]
            low, high = np.full(len(part), np.inf), np.zeros(len(part))
            for step in range(1, int(k) // 2 + 1):  # corners that are so many places apart
                d = np.hypot(np.roll(x, -step, 1) - x, np.roll(y, -step, 1) - y)
                low, high = np.minimum(low, d.min(1)), np.maximum(high, d.max(1))
            with np.errstate(divide="ignore"):
                found[part] = high / low
    return found


def region_table(p: Partition) -> pd.DataFrame:
    """One row per region: area, vertices, eccentricity, corner_ratio, centrality, perimeter.

    The formulas are those of `Partition.statistics`.
    """
    starts, sizes = p.face_offsets[:-1], np.diff(p.face_offsets)
    following = np.arange(1, len(p.face_vertices) + 1)
    following[p.face_offsets[1:] - 1] = starts
    x, y = (p.vertices[p.face_vertices, k] for k in (0, 1))
    u, v = x[following], y[following]
    length = np.hypot(u - x, v - y)
    # second moments about the centroid, as sums over the triangles (centroid, corner, next one)
    for axis, columns in ((0, (x, u)), (1, (y, v))):
        center = np.repeat(p.centroid[:, axis], sizes)
        for column in columns:
            column -= center
    cross = x * v - u * y
    xx, yy, xy = (
        np.add.reduceat(cross * product, starts)
        for product in (
            x * x + x * u + u * u,
            y * y + y * v + v * v,
            x * y + u * v + (x * v + u * y) / 2,
        )
    )
    mean = (xx + yy) / 2
    half = np.hypot((xx - yy) / 2, xy)
    with np.errstate(divide="ignore", invalid="ignore"):
        flat = np.where(mean > 0, 1 - np.clip((mean - half) / (mean + half), 0, 1), 1.0)
    center = p.plane.corners.mean(0)
    radius = np.linalg.norm(p.plane.corners - center, axis=1).max()
    return pd.DataFrame(
        {
            "area": p.area,
            "vertices": sizes,
            "eccentricity": np.sqrt(flat),
            "corner_ratio": corner_ratio(p),
            "centrality": np.linalg.norm(p.centroid - center, axis=1) / radius,
            "perimeter": np.add.reduceat(length, starts),
        }
    )


def _nearby(p: Partition, marks: np.ndarray, radius: float) -> np.ndarray:
    """`[R]` whether a region's centroid is within a radius of a mark, or the region holds one."""
    gap, _ = KDTree(marks).query(p.centroid, distance_upper_bound=radius * (1 + 1e-12))
    close = gap <= radius
    own = p.locate(marks)
    close[own[own >= 0]] = True
    return close


def statistics(
    p: Partition, near: Tensor | np.ndarray | None = None, radius: float | None = None
) -> pd.DataFrame:
    """Summary of a partition, one row per group of regions (see `Partition.statistics`)."""
    if radius is not None and not radius > 0:
        raise OptionError("no neighbourhood of the data", got=f"radius {radius}", expected="> 0")
    table = region_table(p)
    groups = {"all": np.ones(len(p), bool)}
    marks = p.plane.marks if near is None else p.plane.project(near)
    if len(marks):
        extent = np.ptp(p.plane.corners, axis=0).max()
        close = _nearby(p, marks, 0.1 * extent if radius is None else radius)
        groups |= {"near": close, "far": ~close}
    segments = p.boundary
    length = np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)
    holder = np.array(p.boundary_region)
    shared = np.flatnonzero(holder < 0)  # a segment along an edge counts for one of its sides
    holder[shared] = p.locate(segments[shared].mean(1))
    distance = np.linalg.norm(p.vertices - p.vertices.mean(0), axis=1)[p.face_vertices]
    corner_face = np.repeat(np.arange(len(p)), np.diff(p.face_offsets))
    rows = []
    for name, inside in groups.items():
        members, left = inside & p.finished, inside & ~p.finished
        part, spread = table[members], distance[members[corner_face]]
        values = {column: part[column].to_numpy(float) for column in table}
        area, some = float(values["area"].sum()), bool(len(part))
        row: dict[str, Any] = {
            "regions": name,
            "count": len(part),
            "share_of_area": area / p.plane.area,
            "density": len(part) / area if area else np.nan,
            "unfinished": int(left.sum()),
            "unfinished_share_of_area": float(p.area[left].sum()) / p.plane.area,
        }
        for column in values:
            row[f"{column}_mean"] = float(values[column].mean()) if some else np.nan
            row[f"{column}_sd"] = float(values[column].std()) if some else np.nan
        row["area_median"] = float(np.median(values["area"])) if some else np.nan
        row["corner_spread_mean"] = float(spread.mean()) if some else np.nan
        row["corner_spread_sd"] = float(spread.std()) if some else np.nan
        row["boundary_length"] = float(length[(holder >= 0) & members[holder]].sum())
        rows.append(row)
    return pd.DataFrame(rows)


def summary(p: Partition) -> pd.DataFrame:
    """The statistics, one row each, and whether the partition is certified, where it was tried."""
    frame = p.statistics().T.reset_index()
    frame.columns = ["statistic", *frame.iloc[0, 1:]]
    frame = frame.iloc[1:].reset_index(drop=True)
    if p.certificate is not None:
        row = ["certified", int(p.certificate.passed)] + [np.nan] * (len(frame.columns) - 2)
        frame.loc[len(frame)] = row
    return frame


def merged(p: Partition, tolerance: float) -> Merged:
    """Regions joined wherever the network's affine map is the same (see `Partition.merged`)."""
    if p.program is None:
        raise ModelError(
            "a partition read from disk has no network to compare maps with",
            fix="Call partition.attach(model) first.",
        )
    group, keep = joined_regions(p, tolerance)
    area = np.bincount(group, p.area)
    return Merged(region_of=group, edges=np.flatnonzero(keep), area=area)


def joined_regions(p: Partition, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Groups of regions that share one affine map, and the edges that separate groups.

    Args:
        p: A partition with its network.
        tolerance: Relative to the size of what each output sums; maps of two neighbours are one
            where gradients agree within it.

    Returns:
        Group of each region `[R]`, mask of edges that stay `[E]`.
    """
    left, right = p.edge_faces.T
    inner = np.flatnonzero((left >= 0) & (right >= 0))
    # (never to that of another output, nor to its own value, which may be all rounding)
    size = np.maximum(outputs_at(p).error[0] / (ROUNDING * EPS), 1e-290)[-p.outputs.shape[1] :]
    extent = float(np.ptp(p.plane.corners, axis=0).max())
    same = np.zeros(len(p.edges), bool)
    step = max(1, (1 << 24) // p.outputs.shape[1])
    for low in range(0, len(inner), step):
        part = inner[low : low + step]
        at = p.vertices[p.edges[part, 0]]
        a, b = (
            affine_maps(p.program, p.plane, p.patterns, side[part], at)[1] for side in (left, right)
        )
        same[part] = (np.abs(a - b).max(2) * extent <= tolerance * size).all(1)
    graph = coo_array((np.ones(int(same.sum())), (left[same], right[same])), shape=(len(p),) * 2)
    _, group = connected_components(graph, directed=False)
    keep = (left < 0) | (right < 0)
    keep[inner] = group[left[inner]] != group[right[inner]]
    return group, keep


def distance_to(segments: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Distance of a point `[2]`, or of one each `[B, 2]`, to segments `[B, 2, 2]`."""
    a, d = segments[:, 0], segments[:, 1] - segments[:, 0]
    t = np.clip(((point - a) * d).sum(1) / np.maximum((d * d).sum(1), 1e-300), 0, 1)
    return np.linalg.norm(a + t[:, None] * d - point, axis=1)


def sampled(
    p: Partition, n: int, generator: torch.Generator | None, near: ArrayLike | None
) -> np.ndarray:
    """Points on the decision boundary (see `Partition.sample_boundary`)."""
    n, generator = options.whole("n", n), options.generator(generator)
    segments = p.boundary
    length = np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)
    if not length.sum() > 0:
        raise OptionError(
            "no decision boundary on this slice"
            if p.complete
            else "no decision boundary on the regions that were cut to the end",
            got=f"labels {np.unique(p.label[p.finished])}",
            fix="Choose a slice through inputs of different classes."
            if p.complete
            else "Raise max_regions or choose a smaller slice.",
        )
    if near is not None:
        marks = p.plane.project(near)
        chosen = {int(np.argmin(distance_to(segments, mark))) for mark in marks}
        mask = np.zeros(len(length))
        mask[list(chosen)] = 1
        length = length * mask
    total = torch.rand(n, generator=generator, dtype=torch.float64).numpy() * length.sum()
    at = np.minimum(np.searchsorted(np.cumsum(length), total, side="right"), len(length) - 1)
    t = torch.rand(n, 1, generator=generator, dtype=torch.float64).numpy()
    return segments[at, 0] + t * (segments[at, 1] - segments[at, 0])

"""What a partition looks like in numbers: sizes and shapes of regions, near data and far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from isogon.measures.partition.affine import affine_maps


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


def region_table(p: Any) -> pd.DataFrame:
    """One row per region: area, vertices, eccentricity, centrality, perimeter.

    - `eccentricity` = sqrt(1 - l2 / l1), with l1 >= l2 the eigenvalues of the covariance of the
      region's corners: 0 for a regular polygon, near 1 for a sliver;
    - `centrality` = distance of the centroid from the slice's centre, over the slice's radius.
    """
    sizes = np.diff(p.face_offsets)
    face = np.repeat(np.arange(len(p)), sizes)
    xy = p.vertices[p.face_vertices]
    mean = np.stack([np.bincount(face, xy[:, k], len(p)) for k in (0, 1)], 1) / sizes[:, None]
    d = xy - mean[face]
    xx, yy, xz = (
        np.bincount(face, product, len(p)) / sizes
        for product in (d[:, 0] ** 2, d[:, 1] ** 2, d[:, 0] * d[:, 1])
    )
    half = np.hypot((xx - yy) / 2, xz)
    large, small = (xx + yy) / 2 + half, np.maximum((xx + yy) / 2 - half, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        flat = np.where(large > 0, 1 - small / large, 0)
    following = np.arange(1, len(face) + 1)
    following[p.face_offsets[1:] - 1] = p.face_offsets[:-1]
    length = np.linalg.norm(xy[following] - xy, axis=1)
    center = p.plane.corners.mean(0)
    radius = np.linalg.norm(p.plane.corners - center, axis=1).max()
    return pd.DataFrame(
        {
            "area": p.area,
            "vertices": sizes,
            "eccentricity": np.sqrt(flat),
            "centrality": np.linalg.norm(p.centroid - center, axis=1) / radius,
            "perimeter": np.bincount(face, length, len(p)),
        }
    )


def statistics(p: Any, near: Any = None, radius: float | None = None) -> pd.DataFrame:
    """Summary of a partition, one row per group of regions (see `Partition.statistics`)."""
    table = region_table(p)
    groups = {"all": np.ones(len(p), bool)}
    segments = p.boundary
    if near is not None or len(p.plane.marks):
        marks = p.plane.marks if near is None else p.plane.project(near)
        extent = np.ptp(p.plane.corners, axis=0).max()
        radius = 0.1 * extent if radius is None else radius
        gap = np.stack([np.linalg.norm(p.centroid - m, axis=1) for m in marks]).min(0)
        close = gap <= radius
        own = p.locate(marks)
        close[own[own >= 0]] = True
        groups |= {"near": close, "far": ~close}
    rows = []
    for name, members in groups.items():
        part = table[members]
        values = {column: part[column].to_numpy(float) for column in table}
        area = float(values["area"].sum())
        row: dict[str, Any] = {
            "regions": name,
            "count": len(part),
            "share_of_area": area / p.plane.area,
            "density": len(part) / area if area else np.nan,
        }
        for column in ("area", "vertices", "eccentricity", "centrality", "perimeter"):
            row[f"{column}_mean"] = float(values[column].mean()) if len(part) else np.nan
            row[f"{column}_sd"] = float(values[column].std()) if len(part) else np.nan
        row["area_median"] = float(np.median(values["area"])) if len(part) else np.nan
        inside = members[p.boundary_region] & (p.boundary_region >= 0)
        chosen = segments if name == "all" else segments[inside]
        row["boundary_length"] = float(np.linalg.norm(chosen[:, 1] - chosen[:, 0], axis=1).sum())
        rows.append(row)
    return pd.DataFrame(rows)


def joined_regions(p: Any, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Groups of regions that share one affine map, and the edges that separate groups.

    Args:
        p: A partition with its network.
        tolerance: Relative to the largest output; maps of two neighbours are one where values
            at both ends of their edge and gradients agree within it.

    Returns:
        Group of each region `[R]`, mask of edges that stay `[E]`.
    """
    left, right = p.edge_faces.T
    inner = np.flatnonzero((left >= 0) & (right >= 0))
    size = max(float(np.abs(p.outputs).max()), 1e-290)
    extent = float(np.ptp(p.plane.corners, axis=0).max())
    same = np.zeros(len(p.edges), bool)
    for low in range(0, len(inner), 1 << 15):
        part = inner[low : low + (1 << 15)]
        at = p.vertices[p.edges[part, 0]]
        a, b = (
            affine_maps(p.program, p.plane, p.patterns, side[part], at)[1] for side in (left, right)
        )
        same[part] = np.abs(a - b).max((1, 2)) * extent <= tolerance * size
    graph = coo_array((np.ones(int(same.sum())), (left[same], right[same])), shape=(len(p),) * 2)
    _, group = connected_components(graph, directed=False)
    keep = (left < 0) | (right < 0)
    keep[inner] = group[left[inner]] != group[right[inner]]
    return group, keep


def distance_to(segments: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Distance of a point to each segment `[B, 2, 2]`."""
    a, d = segments[:, 0], segments[:, 1] - segments[:, 0]
    t = np.clip(((point - a) * d).sum(1) / np.maximum((d * d).sum(1), 1e-300), 0, 1)
    return np.linalg.norm(a + t[:, None] * d - point, axis=1)

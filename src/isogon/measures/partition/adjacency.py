"""Which regions share an edge, and the topology of the decision regions made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from isogon.errors import DependencyError, OptionError
from isogon.measures.partition.decisions import along, class_areas, decisions
from isogon.measures.partition.kernels import boundary as kernels
from isogon.measures.partition.mesh.zeros import Table, outputs_at
from isogon.measures.partition.statistics import Merged, merged

if TYPE_CHECKING:
    from networkx import MultiGraph

    from isogon.measures.partition.reading import Partition


@dataclass(frozen=True, eq=False)
class Adjacency:
    """The graph of a partition: regions are nodes, inner edges of the mesh are links.

    Two regions can share several links, where a vertex of a neighbour lies between them.

    Attributes:
        count: Number of regions.
        regions: `[m, 2]`, the two regions of each link, the smaller number first.
        edge: `[m]`, its edge in the partition.
        site: `[m]`, index into the partition's sites of the site that is cut there.
        unit: `[m]`, the unit of that site.
        length: `[m]`, in slice coordinates.
    """

    count: int
    regions: np.ndarray
    edge: np.ndarray
    site: np.ndarray
    unit: np.ndarray
    length: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """One row per link."""
        a, b = self.regions.T
        columns = {"edge": self.edge, "site": self.site, "unit": self.unit, "length": self.length}
        return pd.DataFrame({"region_a": a, "region_b": b} | columns)

    def to_sparse(self) -> sparse.csr_array:
        """The symmetric adjacency matrix `[R, R]`: lengths of the common border."""
        a, b = self.regions.T
        rows, columns = np.concatenate([a, b]), np.concatenate([b, a])
        shape = (self.count, self.count)
        return sparse.csr_array((np.tile(self.length, 2), (rows, columns)), shape=shape)

    def to_networkx(self) -> MultiGraph:
        """A `networkx.MultiGraph` with edge, site, unit and length on its links.

        Raises:
            DependencyError: networkx is not installed.
        """
        try:
            import networkx
        except ImportError:
            raise DependencyError(
                "networkx is not installed", fix="pip install networkx, or use to_sparse()."
            ) from None
        graph = networkx.MultiGraph()
        graph.add_nodes_from(range(self.count))
        facts = (self.edge, self.site, self.unit, self.length)
        for (a, b), *known in zip(self.regions.tolist(), *(f.tolist() for f in facts)):
            edge, site, unit, length = known
            graph.add_edge(a, b, key=edge, site=site, unit=unit, length=length)
        return graph


class Neighbours:
    """What a partition says about regions that meet."""

    def graph(self) -> Adjacency:
        """The graph of regions, see `Adjacency`: as table, SciPy matrix or networkx graph."""
        return adjacency(self)  # type: ignore[arg-type]

    def topology(self) -> pd.DataFrame:
        """Pieces, holes and Euler characteristic of the decision region of each class.

        See `isogon.measures.partition.adjacency.topology`.
        """
        return topology(self)  # type: ignore[arg-type]

    def merged(self, tolerance: float = 1e-9) -> Merged:
        """The regions on which the output is one affine map: edges without a bend dissolved.

        Args:
            tolerance: Of gradients, relative to the largest output over the slice's extent.

        Raises:
            ModelError: The partition was read from disk and knows no network: `attach` it.
        """
        return merged(self, tolerance)  # type: ignore[arg-type]


def adjacency(p: Partition) -> Adjacency:
    """The graph of regions.

    Args:
        p: A partition.
    """
    sides = np.sort(p.edge_faces, axis=1)
    edge = np.flatnonzero(sides[:, 0] >= 0)
    length = np.linalg.norm(np.diff(p.vertices[p.edges[edge]], axis=1)[:, 0], axis=1)
    return Adjacency(
        len(p), sides[edge].astype(np.int64), edge, p.edge_site[edge], p.edge_unit[edge], length
    )


def topology(p: Partition) -> pd.DataFrame:
    """Pieces and holes of the decision region of each class on the slice.

    The region of a class is where its output is the largest (one output: class 1 where it is
    positive, 0 where it is not); where several are, the first one counts, and what has no area (a
    line on which outputs tie) does not. On a linear region it is convex, so that cells (linear
    region, class) and what they share along edges and boundary segments tell all: b0 counts the
    parts that hang together along more than points; b1 counts holes, parts of the rest that do not
    reach the slice's border (Alexander duality); the Euler characteristic is b0 - b1.

    Args:
        p: A partition that was cut to the end.

    Returns:
        One row per class that is there: class, area, b0, b1, euler, and whether it reaches the
        slice's border.

    Raises:
        OptionError: The partition stopped early.
    """
    if not p.complete:
        raise OptionError(
            "the topology of a partition that stopped early is not known",
            got=f"{int((~p.finished).sum())} regions not cut to the end",
            fix="Raise max_regions, or choose a smaller slice.",
        )
    cells, links, border = _cells(p)
    classes = cells % _classes(p)
    areas = class_areas(p, math.inf)
    rows = []
    for c in np.unique(classes):
        own, rest = classes == c, classes != c
        within = _parts(own, links)
        outside = _parts(rest, links)
        reaching = np.unique(outside[border & rest])
        b0 = int(within.max(initial=-1)) + 1
        b1 = int(outside.max(initial=-1)) + 1 - len(reaching)
        rows.append((int(c), areas.get(int(c), 0.0), b0, b1, b0 - b1, bool((border & own).any())))
    return pd.DataFrame(rows, columns=["class", "area", "b0", "b1", "euler", "reaches_border"])


def _classes(p: Partition) -> int:
    return max(p.outputs.shape[1], 2)


def _outputs(p: Partition) -> np.ndarray:
    """Outputs `[V, C]`, a single one as two."""
    z = p.outputs
    return np.concatenate([np.zeros_like(z), z], 1) if z.shape[1] == 1 else z


def _cells(p: Partition) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells as region * C + class, ascending; links between them; which reach the border."""
    count = _classes(p)
    faces = decisions(p, math.inf)
    cells = np.unique(faces.region * count + faces.label)
    edge, beside = _beside(p)
    sides = p.edge_faces[edge]
    inner = (sides >= 0).all(1)
    own = sides * count + beside
    region, two = p.boundary_region, p.boundary_classes
    crossed = region >= 0
    across = region[crossed, None] * count + two[crossed]  # of two classes, within a region
    pairs = np.concatenate([own[inner], across])
    pairs = pairs[np.isin(pairs, cells).all(1)]
    border = np.isin(cells, own[~inner].max(1))  # of the side that is there
    return cells, np.searchsorted(cells, pairs), border


def _beside(p: Partition) -> tuple[np.ndarray, np.ndarray]:
    """Along each edge the classes on its two sides, stretch by stretch: `[n]` edges, `[n, 2]`.

    They are the same but where outputs tie all along the edge: then in each region the one counts
    that is the largest next to it (the first one, where rounding decides). What is the largest on
    the edge alone has no area.
    """
    z, ends = _outputs(p), p.edges
    sides = np.where(p.edge_faces < 0, p.edge_faces[:, ::-1], p.edge_faces)
    table = outputs_at(p)
    tied, row = np.empty(z.shape, np.bool_), np.zeros(len(z), np.int64)
    kernels.tied_outputs(z, table.error, row, np.zeros(len(z), np.bool_), tied)
    several = np.zeros(len(ends), bool)
    several[kernels.candidates(z, table, ends, sides, tied)] = True
    top = z.argmax(1)[ends]
    same = (top[:, 0] == top[:, 1]) & ~several  # linear there: then it is the largest all along
    edges, found = [np.flatnonzero(same)], [np.repeat(top[same, :1], 2, 1)]
    for e in np.flatnonzero(~same):
        a, b = z[ends[e]]
        for _, _, c in along(a, b):
            doubt = table.error[0] + table.error[0][c]
            equal = np.flatnonzero((np.abs(a - a[c]) <= doubt) & (np.abs(b - b[c]) <= doubt))
            own = [c, c] if len(equal) == 1 else [_winner(p, z, table, f, equal) for f in sides[e]]
            edges.append(np.array([e]))
            found.append(np.array([own]))
    return np.concatenate(edges), np.concatenate(found)


def _winner(p: Partition, z: np.ndarray, table: Table, face: int, equal: np.ndarray) -> int:
    """Of outputs that are equal on an edge of a region: the largest one next to it in there."""
    corners = p.face_vertices[p.face_offsets[face] : p.face_offsets[face + 1]]
    total, doubt = z[corners].sum(0), len(corners) * table.error[0]
    best = int(equal[0])
    for c in equal[1:].tolist():
        if total[c] - total[best] > doubt[c] + doubt[best]:
            best = c
    return best


def _parts(own: np.ndarray, links: np.ndarray) -> np.ndarray:
    """Number of the part that each cell among ``own`` belongs to, -1 for the others."""
    held = links[own[links].all(1)]
    place = np.cumsum(own) - 1
    n = int(own.sum())
    a, b = place[held].T
    graph = sparse.coo_array((np.ones(len(held), bool), (a, b)), shape=(n, n))
    found = np.full(len(own), -1)
    if n:
        found[own] = connected_components(graph, directed=False)[1]
    return found

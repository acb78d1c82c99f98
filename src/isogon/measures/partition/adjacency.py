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
from isogon.measures.partition.decisions import along, class_areas
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
    positive, 0 where negative). On a linear region it is convex, so that cells (linear region,
    class) and what they share along edges and boundary segments tell all: b0 counts the parts that
    hang together along more than points; b1 counts holes, parts of the rest that do not reach the
    slice's border (Alexander duality); the Euler characteristic is b0 - b1.

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
    edge, label = _along(p)
    sides = p.edge_faces[edge]
    inner = (sides >= 0).all(1)
    one, other = sides[:, 0] * count + label, sides[:, 1] * count + label
    outer = np.where(sides[:, 0] >= 0, one, other)[~inner]
    pairs = [np.stack([one[inner], other[inner]], 1)]  # of one class, across an edge
    held = [one[sides[:, 0] >= 0], other[sides[:, 1] >= 0]]
    region, two = p.boundary_region, p.boundary_classes
    crossed = region >= 0
    across = region[crossed, None] * count + two[crossed]  # of two classes, within a region
    pairs.append(across)
    held.append(across.ravel())
    # along an edge on which two classes tie from end to end, the two lie on its sides
    pairs.append(_tied(p, count))
    held.append(pairs[-1].ravel())
    held.append(np.arange(len(p)) * count + p.label)
    cells = np.unique(np.concatenate(held))
    links = np.searchsorted(cells, np.concatenate(pairs))
    border = np.zeros(len(cells), bool)
    border[np.searchsorted(cells, outer)] = True
    return cells, links, border


def _along(p: Partition) -> tuple[np.ndarray, np.ndarray]:
    """The classes along each edge, of positive length: pairs of edge and class."""
    z = _outputs(p)
    ends = z[p.edges]  # [E, 2, C]
    top = ends.argmax(2)
    same = top[:, 0] == top[:, 1]  # outputs are linear there: then it is the largest all along
    edges, labels = [np.flatnonzero(same)], [top[same, 0]]
    for e in np.flatnonzero(~same):
        own = [c for _, _, c in along(*ends[e])]
        edges.append(np.full(len(own), e))
        labels.append(np.array(own, np.int64))
    return np.concatenate(edges), np.concatenate(labels)


def _tied(p: Partition, count: int) -> np.ndarray:
    """Cells on the two sides of boundary segments that run along an edge."""
    along = p.boundary_region < 0
    if not along.any():
        return np.zeros((0, 2), np.int64)
    middle = p.boundary[along].mean(1)
    centers = p.vertices[p.edges].mean(1)
    z = _outputs(p)[p.edges]
    ordered = np.sort(z, 2)
    tied = np.flatnonzero((ordered[:, :, -1] - ordered[:, :, -2] <= 1e-9 * np.abs(z).max()).all(1))
    found = []
    for m in middle:
        near = tied[np.linalg.norm(centers[tied] - m, axis=1).argsort()[:1]]
        for e in near:
            left, right = p.edge_faces[e]
            if left >= 0 and right >= 0:
                found.append((left * count + p.label[left], right * count + p.label[right]))
    return np.array(found, np.int64).reshape(-1, 2)


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

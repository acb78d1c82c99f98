"""How much values at a vertex may be off because its place is uncertain.

A vertex lies where two functions vanish, each of which is known to within its rounding error. With
their slopes G `[2, 2]` and errors e `[2]` its place is off by up to `|G^-1| e`, which is more than
the rounding of coordinates where a function is noisy, or both run side by side. Another value
changes by its own slope g times as much::

    |g G^-1| e

Behind a unit of 1e13 all lines run side by side: their angles are 1e-13, and where on them they
cross is known to a part of their length only. How well an angle is known, the slopes' own rounding
tells. Below that it is not, and the place is anywhere on the vertex's edges along the lines.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from isogon.cpwl.rounding import EPS, ROUNDING
from isogon.measures.partition.certificate.allowances import MARGIN, Allowances
from isogon.measures.partition.certificate.contradictions import Found, seen_by

if TYPE_CHECKING:
    from isogon.measures.partition.reading import Partition

PARALLEL = 64 * EPS  # sine of an angle that the rounding of slopes makes or hides

Spread = list[tuple[np.ndarray, list[np.ndarray]]]


class Places:
    """Allowances for the places of a partition's vertices.

    Args:
        p: The partition.
        allowances: Its allowances for values.
    """

    def __init__(self, p: Partition, allowances: Allowances) -> None:
        self.p, self.allowances = p, allowances
        order = np.argsort(p.edges.reshape(-1), kind="stable")
        self.edge, self.vertex = order // 2, p.edges.reshape(-1)[order]
        self.known: dict[int, Spread] = {}

    def spread(self, v: int) -> Spread:
        """Of each pair of functions that place a vertex: `|G^-1| e`'s factors.

        Columns of `G^-1` times e, `[2 (coordinate), 2 (function)]`; and what each cut sees, and the
        output, changes per unit of the coordinates, `[2, ...]`.
        """
        if v not in self.known:
            self.known[v] = self._spread(v)
        return self.known[v]

    def _spread(self, v: int) -> Spread:
        p, xy = self.p, self.p.vertices[v : v + 1]
        low, high = np.searchsorted(self.vertex, [v, v + 1])
        edges = self.edge[low:high]
        ends = p.vertices[p.edges[edges]]
        longest = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1).max(initial=0.0)
        values = [z[0] for z in seen_by(p.program, self.allowances.embed(xy))]
        error, slopes = self.allowances.errors_and_slopes(xy)
        slope = [s[:, 0] for s in slopes]
        known = []
        for site, u in {(int(p.edge_site[e]), int(p.edge_unit[e])) for e in edges}:
            if site < 0:
                continue
            z, e, g = values[site][u], error[site][0, u], slope[site][:, u]
            if z.ndim:  # of a maximum: the two entries that are equal
                i, j = np.argsort(z)[-2:]
                e, g = e[i] + e[j], g[:, i] - g[:, j]
            known.append((g, ROUNDING * MARGIN * e))
        for e in edges[p.edge_site[edges] < 0]:  # the slice's border is where it is
            x, y = np.diff(p.vertices[p.edges[e]], axis=0)[0]
            known.append((np.array([-y, x]) / max(np.hypot(x, y), 1e-300), 0.0))
        found: Spread = []
        for (g, e), (h, f) in itertools.combinations(known, 2):
            both = np.stack([g, h])
            size = np.linalg.norm(both, axis=1)
            if np.isfinite(size).all() and size.min() > 0:
                columns = displacements(both / size[:, None], np.array([e, f]) / size, longest)
                found.append((columns, slope))
        return found

    def of(self, number: int, found: Found, vertex: np.ndarray) -> np.ndarray:
        """Allowances `[n]` of contradictions at a site, each at a vertex."""
        total = np.zeros(len(found))
        for n in range(len(found)):
            u, i, j = found.unit[n], found.entry[n], found.top[n]
            shifts = [0.0]
            for columns, slope in self.spread(int(vertex[n])):
                g = slope[number][:, u]
                g = g if g.ndim == 1 else g[:, i] - g[:, j]
                shifts.append(float(np.abs(g @ columns).sum()))
            total[n] = min(shifts[1:], default=0.0)
        return total

    def of_output(self, vertex: np.ndarray) -> np.ndarray:
        """Allowances `[n, C]` of the outputs at vertices."""
        total = np.zeros((len(vertex), self.p.outputs.shape[1]))
        for n, v in enumerate(vertex):
            shifts = [np.abs(slope[-1].T @ c).sum(1) for c, slope in self.spread(int(v))]
            if shifts:
                total[n] = np.min(shifts, axis=0)
        return total


def displacements(lines: np.ndarray, off: np.ndarray, longest: float) -> np.ndarray:
    """Displacements `[2, k]`, as columns that add up, of where two lines cross.

    Args:
        lines: Unit normals of the lines, `[2, 2]`, in rows.
        off: `[2]` how far off each line is.
        longest: Most that the place is off along the lines.
    """
    left, size, right = np.linalg.svd(lines)
    if size[1] > PARALLEL * size[0]:
        columns = np.linalg.inv(lines) * off
        if np.linalg.norm(columns, axis=0).sum() <= longest:
            return columns
    across = np.abs(left[:, 0]) @ off / size[0]
    return right.T * np.array([across, longest])

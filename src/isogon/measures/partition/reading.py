"""`Partition`: the linear regions of a network on a slice."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import Module

from isogon.cpwl.certificate import Certificate
from isogon.errors import ModelError, OptionError
from isogon.measures.partition.adjacency import Neighbours
from isogon.measures.partition.affine import affine_maps
from isogon.measures.partition.certificate.certify import certify
from isogon.measures.partition.decisions import region_labels
from isogon.measures.partition.kernels import boundary as edge_of_classes
from isogon.measures.partition.kernels import geometry
from isogon.measures.partition.locate import located
from isogon.measures.partition.lowering import lowered
from isogon.measures.partition.mesh import memory
from isogon.measures.partition.mesh.mesh import INDEX
from isogon.measures.partition.mesh.zeros import outputs_at
from isogon.measures.partition.patterns import Patterns, SitePattern
from isogon.measures.partition.slices import Slice
from isogon.measures.partition.statistics import sampled, statistics, summary
from isogon.readings import Reading

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from isogon.cpwl.program import Program


ROWS = 200_000  # regions that a printed summary computes a table for


class Partition(Neighbours, Reading):
    """The linear regions of a continuous piecewise-linear network on a slice.

    A region is a maximal set with one activation pattern (linear piece of every kink, set of
    the largest entries of every maximum) and with an inside. Coordinates are those of the slice.

    Attributes:
        vertices: `[V, 2]` float64.
        edges: `[E, 2]` vertices of each edge.
        edge_faces: `[E, 2]` regions on its left and right, -1 outside the slice.
        edge_site: `[E]` index into `sites` of the site that cuts there, -1: the slice's border.
        edge_unit: `[E]` the unit of that site (row-major), -1 on the border.
        face_offsets: `[R + 1]`: region i's edges are `face_edges[face_offsets[i]:...[i + 1]]`,
            counter-clockwise, and `face_vertices` likewise.
        area: `[R]`.
        label: `[R]` largest output at the centroid (one output: whether it is positive); -1
            where the region was not cut to the end.
        boundary: `[B, 2, 2]` exact segments of the decision boundary (one output: zero set).
        boundary_classes: `[B, 2]` the two classes on its sides, ascending.
    """

    row = "region"

    program: Program = None  # type: ignore[assignment]  # read from a file: see `attach`

    # -- what was measured -------------------------------------------------------------------

    vertices = property(lambda self: self.arrays["vertices"])
    edges = property(lambda self: self.arrays["edges"])
    edge_site = property(lambda self: self.arrays["edge_site"])
    edge_unit = property(lambda self: self.arrays["edge_unit"])
    face_offsets = property(lambda self: self.arrays["face_offsets"])
    face_edges = property(lambda self: self.arrays["face_edges"])
    face_vertices = property(lambda self: self.arrays["face_vertices"])
    outputs = property(lambda self: self.arrays["outputs"], doc="`[V, C]` at the vertices.")
    sites = property(lambda self: self.meta["sites"], doc="Names of the sites, in order.")

    def __len__(self) -> int:
        return len(self.arrays["face_offsets"]) - 1

    @cached_property
    def plane(self) -> Slice:
        """The slice."""
        a = self.arrays
        return Slice(
            a["slice_origin"], a["slice_basis"], a["slice_corners"], tuple(self.meta["shape"]),
            a["slice_marks"],
        )  # fmt: skip

    @cached_property
    def depth(self) -> np.ndarray:
        """`[R]` how many sites, the first ones in order, cut each region.

        All of them, unless the partition stopped early: then a region that further sites would
        cut is marked by the number of those that did.
        """
        whole = len(self.sites) if self.complete else 0
        return self.arrays.get("depth", np.full(len(self), whole, np.int32))

    @property
    def finished(self) -> np.ndarray:
        """`[R]` whether a region was cut to the end, so that the network is affine on it."""
        return self.depth >= len(self.sites) if not self.complete else np.ones(len(self), bool)

    @cached_property
    def patterns(self) -> Patterns:
        """The activation patterns of all regions."""
        facts = zip(self.meta["sites"], self.meta["kinds"], self.meta["tolerances"], strict=True)
        a = self.arrays
        return Patterns(
            [
                SitePattern(name, kind, a[f"site{i}_base"], a[f"site{i}_unit"],
                            a[f"site{i}_bits"], a[f"site{i}_parent"], tol)
                for i, (name, kind, tol) in enumerate(facts)
            ],
            None if self.complete else self.depth,
        )  # fmt: skip

    @cached_property
    def edge_faces(self) -> np.ndarray:
        """`[E, 2]` regions left and right of every edge, -1 outside."""
        sides = np.empty((len(self.edges), 2), INDEX)
        from isogon.measures.partition.kernels.edges import edge_sides

        edge_sides(self.face_offsets, self.face_vertices, self.face_edges, self.edges, sides)
        return sides

    @cached_property
    def _means(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n = len(self)
        area, centroid = np.empty(n), np.empty((n, 2))
        center = np.empty((n, self.outputs.shape[1]))
        geometry.face_means(
            self.face_offsets, self.face_vertices, self.vertices, self.outputs,
            area, centroid, center,
        )  # fmt: skip
        center[~self.finished] = np.nan
        return area, centroid, center

    @property
    def area(self) -> np.ndarray:
        """`[R]` areas, in squared units of the slice's coordinates."""
        return self._means[0]

    @property
    def centroid(self) -> np.ndarray:
        """`[R, 2]` centroids."""
        return self._means[1]

    @property
    def centers(self) -> np.ndarray:
        """`[R, C]` outputs at the centroids; NaN where a region was not cut to the end."""
        return self._means[2]

    @cached_property
    def label(self) -> np.ndarray:
        """`[R]` class of the largest output at the centroid; one output: 1 where positive.

        -1 where the region was not cut to the end. Of outputs that are equal on all of it, the
        first one.
        """
        return region_labels(self)

    @cached_property
    def _boundary(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return edge_of_classes.argmax_boundary(
            self.face_offsets, self.face_vertices, self.vertices, self.outputs,
            self.edges, self.edge_faces, outputs_at(self), self.finished,
        )  # fmt: skip

    @property
    def boundary(self) -> np.ndarray:
        """`[B, 2, 2]` segments where the two largest outputs are equal (one output: zero)."""
        return self._boundary[0]

    @property
    def boundary_classes(self) -> np.ndarray:
        """`[B, 2]` the two classes that meet on each segment."""
        return self._boundary[1]

    @property
    def boundary_region(self) -> np.ndarray:
        """`[B]` the region that a segment crosses, -1 where it runs along an edge."""
        return self._boundary[2]

    @property
    def boundary_edge(self) -> np.ndarray:
        """`[B]` the edge that a segment runs along, -1 where it crosses a region."""
        return self._boundary[3]

    def polygon(self, i: int) -> np.ndarray:
        """`[k, 2]` corners of region i, counter-clockwise."""
        i = self._index(i)
        return self.vertices[self.face_vertices[self.face_offsets[i] : self.face_offsets[i + 1]]]

    def pattern(self, i: int) -> dict[str, np.ndarray]:
        """Activation pattern of region i: site -> `[units]`.

        For a kink the index of the linear piece (ReLU: 0 off, 1 on), for a maximum the position
        of the (first) largest entry. Only the sites that cut the region, see `depth`.
        """
        return self.patterns.of(self._index(i))

    def affine(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """The map of region i in slice coordinates: output = A c + b, `A [C, 2]`, `b [C]`.

        Computed from the region's pattern (so it is right for the smallest regions too).

        Raises:
            OptionError: No such region, or one that was not cut to the end.
        """
        i = self._index(i)
        if not self.finished[i]:
            raise OptionError(
                "the network is not affine on this region: it was not cut to the end",
                got=f"region {i}, cut by {self.depth[i]} of {len(self.sites)} sites",
                expected="a region of partition.finished",
                fix="Raise max_regions, or choose a smaller slice.",
            )
        at = self.centroid[[i]]
        if self.program is None:
            return self._fitted(i)
        value, slope = affine_maps(self.program, self.plane, self.patterns, np.array([i]), at)
        return slope[0], value[0] - slope[0] @ at[0]

    def _fitted(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        corners = self.face_vertices[self.face_offsets[i] : self.face_offsets[i + 1]]
        xy, center = self.vertices[corners], self.centroid[i]
        a = np.linalg.lstsq(xy - center, self.outputs[corners] - self._means[2][i], rcond=None)[0].T
        return a, self._means[2][i] - a @ center

    def gradients(self, regions: ArrayLike | None = None) -> np.ndarray:
        """`[n, C, 2]` slopes of many regions (default: all); NaN where not cut to the end."""
        faces = np.arange(len(self)) if regions is None else np.asarray(regions)
        size = 2 * len(faces) * self.outputs.shape[1]
        memory.check_room(size, "the slopes of these regions", "Ask for fewer regions at a time.")
        found = np.full((len(faces), self.outputs.shape[1], 2), np.nan)
        own = self.finished[faces]
        faces, at = faces[own], self.centroid[faces[own]]
        if self.program is not None:
            found[own] = affine_maps(self.program, self.plane, self.patterns, faces, at)[1]
        elif len(faces):
            found[own] = np.stack([self._fitted(int(i))[0] for i in faces])
        return found

    def edge_units(self, edges: ArrayLike) -> list[np.ndarray]:
        """All that changes across edges: per site `[m, 2]` pairs (position in `edges`, unit).

        `edge_site`, `edge_unit` name one of them; several units share an edge where their lines
        coincide, or where one's change switches others.
        """
        edges = np.asarray(edges)
        left, right = self.edge_faces[edges].T
        inner = np.nonzero((left >= 0) & (right >= 0))[0]
        found = self.patterns.differences(left[inner], right[inner])
        for pairs in found:
            pairs[:, 0] = inner[pairs[:, 0]]
        return found

    # -- queries -----------------------------------------------------------------------------

    def locate(self, points: ArrayLike) -> np.ndarray:
        """Index of the region that holds each point `[N, 2]` of the slice; -1 outside."""
        return located(self, points)

    def sample_boundary(
        self, n: int, generator: torch.Generator | None = None, near: ArrayLike | None = None
    ) -> np.ndarray:
        """Points on the decision boundary, uniform by length, as slice coordinates `[n, 2]`.

        Args:
            n: How many.
            generator: Source of randomness.
            near: Inputs `[m, *shape]`: only the segments nearest to each of them are drawn from
                (points on the boundary next to the data). Default: all of the boundary.

        Raises:
            OptionError: The slice holds no boundary.
        """
        return sampled(self, n, generator, near)

    def certify(
        self,
        points: int | None = None,
        *,
        generator: torch.Generator | None = None,
        seconds: float | None = None,
    ) -> Certificate:
        """Check the partition against the network itself (see `certify.certify`).

        The certificate stays with the partition (`certificate`), also in a file.

        Args:
            points: Random points at which pattern and output are compared; default: 100,000, or
                for large networks as many as are affordable, 2,000 at least (how many is in the
                certificate).
            generator: Source of the points; default: seed 0.
            seconds: About how long it may take. Completeness, which is checked at every vertex
                of every region, is then checked at as many as there is time for, in random
                order, and at 2,000 points; the certificate says how many. Default: at all.
                Points that were asked for by number are all looked at, whatever they take.

        Raises:
            ModelError: The partition was read from disk and knows no network: `attach` it.
        """
        if self.program is None:
            raise ModelError(
                "a partition read from disk has no network to be checked against",
                fix="Call partition.attach(model) first.",
            )
        found = certify(self, points, generator, seconds)
        self.meta["certificate"] = found.to_json()
        return found

    @property
    def certificate(self) -> Certificate | None:
        """What `certify` found last; None where it was not called."""
        return Certificate.from_json(self.meta.get("certificate"))

    def statistics(
        self, near: Tensor | np.ndarray | None = None, radius: float | None = None
    ) -> pd.DataFrame:
        """Number, density, size and shape of the regions, boundary length; near data and far.

        Of a region with corners v_1..v_k (counter-clockwise), area A and centroid c:

        - eccentricity = sqrt(1 - l2 / l1), l1 >= l2 the eigenvalues of its second moments
          (1/A) int (x - c)(x - c)^T dx: that of the ellipse with the same moments (0 for a
          regular polygon, near 1 for a sliver);
        - corner_ratio = max |v_i - v_j| / min |v_i - v_j| over pairs of corners;
        - centrality = |c - s| / max |s_i - s|, s the mean of the slice's corners s_i;
        - perimeter = sum |v_i+1 - v_i|.

        Of a group of regions: density = count / sum A; corner_spread = |v - m| over all their
        corners v, m the mean of the partition's vertices; boundary_length = length of the
        decision boundary inside (a part along an edge counts for one of its two regions, so
        near and far add up to all). Standard deviations divide by the count.

        Args:
            near: Inputs `[m, *shape]` around which regions count as near data, projected on
                the slice; default: the inputs that the slice was made from.
            radius: A region is near if its centroid is within this distance of one of them, in
                slice coordinates, or if it holds one; default: a tenth of the slice's extent.

        Returns:
            One row for all regions and, where there are such inputs, one each for near and far:
            regions (name of the group), count, share_of_area, density, all of regions that were
            cut to the end; unfinished, unfinished_share_of_area: the others; mean and standard
            deviation (`_mean`, `_sd`) of area, vertices, eccentricity, corner_ratio,
            centrality, perimeter and corner_spread, area_median, boundary_length.

        Raises:
            OptionError: A radius that is not positive.
        """
        return statistics(self, near, radius)

    def attach(self, model: Module) -> Partition:
        """Give a partition that was read from disk its network again."""
        self.program, _ = lowered(model, self.plane)
        return self

    def _index(self, i: int) -> int:
        if not -len(self) <= i < len(self):
            raise OptionError("no such region", got=i, expected=f"0..{len(self) - 1}")
        return int(i) % len(self)

    # -- tables ------------------------------------------------------------------------------

    def to_frame(self) -> pd.DataFrame:
        """One row per region: area, centroid, vertices, label, finished, mean of each output."""
        center = self._means[2]
        columns = {
            "region": np.arange(len(self)),
            "area": self.area,
            "x": self.centroid[:, 0],
            "y": self.centroid[:, 1],
            "vertices": np.diff(self.face_offsets),
            "label": self.label,
            "finished": self.finished,
        }
        if center.shape[1] <= 32:
            columns |= {f"output_{c}": center[:, c] for c in range(center.shape[1])}
        return pd.DataFrame(columns)

    def summary(self) -> pd.DataFrame:
        """The statistics, one row each; columns: all regions, near data, far from it."""
        return summary(self)

    def __repr__(self) -> str:
        left = int((~self.finished).sum())
        state = f" (incomplete: {left} of them not cut to the end)" if left else ""
        kept = f", {self.certificate.verdict}" if self.certificate is not None else ""
        return (
            f"Partition: {len(self)} regions{state}, {len(self.vertices)} vertices, "
            f"{len(self.edges)} edges, {len(self.sites)} sites{kept}"
        )

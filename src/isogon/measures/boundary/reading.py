"""`Boundary`: the decision boundary of a network on a slice, as curves."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch.nn import Module

from isogon.cpwl.certificate import Certificate
from isogon.errors import ModelError, OptionError
from isogon.measures.boundary.certificate import certify_boundary
from isogon.measures.boundary.frozen import Frozen
from isogon.measures.partition.forecast import Chords
from isogon.measures.partition.lowering import lowered
from isogon.measures.partition.slices import Slice
from isogon.readings import Reading


class Boundary(Reading):
    """The exact decision boundary of a network on a slice: one row per curve.

    A curve goes on as long as two classes meet: from border to border, to a point where a third
    class comes in, or back to its start. Its points are the corners at which it bends, in slice
    coordinates; `class_i` is on the left of it.

    Attributes:
        points: `[P, 2]` corners of all curves, in order along each.
        offsets: `[curves + 1]`: curve k has the corners `points[offsets[k]:offsets[k + 1]]`; a
            closed curve ends with its first corner.
        ends: `[curves, 2]` why it starts and ends there: 0 it is closed (or cut off, see
            `meta`), 1 border of the slice, 2 a third class.
        image: `[grid, grid]` class on a grid of the slice, rows along the second coordinate; -1
            outside; `image_x`, `image_y` are the coordinates of its columns and rows.
    """

    row = "curve"
    frozen: Frozen | None = None

    points = property(lambda self: self.arrays["points"])
    offsets = property(lambda self: self.arrays["offsets"])
    ends = property(lambda self: self.arrays["ends"])
    image = property(lambda self: self.arrays["image"])

    def curve(self, k: int) -> np.ndarray:
        """`[m, 2]` corners of one curve, in slice coordinates.

        Raises:
            OptionError: No such curve.
        """
        if not -len(self) <= k < len(self):
            raise OptionError("no such curve", got=k, expected=f"0..{len(self) - 1}")
        k = int(k) % len(self)
        return self.points[self.offsets[k] : self.offsets[k + 1]]

    @cached_property
    def curve_of(self) -> np.ndarray:
        """`[B]` the curve that each piece belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets) - 1)

    @property
    def segments(self) -> np.ndarray:
        """`[B, 2, 2]` the straight pieces, in order along the curves."""
        start = np.arange(len(self.curve_of)) + self.curve_of
        return np.stack([self.points[start], self.points[start + 1]], 1)

    @property
    def segment_classes(self) -> np.ndarray:
        """`[B, 2]` the two classes that meet on each piece, ascending."""
        pairs = self.table[["class_i", "class_j"]].to_numpy(np.int64).reshape(-1, 2)
        return np.sort(pairs, 1)[self.curve_of]

    @cached_property
    def plane(self) -> Slice:
        """The slice."""
        a = self.arrays
        return Slice(
            a["slice_origin"],
            a["slice_basis"],
            a["slice_corners"],
            tuple(self.meta["shape"]),
            a["slice_marks"],
        )

    @property
    def length(self) -> float:
        """Length of the whole boundary, in slice coordinates."""
        return float(self.table["length"].sum())

    def certify(
        self,
        points: int | None = None,
        *,
        generator: torch.Generator | None = None,
        seconds: float | None = None,
    ) -> Certificate:
        """Check the curves against the network itself (see `certificate.certify`).

        The certificate stays with the reading (`certificate`), also in a file.

        Args:
            points: Random points at which the side of the boundary is compared with the class;
                default: 1,000.
            generator: Source of the points; default: seed 0.
            seconds: About how long it may take: as many pieces as there is time for are looked
                at, and the certificate says how many; default: all.

        Raises:
            ModelError: The reading comes from a file and knows no network: `attach` it.
        """
        if self.frozen is None:
            raise ModelError(
                "a boundary read from disk has no network to be checked against",
                fix="Call boundary.attach(model) first.",
            )
        found = certify_boundary(self, self.frozen, points, generator, seconds)
        self.meta["certificate"] = found.to_json()
        return found

    @property
    def certificate(self) -> Certificate | None:
        """What `certify` found last; None where it was not called."""
        return Certificate.from_json(self.meta.get("certificate"))

    def zoom(
        self, radius: float | None = None, *, at: np.ndarray | None = None, regions: int = 2000
    ) -> Slice:
        """A small square of the same plane at the boundary, for a partition of it.

        Args:
            radius: Half its side, in the units of the input; default: one in which about
                `regions` regions are to be expected.
            at: `[2]` its middle in slice coordinates; default: the corner of the boundary that
                is nearest to the middle of the anchors, or of the slice.
            regions: See `radius`.

        Raises:
            OptionError: There is no boundary, and no place was given.
            ModelError: The reading comes from a file, knows no network, and no radius was given.
        """
        plane = self.plane
        if at is None:
            if not len(self.points):
                raise OptionError("no boundary to look at", got="0 curves", expected="at=[x, y]")
            middle = (plane.marks if len(plane.marks) else plane.corners).mean(0)
            at = self.points[np.linalg.norm(self.points - middle, axis=1).argmin()]
        center = plane.embed(np.asarray(at, np.float64)[None])[0]
        u, v = (torch.from_numpy(c.copy()).reshape(center.shape) for c in plane.basis.T)
        if radius is None:
            if self.frozen is None:
                raise ModelError(
                    "a boundary read from disk has no network to count regions of",
                    fix="Give a radius, or call boundary.attach(model) first.",
                )
            radius = self._radius_for(regions, center, u, v)
        return Slice.square(center, u, v, radius=radius)

    def _radius_for(
        self, regions: int, center: torch.Tensor, u: torch.Tensor, v: torch.Tensor
    ) -> float:
        """Half the side of a square with about so many regions, from chords through it."""
        assert self.frozen is not None
        radius = float(np.ptp(self.plane.corners, axis=0).max()) / 200
        for _ in range(3):
            square = Slice.square(center, u, v, radius=radius)
            lines = Chords(self.frozen.program, square, torch.Generator().manual_seed(0))
            for _ in range(8):
                lines.look(200)
            radius = lines.forecast().radius_for(regions)
            if not np.isfinite(radius):
                break
        return float(min(radius, np.ptp(self.plane.corners, axis=0).max() / 2))

    def attach(self, model: Module) -> Boundary:
        """Give a boundary that was read from disk its network again."""
        program, plane = lowered(model, self.plane)
        self.frozen = Frozen(program, plane, self.meta.get("classes"))
        return self

    def summary(self) -> pd.DataFrame:
        """One row per pair of classes: curves, closed ones, pieces, length, share of it."""
        table = self.table
        if table.empty:
            return pd.DataFrame({"classes": ["none"], "curves": [0], "length": [0.0]})
        pairs = np.sort(table[["class_i", "class_j"]].to_numpy(), 1)
        names = [f"{i} | {j}" for i, j in pairs.tolist()]
        table = table.assign(classes=names, pieces=np.diff(self.offsets) - 1)
        groups = table.groupby("classes", sort=True)
        found = groups.agg(
            curves=("curve", "size"),
            closed=("closed", "sum"),
            pieces=("pieces", "sum"),
            length=("length", "sum"),
        ).reset_index()
        found["share"] = found["length"] / found["length"].sum()
        return found.sort_values("length", ascending=False, ignore_index=True)

    def __repr__(self) -> str:
        missed: dict[str, float] = self.meta["missed"]
        kept = f", {self.certificate.verdict}" if self.certificate is not None else ""
        curves = f"{len(self):,} curve{'' if len(self) == 1 else 's'}"
        stopped = " so far, not whole" if self.meta.get("stopped") else ""
        return (
            f"Boundary{stopped}: {curves} ({int(self.table['closed'].sum()):,} closed) of "
            f"{len(self.curve_of):,} pieces, length {self.length:.6g}, "
            f"{missed['curves']} curves of length {missed['length']:.3g} found by the second image "
            f"alone, drift {self.meta['drift']:.1e}{kept}"
        )

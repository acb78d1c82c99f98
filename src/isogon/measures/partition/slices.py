"""`Slice`: an affine chart of a plane in input space and a convex polygon in its coordinates."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from isogon import options
from isogon.cpwl.program import Program
from isogon.errors import DataError, OptionError
from isogon.measures.partition.charts import (
    Given,
    array_of,
    check_columns,
    check_size,
    convex,
    inputs_of,
    orthonormal,
    rounding,
    signed_area,
    square,
)
from isogon.measures.partition.crossings import first_crossing

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

ANCHORS = 4  # that are listed with their places


@dataclass(frozen=True, eq=False, repr=False)
class Slice:
    """The points `origin + basis @ c` for `c` in a convex polygon of the coordinate plane.

    Args:
        origin: `[D]`, float64.
        basis: `[D, 2]`, columns that span the plane.
        corners: `[k, 2]` counter-clockwise corners of the polygon, in coordinates.
        shape: Shape of one input of the network, with D elements.
        marks: `[m, 2]` coordinates of the points that the slice was made from (its anchors).

    Raises:
        DataError: Non-finite values, a degenerate basis, fewer than three corners, or corners
            that don't bound a convex polygon with an inside.
    """

    origin: np.ndarray
    basis: np.ndarray
    corners: np.ndarray
    shape: tuple[int, ...]
    marks: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))

    def __post_init__(self) -> None:
        for name in ("origin", "basis", "corners", "marks"):
            value = np.ascontiguousarray(array_of(getattr(self, name), f"the slice's {name}"))
            object.__setattr__(self, name, value)
        size = int(np.prod(self.shape))
        if self.origin.shape != (size,) or self.basis.shape != (size, 2):
            raise DataError(
                "origin and basis of the slice don't fit together",
                got=f"origin {self.origin.shape}, basis {self.basis.shape}, shape {self.shape}",
                expected=f"origin [{size}], basis [{size}, 2]",
            )
        check_size(self.shape)
        singular = np.linalg.svd(self.basis, compute_uv=False)
        if not singular[-1] > 1e-12 * singular[0]:
            raise DataError(
                "the slice is no plane: its two directions are parallel or zero",
                got=f"singular values {singular[0]:.3g}, {singular[-1]:.3g}",
                fix="Give two directions that are not parallel.",
            )
        object.__setattr__(self, "corners", convex(self.corners))

    # -- constructors ----------------------------------------------------------------------

    @classmethod
    def through(cls, a: Tensor, b: Tensor, c: Tensor, *, margin: float = 0.3) -> Slice:
        """The plane of three inputs, around which an axis-parallel square is laid.

        The chart is the Gram-Schmidt one: origin a, first axis along b - a, second along the
        part of c - a orthogonal to it, both of unit length. The square is centred on the
        bounding box of the three and its side is the box's longer side times 1 + 2 margin.

        Args:
            a: An input (shape of one sample, with or without a sample axis of length 1).
            b: Another one.
            c: A third one.
            margin: Growth on every side, in parts of the longer side of the bounding box.

        Raises:
            DataError: Two inputs are the same, or all lie on one line as far as the rounding of
                the numbers given tells (float32 has seven digits).
        """
        given, shape = inputs_of(a=a, b=b, c=c)
        points = np.stack([p.value for p in given])
        basis = orthonormal(given[0].step(given[1]), given[0].step(given[2]), "a")
        marks = (points - points[0]) @ basis
        low, high = marks.min(0), marks.max(0)
        half = (0.5 + options.number("margin", margin)) * (high - low).max()
        return cls(points[0], basis, square((low + high) / 2, half), shape, marks)

    @classmethod
    def anchors(
        cls,
        x1: Tensor,
        x2: Tensor | None = None,
        x3: Tensor | None = None,
        *,
        radius: float,
        generator: torch.Generator | None = None,
    ) -> Slice:
        """A square of half side `radius` around one, two or three inputs.

        The centre is the mean of the anchors; missing directions of the plane are random
        (normal, orthogonal to those given).

        Args:
            x1: An input.
            x2: A second one, or None.
            x3: A third one, or None.
            radius: Half the side of the square, a distance in input space.
            generator: Source of the random directions.
        """
        given = {"x1": x1, "x2": x2, "x3": x3}
        points, shape = inputs_of(**{name: p for name, p in given.items() if p is not None})
        radius = options.number("radius", radius)
        array = np.stack([p.value for p in points])
        origin = array.mean(0)
        draws = _draws(2, len(origin), generator)
        spans = [points[0].step(p) for p in points[1:]] + draws
        basis = orthonormal(spans[0], spans[1], points[0].name)
        marks = (array - origin) @ basis
        made = cls(origin, basis, square(np.zeros(2), radius), shape, marks)
        outside = np.abs(marks).max(1) > radius
        if outside.any():
            warnings.warn(
                f"{int(outside.sum())} of {len(marks)} anchors lie outside the square of half side "
                f"{radius:g} around their mean: radius={np.abs(marks).max():.3g} holds them all",
                stacklevel=2,
            )
        return made

    @classmethod
    def between(
        cls,
        a: Tensor,
        b: Tensor,
        c: Tensor | None = None,
        *,
        at: float,
        radius: float,
        generator: torch.Generator | None = None,
    ) -> Slice:
        """A square around a point of the way from one input to another.

        The first axis points from a to b; the second to c, or in a random direction.

        Args:
            a: An input.
            b: Another one.
            c: A third one, through which the plane goes, or None.
            at: t: the centre is a + t (b - a).
            radius: Half the side of the square, a distance in input space.
            generator: Source of the random direction.
        """
        given = {"a": a, "b": b, "c": c}
        points, shape = inputs_of(**{name: p for name, p in given.items() if p is not None})
        array = np.stack([p.value for p in points])
        origin = array[0] + options.number("at", at) * (array[1] - array[0])
        (draw,) = _draws(1, len(origin), generator)
        second = draw if c is None else points[0].step(points[2])
        basis = orthonormal(points[0].step(points[1]), second, "a")
        marks = (array - origin) @ basis
        return cls(origin, basis, square(np.zeros(2), radius), shape, marks)

    @classmethod
    def crossing(
        cls,
        model: Module | Program,
        a: Tensor,
        b: Tensor,
        c: Tensor | None = None,
        *,
        radius: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Slice:
        """A square at the decision boundary: where the class changes on the way from a to b.

        As `between`, at the first change of class.

        Args:
            model: A network that can be partitioned.
            a: An input.
            b: Another one, of another class.
            c: A third one, through which the plane goes, or None.
            radius: Half the side of the square; by default a tenth of the distance from a to b.
            generator: Source of a random direction.

        Raises:
            DataError: The class is the same all the way.
            OptionError: What was given as the model is no network.
        """
        if not isinstance(model, Module | Program):
            raise OptionError(
                "a crossing is one of a network",
                got=f"{type(model).__name__} as the model",
                expected="a torch.nn.Module",
                fix="The network comes first: Slice.crossing(model, a, b).",
            )
        given, shape = inputs_of(a=a, b=b)
        ends = [torch.from_numpy(p.value).reshape(shape) for p in given]
        options.generator(generator)  # before the network is looked at
        radius = None if radius is None else options.number("radius", radius)
        at, _, _ = first_crossing(model, *ends)
        radius = float((ends[1] - ends[0]).norm()) / 10 if radius is None else radius
        return cls.between(a, b, c, at=at, radius=radius, generator=generator)

    @classmethod
    def square(cls, center: Tensor, u: Tensor, v: Tensor, *, radius: float) -> Slice:
        """The square of half side `radius` around an input, along two directions.

        The directions are orthonormalised, so that coordinates are distances in input space.
        """
        (middle, first, second), shape = inputs_of(center=center, u=u, v=v)
        basis = orthonormal(first, second)
        return cls(middle.value, basis, square(np.zeros(2), radius), shape, np.zeros((1, 2)))

    @classmethod
    def box2d(cls, low: ArrayLike, high: ArrayLike) -> Slice:
        """The rectangle [low_1, high_1] x [low_2, high_2] of a network with two inputs."""
        low, high = array_of(low, "low").reshape(-1), array_of(high, "high").reshape(-1)
        if low.shape != (2,) or high.shape != (2,) or not (low < high).all():
            raise DataError(
                "not a rectangle",
                got=f"low {low.tolist()}, high {high.tolist()}",
                expected="two numbers each, low < high",
            )
        corners = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
        return cls(np.zeros(2), np.eye(2), corners, (2,))

    @classmethod
    def polygon(
        cls, origin: Tensor | ArrayLike, basis: Tensor | ArrayLike, vertices: Tensor | ArrayLike
    ) -> Slice:
        """A convex polygon in a chart taken as it is given.

        Args:
            origin: `[D]`, or an input of any shape.
            basis: `[D, 2]` (columns), or the input's shape with a trailing axis of length 2,
                or a leading one.
            vertices: `[k, 2]` corners in the coefficients of the basis.
        """
        precision = rounding(basis)
        origin, basis = array_of(origin, "the origin"), array_of(basis, "the basis")
        size = origin.size
        if basis.shape == (size, 2) or basis.shape == (*origin.shape, 2):
            columns = basis.reshape(size, 2)
        elif basis.shape == (2, *origin.shape):
            columns = basis.reshape(2, size).T
        else:
            raise DataError(
                "the basis doesn't fit the origin",
                got=f"{basis.shape} for {origin.shape}",
                expected=f"[{size}, 2], one column per direction",
            )
        check_size(origin.shape)
        check_columns(columns, precision)
        corners = array_of(vertices, "the vertices")
        return cls(origin.reshape(-1), columns, corners, tuple(origin.shape))

    @classmethod
    def polygon_of(cls, points: Tensor | ArrayLike) -> Slice:
        """The convex polygon with the given corners in input space, in order around it.

        Args:
            points: `[k, ...]`: k >= 3 inputs that lie in one plane.

        Raises:
            DataError: The points don't lie in one plane (beyond 1e-6 of their extent, and what
                the rounding of the numbers given explains), or they lie on one line.
        """
        precision = rounding(points)
        array = array_of(points, "the corners")
        if array.ndim < 2 or len(array) < 3:
            raise DataError(
                "a polygon needs three corners",
                got=f"corners of shape {list(array.shape)}",
                expected="[k, ...], k >= 3 inputs",
            )
        shape, array = tuple(array.shape[1:]), array.reshape(len(array), -1)
        check_size(shape)
        origin = array.mean(0)
        _, singular, axes = np.linalg.svd(array - origin, full_matrices=False)
        off = precision * float(np.linalg.norm(array))
        if singular[1] <= max(off, 1e-14 * singular[0]):  # the decomposition rounds, too
            raise DataError(
                "the corners lie on one line",
                got=f"a second extent of {singular[1]:.2g} beside {singular[0]:.3g}",
                expected=f"more than {off:.2g}: less is rounding of what was given",
                fix="Give three corners that are not on one line.",
            )
        if len(singular) > 2 and singular[2] > max(1e-6 * singular[0], off):
            raise DataError(
                "the corners don't lie in one plane",
                got=f"a third extent of {singular[2]:.3g} beside {singular[0]:.3g}",
            )
        basis = axes[:2].T
        corners = (array - origin) @ basis
        return cls(origin, basis, corners, shape, corners)

    # -- the chart -------------------------------------------------------------------------

    def embed(self, coordinates: Tensor | ArrayLike) -> Tensor:
        """Inputs `[N, *shape]`, float64, at coordinates `[N, 2]`."""
        c = array_of(coordinates, "the coordinates")
        return torch.from_numpy(c @ self.basis.T + self.origin).reshape(-1, *self.shape)

    def project(self, inputs: Tensor | ArrayLike) -> np.ndarray:
        """Coordinates `[N, 2]` of the nearest points of the plane to inputs `[N, *shape]`."""
        flat = array_of(inputs, "the inputs").reshape(-1, len(self.origin)) - self.origin
        return np.linalg.lstsq(self.basis, flat.T, rcond=None)[0].T

    def __repr__(self) -> str:
        """Size, place and anchors in a line."""
        return spoken(self)

    @property
    def area(self) -> float:
        """Area of the polygon in coordinates."""
        return float(signed_area(self.corners))

    def zoom(self, point: Any, radius: float) -> Slice:
        """The square of half side ``radius`` around a point ``[2]`` of this slice, in its axes."""
        corners = square(array_of(point, "the point"), radius)
        return Slice(self.origin, self.basis, corners, self.shape)

    def with_shape(self, shape: tuple[int, ...]) -> Slice:
        """The same slice for a network that takes its inputs in another shape."""
        if tuple(shape) == self.shape:
            return self
        return Slice(self.origin, self.basis, self.corners, tuple(shape), self.marks)


def _draws(count: int, size: int, generator: torch.Generator | None) -> list[Given]:
    """Random directions."""
    source = options.generator(generator)
    found = torch.randn(count, size, dtype=torch.float64, generator=source).numpy()
    return [Given("a random direction", d, 0.0, drawn=True) for d in found]


def spoken(plane: Slice) -> str:
    """Size, place and anchors of a slice in a line."""
    corners, marks = plane.corners, plane.marks
    extent = np.linalg.norm(plane.basis, axis=0) * np.ptp(corners, axis=0)
    size = float(extent.max())
    kind = "square" if len(corners) == 4 else f"polygon of {len(corners)} corners"
    low, high = corners.min(0), corners.max(0)
    middle = (low + high) / 2
    # inputs of two numbers are places themselves, others have only those of the slice
    two = plane.shape == (2,)
    at = plane.embed(middle[None])[0].tolist() if two else middle.tolist()
    text = (
        f"Slice: {kind}, {extent[0]:.4g} x {extent[1]:.4g} around {_place(at, size)} in inputs of "
        f"shape {list(plane.shape)}"
    )
    if not len(marks):
        return text
    inside = int(((marks >= low) & (marks <= high)).all(1).sum())
    places = (plane.embed(marks) if two else marks)[:ANCHORS].tolist()
    listed = ", ".join(_place(p, size) for p in places) + ", ..." * (len(marks) > ANCHORS)
    text += f", {inside} of {len(marks)} anchors inside, at {listed}"
    if len(marks) > 1:
        way = marks[1] - marks[0]
        t = float((middle - marks[0]) @ way / (way @ way)) if way.any() else np.nan
        beside = np.abs(marks[0] + t * way - middle).max()
        if beside <= 1e-6 * np.abs(way).max():  # its middle lies on the way: `between`
            text += f"; the middle at t = {t:.4g} from the first to the second"
    return text


def _place(point: list[float], size: float) -> str:
    """A point; numbers that are rounding beside the size of the slice are 0."""
    return "(" + ", ".join(f"{0.0 if abs(x) < 1e-9 * size else x:.4g}" for x in point) + ")"

"""`Slice`: an affine chart of a plane in input space and a convex polygon in its coordinates."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from isogon.cpwl.program import Program
from isogon.errors import DataError, OptionError
from isogon.measures.partition.crossings import first_crossing

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


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
            value = np.ascontiguousarray(_array(getattr(self, name), f"the slice's {name}"))
            object.__setattr__(self, name, value)
        size = int(np.prod(self.shape))
        if self.origin.shape != (size,) or self.basis.shape != (size, 2):
            raise DataError(
                "origin and basis of the slice don't fit together",
                got=f"origin {self.origin.shape}, basis {self.basis.shape}, shape {self.shape}",
                expected=f"origin [{size}], basis [{size}, 2]",
            )
        singular = np.linalg.svd(self.basis, compute_uv=False) if size > 1 else np.zeros(2)
        if not singular[-1] > 1e-12 * singular[0]:
            raise DataError(
                "the slice is no plane: its two directions are parallel or zero",
                got=f"singular values {singular[0]:.3g}, {singular[-1]:.3g}",
                fix="Give three points that are not on one line.",
            )
        object.__setattr__(self, "corners", _convex(self.corners))

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
        """
        points, shape = _points(a=a, b=b, c=c)
        basis = _orthonormal(points[1] - points[0], points[2] - points[0])
        marks = (points - points[0]) @ basis
        low, high = marks.min(0), marks.max(0)
        half = (0.5 + margin) * (high - low).max()
        return cls(points[0], basis, _square((low + high) / 2, half), shape, marks)

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
        array, shape = _points(**{name: p for name, p in given.items() if p is not None})
        origin = array.mean(0)
        draws = torch.randn(2, array.shape[1], dtype=torch.float64, generator=generator).numpy()
        spans = [p - array[0] for p in array[1:]] + list(draws)
        basis = _orthonormal(spans[0], spans[1])
        marks = (array - origin) @ basis
        made = cls(origin, basis, _square(np.zeros(2), radius), shape, marks)
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
        array, shape = _points(**{name: p for name, p in given.items() if p is not None})
        origin = array[0] + at * (array[1] - array[0])
        draw = torch.randn(array.shape[1], dtype=torch.float64, generator=generator).numpy()
        basis = _orthonormal(array[1] - array[0], draw if c is None else array[2] - array[0])
        marks = (array - origin) @ basis
        return cls(origin, basis, _square(np.zeros(2), radius), shape, marks)

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
        """
        at, _, _ = first_crossing(model, a, b)
        way = float((b.detach().double() - a.detach().double()).norm())
        radius = way / 10 if radius is None else radius
        return cls.between(a, b, c, at=at, radius=radius, generator=generator)

    @classmethod
    def square(cls, center: Tensor, u: Tensor, v: Tensor, *, radius: float) -> Slice:
        """The square of half side `radius` around an input, along two directions.

        The directions are orthonormalised, so that coordinates are distances in input space.
        """
        array, shape = _points(center=center, u=u, v=v)
        basis = _orthonormal(array[1], array[2])
        return cls(array[0], basis, _square(np.zeros(2), radius), shape, np.zeros((1, 2)))

    @classmethod
    def box2d(cls, low: ArrayLike, high: ArrayLike) -> Slice:
        """The rectangle [low_1, high_1] x [low_2, high_2] of a network with two inputs."""
        low, high = _array(low, "low").reshape(-1), _array(high, "high").reshape(-1)
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
        origin, basis = _array(origin, "the origin"), _array(basis, "the basis")
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
        corners = _array(vertices, "the vertices")
        return cls(origin.reshape(-1), columns, corners, tuple(origin.shape))

    @classmethod
    def polygon_of(cls, points: Tensor | ArrayLike) -> Slice:
        """The convex polygon with the given corners in input space, in order around it.

        Args:
            points: `[k, ...]`: k >= 3 inputs that lie in one plane.

        Raises:
            DataError: The points don't lie in one plane (beyond 1e-6 of their extent).
        """
        array = _array(points, "the corners")
        shape, array = tuple(array.shape[1:]), array.reshape(len(array), -1)
        if len(array) < 3:
            raise DataError("a polygon needs three corners", got=len(array))
        origin = array.mean(0)
        _, singular, axes = np.linalg.svd(array - origin, full_matrices=False)
        if len(singular) > 2 and singular[2] > 1e-6 * singular[0]:
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
        c = _array(coordinates, "the coordinates")
        return torch.from_numpy(c @ self.basis.T + self.origin).reshape(-1, *self.shape)

    def project(self, inputs: Tensor | ArrayLike) -> np.ndarray:
        """Coordinates `[N, 2]` of the nearest points of the plane to inputs `[N, *shape]`."""
        flat = _array(inputs, "the inputs").reshape(-1, len(self.origin)) - self.origin
        return np.linalg.lstsq(self.basis, flat.T, rcond=None)[0].T

    def __repr__(self) -> str:
        """Size, place and anchors in a line."""
        extent = np.linalg.norm(self.basis, axis=0) * np.ptp(self.corners, axis=0)
        kind = "square" if len(self.corners) == 4 else f"polygon of {len(self.corners)} corners"
        low, high = self.corners.min(0), self.corners.max(0)
        inside = int(((self.marks >= low) & (self.marks <= high)).all(1).sum())
        held = f", {inside} of {len(self.marks)} anchors inside" if len(self.marks) else ""
        return (
            f"Slice: {kind}, {extent[0]:.4g} x {extent[1]:.4g} in inputs of shape "
            f"{list(self.shape)}{held}"
        )

    @property
    def area(self) -> float:
        """Area of the polygon in coordinates."""
        return float(signed_area(self.corners))

    def zoom(self, point: Any, radius: float) -> Slice:
        """The square of half side ``radius`` around a point ``[2]`` of this slice, in its axes."""
        corners = _square(_array(point, "the point"), radius)
        return Slice(self.origin, self.basis, corners, self.shape)

    def with_shape(self, shape: tuple[int, ...]) -> Slice:
        """The same slice for a network that takes its inputs in another shape."""
        if tuple(shape) == self.shape:
            return self
        return Slice(self.origin, self.basis, self.corners, tuple(shape), self.marks)


def signed_area(polygon: np.ndarray) -> float:
    """Shoelace area of `[k, 2]`, relative to its first corner (no cancellation far out)."""
    p = polygon - polygon[0]
    return 0.5 * float(np.sum(p[:-1, 0] * p[1:, 1] - p[1:, 0] * p[:-1, 1]))


def _convex(corners: np.ndarray) -> np.ndarray:
    """The corners, counter-clockwise; repeated ones are left out."""
    if corners.ndim != 2 or corners.shape[1:] != (2,) or len(corners) < 3:
        raise DataError(
            "not a polygon", got=f"corners of shape {corners.shape}", expected="[k, 2], k >= 3"
        )
    corners = corners[np.any(corners != np.roll(corners, 1, 0), axis=1)]
    if len(corners) >= 3 and signed_area(corners) < 0:
        corners = corners[::-1]
    step = np.roll(corners, -1, 0) - corners
    after = np.roll(step, -1, 0)
    turn = step[:, 0] * after[:, 1] - step[:, 1] * after[:, 0]
    around = np.arctan2(turn, (step * after).sum(1)).sum()
    scale = np.abs(step).max(initial=0.0) ** 2
    hollow = len(corners) < 3 or signed_area(corners) <= 1e-15 * scale
    if hollow or turn.min() < -1e-12 * scale or around > 7:  # one full turn is 6.28
        raise DataError(
            "the slice's polygon is not convex or has no inside",
            got=f"corners {corners.round(6).tolist()}",
            fix="List the corners in order around a convex polygon.",
        )
    return np.ascontiguousarray(corners)


def _square(center: np.ndarray, half: float) -> np.ndarray:
    if not 0 < half < np.inf:
        raise OptionError(
            "the square has no inside" if half != np.inf else "the square has no end",
            got=f"half side {half}",
            expected="> 0, finite",
        )
    return center + half * np.array([[-1.0, -1.0], [1, -1], [1, 1], [-1, 1]])


def _array(value: Tensor | ArrayLike, what: str) -> np.ndarray:
    """Numbers in float64.

    Raises:
        DataError: NaN or infinite ones among them.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    array = np.asarray(value, np.float64)
    wrong = int((~np.isfinite(array)).sum())
    if wrong:
        raise DataError(
            f"NaN or infinite values in {what}",
            got=f"{wrong} of {array.size} numbers",
            expected="finite numbers",
        )
    return array


def _points(**points: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    arrays = [_array(p, f"input {name}") for name, p in points.items()]
    shape = arrays[0].shape
    for a in arrays:
        if a.size != arrays[0].size:
            raise DataError(
                "the inputs have different shapes", got=f"{a.shape}", expected=f"{shape}"
            )
    return np.stack([a.reshape(-1) for a in arrays]), tuple(shape)


def _orthonormal(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Gram-Schmidt (applied twice, so that rounding leaves no slant), `[D, 2]`."""
    u = _unit(first)
    v = second - (second @ u) * u
    if np.linalg.norm(v) <= 1e-9 * np.linalg.norm(second):
        v = np.zeros_like(v)
    v = _unit(v)
    return np.stack([u, _unit(v - (v @ u) * u)], 1)


def _unit(vector: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vector)
    if not norm > 0:
        raise DataError(
            "the slice is no plane: two points coincide or three lie on one line",
            fix="Give three inputs that are not on one line.",
        )
    return vector / norm

"""Axes of a plane from inputs: how far off a line they are by more than their own rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from isogon.errors import DataError, OptionError
from isogon.options import number

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SLANT = 1e-9  # of its length: a direction that leaves another one by less is parallel to it
SMALLEST, LARGEST = 1e-150, 1e150  # extents whose areas float64 still holds


@dataclass(frozen=True)
class Given:
    """An input or direction in numbers.

    Attributes:
        name: What the caller calls it.
        value: `[D]`, float64.
        off: How far it may be from what it stands for, by the rounding of the numbers given.
        drawn: Whether it was drawn at random, so that any other would do as well.
    """

    name: str
    value: np.ndarray
    off: float
    drawn: bool = False

    def step(self, to: Given) -> Given:
        """The direction from here to another one."""
        return Given(to.name, to.value - self.value, self.off + to.off)


def array_of(value: Tensor | ArrayLike, what: str) -> np.ndarray:
    """Numbers in float64.

    Raises:
        DataError: What was given is no array of real numbers, or holds NaN or infinite ones.
    """
    numbers = value.detach().cpu() if isinstance(value, Tensor) else value
    try:
        # a complex tensor has no double(), so that nothing is dropped in silence
        numbers = numbers.resolve_conj() if isinstance(numbers, Tensor) else np.asarray(numbers)
        if isinstance(numbers, Tensor):
            numbers = numbers.numpy() if numbers.is_complex() else numbers.double().numpy()
        if np.iscomplexobj(numbers):
            raise TypeError
        array = np.asarray(numbers, np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"{what} is not made of real numbers",
            got=_shown(value),
            expected="a tensor or array of real numbers",
            fix="Look at the order of the arguments.",
        ) from None
    wrong = int((~np.isfinite(array)).sum())
    if wrong:
        raise DataError(
            f"NaN or infinite values in {what}",
            got=f"{wrong} of {array.size} numbers",
            expected="finite numbers",
        )
    return array


def rounding(value: Any) -> float:
    """Relative rounding error of the numbers in a tensor or array, by its type as given.

    Whole numbers are exact; they and lists count as float64.
    """
    kind = value.dtype if isinstance(value, Tensor) else getattr(value, "dtype", None)
    if isinstance(kind, torch.dtype):
        return torch.finfo(kind if kind.is_floating_point else torch.float64).eps
    if isinstance(kind, np.dtype) and np.issubdtype(kind, np.floating):
        return max(float(np.finfo(kind).eps), float(np.finfo(np.float64).eps))
    return float(np.finfo(np.float64).eps)


def inputs_of(**points: Any) -> tuple[list[Given], tuple[int, ...]]:
    """Inputs by their names, and their shape.

    Raises:
        DataError: Their shapes differ, or they are single numbers.
    """
    arrays = {name: array_of(p, f"input {name}") for name, p in points.items()}
    shape = next(iter(arrays.values())).shape
    for a in arrays.values():
        if a.size != np.prod(shape):
            raise DataError(
                "the inputs have different shapes", got=f"{a.shape}", expected=f"{shape}"
            )
    check_size(shape)
    found = []
    for name, a in arrays.items():
        flat = a.reshape(-1)
        found.append(Given(name, flat, rounding(points[name]) * float(np.linalg.norm(flat))))
    return found, tuple(shape)


def check_size(shape: tuple[int, ...]) -> None:
    """Refuse inputs that no plane is in.

    Raises:
        DataError: They have fewer than two numbers.
    """
    if np.prod(shape) < 2:
        raise DataError(
            "inputs of one number lie in no plane",
            got=f"inputs of shape {list(shape)}",
            expected="two numbers or more",
            fix="Between two inputs of one number, isogon.segments finds every piece.",
        )


def orthonormal(first: Given, second: Given, start: str | None = None) -> np.ndarray:
    """Gram-Schmidt (applied twice, so that rounding leaves no slant), `[D, 2]`.

    How far the second direction must leave the first one follows from what the inputs' own
    rounding can do to it, so that a plane is never made of it.

    Args:
        first: A direction.
        second: Another one.
        start: The input from which both lead to the inputs they are named after; None: they were
            given as directions.

    Raises:
        DataError: A direction is zero, or both are parallel within rounding.
    """
    u = _unit(first, start)
    _unit(second, start)
    along = float(second.value @ u)
    v = second.value - along * u
    left = float(np.linalg.norm(v))
    length = float(np.linalg.norm(first.value))
    if start is not None and not second.drawn and length <= first.off:
        raise DataError(
            "the slice is no plane: "
            f"the inputs {start} and {first.name} are the same within their rounding",
            got=f"a distance of {length:.2g}",
            expected=f"more than {first.off:.2g}: less is rounding of what was given",
            fix=f"Give another {first.name}.",
        )
    # an error of the first direction counts as often as it fits into the way along it
    off = 0.0 if second.drawn else second.off + abs(along) / length * first.off
    least = max(off, SLANT * float(np.linalg.norm(second.value)))
    if left <= least:
        if start is None:
            raise DataError(
                "the slice is no plane: "
                f"the directions {first.name} and {second.name} are parallel",
                got=f"{second.name} is {left:.2g} off {first.name}",
                expected=f"more than {least:.2g}: less is rounding of what was given",
                fix="Give two directions that are not parallel.",
            )
        raise DataError(
            "the slice is no plane: "
            f"the inputs {start}, {first.name} and {second.name} lie on one line",
            got=f"{second.name} {left:.2g} off the line through {start} and {first.name}",
            expected=f"more than {least:.2g}: less is rounding of what was given",
            fix="Give three inputs that are not on one line, or two and let a direction be drawn.",
        )
    v = v / left
    v -= (v @ u) * u
    return np.stack([u, v / np.linalg.norm(v)], 1)


def _unit(direction: Given, start: str | None) -> np.ndarray:
    norm = float(np.linalg.norm(direction.value))
    if norm > 0:
        return direction.value / norm
    if start is None:
        raise DataError(
            f"the slice is no plane: the direction {direction.name} is zero",
            expected="two directions that are not parallel",
            fix=f"Give another {direction.name}.",
        )
    raise DataError(
        f"the slice is no plane: the inputs {start} and {direction.name} are the same",
        expected="inputs that differ",
        fix=f"Give another {direction.name}.",
    )


def check_columns(basis: np.ndarray, precision: float) -> None:
    """Refuse a basis `[D, 2]` whose columns are parallel within the rounding of its numbers.

    Raises:
        DataError: They are, or one is zero.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = basis / np.linalg.norm(basis, axis=0)  # of any lengths
    least = np.linalg.svd(columns, compute_uv=False)[-1] if np.isfinite(columns).all() else 0.0
    if not least > 2 * precision:
        raise DataError(
            "the slice is no plane: the two columns of the basis are parallel or zero",
            got=f"{least:.2g} as the least singular value of columns of length 1",
            expected=f"more than {2 * precision:.2g}, the rounding of what was given",
            fix="Give two directions that are not parallel.",
        )


def square(center: np.ndarray, radius: Any, name: str = "radius") -> np.ndarray:
    """Corners `[4, 2]` of the square of half side `radius` around a point.

    Raises:
        OptionError: The radius is no number, or leaves no square that float64 holds.
    """
    half = number(name, radius)
    if not SMALLEST <= half <= LARGEST:
        raise OptionError(
            "the square has no end" if half > LARGEST else "the square has no inside",
            got=f"half side {half:g}",
            expected=f"> 0, finite (in float64 {SMALLEST:g} to {LARGEST:g})",
        )
    corners = center + half * np.array([[-1.0, -1.0], [1, -1], [1, 1], [-1, 1]])
    if not (np.ptp(corners, axis=0) > 0).all():
        raise OptionError(
            "the square has no inside: its corners are one point in float64",
            got=f"half side {half:g} around {center.tolist()}",
            expected="a half side that is no smaller than the rounding of its middle",
        )
    return corners


def signed_area(polygon: np.ndarray) -> float:
    """Shoelace area of `[k, 2]`, relative to its first corner (no cancellation far out)."""
    p = polygon - polygon[0]
    return 0.5 * float(np.sum(p[:-1, 0] * p[1:, 1] - p[1:, 0] * p[:-1, 1]))


def convex(corners: np.ndarray) -> np.ndarray:
    """The corners `[k, 2]`, counter-clockwise; repeated ones are left out.

    Raises:
        DataError: They bound no convex polygon with an inside, or none that float64 holds.
    """
    if corners.ndim != 2 or corners.shape[1:] != (2,) or len(corners) < 3:
        raise DataError(
            "not a polygon", got=f"corners of shape {corners.shape}", expected="[k, 2], k >= 3"
        )
    corners = corners[np.any(corners != np.roll(corners, 1, 0), axis=1)]
    extent = float(np.ptp(corners, axis=0).max()) if len(corners) else 0.0
    if len(corners) >= 3 and not SMALLEST <= extent <= 2 * LARGEST:
        raise DataError(
            f"the slice's polygon is too {'small' if extent < 1 else 'large'} for float64",
            got=f"an extent of {extent:.3g}",
            expected=f"{SMALLEST:g} to {2 * LARGEST:g}",
        )
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


def _shown(value: Any) -> str:
    kind = getattr(value, "dtype", None)
    return type(value).__name__ + ("" if kind is None else f" of {kind}")

"""Families of image transformations.

All angles are degrees, all shifts pixels of the input, and a turn by +theta is counter-clockwise
as seen. Padding is ``border`` (the nearest pixel) or ``zeros``, interpolation bilinear.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from isogon.actions.action import Action, Affine, Brightness, Identity, check_sampling
from isogon.actions.family import Family
from isogon.actions.family import family as as_family
from isogon.errors import OptionError
from isogon.registry import family
from isogon.specs import FamilySpec

Padding = Literal["border", "zeros", "reflection"]
Mode = Literal["bilinear", "nearest", "bicubic"]


@family()
def rotations(
    count: int = 16,
    low: float = 0.0,
    high: float = 360.0,
    *,
    padding: Padding = "border",
    mode: Mode = "bilinear",
) -> Family:
    """Turns about the centre by evenly spaced angles; a full turn has no duplicate end point.

    Args:
        count: Number of angles, the identity included (where the range holds no 0, it is added).
        low: First angle, in degrees.
        high: Last angle; left out where it is a full turn from the first.
        padding: What lies outside the image.
        mode: Interpolation.
    """
    _at_least_one(count)
    full = abs(abs(high - low) - 360) < 1e-9
    angles = np.linspace(low, high, count, endpoint=not full)
    return Family([rotation(float(a), padding, mode) for a in angles])


@family()
def scales(
    count: int = 5,
    low: float = 0.5,
    high: float = 1.5,
    *,
    kind: Literal["uniform", "x", "y", "all"] = "uniform",
    padding: Padding = "border",
    mode: Mode = "bilinear",
) -> Family:
    """Changes of size about the centre: both axes, one of them, or all three kinds.

    Args:
        count: Factors per kind, evenly spaced from low to high; 1 is added where it is missing.
        low: Smallest factor: content at half its size for 0.5.
        high: Largest factor.
        kind: ``uniform``, ``x`` (widths), ``y`` (heights) or ``all``.
        padding: What lies outside the image.
        mode: Interpolation.
    """
    _at_least_one(count)
    if low <= 0 or high <= 0:
        raise OptionError("scales must be positive", got=(low, high), expected="low, high > 0")
    found: list[Action] = []
    for name in ("uniform", "x", "y") if kind == "all" else (kind,):
        for s in np.linspace(low, high, count).tolist():
            sx, sy = (
                (s if name in ("uniform", "x") else 1.0),
                (s if name in ("uniform", "y") else 1.0),
            )
            matrix = ((sx, 0.0, 0.0), (0.0, sy, 0.0), (0.0, 0.0, 1.0))
            label = f"×{s:g}" + ("" if name == "uniform" else f" {name}")
            if abs(s - 1) > 1e-12:
                facts = {"scale_x": sx, "scale_y": sy}
                found.append(Affine(matrix, padding, mode, label, facts))
    return Family([_still("×1", padding, mode, {"scale_x": 1.0, "scale_y": 1.0}), *found])


@family()
def translations(
    count: int = 2,
    step: float = 1.0,
    *,
    directions: Literal[4, 8, "diagonal"] = 4,
    padding: Padding = "border",
    mode: Mode = "bilinear",
) -> Family:
    """Shifts by 1 to count steps in each direction, and the identity.

    Args:
        count: Number of steps in each direction.
        step: Pixels of the input per step (along each axis, for diagonals).
        directions: 4 (right, up, left, down), 8 (diagonals too) or ``diagonal`` (those alone).
        padding: What lies outside the image.
        mode: Interpolation.
    """
    _at_least_one(count)
    straight = [(1, 0, "→"), (0, -1, "↑"), (-1, 0, "←"), (0, 1, "↓")]
    diagonal = [(1, -1, "↗"), (-1, -1, "↖"), (-1, 1, "↙"), (1, 1, "↘")]
    chosen = {4: straight, 8: straight + diagonal, "diagonal": diagonal}[directions]
    found: list[Action] = []
    for k in range(1, count + 1):
        for x, y, arrow in chosen:
            dx, dy = float(x * k * step), float(y * k * step)
            matrix = ((1.0, 0.0, dx), (0.0, 1.0, dy), (0.0, 0.0, 1.0))
            facts = {"right": dx, "down": dy}
            found.append(Affine(matrix, padding, mode, f"{arrow}{k * step:g}", facts))
    return Family([_still("0", padding, mode, {"right": 0.0, "down": 0.0}), *found])


@family()
def mirrors(
    *, vertical: bool = False, padding: Padding = "border", mode: Mode = "bilinear"
) -> Family:
    """The identity and the left-right mirror; by option the top-bottom one and both.

    Args:
        vertical: Whether images are also turned upside down.
        padding: What lies outside the image (nothing does).
        mode: Interpolation.
    """
    found: list[Action] = []
    for x, y, label in ((1, 1, "0"), (-1, 1, "⇄"), (1, -1, "⇅"), (-1, -1, "⇄⇅")):
        if vertical or y == 1:
            matrix = ((float(x), 0.0, 0.0), (0.0, float(y), 0.0), (0.0, 0.0, 1.0))
            found.append(Affine(matrix, padding, mode, label, {"flip_x": x < 0, "flip_y": y < 0}))
    return Family(found)


@family()
def brightness(count: int = 5, low: float = 0.5, high: float = 1.5) -> Family:
    """Pixel values times a factor, evenly spaced from low to high; 1 is added where missing.

    Args:
        count: Number of factors.
        low: Smallest factor.
        high: Largest factor.
    """
    _at_least_one(count)
    if low <= 0 or high <= 0:
        raise OptionError("factors must be positive", got=(low, high), expected="low, high > 0")
    factors = [f for f in np.linspace(low, high, count).tolist() if abs(f - 1) > 1e-12]
    members = [Brightness(f, f"☀{f:g}", {"brightness": f}) for f in factors]
    return Family([Identity("☀1", {"brightness": 1.0}), *members])


@family()
def product(first: FamilySpec, second: FamilySpec, *others: FamilySpec) -> Family:
    """Every member of the first family after every member of the second, and so on.

    Affine members compose to one affine map, which is interpolated once and inverted as a whole.

    Args:
        first: A family, e.g. ``rotations(4)``.
        second: Another one.
        *others: Further ones.
    """
    found = as_family(first)
    for spec in (second, *others):
        found = found * as_family(spec)
    return found


def rotation(angle: float, padding: str = "border", mode: str = "bilinear") -> Affine:
    """The turn by an angle in degrees, counter-clockwise as seen; exact at quarter turns."""
    check_sampling(padding, mode)
    cos, sin = _cos(angle), _cos(angle - 90)
    matrix = ((cos, sin, 0.0), (-sin, cos, 0.0), (0.0, 0.0, 1.0))
    return Affine(matrix, padding, mode, f"{angle:g}°", {"angle": angle})


def _cos(degrees: float) -> float:
    """Cosine, exact at multiples of 60 and 90 degrees."""
    degrees = math.fmod(abs(degrees), 360)
    exact = {0: 1.0, 60: 0.5, 90: 0.0, 120: -0.5, 180: -1.0, 240: -0.5, 270: 0.0, 300: 0.5}
    return exact.get(degrees, math.cos(math.radians(degrees)))  # type: ignore[call-overload]


def _still(label: str, padding: str, mode: str, parameters: dict) -> Affine:
    eye = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    return Affine(eye, padding, mode, label, parameters)


def _at_least_one(count: int) -> None:
    if count < 1:
        raise OptionError("a family needs members", got=count, expected="count >= 1")

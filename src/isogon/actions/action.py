"""An action: a labelled, usually invertible transformation of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from isogon.actions.warp import MODES, PADDINGS, warp
from isogon.errors import DataError, OptionError

Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


class Action:
    """A transformation ``[N, *shape] -> [N, *shape]`` with a label and parameters."""

    label: str = ""
    parameters: dict[str, Any]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The transformed batch."""
        raise TypeError("an action is one of Identity, Affine, Brightness, Function")

    def inverse(self) -> Action:
        """The action that undoes this one, as far as interpolation allows."""
        raise TypeError("an action is one of Identity, Affine, Brightness, Function")

    def on(self, size: Sequence[int], map_size: Sequence[int]) -> Action:
        """The action on feature maps ``[h, w]`` that goes with this one on inputs ``[H, W]``."""
        return self

    def after(self, first: Action) -> Action:
        """This action after another one: ``x -> self(first(x))``."""
        if isinstance(first, Identity):
            return self
        return Composition(first, self)


@dataclass(frozen=True)
class Identity(Action):
    """Changes nothing."""

    label: str = "identity"
    parameters: dict[str, Any] = field(default_factory=dict)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The batch itself."""
        return x

    def inverse(self) -> Action:
        """Itself."""
        return self

    def after(self, first: Action) -> Action:
        """The other one."""
        return first


@dataclass(frozen=True)
class Affine(Action):
    """An affine map of the image plane.

    The matrix moves image *content*: a point p of the image appears at ``matrix @ p``, with p
    in pixels from the image's centre, x to the right and y downwards (so that a turn by +theta
    counter-clockwise as seen is ``[[cos, sin], [-sin, cos]]``). The value there is interpolated
    from the input at ``matrix^-1 @ p``.

    Attributes:
        matrix: 3 x 3, last row (0, 0, 1), in pixels.
        padding: What lies outside the image: ``border`` (the nearest pixel), ``zeros`` or
            ``reflection``.
        mode: ``bilinear``, ``nearest`` or ``bicubic``.
        label: What figures call it.
        parameters: What it was made from, e.g. ``{"angle": 90.0}`` in degrees.
    """

    matrix: Matrix
    padding: str = "border"
    mode: str = "bilinear"
    label: str = "affine"
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_sampling(self.padding, self.mode)
        m = np.asarray(self.matrix, float)
        if m.shape != (3, 3) or not np.isfinite(m).all() or abs(np.linalg.det(m)) < 1e-12:
            raise OptionError(
                "not the matrix of an invertible affine map",
                got=m.tolist(),
                expected="3 x 3 numbers of determinant other than 0",
            )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The warped images ``[N, C, H, W]``."""
        return warp(x, np.asarray(self.matrix)[None], self.padding, self.mode)[0]

    def inverse(self) -> Affine:
        """The warp by the inverse matrix."""
        return self._with(np.linalg.inv(np.asarray(self.matrix)), f"({self.label})⁻¹")

    def on(self, size: Sequence[int], map_size: Sequence[int]) -> Affine:
        """The same motion of a map of another size: pixels of the input over the stride."""
        scale = np.diag([map_size[-1] / size[-1], map_size[-2] / size[-2], 1.0])
        return self._with(scale @ np.asarray(self.matrix) @ np.linalg.inv(scale), self.label)

    def after(self, first: Action) -> Action:
        """Affine maps of one kind of sampling compose to one map: interpolated only once."""
        if not isinstance(first, Affine) or (first.padding, first.mode) != (
            self.padding,
            self.mode,
        ):
            return super().after(first)
        product = np.asarray(self.matrix) @ np.asarray(first.matrix)
        label = f"{self.label} ∘ {first.label}"
        return self._with(product, label, {**first.parameters, **self.parameters})

    def _with(self, matrix: np.ndarray, label: str, parameters: dict | None = None) -> Affine:
        rows = tuple(tuple(float(v) for v in row) for row in matrix)
        kept = self.parameters if parameters is None else parameters
        return Affine(rows, self.padding, self.mode, label, kept)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Brightness(Action):
    """Multiplies all pixel values; feature maps have no brightness of their own."""

    factor: float
    label: str = "brightness"
    parameters: dict[str, Any] = field(default_factory=dict)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The scaled batch; values may leave [0, 1]."""
        return x * self.factor

    def inverse(self) -> Action:
        """Division by the factor."""
        if self.factor == 0:
            raise OptionError("black has no inverse", got="factor 0", expected="another factor")
        return Brightness(1 / self.factor, f"({self.label})⁻¹", self.parameters)

    def on(self, size: Sequence[int], map_size: Sequence[int]) -> Action:
        """A change of values moves nothing."""
        return Identity(self.label, self.parameters)


@dataclass(frozen=True)
class Function(Action):
    """Any callable on a batch.

    Attributes:
        function: ``[N, *shape] -> [N, *shape]``.
        undo: Its inverse, where it has one.
        on_maps: The callable that acts on feature maps; ``function`` itself by default.
        label: What figures call it.
        parameters: Facts for the record.
    """

    function: Callable[[torch.Tensor], torch.Tensor]
    undo: Callable[[torch.Tensor], torch.Tensor] | None = None
    on_maps: Action | None = None
    label: str = "function"
    parameters: dict[str, Any] = field(default_factory=dict)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """What the callable gives."""
        y = self.function(x)
        if not isinstance(y, torch.Tensor) or y.shape != x.shape:
            raise DataError(
                f"transformation {self.label!r} changes the shape of its batch",
                got=tuple(getattr(y, "shape", ())) or type(y).__name__,
                expected=tuple(x.shape),
            )
        return y

    def inverse(self) -> Action:
        """The callable ``undo``."""
        if self.undo is None:
            raise OptionError(
                f"transformation {self.label!r} has no inverse",
                expected="Function(f, undo=g)",
                fix="Give its inverse, or measure invariance, which needs none.",
            )
        return Function(self.undo, self.function, None, f"({self.label})⁻¹", self.parameters)

    def on(self, size: Sequence[int], map_size: Sequence[int]) -> Action:
        """The action given for maps, else the callable itself."""
        return self.on_maps or self


@dataclass(frozen=True)
class Composition(Action):
    """One action after another, where no closed form joins them."""

    first: Action
    second: Action

    @property
    def label(self) -> str:  # type: ignore[override]
        """Both labels, the later one first."""
        return f"{self.second.label} ∘ {self.first.label}"

    @property
    def parameters(self) -> dict[str, Any]:  # type: ignore[override]
        """Those of both."""
        return {**self.first.parameters, **self.second.parameters}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The second one of what the first one gives."""
        return self.second(self.first(x))

    def inverse(self) -> Action:
        """Inverses in the other order."""
        return self.first.inverse().after(self.second.inverse())

    def on(self, size: Sequence[int], map_size: Sequence[int]) -> Action:
        """Both on maps."""
        return self.second.on(size, map_size).after(self.first.on(size, map_size))


def check_sampling(padding: str, mode: str) -> None:
    """Refuse an unknown padding or interpolation."""
    for what, got, names in (("padding", padding, PADDINGS), ("mode", mode, MODES)):
        if got not in names:
            raise OptionError(f"unknown {what}", got=repr(got), expected=", ".join(names))

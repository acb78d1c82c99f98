"""How large what a stage sums is, and what it makes of squared errors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isogon.cpwl.stages import Affine, Kink

__all__ = ["EPS", "Coefficients", "finite", "magnitude", "squares", "summed", "summed_up"]

EPS = float(torch.finfo(torch.float64).eps)
PROBES = 8  # signs with which the coefficients of an unknown linear map are looked at


def summed(stage: Kink, z: Tensor) -> Tensor:
    """The size of what a kink sums; none for a ReLU, which rounds nothing."""
    if stage.apply is torch.relu:
        return torch.zeros((), dtype=z.dtype)
    if stage.apply is not None:
        return finite(stage(z))
    right = z - stage.knots[0]
    total = torch.as_tensor(stage.value, dtype=z.dtype).abs()
    total = total + stage.slopes[0].abs() * finite(right.clamp(max=0))
    total = total + stage.slopes[1].abs() * finite(right.clamp(min=0))
    for k in range(1, len(stage.knots)):
        jump = (stage.slopes[k + 1] - stage.slopes[k]).abs()
        total = total + jump * finite((z - stage.knots[k]).clamp(min=0))
    return total


def finite(v: Tensor) -> Tensor:
    """Sizes of values; those that are infinite are constants, which round nothing: 0."""
    return v.abs().nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


Changed = Callable[..., Tensor]


class Coefficients:
    """The linear parts of stages with `|W|` and `W^2` in place of W, made once each.

    For points that go through the same stages block by block: making them costs as much as a
    sample of a large layer.
    """

    def __init__(self) -> None:
        self.held: dict[tuple[Affine, str], Changed] = {}

    def sizes(self, stage: Affine) -> Changed | None:
        """With `|W|`; None where the coefficients are unknown."""
        return self._of(stage, "abs")

    def squared(self, stage: Affine) -> Changed | None:
        """With `W^2`."""
        return self._of(stage, "square")

    def _of(self, stage: Affine, what: str) -> Changed | None:
        if stage.weights is None:
            return None
        key = stage, what
        if key not in self.held:
            self.held[key] = stage.weights(getattr(torch, what))
        return self.held[key]


def magnitude(stage: Affine, *v: Tensor, known: Coefficients | None = None) -> Tensor:
    """`|W| |v| + |b|`: the size of what a stage sums."""
    return summed_up(stage, [finite(t) for t in v], known)


def summed_up(stage: Affine, sizes: list[Tensor], known: Coefficients | None = None) -> Tensor:
    """The same of sizes that are finite and not below 0."""
    changed = (known or Coefficients()).sizes(stage)
    if changed is not None:
        total = changed(*sizes)
    elif stage.copies:
        total = stage.linear(*sizes).abs()
    else:
        total = _probed(stage, sizes).sqrt() * PROBES**0.5 + stage.linear(*sizes).abs()
    return total if stage.bias is None else total + finite(stage.bias)


def squares(stage: Affine, *e2: Tensor, known: Coefficients | None = None) -> Tensor:
    """`W^2 e^2`: the squared errors that a stage hands on."""
    changed = (known or Coefficients()).squared(stage)
    if changed is not None:
        return changed(*e2)
    if stage.copies:
        return stage.linear(*e2).abs()
    return _probed(stage, [e.sqrt() for e in e2])


def _probed(stage: Affine, sizes: list[Tensor]) -> Tensor:
    """`W^2 s^2` of a linear map that tells nothing of its coefficients, by random signs.

    The mean of `(W (+-s))^2` over signs is `W^2 s^2`.
    """
    generator = torch.Generator().manual_seed(0)
    total: Tensor | None = None
    for _ in range(PROBES):
        signs = [
            torch.randint(0, 2, t.shape[1:], generator=generator, dtype=torch.float64) * 2 - 1
            for t in sizes
        ]
        found = stage.linear(*(t * s for t, s in zip(sizes, signs, strict=True))).square()
        total = found if total is None else total + found
    assert total is not None
    return total / PROBES

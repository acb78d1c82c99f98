"""Random transformations of training batches: crop, flip, rotate, erase, noise.

They differ from epoch to epoch, so they take a `torch.Generator` whose state a checkpoint
can hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isogon.errors import OptionError, unknown
from isogon.specs import parse

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def augmentation(specs: str | Sequence[str]) -> Augmentation:
    """A random transformation of a batch, made of parts: ``("crop(4)", "flip")``.

    Parts, applied in the order given, each sample drawn on its own: ``crop(p)`` pads p pixels
    of black around and crops back at a random place; ``flip`` mirrors left-right half of the
    samples; ``vertical_flip`` top-bottom; ``rotate(d)`` turns by up to d degrees either way
    (bilinear, zero padding); ``erase(s)`` blanks an s x s square; ``noise(sd)`` adds Gaussian
    noise.

    Returns:
        ``augment(x [n, C, H, W], generator) -> [n, C, H, W]``, the input left as it is.

    Raises:
        OptionError: An unknown part or a wrong value.
    """
    parts: list[Augmentation] = []
    for spec in map(parse, [specs] if isinstance(specs, str) else specs):
        if spec.name is None or spec.name not in _PARTS:
            raise unknown("augmentation", str(spec), _PARTS, error=OptionError)
        make, arity = _PARTS[spec.name]
        number = all(isinstance(a, int | float) and a >= 0 for a in spec.args)
        if spec.kwargs or len(spec.args) != arity or not number:
            raise OptionError(
                f"wrong arguments for augmentation {spec.name!r}",
                got=str(spec),
                expected=f"{arity} number(s), not negative",
            )
        parts.append(make(*spec.args))

    def augment(x: Tensor, generator: torch.Generator) -> Tensor:
        for part in parts:
            x = part(x, generator)
        return x

    return augment


def _crop(padding: float) -> Augmentation:
    p = int(padding)

    def crop(x: Tensor, generator: torch.Generator) -> Tensor:
        n, _, h, w = x.shape
        dy, dx = torch.randint(2 * p + 1, (2, n, 1), generator=generator).to(x.device)
        rows = (dy + torch.arange(h, device=x.device))[:, None, :, None]
        columns = (dx + torch.arange(w, device=x.device))[:, None, None, :]
        one = torch.arange(n, device=x.device)[:, None, None, None]
        channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
        return F.pad(x, (p, p, p, p))[one, channel, rows, columns]

    return crop


def _flip(axis: int) -> Callable[[], Augmentation]:
    def flip(x: Tensor, generator: torch.Generator) -> Tensor:
        hit = torch.rand(len(x), generator=generator).to(x.device) < 0.5
        return torch.where(hit[:, None, None, None], x.flip(axis), x)

    return lambda: flip


def _rotate(degrees: float) -> Augmentation:
    def rotate(x: Tensor, generator: torch.Generator) -> Tensor:
        turn = (2 * torch.rand(len(x), generator=generator) - 1) * np.deg2rad(degrees)
        return turned(x, turn)

    return rotate


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Images ``[n, C, H, W]`` turned about their centre by ``angles [n]`` (radians).

    Counter-clockwise as seen for positive angles; bilinear, black outside.
    """
    angles = angles.to(x)
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    ratio = x.shape[2] / x.shape[3]  # normalised coordinates are not isotropic
    rows = [cos, -sin * ratio, zero, sin / ratio, cos, zero]
    theta = torch.stack(rows, 1).reshape(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _erase(side: float) -> Augmentation:
    s = int(side)

    def erase(x: Tensor, generator: torch.Generator) -> Tensor:
        n, _, h, w = x.shape
        top = torch.randint(max(h - s, 0) + 1, (n, 1), generator=generator)
        left = torch.randint(max(w - s, 0) + 1, (n, 1), generator=generator)
        rows, columns = torch.arange(h) - top, torch.arange(w) - left
        in_rows, in_columns = (rows >= 0) & (rows < s), (columns >= 0) & (columns < s)
        hole = (in_rows[:, :, None] & in_columns[:, None, :])[:, None].to(x.device)
        return x.masked_fill(hole, 0)

    return erase


def _noise(sd: float) -> Augmentation:
    def noise(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + sd * torch.randn(x.shape, generator=generator).to(x)

    return noise


_PARTS: dict[str, tuple[Callable[..., Augmentation], int]] = {
    "crop": (_crop, 1),
    "flip": (_flip(3), 0),
    "vertical_flip": (_flip(2), 0),
    "rotate": (_rotate, 1),
    "erase": (_erase, 1),
    "noise": (_noise, 1),
}

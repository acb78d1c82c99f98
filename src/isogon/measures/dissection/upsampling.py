"""Maps brought to the size of an image, at the pixels where they may be above a threshold."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

PIXELS = 2**18  # at a time


class _Axis:
    """Where the pixels along one axis lie among the positions of a map.

    Pixel i of n lies at ``(i + 1/2) k / n - 1/2`` among k positions, not before the first; values
    between two positions are linear, behind the last one constant.

    Args:
        positions: k.
        pixels: n.
        device: Where the tensors lie.

    Attributes:
        lower: Position at or before each pixel ``[n]``.
        upper: The next one ``[n]``, or the last.
        share: Of the upper one ``[n]``, float64.
        following: The position behind each position ``[k]``, or the last.
        first: The first pixel at or behind each position ``[k + 1]``; the last entry is n.
        members: The pixels between a position and the next ``[k, most]``, -1 beside them.
    """

    def __init__(self, positions: int, pixels: int, device: torch.device) -> None:
        place = (torch.arange(pixels, dtype=torch.float64) + 0.5) * positions / pixels - 0.5
        place = place.clamp(min=0)
        lower = place.floor().long()
        self.share = (place - lower).to(device)
        self.first = first = torch.searchsorted(lower, torch.arange(positions + 1))
        held = first[:-1, None] + torch.arange(max(1, int(first.diff().max())))
        self.members = torch.where(held < first[1:, None], held, -1).to(device)
        self.following = (torch.arange(positions) + 1).clamp(max=positions - 1).to(device)
        self.lower = lower.to(device)
        self.upper = self.following[self.lower]


class Upsampling:
    """Bilinear upsampling, corners not aligned, in float64.

    Args:
        shape: ``(h, w)`` of the maps.
        size: ``(H, W)`` of the image.
        device: Of the maps.
    """

    def __init__(self, shape: tuple[int, ...], size: tuple[int, ...], device: torch.device) -> None:
        self.rows, self.columns = (_Axis(k, n, device) for k, n in zip(shape, size, strict=True))
        self.size = tuple(size)

    def whole(self, maps: Tensor) -> Tensor:
        """Maps ``[m, h, w]`` at every pixel ``[m, H, W]``."""
        y, x = self.rows, self.columns
        top, bottom = maps.double()[:, y.lower], maps.double()[:, y.upper]
        corners = (top[..., x.lower], top[..., x.upper], bottom[..., x.lower], bottom[..., x.upper])
        return _between(*corners, y.share[:, None], x.share)

    def above(self, maps: Tensor, threshold: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The pixels at which maps are above their thresholds, a part at a time.

        What lies between four positions is at most the largest of them: only pixels beside a
        position that is above the threshold are looked at.

        Args:
            maps: ``[m, h, w]``.
            threshold: ``[m]``, values of the maps' own type.

        Yields:
            Numbers of maps and of pixels (row by row), a pair for each pixel that is above.
        """
        y, x = self.rows, self.columns
        high = maps > threshold[:, None, None]
        beside = high.clone()
        beside[:, :-1] |= high[:, 1:]
        around = beside.clone()
        around[:, :, :-1] |= beside[:, :, 1:]
        cells = around.nonzero()
        step = max(1, PIXELS // (y.members.shape[1] * x.members.shape[1]))
        for part in cells.split(step):
            m, r, c = part.unbind(1)
            i, j = y.members[r][:, :, None], x.members[c][:, None, :]
            below, right = y.following[r], x.following[c]
            corners = (maps[m, r, c], maps[m, r, right], maps[m, below, c], maps[m, below, right])
            first, second, third, fourth = (v.double()[:, None, None] for v in corners)
            values = _between(first, second, third, fourth, y.share[i], x.share[j])
            on = (values > threshold.double()[m, None, None]) & (i >= 0) & (j >= 0)
            k, u, v = on.nonzero(as_tuple=True)
            yield m[k], i[k, u, 0] * self.size[1] + j[k, 0, v]


def _between(a: Tensor, b: Tensor, c: Tensor, d: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Between values above (left a, right b) and below (c, d)."""
    return (1 - down) * ((1 - right) * a + right * b) + down * ((1 - right) * c + right * d)

"""Warping images by affine matrices, several at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isogon.errors import DataError
from isogon.jit import loop

PADDINGS = ("border", "zeros", "reflection")
MODES = ("bilinear", "nearest", "bicubic")
NEAR = 1e-9  # pixels: positions this near to a pixel's centre are taken to be on it
COMPILE = 2**16  # values from which the compiled loop is used; it gives the same bits


def warp(
    x: Tensor, matrices: np.ndarray, padding: str = "border", mode: str = "bilinear"
) -> Tensor:
    """Images under each of several affine maps.

    Where every position of a map falls on a pixel's centre (shifts by whole pixels, quarter
    turns of squares, mirrors) the values are copied, exactly; else they are interpolated at
    positions that were computed in float64.

    Args:
        x: Images ``[N, C, H, W]``.
        matrices: ``[T, 3, 3]``, see `isogon.actions.Affine`.
        padding: ``border``, ``zeros`` or ``reflection``.
        mode: ``bilinear``, ``nearest`` or ``bicubic``.

    Returns:
        ``[T, N, C, H, W]``.

    Raises:
        DataError: The batch does not hold images.
    """
    _check(x, 4)
    return _moved(x.unsqueeze(0), matrices, padding, mode)


def warp_each(
    x: Tensor, matrices: np.ndarray, padding: str = "border", mode: str = "bilinear"
) -> Tensor:
    """Map t on images ``x[t]``: ``[T, N, C, H, W]`` to the same shape; see `warp`."""
    _check(x, 5)
    return _moved(x, matrices, padding, mode)


def _check(x: Tensor, axes: int) -> None:
    if x.dim() != axes or not x.is_floating_point():
        raise DataError(
            "only images can be warped",
            got=f"a batch of shape {tuple(x.shape)} and type {x.dtype}",
            expected="floating point images [N, C, H, W]",
            fix="Use a family of functions for other data.",
        )


def _moved(x: Tensor, matrices: np.ndarray, padding: str, mode: str) -> Tensor:
    """``x`` is ``[T or 1, N, C, H, W]``."""
    t, (n, c, h, w) = len(matrices), x.shape[1:]
    rows = x.reshape(len(x), n * c, h * w)
    plan = positions(matrices, h, w, padding)
    usual = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    if usual and mode == "bilinear" and padding == "border":
        tracked = torch.is_grad_enabled() and x.requires_grad
        if t * rows[0].numel() >= COMPILE and not tracked:
            return _compiled(rows, plan).reshape(t, n, c, h, w)
        parts = [_weighed(rows[k % len(x)], plan, k) for k in range(t)]
    else:
        parts = [_sampled(rows[k % len(x)], plan, k, padding, mode) for k in range(t)]
    return torch.stack(parts).reshape(t, n, c, h, w)


@dataclass
class Positions:
    """Where each pixel of T maps comes from, in positions that were computed in float64.

    Attributes:
        height: H.
        width: W.
        exact: ``[T]``; whether every pixel is a copy of one pixel.
        index: ``[T, H * W]``; that pixel, else the upper left one of four; -1 for outside.
        weights: ``[T, 4, H * W]``; of the upper left, upper right, lower left and lower right.
        grid: ``[T, H, W, 2]``, for `torch.nn.functional.grid_sample`.
    """

    height: int
    width: int
    exact: np.ndarray
    index: np.ndarray
    weights: np.ndarray
    grid: Tensor

    @property
    def steps(self) -> tuple[int, int]:
        """From a pixel to the one on its right and the one below, within its map."""
        return int(self.width > 1), self.width if self.height > 1 else 0

    @cached_property
    def single(self) -> np.ndarray:
        """``weights`` in float32."""
        return self.weights.astype(np.float32)


def positions(matrices: np.ndarray, h: int, w: int, padding: str) -> Positions:
    """Where the pixels of images of a size come from, under each of several affine maps."""
    return _positions(np.asarray(matrices, float).tobytes(), h, w, padding)


@lru_cache(maxsize=64)
def _positions(matrices: bytes, h: int, w: int, padding: str) -> Positions:
    inverse = np.linalg.inv(np.frombuffer(matrices).reshape(-1, 3, 3))[:, :, :, None, None]
    rows, columns = np.mgrid[0:h, 0:w].astype(float)
    x, y = columns + 0.5 - w / 2, rows + 0.5 - h / 2
    column = inverse[:, 0, 0] * x + inverse[:, 0, 1] * y + inverse[:, 0, 2] + w / 2 - 0.5
    row = inverse[:, 1, 0] * x + inverse[:, 1, 1] * y + inverse[:, 1, 2] + h / 2 - 0.5
    near_column, near_row = np.rint(column), np.rint(row)
    apart = np.maximum(np.abs(column - near_column), np.abs(row - near_row))
    exact = (apart < NEAR).all((1, 2)) & (padding != "reflection")
    column = np.where(np.abs(column - near_column) < NEAR, near_column, column)
    row = np.where(np.abs(row - near_row) < NEAR, near_row, row)
    grid = torch.from_numpy(np.stack([(2 * column + 1) / w - 1, (2 * row + 1) / h - 1], -1))
    inside = (near_column >= 0) & (near_column < w) & (near_row >= 0) & (near_row < h)
    copied = np.clip(near_row, 0, h - 1) * w + np.clip(near_column, 0, w - 1)
    if padding == "zeros":
        copied = np.where(inside, copied, -1)
    # from the grid, so that interpolation agrees with `grid_sample` to the last digits
    column = np.clip(((grid[..., 0].numpy() + 1) * w - 1) / 2, 0, w - 1)
    row = np.clip(((grid[..., 1].numpy() + 1) * h - 1) / 2, 0, h - 1)
    left = np.minimum(np.floor(column), max(0, w - 2))
    upper = np.minimum(np.floor(row), max(0, h - 2))
    index = np.where(exact[:, None, None], copied, upper * w + left)
    right, down = column - left, row - upper
    weights = [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down]
    return Positions(
        h,
        w,
        exact,
        index.astype(np.int32).reshape(len(exact), -1),
        np.stack(weights, 1).reshape(len(exact), 4, -1),
        grid,
    )


def _copied(rows: Tensor, plan: Positions, k: int) -> Tensor:
    index = torch.from_numpy(plan.index[k]).long().to(rows.device)
    moved = rows.index_select(1, index.clamp_min(0))
    return moved * (index >= 0).to(moved.dtype) if bool((index < 0).any()) else moved


def _sampled(rows: Tensor, plan: Positions, k: int, padding: str, mode: str) -> Tensor:
    """By PyTorch, on any device: ``[R, H * W]``."""
    if plan.exact[k]:
        return _copied(rows, plan, k)
    grid = plan.grid[k : k + 1].to(rows.device, rows.dtype)
    # Samples ride as channels of one image: a position's weights are worked out only once.
    images = rows.reshape(1, -1, plan.height, plan.width)
    moved = F.grid_sample(images, grid, mode=mode, padding_mode=padding, align_corners=False)
    return moved.reshape(rows.shape)


def _weighed(rows: Tensor, plan: Positions, k: int) -> Tensor:
    """Bilinear interpolation in torch: ``[R, H * W]``."""
    if plan.exact[k]:
        return _copied(rows, plan, k)
    right, down = plan.steps
    index = torch.from_numpy(plan.index[k]).long()
    weights = torch.from_numpy(plan.weights[k]).to(rows.dtype)
    moved = rows.index_select(1, index) * weights[0]
    for step, weight in zip((right, down, down + right), weights[1:]):
        moved = moved + rows.index_select(1, index + step) * weight
    return moved


def _compiled(rows: Tensor, plan: Positions) -> Tensor:
    """The same for all maps at once: ``[T or 1, R, H * W]`` to ``[T, R, H * W]``."""
    out = rows.new_empty(len(plan.exact), *rows.shape[1:])
    weights = plan.single if rows.dtype == torch.float32 else plan.weights
    values = rows.detach().contiguous().numpy()
    interpolate_pixels(values, plan.exact, plan.index, weights, *plan.steps, out.numpy())
    return out


@loop()
def interpolate_pixels(rows, exact, index, weights, right, down, out):
    """`_weighed` and `_copied` as a loop; products are not contracted, so that the bits agree."""
    for t in range(out.shape[0]):
        place = index[t]
        p, q, r, s = weights[t, 0], weights[t, 1], weights[t, 2], weights[t, 3]
        for i in range(out.shape[1]):
            x, y = rows[t % rows.shape[0], i], out[t, i]
            if exact[t]:
                for u in range(y.size):
                    y[u] = x[np.uint64(place[u])]
            else:
                for u in range(y.size):
                    a = np.uint64(place[u])  # unsigned: no test for negative indices, twice as fast
                    b, c = a + np.uint64(right), a + np.uint64(down)
                    d = c + np.uint64(right)
                    y[u] = ((x[a] * p[u] + x[b] * q[u]) + x[c] * r[u]) + x[d] * s[u]

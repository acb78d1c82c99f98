"""Warping images by affine matrices, several at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from isogon.errors import DataError

PADDINGS = ("border", "zeros", "reflection")
MODES = ("bilinear", "nearest", "bicubic")
NEAR = 1e-9  # pixels: positions this near to a pixel's centre are taken to be on it


def warp(
    x: torch.Tensor, matrices: np.ndarray, padding: str = "border", mode: str = "bilinear"
) -> torch.Tensor:
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
    if x.dim() != 4 or not x.is_floating_point():
        raise DataError(
            "only images can be warped",
            got=f"a batch of shape {tuple(x.shape)} and type {x.dtype}",
            expected="floating point images [N, C, H, W]",
            fix="Use a family of functions for other data.",
        )
    n, c, h, w = x.shape
    exact: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    rest, grids = [], []
    for t, matrix in enumerate(matrices):
        key = tuple(np.asarray(matrix, float).reshape(-1).tolist())
        index, inside, grid = _plan(key, h, w, padding)
        if index is None:
            rest.append(t)
            grids.append(grid)
        else:
            exact.append((t, index.to(x.device), inside.to(x.device)))
    if len(rest) == len(matrices) and rest:
        return _sample(x, grids, padding, mode).reshape(len(rest), n, c, h, w)
    out = x.new_empty(len(matrices), n, c, h, w)
    if rest:
        out[rest] = _sample(x, grids, padding, mode).reshape(len(rest), n, c, h, w)
    flat = x.reshape(n, c, h * w)
    for t, index, inside in exact:
        moved = flat.index_select(2, index)
        if padding == "zeros":
            moved = moved * inside.to(moved.dtype)
        out[t] = moved.reshape(n, c, h, w)
    return out


def _sample(x: torch.Tensor, grids: list, padding: str, mode: str) -> torch.Tensor:
    n, c, h, w = x.shape
    grid = torch.stack(grids).to(device=x.device, dtype=x.dtype)
    # Samples ride as channels of one image: a position's weights are worked out only once.
    images = x.reshape(1, n * c, h, w).expand(len(grids), n * c, h, w)
    return F.grid_sample(images, grid, mode=mode, padding_mode=padding, align_corners=False)


@lru_cache(maxsize=512)
def _plan(
    key: tuple[float, ...], h: int, w: int, padding: str
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Where each pixel comes from: indices where that is exact, and the sampling grid."""
    inverse = np.linalg.inv(np.asarray(key).reshape(3, 3))
    rows, columns = np.mgrid[0:h, 0:w].astype(float)
    x, y = columns + 0.5 - w / 2, rows + 0.5 - h / 2
    column = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2] + w / 2 - 0.5
    row = inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2] + h / 2 - 0.5
    near_column, near_row = np.rint(column), np.rint(row)
    near = max(np.abs(column - near_column).max(), np.abs(row - near_row).max()) < NEAR
    column = np.where(np.abs(column - near_column) < NEAR, near_column, column)
    row = np.where(np.abs(row - near_row) < NEAR, near_row, row)
    inside = (near_column >= 0) & (near_column < w) & (near_row >= 0) & (near_row < h)
    grid = torch.from_numpy(np.stack([(2 * column + 1) / w - 1, (2 * row + 1) / h - 1], -1))
    index = None
    if near and padding != "reflection":
        place = np.clip(near_row, 0, h - 1) * w + np.clip(near_column, 0, w - 1)
        index = torch.from_numpy(place.astype(np.int64).reshape(-1))
    return index, torch.from_numpy(inside.reshape(-1)), grid

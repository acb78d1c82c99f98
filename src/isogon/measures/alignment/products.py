"""Matrix products of rows: float64 sums of float32 blocks, and half the work where symmetric."""

from __future__ import annotations

from typing import Any

import torch
from scipy.linalg import blas
from torch import Tensor

BLOCK = 1024  # rows of float32 whose products are summed before they become float64
TILE = 64  # rows and columns that are transposed at once


def product(x: Tensor, y: Tensor) -> Tensor:
    """``X^T Y`` of rows ``[m, p]`` and ``[m, q]``, float64."""
    if x.dtype == torch.float64 or y.dtype == torch.float64:
        return x.double().T @ y.double()
    found = (x[:BLOCK].T @ y[:BLOCK]).double()
    for low in range(BLOCK, len(x), BLOCK):
        found += x[low : low + BLOCK].T @ y[low : low + BLOCK]
    return found


def half_square(x: Tensor) -> Tensor:
    """The lower triangle of ``X^T X`` of rows ``[m, p]``, float64; what lies above is no matter."""
    if x.dtype == torch.float64:
        return _lower(x, rows=False)
    found = _lower(x[:BLOCK], rows=False).double()
    for low in range(BLOCK, len(x), BLOCK):
        found += _lower(x[low : low + BLOCK], rows=False)
    return found


def gram(x: Tensor) -> Tensor:
    """``X X^T`` of rows ``[m, p]``, ``[m, m]``, in their dtype."""
    return mirrored(half_gram(x))


def half_gram(x: Tensor) -> Tensor:
    """The lower triangle of `gram`; what lies above is no matter."""
    return _lower(x, rows=True)


def mirrored(lower: Tensor) -> Tensor:
    """Fill the upper triangle of a symmetric matrix whose lower one is given, in place."""
    for r in range(0, len(lower), TILE):
        tile, rest = slice(r, r + TILE), slice(r + TILE, None)
        lower[tile, rest] = lower[rest, tile].T
        corner = lower[tile, tile]
        corner.copy_(corner.tril() + corner.tril(-1).T)
    return lower


def _lower(x: Tensor, *, rows: bool) -> Tensor:
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return x @ x.T if rows else x.T @ x
    work: Any = getattr(blas, "dsyrk" if x.dtype == torch.float64 else "ssyrk")
    if not x.numel():
        n = len(x) if rows else x.shape[1]
        return x.new_zeros(n, n)
    # of row-major numbers BLAS sees the transpose, and its upper triangle is the lower one here
    return torch.from_numpy(work(1.0, x.contiguous().numpy().T, trans=int(rows)).T)

"""Batch norm around a stitch: in front of the map, behind it, or both."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from isogon.measures.stitching.maps import AffineMap, Assignment
from isogon.nets.recalibrate import GraphNorm
from isogon.stats.cross import Cross

Norm = Literal["none", "before", "after", "both"]
EPS = 1e-5
ROUNDING = 1e-12  # of the largest entry: what products leave of a channel that is dead


class Normed(nn.Module):
    """A map of channels with batch norms around it.

    Args:
        before: Of what comes in; None for none.
        inner: The map.
        after: Of what it gives; None for none.
    """

    def __init__(self, before: nn.Module | None, inner: nn.Module, after: nn.Module | None) -> None:
        super().__init__()
        self.before, self.inner, self.after = before, inner, after

    positionwise = False  # statistics are those of all positions

    def forward(self, x: Tensor) -> Tensor:
        """``[n, p, ...]`` to ``[n, q, ...]``."""
        x = x if self.before is None else self.before(x)
        x = self.inner(x)
        return x if self.after is None else self.after(x)

    def around(self, inner: nn.Module) -> Normed:
        """The same norms around another map."""
        return Normed(self.before, inner, self.after)


def normed(inner: nn.Module, m: Cross, norm: Norm, dtype: torch.dtype) -> Normed:
    """A fitted map with batch norms as its moments want them.

    In front of the map the norm begins as the identity on the data: it gives back the mean and
    standard deviation of x that it takes off. Behind the map it gives each channel the mean and
    standard deviation of y.

    Args:
        inner: A map from x to y.
        m: Moments of x ``[N, p]`` and y ``[N, q]``.
        norm: Where.
        dtype: Of the activations.
    """
    x, y = (m.mean_x, _variance(m.xx, m.count)), (m.mean_y, _variance(m.yy, m.count))
    before = after = None
    if norm in ("before", "both"):
        before = _norm(x, x, dtype)
    if norm in ("after", "both"):
        after = _norm(y, _through(inner, m), dtype)
    return Normed(before, inner, after)


def matrix_of(inner: nn.Module, channels: int) -> Tensor | None:
    """The matrix ``[q, p]`` that a map stands for; None of a map of another kind."""
    if isinstance(inner, Normed):
        return matrix_of(inner.inner, channels)
    if isinstance(inner, AffineMap):
        return inner.weight.detach()
    if isinstance(inner, Assignment):
        return inner.matrix(channels)
    return torch.eye(channels, dtype=torch.float64) if isinstance(inner, nn.Identity) else None


def _through(inner: nn.Module, m: Cross) -> tuple[Tensor, Tensor]:
    """Mean and variance of what a map gives; those of y for a map that is not known."""
    w = matrix_of(inner, len(m.mean_x))
    if w is None:
        return m.mean_y, _variance(m.yy, m.count)
    bias = inner.bias if isinstance(inner, AffineMap) and inner.bias is not None else 0.0
    centred: Any = m.xx
    variance = ((w @ centred) * w).sum(1).clamp(min=0) / m.count
    return (w @ m.mean_x + bias).detach(), variance


def _variance(centred: Tensor | None, count: int) -> Tensor:
    assert centred is not None
    return centred.diagonal().clamp(min=0) / count


def _norm(
    wanted: tuple[Tensor, Tensor], there: tuple[Tensor, Tensor], dtype: torch.dtype
) -> GraphNorm:
    """The norm that brings channels from one mean and variance to another."""
    weight = nn.Parameter((wanted[1] + EPS).sqrt().to(dtype))
    bias = nn.Parameter(wanted[0].to(dtype, copy=True))
    found = GraphNorm(weight, bias, there[0].to(dtype), there[1].to(dtype), EPS)
    found.training = False
    return found


def share_of_zeros(map: nn.Module | None, channels: int) -> float:
    """Share of the entries of a map that are 0 up to rounding; NaN of a map that is no matrix."""
    matrix = None if map is None else matrix_of(map, channels)
    if matrix is None:
        return float("nan")
    size = matrix.abs()
    return float((size <= ROUNDING * size.max()).double().mean())

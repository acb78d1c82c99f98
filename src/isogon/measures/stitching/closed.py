"""Closed forms: the maps of channels that bring x closest to y, from their second moments.

Every form minimises ``sum |y - f(x)|^2`` over a set of maps, in float64. ``x [N, p]`` and
``y [N, q]`` are known through `isogon.stats.cross.Cross` alone.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from isogon.actions.channels import SMALL
from isogon.stats.cross import Cross

CONSTANT = 1e-24  # of its second moment: a smaller variance is rounding
FLAT = 1e-12  # of the largest eigenvalue of correlations: smaller ones are rounding
TIES = 1e-9  # what a factor e between two channels' lengths takes off their cosine


def least_squares(m: Cross, *, bias: bool = True) -> tuple[Tensor, Tensor | None]:
    """``W`` and ``b`` of least ``sum |y - W x - b|^2``, by the normal equations.

    Channels are brought to one length first, so that their scales cost no digits; directions in
    which x does not vary are left out (the solution of least length in these units).

    Args:
        m: Moments.
        bias: Whether there is a ``b``; then the equations are centred.

    Returns:
        ``[q, p]`` and ``[q]`` or None.
    """
    values, vectors, whitened = _spectrum(m, bias)
    w = (vectors / values.sqrt()) @ whitened  # [p, q]
    return w.T, _offset(m, w.T) if bias else None


def reduced_rank(m: Cross, rank: int, *, bias: bool = True) -> tuple[Tensor, Tensor | None]:
    """The same over ``W`` of a rank at most: the least-squares fit, projected.

    The projection is on the leading principal directions of the fitted values ``W x``.

    Args:
        m: Moments.
        rank: At least 1.
        bias: Whether there is a ``b``.

    Returns:
        ``[q, p]`` and ``[q]`` or None.
    """
    values, vectors, whitened = _spectrum(m, bias)
    _, _, vt = torch.linalg.svd(whitened, full_matrices=False)
    kept = vt[:rank]
    w = (vectors / values.sqrt()) @ (whitened @ kept.T) @ kept
    return w.T, _offset(m, w.T) if bias else None


def scaled_rotation(m: Cross) -> Tensor:
    """``s Q`` of least ``sum |y - s Q x|^2``, Q with orthonormal rows or columns, nothing centred.

    Q is the orthogonal Procrustes solution of the narrower side padded with zeros; s is the best
    scale of it.

    Args:
        m: Moments.

    Returns:
        ``[q, p]``.
    """
    xy = m.raw_xy().double()
    u, _, vt = torch.linalg.svd(xy.T, full_matrices=False)
    q = u @ vt
    size = (q @ m.raw_xx().double() * q).sum()
    scale = (q * xy.T).sum() / size if size > 0 else torch.ones_like(size)
    return scale * q


def assignment(m: Cross) -> Tensor:
    """The one-to-one assignment of channels of the largest sum of cosines, nothing centred.

    A channel that is zero throughout has cosine 0 with all others. Between channels that are
    multiples of each other, cosines can't tell; the one of the nearer length is taken.

    Args:
        m: Moments.

    Returns:
        ``[q]``: which channel of x stands for each of y; -1 for none, where x has fewer.
    """
    xx, xy, yy = m.raw_xx().diagonal(), m.raw_xy(), m.raw_yy().diagonal()
    x, y = xx.clamp(min=0).sqrt(), yy.clamp(min=0).sqrt()
    cosine = xy.T / torch.outer(torch.where(y > 0, y, 1.0), torch.where(x > 0, x, 1.0))
    apart = (y.clamp(min=1e-300).log()[:, None] - x.clamp(min=1e-300).log()[None]).abs()
    gain = torch.where((y[:, None] > 0) & (x[None] > 0), cosine - TIES * apart, 0.0)
    rows, columns = linear_sum_assignment(gain.cpu().numpy(), maximize=True)
    found = torch.full((len(y),), -1, dtype=torch.long)
    found[torch.as_tensor(rows)] = torch.as_tensor(columns)
    return found


def scales(m: Cross, order: Tensor) -> Tensor:
    """The positive scale of each assigned pair of least ``sum (y_i - s_i x_order(i))^2``.

    Pairs that are best scaled to nothing, which no group holds, get 1e-6 as in
    `isogon.actions.channels.Group.fit`; channels of x that are zero throughout 1.

    Args:
        m: Moments.
        order: `assignment`.

    Returns:
        ``[q]``; 0 where there is no partner.
    """
    order = order.to(m.xy.device)
    j = order.clamp(min=0)
    size = m.raw_xx().diagonal()[j]
    shared = m.raw_xy()[j, torch.arange(len(j), device=j.device)]
    found = (shared / torch.where(size > 0, size, 1.0)).clamp(min=SMALL)
    found = torch.where(size > 0, found, 1.0)
    return torch.where(order >= 0, found, 0.0)


def _spectrum(m: Cross, bias: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues and scaled eigenvectors of x's moments, and y's regression on x whitened.

    With D the lengths of the channels of x and ``D^-1 (X^T X) D^-1 = V L V^T``: L ``[r]``,
    ``D^-1 V`` ``[p, r]`` and ``L^-1/2 V^T D^-1 X^T Y`` ``[r, q]``.
    """
    raw = m.raw_xx().double()
    xx = raw if not bias or m.xx is None else m.xx.double()
    xy = m.xy.double() if bias else m.raw_xy().double()
    square = xx.diagonal().clamp(min=0)
    length = square.sqrt()
    live = square > CONSTANT * raw.diagonal()
    inverse = torch.where(live, 1 / torch.where(live, length, 1.0), 0.0)
    values, vectors = torch.linalg.eigh(xx * torch.outer(inverse, inverse))
    kept = values > FLAT * values[-1].clamp(min=0)
    values, vectors = values[kept], inverse[:, None] * vectors[:, kept]
    return values, vectors, (vectors.T @ xy) / values.sqrt()[:, None]


def _offset(m: Cross, w: Tensor) -> Tensor:
    return m.mean_y - w @ m.mean_x

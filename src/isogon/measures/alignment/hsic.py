"""HSIC of all pairs of representations at once, from one centred n x n matrix each."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from isogon.errors import DataError
from isogon.measures.alignment.metrics.kernels import Alignment
from isogon.measures.alignment.products import gram, half_gram, mirrored
from isogon.measures.alignment.samples import off_diagonal, squared_distances

RAM = 2 * 2**30  # bytes of matrices that are held in memory; more lie on disk in float32
BLOCK = 2**24  # numbers of a matrix that are worked on at once
CACHED = 2**17  # the same, where they are read more than once
COLUMNS = 4096  # of float32 rows whose products are summed before they become float64
ROUGH = 1e-8  # of an offset's square: smaller squares of deviations are taken in float64
CHEAP = 2**28  # products that are taken in float64 whatever the features are
WIDEST = 2**16  # columns of float32 rows whose products are summed in float32
NEAR = (
    32  # of the squares of deviations: larger squares of an offset are taken away before products
)
LEAST = 4  # samples: the unbiased estimator divides by n (n - 3)


class Grams:
    """U-centred (or doubly centred) matrices ``[n, n]`` of a list of representations.

    Args:
        chosen: The kernel and its options.
        count: n.
        sites: How many there will be.
        dtype: Of the numbers, where they fit into memory.

    Raises:
        DataError: Fewer than four samples.
    """

    def __init__(self, chosen: Alignment, count: int, sites: int, dtype: torch.dtype) -> None:
        if count < LEAST:
            raise DataError(
                "too few samples for CKA",
                got=count,
                expected=f"at least {LEAST}",
                fix="Use more samples.",
            )
        self.chosen, self.count = chosen, count
        self.filled = 0
        size = sites * count * count
        wide = dtype == torch.float64 and size * 8 <= RAM
        kept = torch.float64 if wide else torch.float32
        self._folder = None
        if size * kept.itemsize <= RAM:
            self.values = torch.empty(sites, count, count, dtype=kept)
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="isogon-")
            self.values = torch.from_numpy(
                np.memmap(
                    f"{self._folder.name}/grams", np.float32, "w+", shape=(sites, count, count)
                )
            )

    def add(self, x: Tensor) -> None:
        """The matrix of one representation ``[n, C, P]``."""
        target = self.values[self.filled]
        self.filled += 1
        block = kernel_of(x, self.chosen)
        step = max(1, BLOCK // self.count)
        for r in range(0, self.count, step):
            target[r : r + step] = block(slice(r, min(r + step, self.count)))
        centre(target, unbiased=self.chosen.unbiased)

    def inner(self, other: Grams) -> np.ndarray:
        """``tr(K L)`` for all pairs, ``[sites, other's sites]``."""
        a, b, n = self.values, other.values, self.count
        found = torch.zeros(len(a), len(b), dtype=torch.float64)
        step = max(1, CACHED // (n * max(len(a), len(b))))
        for r in range(0, n, step):
            mine, theirs = (m[:, r : r + step].double().flatten(1) for m in (a, b))
            found += mine @ theirs.T
        return found.numpy()

    def own(self) -> np.ndarray:
        """``tr(K K)`` of each, ``[sites]``."""
        return np.array([self._square(k) for k in range(len(self.values))])

    def _square(self, k: int) -> float:
        rows = self.values[k].split(max(1, CACHED // self.count))
        return sum(float(part.double().square().sum()) for part in rows)


def centre(matrix: Tensor, *, unbiased: bool) -> None:
    """Centre a symmetric matrix in place: U-centred with a zero diagonal, or doubly centred.

    ``k_ij - r_i / (n-2) - r_j / (n-2) + s / ((n-1)(n-2))`` with row sums r and total s off the
    diagonal: rows then sum to 0, whatever was added to a row and its column.
    """
    n = len(matrix)
    if unbiased:
        matrix.fill_diagonal_(0)
    rows = matrix.sum(1, dtype=torch.float64)
    one, two = (n - 2, (n - 1) * (n - 2)) if unbiased else (n, n * n)
    mean, whole = rows / one, float(rows.sum()) / two
    step = max(1, CACHED // n)
    for r in range(0, n, step):
        block = matrix[r : r + step]
        block.copy_(block.double().sub_(mean[r : r + step, None] - whole).sub_(mean))
    if unbiased:
        matrix.fill_diagonal_(0)


def kernel_of(x: Tensor, chosen: Alignment, *, scaled: bool = True) -> Callable[[slice], Tensor]:
    """Rows of the kernel's matrix of a representation ``[n, C, P]``.

    Centred over the samples and scaled to its largest value first, which no centred kernel sees, so
    that neither an offset nor a scale costs digits or leaves the range of float32. Matrices that
    are added up (``scaled=False``) keep their scale, in float64.
    """
    if not scaled or len(x) * x.numel() <= CHEAP:
        x = x.double()
    x = _normalised(x, chosen, scaled=scaled)
    if chosen.kernel in ("linear", "rbf"):
        flat = x.flatten(1)
        if chosen.kernel == "rbf":
            return _rbf(flat, chosen.sigma)
        every = slice(0, len(x))
        return lambda rows: gram(flat) if rows == every else flat[rows] @ flat.T
    by_channel = x.movedim(1, 0).contiguous()  # [C, n, P]
    if chosen.kernel == "max":
        return lambda rows: _largest(by_channel, rows)
    return lambda rows: _median(by_channel, rows)


def _normalised(x: Tensor, chosen: Alignment, *, scaled: bool) -> Tensor:
    kept = x.dtype
    if chosen.normalize == "none":
        if chosen.kernel == "rbf" and chosen.sigma is not None:
            return x.double()
        x = x.double()
        whole = x.abs().max()
        if chosen.kernel in ("linear", "rbf"):
            x = x - x.mean(0, keepdim=True)
        peak = x.abs().max()
        if peak <= 4 * torch.finfo(torch.float64).eps * whole:
            return torch.zeros_like(x).to(kept)  # constant: what is left is rounding
        return (x / peak if scaled else x).to(kept)
    x = x.double()
    peak = x.abs().amax((0, 2), keepdim=True)
    x = x / torch.where(peak > 0, peak, 1.0)  # squares stay within range
    raw = x.square().sum((0, 2))
    if chosen.center:
        x = x - x.mean((0, 2), keepdim=True)
    squares = x.square().sum((0, 2))
    live = squares > raw * x[:, 0].numel() * torch.finfo(torch.float64).eps ** 2
    if chosen.drop_dead:
        x, squares = x[:, live], squares[live]
        live = live[live]
    scale = torch.where(live, squares, 1.0).rsqrt() * live
    return (x * scale[:, None]).to(kept)


def _rbf(x: Tensor, sigma: float | None) -> Callable[[slice], Tensor]:
    x = x.double()
    if sigma is None:
        whole = squared_distances(x)
        middle = float(np.median(off_diagonal(whole).cpu().numpy(), overwrite_input=True))
        if not middle > 0:
            return lambda rows: torch.full_like(whole[rows], math.nan)
        return lambda rows: (whole[rows] / (-2 * middle)).exp_()
    squares = x.square().sum(1)

    def kernel(rows: slice) -> Tensor:
        squared = (squares[rows, None] + squares - 2 * x[rows] @ x.T).clamp(min=0)
        return squared.div_(-2 * sigma**2).exp_()

    return kernel


def _channels(x: Tensor, rows: slice, most: int) -> Iterator[Tensor]:
    """``<x_ic, x_jc>`` for some channels at a time, ``[c, rows, n]``."""
    for part in x.split(max(1, most)):
        yield part[:, rows] @ part.transpose(1, 2)


def _largest(x: Tensor, rows: slice) -> Tensor:
    height = len(range(*rows.indices(x.shape[1])))
    if not len(x):
        return x.new_full((height, x.shape[1]), math.nan)
    best = x.new_full((height, x.shape[1]), -math.inf)
    step = max(1, BLOCK // max(1, height * x.shape[1]))
    for products in _channels(x, rows, step):
        best = torch.maximum(best, products.amax(0))
    return best


def _median(x: Tensor, rows: slice) -> Tensor:
    n = x.shape[1]
    if not len(x):
        return x.new_full((len(range(*rows.indices(n))), n), math.nan)
    first, last, _ = rows.indices(n)
    step = max(1, BLOCK // (len(x) * n))
    parts = [
        (x[:, r : min(r + step, last)] @ x.transpose(1, 2)).median(0).values
        for r in range(first, last, step)
    ]
    return torch.cat(parts)


def ratio(inner: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """CKA from ``tr(K L)``, ``tr(K K)`` and ``tr(L L)``; NaN where a side is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.sqrt(a)[:, None] * np.sqrt(b)[None, :]
        return np.where(size > 0, inner / size, math.nan)


def centred_rows(found: Tensor) -> np.ndarray:
    """U-centred matrices of one batch, a row per representation ``[sites, b * b]``.

    Args:
        found: Their kernels' matrices ``[sites, b, b]``, float64, which are overwritten.
    """
    b = found.shape[1]
    off = found.diagonal(dim1=1, dim2=2)
    off.zero_()
    rows = found.sum(2, keepdim=True) / (b - 2)
    found += rows.sum(1, keepdim=True) / (b - 1) - rows - rows.transpose(1, 2)
    off.zero_()
    return found.flatten(1).div_((b * (b - 3)) ** 0.5).numpy()


def _uncentred(x: Tensor) -> Tensor | None:
    """The matrix of float32 rows as they are, which centring takes the offset from afterwards.

    Three passes over the rows less than with rows that are centred first. None where the offset is
    so large beside what varies that its rounding would show, or squares leave the range of float32.
    """
    if x.shape[1] > WIDEST:
        return None
    found = mirrored(half_gram(x)).double()
    mean = found.mean(1)
    offset = float(mean.mean())
    spread = float((found.diagonal() - 2 * mean).max()) + offset
    return found if max(1e-25, offset / NEAR) < spread < 1e37 else None


def of_batch(x: Tensor, chosen: Alignment) -> Tensor:
    """The kernel's matrix of a batch, of its own scale and up to what centring takes away."""
    if chosen.kernel == "linear" and chosen.normalize == "none" and x.dtype == torch.float32:
        if (near := _uncentred(x.flatten(1))) is not None:
            return near
        total, offset = x.new_zeros(len(x), len(x), dtype=torch.float64), 0.0
        for part in x.flatten(1).split(COLUMNS, 1):
            mean = part.mean(0)
            offset += float(mean @ mean)
            total += half_gram(part - mean)
        # float32 does, unless squares leave its range or little but an offset is there
        if max(1e-25, ROUGH * offset) < float(total.diagonal().max()) < 1e37:
            return mirrored(total)
    return kernel_of(x, chosen, scaled=False)(slice(0, len(x)))

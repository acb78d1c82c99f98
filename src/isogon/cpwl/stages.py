"""The four kinds of stage that a lowered network is made of.

Stages work on named tensors `[N, ...]`. `Affine` and `Join` are linear maps of one or several
tensors plus a constant, `Kink` is a scalar continuous piecewise-linear function applied element by
element, `Max` is a maximum over groups of entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

Weights = Callable[[Callable[[Tensor], Tensor]], Callable[..., Tensor]]


def with_coefficient(apply: Callable[[Tensor, Tensor], Tensor], weight: Tensor) -> Weights:
    """The `weights` of a stage `apply(weight, input)`; `f(weight)` is made once, when asked for."""

    def weights(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return partial(apply, f(weight))

    return weights


TERMS = 32  # of a sum, from which it is worth its way to another device: 16 bytes to and fro
NUMBERS = 1 << 16  # of an input likewise: a call there takes some 50 microseconds


class Product:
    """The linear part of a layer with a weight, `call(x, weight, bias)`, on any device.

    Everything else of a lowered network works on tensors of the CPU. A product of large tensors is
    computed on the device of the model, from and to the CPU: what takes the time there are many
    terms per number that is sent.

    Args:
        call: The layer.
        weight: Its coefficients, float64, on the CPU.
        bias: Or None.
        terms: Of each sum.
        device: Where large products are computed.
    """

    def __init__(
        self,
        call: Callable[[Tensor, Tensor, Tensor | None], Tensor],
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        terms: int,
        device: torch.device | None = None,
    ) -> None:
        self.call, self.weight, self.bias = call, weight, bias
        self.terms, self.device = terms, device
        self.there: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The layer on `[N, ...]`."""
        if self.device is None or self.terms < TERMS or x.numel() < NUMBERS:
            return self.call(x, self.weight, self.bias)
        if self.there is None:
            bias = None if self.bias is None else self.bias.to(self.device)
            self.there = self.weight.to(self.device), bias
        weight, bias = self.there
        if x.dtype != weight.dtype:  # a network in single precision
            weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        return self.call(x.to(self.device), weight, bias).to(x.device)

    def into(self, x: Tensor, out: Tensor) -> bool:
        """Write the layer on `[N, in]` to `out` where one call does so; whether it did."""
        if self.call is not torch.nn.functional.linear or self.device is not None or x.ndim != 2:
            return False
        if self.bias is None:
            torch.mm(x, self.weight.T, out=out)
        else:
            torch.addmm(self.bias, x, self.weight.T, out=out)
        return True

    def changed(self, f: Callable[[Tensor], Tensor]) -> Product:
        """With every coefficient w replaced by f(w), and no bias."""
        return Product(self.call, f(self.weight), terms=self.terms, device=self.device)

    def on(self, device: torch.device) -> Product:
        """The same on a device."""
        return Product(self.call, self.weight, self.bias, terms=self.terms, device=device)


@dataclass(frozen=True, eq=False, kw_only=True)
class Affine:
    """`output = linear(input) + bias`, one tensor in, one tensor out.

    Args:
        output: Name of the tensor that is made.
        inputs: Names of the tensors that are read (one; several for `Join`).
        linear: The linear part on batched tensors `[N, ...]`; maps zero to zero, so that it
            also transports tangent vectors.
        bias: The constant part, broadcastable to the output without its sample axis; None: 0.
        apply: The whole map, where one call is faster than `linear` plus `bias`.
        weights: `weights(f)` is the linear part with every coefficient w replaced by f(w), f
            being `torch.abs` or `torch.square`; coefficients from 0 to 1 may stay as they are.
            None: unknown; rounding errors are then estimated.
        copies: Every entry of the result is an entry of an input, perhaps negated, or constant.
        op: What it was in the model, for messages.
    """

    output: str
    inputs: tuple[str, ...]
    linear: Callable[..., Tensor]
    bias: Tensor | None = None
    apply: Callable[..., Tensor] | None = None
    weights: Weights | None = None
    copies: bool = False
    op: str = "affine"

    def __call__(self, *values: Tensor) -> Tensor:
        """The map on values `[N, ...]`."""
        if self.apply is not None:
            return self.apply(*values)
        result = self.linear(*values)
        return result if self.bias is None else result + self.bias

    def on(self, device: torch.device) -> Affine:
        """The same, with what is worth it computed on a device."""
        linear, apply = self.linear, self.apply
        if not isinstance(linear, Product):
            return self
        linear = linear.on(device)
        apply = apply.on(device) if isinstance(apply, Product) else apply
        return replace(self, linear=linear, apply=apply, weights=linear.changed)


@dataclass(frozen=True, eq=False, kw_only=True)
class Join(Affine):
    """An affine map of several tensors: sum, difference, concatenation, stack."""

    op: str = "join"


@dataclass(frozen=True, eq=False, kw_only=True)
class Kink:
    """A continuous piecewise-linear scalar function, element by element.

    With knots `t_1 < ... < t_K` the function has slope `s_0` left of `t_1`, `s_k` between
    `t_k` and `t_{k+1}`, `s_K` right of `t_K`, and the value `value` at `t_1`.

    Args:
        output: Name of the tensor that is made.
        inputs: Name of the tensor that is read, as a 1-tuple.
        site: Name of the site (`Site.name`) that cuts the input space here.
        knots: `[K]`, or `[K, ...]` with the trailing axes broadcastable to one sample.
        slopes: `[K + 1]` or `[K + 1, ...]` likewise.
        value: Value at the first knot: a number, or a tensor broadcastable to one sample.
        apply: The same function as one fast call (`torch.relu`); checked nowhere but in verify.
        op: What it was in the model, for messages.
    """

    output: str
    inputs: tuple[str]
    site: str
    knots: Tensor
    slopes: Tensor
    value: Tensor | float = 0.0
    apply: Callable[[Tensor], Tensor] | None = None
    op: str = "kink"

    @property
    def pieces(self) -> int:
        """Number of linear pieces, K + 1."""
        return len(self.slopes)

    def __call__(self, z: Tensor) -> Tensor:
        """The function on values `[N, ...]`."""
        if self.apply is not None:
            return self.apply(z)
        right = z - self.knots[0]
        result = self.value + _times(self.slopes[0], right.clamp(max=0))
        result += _times(self.slopes[1], right.clamp_(0))
        for k in range(1, len(self.knots)):
            jump = self.slopes[k + 1] - self.slopes[k]
            result += _times(jump, (z - self.knots[k]).clamp_(0))
        return result

    def piece(self, z: Tensor) -> Tensor:
        """Index of the linear piece that holds each value: the number of knots below it."""
        return sum((z > knot).to(torch.int16) for knot in self.knots)  # type: ignore[return-value]

    def slope(self, piece: Tensor) -> Tensor:
        """Slope of each element's piece, `[N, ...]`."""
        if self.pieces == 2:
            return torch.where(piece > 0, self.slopes[1], self.slopes[0])
        result = torch.zeros(piece.shape, dtype=self.slopes.dtype)
        for k in range(self.pieces):
            result += (piece == k) * self.slopes[k]
        return result

    def on_piece(self, z: Tensor, piece: Tensor) -> Tensor:
        """The affine function of the given pieces (also outside their intervals) at `z`."""
        if self.pieces == 2:
            return self.value + _times(self.slope(piece), z - self.knots[0])
        start, result = torch.as_tensor(self.value, dtype=z.dtype), torch.zeros_like(z)
        knot = self.knots[0]
        for k in range(self.pieces):
            if k > 1:  # walk the value along the knots
                start = start + self.slopes[k - 1] * (self.knots[k - 1] - knot)
                knot = self.knots[k - 1]
            result += torch.where(piece == k, start + _times(self.slopes[k], z - knot), 0.0)
        return result


def _times(slope: Tensor, distance: Tensor) -> Tensor:
    """Slope times distance; a flat piece stays flat at infinity (padding of -inf)."""
    return torch.where((slope == 0) & distance.isinf(), 0.0, slope * distance)


def relu(output: str, source: str, site: str, *, slope: float | Tensor = 0.0) -> Kink:
    """The kink at 0 with slopes `slope` and 1: ReLU, leaky ReLU, PReLU (slope per channel)."""
    left = torch.as_tensor(slope, dtype=torch.float64)
    plain = left.ndim == 0 and float(left) == 0
    return Kink(
        output=output,
        inputs=(source,),
        site=site,
        knots=torch.zeros(1, dtype=torch.float64),
        slopes=torch.stack([left, torch.ones_like(left)]),
        apply=torch.relu if plain else lambda z: torch.where(z > 0, z, left * z),
        op="relu",
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Max:
    """The maximum over groups of entries: max-pooling, maximum of two tensors, maxout.

    Args:
        output: Name of the tensor that is made.
        inputs: Names of the tensors that are read; their samples are flattened and
            concatenated to one vector of length m.
        site: Name of the site that cuts the input space here.
        index: `[units, K]` int64, entries of that vector that belong to each unit; -1 where a
            unit has fewer than K (padding).
        shape: Shape of one sample of the result; `units` is its number of elements.
        apply: The same function as one fast call on the inputs.
        op: What it was in the model, for messages.
    """

    output: str
    inputs: tuple[str, ...]
    site: str
    index: Tensor
    shape: tuple[int, ...]
    apply: Callable[..., Tensor] | None = None
    op: str = "max"

    def flat(self, *values: Tensor) -> Tensor:
        """The concatenated entries `[N, m]`."""
        parts = [v.reshape(len(v), -1) for v in values]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def candidates(self, *values: Tensor) -> Tensor:
        """The values that compete, `[N, units, K]`; -inf where a unit has fewer than K."""
        found = self.flat(*values)[:, self.index.clamp(min=0)]
        return found.masked_fill(self.index < 0, -torch.inf)

    def __call__(self, *values: Tensor) -> Tensor:
        """The maxima on values `[N, ...]`."""
        if self.apply is not None:
            return self.apply(*values)
        return self.candidates(*values).amax(-1).reshape(-1, *self.shape)

    def choose(self, winner: Tensor, *values: Tensor) -> Tensor:
        """The entries `winner` `[N, units]` (positions 0..K-1) instead of the largest ones."""
        entry = self.index.expand(len(winner), -1, -1).gather(2, winner[..., None].long())[..., 0]
        return self.flat(*values).gather(1, entry).reshape(-1, *self.shape)


Stage = Affine | Kink | Max

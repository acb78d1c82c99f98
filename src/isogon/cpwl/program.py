"""The lowered network: a continuous piecewise-linear function as a list of four kinds of stage.

Stages work on named tensors `[N, ...]` in topological order. `Affine` and `Join` are linear
maps of one or several tensors plus a constant, `Kink` is a scalar continuous piecewise-linear
function applied element by element, `Max` is a maximum over groups of entries. Everything that
isogon computes exactly (partition, segments, local complexity) is computed on a `Program`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from isogon.errors import ModelError

Weights = Callable[[Callable[[Tensor], Tensor]], Callable[..., Tensor]]

CHUNK_BYTES = 4 << 20  # per intermediate tensor of a chunk: about what a cache holds


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


@dataclass(eq=False)
class Program:
    """A continuous piecewise-linear network in float64.

    Args:
        stages: In topological order; every tensor is made once and before it is read.
        shape: Shape of one input sample.
        output: Name of the result; default: what the last stage makes.
        input: Name under which stages read the network's input.

    Raises:
        ModelError: A stage reads a tensor that no earlier stage makes, or two stages make the
            same one, or two kinks carry one site name.
    """

    stages: Sequence[Stage]
    shape: tuple[int, ...]
    output: str = ""
    input: str = "input"
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shape = tuple(self.shape)
        self.output = self.output or (self.stages[-1].output if self.stages else self.input)
        made, sites = {self.input}, set()
        for stage in self.stages:
            missing = [name for name in stage.inputs if name not in made]
            if missing or stage.output in made:
                raise ModelError(
                    "the lowered network is not in topological order",
                    got=f"stage {stage.op} that reads {missing or 'nothing unknown'} and makes "
                    f"{stage.output!r}",
                    expected="each tensor made once, before it is read",
                )
            made.add(stage.output)
            if isinstance(stage, Kink | Max):
                if stage.site in sites:
                    raise ModelError("two stages carry one site name", got=stage.site)
                sites.add(stage.site)
        # after stage i the tensors in _dead[i] are never read again
        last = {name: i for i, stage in enumerate(self.stages) for name in stage.inputs}
        last[self.output] = len(self.stages)
        self._dead: list[list[str]] = [[] for _ in range(len(self.stages) + 1)]
        for name, i in last.items():
            self._dead[i].append(name)
        for i, stage in enumerate(self.stages):
            if stage.output not in last:
                self._dead[i].append(stage.output)
        self.shapes: dict[str, tuple[int, ...]] = {self.input: self.shape}
        with torch.no_grad():
            for stage, _, result in self.steps(torch.zeros(1, *self.shape, dtype=torch.float64)):
                self.shapes[stage.output] = tuple(result.shape[1:])

    @property
    def cuts(self) -> list[Kink | Max]:
        """The stages that cut the input space, in order; their sites are the sites."""
        return [stage for stage in self.stages if isinstance(stage, Kink | Max)]

    @property
    def sites(self) -> list[str]:
        """Names of the sites, in order."""
        return [stage.site for stage in self.cuts]

    def units(self, stage: Kink | Max) -> int:
        """Number of units (row-major elements of one sample of the result) of a cut."""
        return int(torch.Size(self.shapes[stage.output]).numel())

    def dead_after(self, position: int) -> list[str]:
        """Tensors that no stage after the given one reads (liveness, for running in steps)."""
        return self._dead[position]

    def steps(self, x: Tensor) -> Iterator[tuple[Stage, list[Tensor], Tensor]]:
        """Run on `[N, *shape]`; yields each stage with its arguments and its result."""
        values = {self.input: x}
        for i, stage in enumerate(self.stages):
            arguments = [values[name] for name in stage.inputs]
            result = stage(*arguments)
            yield stage, arguments, result
            values[stage.output] = result
            for name in self._dead[i]:
                del values[name]

    def chunk(self) -> int:
        """Samples per chunk so that the largest intermediate stays under 4 MB."""
        widest = max(int(torch.Size(shape).numel()) for shape in self.shapes.values())
        return max(1, CHUNK_BYTES // (8 * max(widest, 1)))

    @torch.no_grad()
    def evaluate(self, x: Tensor, *, chunk: int | None = None) -> Tensor:
        """The network's output `[N, ...]` at `[N, *shape]`, float64, chunk by chunk."""
        size = chunk or self.chunk()
        parts = []
        for start in range(0, max(len(x), 1), size):
            result = part = x[start : start + size].to(torch.float64)
            for stage, _, value in self.steps(part):
                if stage.output == self.output:
                    result = value
            parts.append(result)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.no_grad()
    def preactivations(self, x: Tensor) -> dict[str, Tensor]:
        """What each site sees at `[N, *shape]`: `[N, units]`, for a max `[N, units, K]`."""
        found = {}
        for stage, arguments, _ in self.steps(x.to(torch.float64)):
            if isinstance(stage, Kink):
                found[stage.site] = arguments[0].reshape(len(x), -1)
            elif isinstance(stage, Max):
                found[stage.site] = stage.candidates(*arguments)
        return found


def mlp(
    weights: Sequence[Tensor], biases: Sequence[Tensor | None], *, slope: float = 0.0
) -> Program:
    """The program of a fully connected network, for tests and tables of weights.

    Args:
        weights: `[out, in]` per layer.
        biases: `[out]` or None per layer.
        slope: Negative slope of the activation between the layers.
    """
    stages: list[Stage] = []
    name = "input"
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        stages.append(dense(f"z{i}", name, weight, bias))
        if i < len(weights) - 1:
            stages.append(relu(f"h{i}", f"z{i}", f"relu{i}", slope=slope))
            name = f"h{i}"
    return Program(stages, (weights[0].shape[1],))


def dense(output: str, source: str, weight: Tensor, bias: Tensor | None) -> Affine:
    """The affine stage `x W^T + b` on `[N, in]`."""
    weight = weight.to(torch.float64)
    bias = None if bias is None else bias.to(torch.float64)
    return Affine(
        output=output,
        inputs=(source,),
        linear=lambda x: torch.nn.functional.linear(x, weight),
        bias=bias,
        apply=lambda x: torch.nn.functional.linear(x, weight, bias),
        weights=lambda f: lambda x: torch.nn.functional.linear(x, f(weight)),
        op="linear",
    )

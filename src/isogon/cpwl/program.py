"""The lowered network: a continuous piecewise-linear function as a list of stages.

Stages (`isogon.cpwl.stages`) work on named tensors `[N, ...]` in topological order. Everything that
isogon computes exactly (partition, segments, local complexity) is computed on a `Program`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from isogon.cpwl.stages import Affine, Kink, Max, Product, Stage, relu
from isogon.errors import ModelError

V = TypeVar("V")  # what a walk makes of each tensor: values, derivatives beside them, bounds

# Per intermediate tensor of a chunk: small enough to stay in a cache, large enough for a call.
CHUNK_BYTES = 2 << 20
DEVICE_BYTES = 8 << 20  # with products on another device: fewer and longer calls
LARGEST_KEPT = (32 << 20) - (64 << 10)  # bytes: the most that malloc of a GNU C library adapts to


@functools.cache
def keep_freed() -> None:
    """Let malloc keep the memory of freed chunks, instead of giving it back and asking anew.

    A GNU C library gives the end of its heap back as soon as more is free there than twice the
    largest block that was ever freed, after blocks of 2 MB thus at every other stage: up to twelve
    times slower. One large block, never written to, is freed first; elsewhere that changes nothing.
    """
    torch.empty(LARGEST_KEPT, dtype=torch.uint8)


Visit = Callable[[int, Stage, list[V]], V]


@dataclass(eq=False)
class Program:
    """A continuous piecewise-linear network in float64.

    Args:
        stages: In topological order; every tensor is made once and before it is read.
        shape: Shape of one input sample.
        output: Name of the result; default: what the last stage makes.
        input: Name under which stages read the network's input.
        facts: What was found out about it.
        chunk_bytes: Size of the largest intermediate of a chunk.

    Raises:
        ModelError: A stage reads a tensor that no earlier stage makes, or two stages make the
            same one, or two kinks carry one site name.
    """

    stages: Sequence[Stage]
    shape: tuple[int, ...]
    output: str = ""
    input: str = "input"
    facts: dict[str, Any] = field(default_factory=dict)
    chunk_bytes: int = CHUNK_BYTES

    def __post_init__(self) -> None:
        keep_freed()
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
        # what nobody reads is dead as soon as it is made
        self._made = {self.input: -1} | {s.output: i for i, s in enumerate(self.stages)}
        self._last = {name: max(i, 0) for name, i in self._made.items()}
        self._last |= {name: i for i, stage in enumerate(self.stages) for name in stage.inputs}
        self._last[self.output] = len(self.stages)
        # after stage i the tensors in _dead[i] are never read again
        self._dead: list[list[str]] = [[] for _ in range(len(self.stages) + 1)]
        for name, i in self._last.items():
            self._dead[i].append(name)
        self.shapes: dict[str, tuple[int, ...]] = {self.input: self.shape}
        with torch.no_grad():
            for stage, _, result in self.steps(torch.zeros(1, *self.shape, dtype=torch.float64)):
                self.shapes[stage.output] = tuple(result.shape[1:])
        self._widest = max(map(math.prod, self.shapes.values()))

    def on(self, device: torch.device) -> Program:
        """The same with its large products computed on a device, where that knows float64.

        Tensors go in and come out on the CPU, at every stage.
        """
        try:
            torch.zeros(1, dtype=torch.float64, device=device)
        except (TypeError, RuntimeError):
            return self
        stages = [s.on(device) if isinstance(s, Affine) else s for s in self.stages]
        found = Program(stages, self.shape, self.output, self.input, self.facts)
        found.chunk_bytes = DEVICE_BYTES
        return found

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
        return math.prod(self.shapes[stage.output])

    def next_cut(self, position: int) -> int:
        """Position of the next cut after a stage; the number of stages where there is none."""
        after = range(position + 1, len(self.stages))
        return next((i for i in after if isinstance(self.stages[i], Kink | Max)), len(self.stages))

    def alive(self, position: int) -> list[str]:
        """Tensors that are made before a stage and read by it or a later one."""
        return [n for n, i in self._last.items() if self._made[n] < position <= i]

    def run(
        self,
        values: MutableMapping[str, V],
        start: int = 0,
        stop: int | None = None,
        visit: Visit[V] | None = None,
        forget: Callable[[str], object] | None = None,
    ) -> MutableMapping[str, V]:
        """Walk the stages in order: each makes its tensor from those that it reads.

        What stands for a tensor is up to the walk: values `[N, ...]`, derivatives beside them,
        errors, bounds. What no later stage reads is dropped as soon as its last reader is done,
        so that a walk never holds more than what is alive.

        Args:
            values: By name, what is alive before `start`: at the beginning the input. It is
                changed in place.
            start: Position of the first stage.
            stop: Position of the stage to stop before; None: after the last one.
            visit: `visit(position, stage, arguments)` makes what stands for the stage's tensor;
                None: the stage itself, on values. It may take over an argument that is dead
                behind it (`dead_after`).
            forget: Called with each name that was dropped.

        Returns:
            `values`: what is alive before `stop`; after the last stage the output alone.

        Example:
            >>> program = mlp([torch.eye(2), torch.ones(1, 2)], [None, None])
            >>> program.run({"input": torch.tensor([[1.0, -2.0]], dtype=torch.float64)})
            {'z1': tensor([[1.]], dtype=torch.float64)}
        """
        for i in range(start, len(self.stages) if stop is None else stop):
            self._step(i, values, visit, forget)
        return values

    def dead_after(self, position: int) -> list[str]:
        """Tensors that no stage after the given one reads."""
        return self._dead[position]

    def steps(self, x: Tensor) -> Iterator[tuple[Stage, list[Tensor], Tensor]]:
        """Run on `[N, *shape]`; yields each stage with its arguments and its result."""
        values = {self.input: x}
        for i, stage in enumerate(self.stages):
            yield stage, *self._step(i, values)

    def _step(
        self,
        position: int,
        values: MutableMapping[str, V],
        visit: Visit[V] | None = None,
        forget: Callable[[str], object] | None = None,
    ) -> tuple[list[V], V]:
        """One stage of `run`: its arguments and what it made of them."""
        stage = self.stages[position]
        arguments = [values[name] for name in stage.inputs]
        made: Any
        if visit is None:
            made = stage(*arguments)  # type: ignore[arg-type]
        else:
            made = visit(position, stage, arguments)
        values[stage.output] = made
        for name in self._dead[position]:
            values.pop(name, None)
            if forget is not None:
                forget(name)
        return arguments, made

    def chunk(self) -> int:
        """Samples per chunk so that the largest intermediate stays under `chunk_bytes`."""
        return max(1, self.chunk_bytes // (8 * max(self._widest, 1)))

    @torch.no_grad()
    def evaluate(self, x: Tensor, *, chunk: int | None = None) -> Tensor:
        """The network's output `[N, ...]` at `[N, *shape]`, float64, chunk by chunk."""
        size = chunk or self.chunk()
        parts = []
        for start in range(0, max(len(x), 1), size):
            part = x[start : start + size].to(torch.float64)
            parts.append(self.run({self.input: part})[self.output])
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
    product = Product(torch.nn.functional.linear, weight, terms=weight.shape[1])
    return Affine(
        output=output,
        inputs=(source,),
        linear=product,
        bias=bias,
        apply=Product(torch.nn.functional.linear, weight, bias, terms=weight.shape[1]),
        weights=product.changed,
        op="linear",
    )

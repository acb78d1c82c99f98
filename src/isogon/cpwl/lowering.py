"""What rules call: one walk over a traced graph that collects the stages of a `Program`.

The walk visits every node once. Operations on constants alone are evaluated (in float64);
operations on what depends on the input are given to the rule registered under their name with
`isogon.registry.lowers`. A rule is a function of the `Lowering` at work and of the operation's
own arguments, and returns what the operation returns::

    @lowers("mylib.scale.default")
    def scale(lower, x, factor):
        return lower.linear(lambda v: v * factor, x)

Arguments that depend on the input arrive as `Ref`, all other tensors as float64 constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, fx

from isogon import registry
from isogon.cpwl.constants import in_double, leaves, mapped
from isogon.cpwl.program import Program
from isogon.cpwl.refusals import fix_of_product, of_sizes, refusal
from isogon.cpwl.scalars import products
from isogon.cpwl.stages import Affine, Join, Kink, Max, Stage, Weights
from isogon.errors import ModelError, UnsupportedOp
from isogon.nets.graph import Graph, Place, place, shape


@dataclass(frozen=True, eq=False)
class Ref:
    """A tensor `[N, *shape]` that depends on the input, during lowering."""

    name: str
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """Number of axes, that of the samples included."""
        return len(self.shape) + 1


@dataclass(frozen=True, eq=False)
class Condition:
    """Where `ref > bound` (or `<`): of use only where a continuous function comes of it."""

    ref: Ref
    bound: Tensor
    above: bool


@dataclass(frozen=True, eq=False)
class Opaque:
    """A result that no rule can use, such as the positions of maxima; `what` says which."""

    what: str


class Lowering:
    """One walk over a graph; what rules call.

    Attributes:
        node: The graph node at work.
        forms: Base, scale and shift of tensors that are elementwise affine in another one.
        rescale: How to remake a tensor's layer with its units scaled and shifted (a batch-norm
            after a convolution).
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.node: fx.Node = graph.input
        self.stages: list[Stage] = []
        self.values: dict[fx.Node, Any] = {}
        self.forms: dict[str, tuple[Ref, Tensor, Tensor]] = {}
        self.rescale: dict[str, Callable[[Tensor, Tensor], Ref]] = {}
        self.needed: set[fx.Node] = set()
        self._sites: set[str] = set()
        self._names = {"input"}

    # ------------------------------------------------------------------ for rules

    @property
    def place(self) -> Place:
        """Which call of which module made the node at work."""
        return place(self.node)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample of the node's result."""
        return self._sample_shape(shape(self.node))

    @property
    def target(self) -> Callable[..., Any]:
        """The operation itself, e.g. `torch.ops.aten.conv2d.default`."""
        return self.node.target  # type: ignore[return-value]

    @property
    def op(self) -> str:
        """The operation's short name, e.g. `conv2d`."""
        return str(self.node.target).removeprefix("aten.").split(".")[0]

    def linear(
        self,
        function: Callable[..., Tensor],
        *tensors: Ref | Tensor,
        bias: Tensor | None = None,
        shape: tuple[int, ...] | None = None,
        weights: Weights | None = None,
        copies: bool = False,
    ) -> Ref:
        """A stage that is linear in `tensors` jointly, plus a constant.

        Args:
            function: Linear in all its arguments together (zeros go to zero), on batched
                tensors; constants among `tensors` give the constant part.
            *tensors: Arguments; at least one depends on the input.
            bias: Further constant part, broadcastable to one sample.
            shape: Sample shape of the result, where it is not the node's own.
            weights: The linear part with its coefficients replaced (see `Affine`).
            copies: Whether entries are only moved (see `Affine`).
        """
        refs = [t for t in tensors if isinstance(t, Ref)]
        held = [t for t in tensors if isinstance(t, Tensor)]
        if held:
            given = [torch.zeros(1, *t.shape) if isinstance(t, Ref) else t for t in tensors]
            constant = function(*[t.to(torch.float64) for t in given])[0]
            bias = constant if bias is None else constant + bias
            slots = [None if isinstance(t, Ref) else torch.zeros_like(t) for t in tensors]

            def partial(inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
                def filled(*values: Tensor) -> Tensor:
                    rest = iter(values)
                    return inner(*[next(rest) if s is None else s for s in slots])

                return filled

            changed = None if weights is None else lambda f: partial(weights(f))
            return self._affine(partial(function), refs, bias, None, shape, changed, copies)
        return self._affine(function, refs, bias, None, shape, weights, copies)

    def affine(
        self,
        function: Callable[[Tensor], Tensor],
        x: Ref,
        bias: Tensor | None,
        apply: Callable[[Tensor], Tensor] | None = None,
        shape: tuple[int, ...] | None = None,
        weights: Weights | None = None,
        copies: bool = False,
    ) -> Ref:
        """A stage `function(x) + bias`; `apply` does both in one call (the rest as in `linear`)."""
        return self._affine(function, [x], bias, apply, shape, weights, copies)

    def kink(
        self,
        x: Ref,
        knots: Tensor | Sequence[float],
        slopes: Tensor | Sequence[float],
        value: Tensor | float,
        apply: Callable[[Tensor], Tensor] | None = None,
    ) -> Ref:
        """A continuous piecewise-linear function of every element (see `Kink`).

        Args:
            x: What it is applied to.
            knots: `[K, ...]`, ascending.
            slopes: `[K + 1, ...]`, from the leftmost piece to the rightmost.
            value: Value at the first knot.
            apply: The same function in one call.
        """
        knots, slopes = (torch.as_tensor(t, dtype=torch.float64) for t in (knots, slopes))
        ref = self._ref(x.shape)
        self.stages.append(
            Kink(
                output=ref.name,
                inputs=(x.name,),
                site=self._site(),
                knots=knots,
                slopes=slopes,
                value=value,
                apply=apply,
                op=self.op,
            )
        )
        return ref

    def maximum(
        self,
        index: Tensor,
        *refs: Ref,
        apply: Callable[..., Tensor] | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> Ref:
        """The maximum over groups of entries of the flattened, concatenated `refs` (see `Max`).

        Args:
            index: `[*sample shape of the result, K]` int64, -1 where a unit has fewer than K.
            *refs: What competes.
            apply: The same function in one call.
            shape: Sample shape of the result, where it is not the node's own.
        """
        ref = self._ref(shape)
        flat = index.reshape(-1, index.shape[-1])
        if flat.shape[1] == 1:  # one candidate: no kink
            pick = flat[:, 0]

            def gather(*values: Tensor) -> Tensor:
                joined = torch.cat([v.reshape(len(v), -1) for v in values], 1)
                return joined[:, pick].reshape(-1, *ref.shape)

            return self._affine(gather, list(refs), None, sizes=ref.shape, copies=True)
        self.stages.append(
            Max(
                output=ref.name,
                inputs=tuple(r.name for r in refs),
                site=self._site(),
                index=flat,
                shape=ref.shape,
                apply=apply,
                op=self.op,
            )
        )
        return ref

    def form(self, x: Ref) -> tuple[Ref, Tensor, Tensor]:
        """`(base, scale, shift)` with `x = scale * base + shift` element by element."""
        one = torch.ones((), dtype=torch.float64)
        return self.forms.get(x.name, (x, one, torch.zeros_like(one)))

    def sample(self, constant: Tensor, axes: int | None = None) -> Tensor:
        """A constant without the sample axis that broadcasting against `[N, ...]` gives it.

        Args:
            constant: As the operation was given it.
            axes: Number of axes of the operation's result, that of the samples included.
        """
        axes = len(self.shape) + 1 if axes is None else axes
        if constant.ndim == axes:
            if constant.shape[0] != 1:
                self.refuse("acts differently on different samples of a batch")
            return constant[0]
        return constant

    def refuse(self, why: str, fix: str | None = None) -> NoReturn:
        """Raise `UnsupportedOp` for the node at work: it `why`."""
        if fix is None and "branch" in why:
            fix = fix_of_product(self.node, products(self.graph, self.needed))
        raise UnsupportedOp(
            f"{self.op} at {self.place.name!r} {why}",
            got=str(self.node.target),
            expected="continuous piecewise-linear operations",
            fix=fix,
        )

    # ------------------------------------------------------------------ the walk

    def program(self, output: fx.Node) -> Program:
        """The program of one of the graph's nodes."""
        needed, stack = self.needed, [output]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack.extend(node.all_input_nodes)
        with torch.no_grad():
            for node in self.graph.module.graph.nodes:
                if node in needed:
                    self.node = node
                    self.values[node] = self._value()
        self.node = output
        result, given = self.values[output], self.values.get(self.graph.input)
        if isinstance(result, Condition | Opaque):
            self.refuse("is the output, and jumps")
        if not isinstance(result, Ref) or given is None:
            raise ModelError(
                "the model's output does not depend on its input",
                got=type(result).__name__,
                expected="one tensor [N, ...] that does",
            )
        return Program(self._leading_to(result.name), given.shape, output=result.name)

    def _value(self) -> Any:
        node = self.node
        if node.op == "placeholder":
            return Ref("input", self._sample_shape(shape(node)))
        if node.op == "get_attr":
            return self._constant(self.graph.tensor(node))
        arguments: Any = fx.map_arg(node.args, self.values.__getitem__)
        options: Any = fx.map_arg(node.kwargs, self.values.__getitem__)
        name = getattr(node.target, "__name__", "")
        if name == "getitem":
            return arguments[0][arguments[1]]
        found = list(leaves((arguments, options)))
        for leaf in found:
            if isinstance(leaf, Opaque):
                self.refuse(f"uses {leaf.what}, which jump")
            if isinstance(leaf, Condition) and self.op not in _TAKE_CONDITIONS:
                self.refuse("uses a comparison as a number, which jumps")
        if name == "sym_size.int":
            sizes = (
                (1, *arguments[0].shape) if isinstance(arguments[0], Ref) else arguments[0].shape
            )
            return sizes[arguments[1]]
        if not any(isinstance(leaf, Ref | Condition) for leaf in found):
            return self._fold(arguments, options)
        if not registry.has("lowers", str(node.target)):
            nodes = [n for n in self.graph.nodes if n in self.needed]
            raise refusal(nodes, node, products(self.graph, self.needed))
        if shape(node) and not self.op.startswith("new_"):
            self._sample_shape(shape(node))
        return registry.get("lowers", str(node.target)).build(self, *arguments, **options)

    def _constant(self, tensor: Tensor) -> Tensor:
        held, tensor = tensor, tensor.detach()
        if not tensor.is_floating_point():
            return tensor.cpu()
        # an infinite constant masks entries; an infinite weight is no network
        bad = ~tensor.isfinite() if isinstance(held, torch.nn.Parameter) else tensor.isnan()
        if bad.any():
            raise ModelError(
                f"{self.node.target!s} holds NaN or infinite values",
                got=f"{int(bad.sum())} of {tensor.numel()}",
                expected="finite weights, buffers without NaN",
                fix="Load another checkpoint.",
            )
        return tensor.to("cpu", torch.float64)

    def _fold(self, arguments: Any, options: Any) -> Any:
        """Evaluate an operation on constants (the number of samples counts as one)."""
        tags = getattr(self.node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags and "dropout" not in self.op:
            self.refuse("is random")
        arguments, options = (mapped(a, in_double) for a in (arguments, options))
        try:
            result = self.node.target(*arguments, **options)  # type: ignore[operator]
        except Exception as error:
            self.refuse(f"can't be evaluated on constants ({error})")
        return mapped(result, in_double)

    def _sample_shape(self, sizes: tuple[int | None, ...]) -> tuple[int, ...]:
        first, rest = sizes[:1], [d for d in sizes[1:] if d is not None and d >= 0]
        if first != (None,) or len(rest) + 1 != len(sizes):
            self.refuse(*of_sizes(sizes))
        return tuple(rest)

    def _ref(self, sizes: tuple[int, ...] | None = None) -> Ref:
        name, k = self.node.name, 1
        while name in self._names:  # one node may become several stages
            k += 1
            name = f"{self.node.name}.{k}"
        self._names.add(name)
        return Ref(name, self.shape if sizes is None else sizes)

    def _affine(
        self,
        function: Callable[..., Tensor],
        refs: list[Ref],
        bias: Tensor | None,
        apply: Callable[..., Tensor] | None = None,
        sizes: tuple[int, ...] | None = None,
        weights: Weights | None = None,
        copies: bool = False,
    ) -> Ref:
        ref = self._ref(sizes)
        kind = Affine if len(refs) == 1 else Join
        stage = kind(
            output=ref.name, inputs=tuple(r.name for r in refs), linear=function, bias=bias,
            apply=apply, weights=weights, copies=copies, op=self.op,
        )  # fmt: skip
        self.stages.append(stage)
        return ref

    def _site(self) -> str:
        name, k = self.place.name, 1
        while name in self._sites:  # a layer that bends its input twice
            k += 1
            name = f"{self.place.name}.{k}"
        self._sites.add(name)
        return name

    def _leading_to(self, output: str) -> list[Stage]:
        needed, kept = {output}, []
        for stage in reversed(self.stages):
            if stage.output in needed:
                needed.update(stage.inputs)
                kept.append(stage)
        return kept[::-1]


# operations whose rules accept a comparison as an argument
_TAKE_CONDITIONS = {
    "where", "mul", "masked_fill", "to", "_to_copy", "type_as", "logical_not", "bitwise_not"
}  # fmt: skip

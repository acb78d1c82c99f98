"""Labels of all activations and weights of a model, read off its traced graph.

The walk is that of the forward pass with labels in the place of numbers. What only moves numbers
(reshape, permute, slice, cat, pad, shuffle) moves their labels; what combines two numbers makes
their labels the same; what mixes an axis with a weight hands the labels to that axis of the weight
and gives its other axis new ones. So shared streams, padded shortcuts, shared modules and tied
weights need no rule of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from isogon.errors import ModelError
from isogon.measures.alignment.symmetry.factors import Scales
from isogon.measures.alignment.symmetry.units import (
    FIXED,
    ZERO,
    Axis,
    Block,
    Classes,
    Data,
    Held,
    Labels,
)
from isogon.nets.graph import Graph, place, shape

RULES: dict[str, Callable[..., Any]] = {}
OF_WEIGHTS: set[str] = set()
OTHERS = "*"  # what the rule for operations without one is registered as: labels, or None


def rule(*names: str, weights: bool = False) -> Callable:
    """Register how operations of these names treat labels: ``f(walk, node, *args, **kwargs)``.

    Args:
        *names: Operations.
        weights: Whether the rule takes weights as they are (`Held`); others get their labels.
    """

    def decorate(function: Callable) -> Callable:
        RULES.update(dict.fromkeys(names, function))
        OF_WEIGHTS.update(names if weights else ())
        return function

    return decorate


class Labelling:
    """The labels of one model.

    Attributes:
        units: Which units there are.
        scales: Which scales there are.
        blocks: The labels of each weight, by name.
        values: The labels of each activation, by node.
        marks: Units that an operation mixes with each other and with no others.
    """

    def __init__(self, graph: Graph, model: nn.Module) -> None:
        self.graph = graph
        self.units, self.scales = Classes(), Scales()
        self.blocks: dict[str, list[Block]] = {}
        self.kinds: dict[str, str] = {}
        self.values: dict[fx.Node, Data] = {}
        self.marks: list[Tensor] = []
        self.env: dict[fx.Node, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        names: dict[int, str] = {}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            names.setdefault(id(tensor), name)
        self._names = names
        for node in graph.module.graph.nodes:
            if node.op != "output":
                self.env[node] = self._value(node)
                if isinstance(self.env[node], Data):
                    self.values[node] = self.env[node]
        for node in graph.outputs:
            self._end(self.env[node])

    def _end(self, value: Labels | list[Labels]) -> None:
        for v in value if isinstance(value, list) else [value]:
            if isinstance(v, Data):
                self.fix(v)

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self.blank(shape(node))
        if node.op == "get_attr":
            tensor = self.graph.tensor(node)
            name = self._names.get(id(tensor), "")
            if not name:  # a constant of the forward pass: it stays as it is
                return self.blank(tensor.shape)
            self.tensors[name] = tensor
            return Held(name, tuple(range(tensor.dim())))
        args = fx.map_arg(node.args, self._now)
        kwargs = fx.map_arg(node.kwargs, self._now)
        labelled = _labelled([*args, *kwargs.values()])
        name = operation(node)
        if name in ("sym_size", "sym_numel", "size", "numel"):
            return _sizes(args, name)
        if not labelled:  # sizes, constants
            if not shape(node) and name not in ("scalar_tensor",):
                return _computed(node, args, kwargs)
            return self.blank(shape(node))
        if name == "getitem" and isinstance(args[0], Data) and not args[0].units.dim():
            return self.blank(shape(node))  # of several results of an operation on what stays
        if name in RULES:
            if name not in OF_WEIGHTS:
                args = [self.taken(a) if isinstance(a, Held) else a for a in args]
            return RULES[name](self, node, *args, **kwargs)
        if all(isinstance(v, Held) or v.fixed for v in labelled):
            for v in labelled:
                if isinstance(v, Held):
                    self.keep(v)
            return self.blank(shape(node))
        made = RULES[OTHERS](self, node, *args, **kwargs)
        if made is None:
            raise self.refusal(node, f"the operation {name}")
        return made

    def _now(self, node: fx.Node) -> Any:
        return self.current(self.env[node])

    # ------------------------------------------------------------------ labels

    def current(self, x: object) -> Any:
        """Labels by what stands for them now; anything else as it is."""
        if isinstance(x, list | tuple):
            return [self.current(v) for v in x]
        if not isinstance(x, Data):
            return x
        return Data(self.units.now(x.units), self.scales.now(x.scales))

    def blank(self, sizes: Sequence[int | None]) -> Data:
        """Labels of numbers that stay where they are."""
        zero = torch.full([1 if n is None or n < 0 else n for n in sizes], FIXED)
        return Data(zero, zero)

    def fix(self, x: Data) -> None:
        """Nothing in it can move."""
        self.units.join(x.units, torch.tensor(FIXED))
        self.scales.join(x.scales, torch.tensor(FIXED))

    def unscaled(self, x: Data) -> Tensor:
        """Its scales have to be 1; they are returned so."""
        self.scales.join(x.scales, torch.tensor(FIXED))
        return torch.where(x.units == ZERO, ZERO, torch.full_like(x.scales, FIXED))

    def joined(self, x: Data, y: Data) -> None:
        """Both have the same labels, number by number."""
        self.units.join(x.units, y.units)
        self.scales.join(x.scales, y.scales)

    def along(self, x: Data, dims: Sequence[int]) -> Data:
        """One label for all numbers along these axes, which are left out; zeros become fixed."""
        keep = [d for d in range(x.units.dim()) if d not in {k % x.units.dim() for k in dims}]
        parts = []
        for labels, classes in ((x.units, self.units), (x.scales, self.scales)):
            rest = [d for d in range(labels.dim()) if d not in keep]
            flat = labels.permute(*keep, *rest).reshape(*[labels.shape[d] for d in keep], -1)
            label = flat.amax(-1)
            classes.join(flat, label[..., None])
            parts.append(torch.where(label == ZERO, FIXED, label))
        return Data(*parts)

    def vector(self, held: Held, exponent: int = 1, *, scaled: bool | None = None) -> Data:
        """Labels of a weight that is applied number by number, in its shape as it stands.

        Args:
            held: The weight.
            exponent: The power with which its scales enter.
            scaled: Whether it may be scaled; parameters by default.
        """
        tensor = self.tensors[held.name]
        kind = f"vector {exponent}"
        if self.kinds.setdefault(held.name, kind) != kind:
            raise self.twice(held.name)
        if held.name not in self.blocks:
            count = tensor.numel()
            free = isinstance(tensor, nn.Parameter) if scaled is None else scaled
            scales = self.scales.fresh(count) if free else torch.zeros(count, dtype=torch.long)
            axis = Axis(self.units.fresh(count), [(scales, exponent)])
            rows = (0, len(tensor) if tensor.dim() else 1)
            self.blocks[held.name] = [Block(rows, (count,), [axis])]
        (axis,) = self.blocks[held.name][0].axes
        parts = [axis.units.view(tensor.shape), axis.scales[0][0].view(tensor.shape)]
        order = [a for a in held.axes if a is not None]
        parts = [p.permute(order) for p in parts]
        for place_, a in enumerate(held.axes):
            if a is None:
                parts = [p.unsqueeze(place_) for p in parts]
        return self.current(Data(*parts))

    def matrix(self, held: Held, exponents: dict[int, int]) -> dict[int, Data]:
        """Labels along axes of a weight that mixes them: axis -> ``[d]``.

        Args:
            held: The weight.
            exponents: For each of its axes, as it stands, the power with which the scales of the
                activation on that side enter: 1 for what it makes, -1 for what it reads.
        """
        tensor = self.tensors[held.name]
        if self.kinds.setdefault(held.name, "matrix") != "matrix":
            raise self.twice(held.name)
        if held.name not in self.blocks:
            sizes = tuple(tensor.shape)
            axes = [Axis(torch.zeros(n, dtype=torch.long), []) for n in sizes]
            self.blocks[held.name] = [Block((0, sizes[0]), sizes, axes)]
        block = self.blocks[held.name][0]
        found = {}
        for at, exponent in exponents.items():
            number = held.axes[at]
            assert number is not None
            axis, size = block.axes[number], block.shape[number]
            if not axis.scales:
                axis.units = self.units.fresh(size)
                axis.scales.append((self.scales.fresh(size), exponent))
            labels, power = axis.scales[0]
            if power != exponent:  # multiplies by a scale here and divides by it there
                self.scales.join(labels, torch.tensor(FIXED))
            found[at] = self.current(Data(axis.units, labels))
        return found

    def keep(self, held: Held) -> None:
        """A weight stays as it is."""
        if held.name not in self.blocks:
            self.vector(held)
        for axis in (axis for block in self.blocks[held.name] for axis in block.axes):
            self.units.join(axis.units, torch.tensor(FIXED))
            for labels, _ in axis.scales:
                self.scales.join(labels, torch.tensor(FIXED))

    def mark(self, units: Tensor) -> None:
        """Units of one row ``[rows, ...]`` go together into an operation, apart from other rows."""
        flat = units.reshape(len(units), -1)
        if len(flat) > 1 and bool((flat != flat[:1]).any()):
            self.marks.extend(flat.unbind())
        else:
            self.marks.append(flat[0])

    def taken(self, x: Labels) -> Data:
        """An operand as labels."""
        return self.vector(x) if isinstance(x, Held) else x

    # ------------------------------------------------------------------ refusals

    def twice(self, name: str) -> ModelError:
        """The error for a weight that is used in two ways."""
        return ModelError(
            "a weight is used in two ways, so that its symmetries are not known",
            got=name,
            expected="a weight that is multiplied as a matrix, or number by number",
        )

    def refusal(self, node: fx.Node, what: str) -> ModelError:
        """The error for what the graph does not tell."""
        return ModelError(
            f"the symmetries of the weights can't be read off the graph at {place(node).name!r}",
            got=what,
            expected="layers, activations, sums, normalisations, pooling, and what moves numbers",
            fix="Match the parts before and behind it.",
        )


def operation(node: fx.Node) -> str:
    """Name of a node's operation, without its overload."""
    schema = getattr(node.target, "_schema", None)
    name = schema.name.split("::")[-1] if schema else getattr(node.target, "__name__", node.op)
    return name.removesuffix("_")


def _labelled(values: Sequence[Any]) -> list[Data | Held]:
    found: list[Data | Held] = []
    for v in values:
        if isinstance(v, Data | Held):
            found.append(v)
        elif isinstance(v, list | tuple):
            found += _labelled(v)
    return found


def _sizes(args: Any, name: str) -> Any:
    """Sizes of an activation of one sample."""
    sizes = args[0].units.shape if isinstance(args[0], Data) else args[0].shape
    if name.endswith("numel"):
        return sizes.numel()
    return sizes[args[1]] if len(args) > 1 else list(sizes)


def _computed(node: fx.Node, args: Any, kwargs: Any) -> Any:
    assert callable(node.target)
    return node.target(*args, **kwargs)

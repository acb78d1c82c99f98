"""Which nodes of a graph are functions of one number each, and of which other node.

`x * sigmoid(x)`, `0.5 * x * (1 + erf(x / sqrt(2)))` and `sin(30 * x)` are scalar functions of
`x` however many operations they take; `sites` finds the nodes where such functions leave the
continuous piecewise-linear ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from isogon.cpwl.refusals import SMOOTH, op_name
from isogon.nets.graph import Graph

__all__ = ["ScalarSite", "products", "sites"]

_SAME = {"clone", "contiguous", "alias", "detach", "to", "_to_copy", "dropout", "type_as"}
_KINKS = {
    "relu",
    "leaky_relu",
    "relu6",
    "hardtanh",
    "clamp",
    "clamp_min",
    "clamp_max",
    "hardsigmoid",
    "abs",
    "softshrink",
}
_LINEAR = {"add", "sub", "rsub", "neg"}
_PRODUCTS = {"mul", "div", "true_divide"}
_BILINEAR = {"matmul", "mm", "bmm", "mv", "addmm", "baddbmm", "einsum", "addcmul", "addcdiv", "dot"}


@dataclass(frozen=True)
class ScalarSite:
    """A node that is a smooth scalar function of another one.

    Args:
        node: The node.
        base: What it is a function of.
        function: The function, element by element.
    """

    node: fx.Node
    base: fx.Node
    function: Callable[[Tensor], Tensor]


def sites(graph: Graph, constants: dict[fx.Node, object], needed: set[fx.Node]) -> list[ScalarSite]:
    """The smooth scalar functions of a graph, each as large as it goes.

    Args:
        graph: A traced graph.
        constants: Values of the nodes that do not depend on the input.
        needed: The nodes that lead to the output of interest.

    Returns:
        In the order of the graph; no site is part of another one.
    """
    walk = _Walk(constants)
    candidates: dict[fx.Node, fx.Node] = {}
    order = {node: i for i, node in enumerate(graph.module.graph.nodes)}
    for node in graph.nodes:
        if node in constants or node not in needed:
            continue
        base = walk.base(node, order)
        if base is not None:
            candidates[node] = base
    # a candidate that only feeds larger ones disappears inside them
    covered: dict[fx.Node, set[fx.Node]] = {}
    for node in reversed(graph.nodes):
        users = [user for user in node.users if user in needed]
        bases: set[fx.Node] | None = set()
        for user in users:
            if user in candidates and user not in covered:
                found = {candidates[user]}
            else:
                found = covered.get(user)
            if found is None:
                bases = None
                break
            bases = bases | found if bases is not None else None
        inside = walk.chain(node) if node not in constants and node in needed else set()
        if users and bases and node not in bases and bases <= inside:
            covered[node] = bases
    return [
        ScalarSite(node, base, walk.function(node, base))
        for node, base in candidates.items()
        if node not in covered
    ]


def products(graph: Graph, needed: set[fx.Node]) -> list[fx.Node]:
    """The nodes at which branches that depend on the input meet in a product or a quotient.

    Products that are functions of one number (`x * sigmoid(x)`) are none: they have interpolants.

    Args:
        graph: A traced graph.
        needed: The nodes that lead to the output of interest.
    """
    depends = {graph.input}
    stand_ins: dict[fx.Node, object] = {}
    for node in graph.module.graph.nodes:
        if any(a in depends for a in node.all_input_nodes):
            depends.add(node)
        elif node not in depends and node.op != "output":
            sizes = [1 if n is None or n < 0 else n for n in node.meta.get("shape", ())]
            stand_ins[node] = torch.empty(sizes, device="meta")
    walk, order = _Walk(stand_ins), {n: i for i, n in enumerate(graph.module.graph.nodes)}
    found = []
    for node in graph.nodes:
        branches = [a for a in node.all_input_nodes if a in depends and _is_tensor(a)]
        divisor = node.args[1:2] if op_name(node) in ("div", "true_divide") else ()
        divides = any(a in branches for a in divisor)
        meet = op_name(node) in _PRODUCTS | _BILINEAR and len(branches) > 1
        scalar = op_name(node) in _PRODUCTS and walk.base(node, order) is not None
        if node in needed and (meet or divides) and not scalar:
            found.append(node)
    return found


def _is_tensor(node: fx.Node) -> bool:
    return bool(node.meta.get("shape", ()))


class _Walk:
    def __init__(self, constants: dict[fx.Node, object]) -> None:
        self.constants = constants
        self.chains: dict[fx.Node, set[fx.Node]] = {}

    def operands(self, node: fx.Node) -> list[fx.Node] | None:
        """The inputs of a pointwise operation that depend on the network's input.

        None where the operation is not pointwise or a constant in it is not one number.
        """
        op = op_name(node)
        if op not in SMOOTH | _KINKS | _LINEAR | _PRODUCTS | _SAME:
            return None
        found: list[fx.Node] = []
        for argument in node.all_input_nodes:
            if argument not in self.constants:
                found.append(argument)
                continue
            value = self.constants[argument]
            if isinstance(value, Tensor) and value.numel() != 1:
                return None
        return found if len(found) == 1 or op in _LINEAR | _PRODUCTS else None

    def chain(self, node: fx.Node) -> set[fx.Node]:
        """All nodes that `node` is a scalar function of, itself included."""
        if node not in self.chains:
            operands = self.operands(node) if node.op == "call_function" else None
            found = {node}
            if operands:
                found |= set.intersection(*(self.chain(o) for o in operands))
            self.chains[node] = found
        return self.chains[node]

    def base(self, node: fx.Node, order: dict[fx.Node, int]) -> fx.Node | None:
        """What a smooth function or a product of branches is a scalar function of."""
        operands, op = self.operands(node), op_name(node)
        if not operands:
            return None
        product = op in _PRODUCTS and (len(operands) > 1 or _divides(node, operands))
        square = op in _PRODUCTS and len([a for a in node.args if a in operands]) > 1
        if op not in SMOOTH and not product and not square:
            return None
        common = set.intersection(*(self.chain(o) for o in operands))
        return max(common, key=order.__getitem__, default=None)

    def function(self, node: fx.Node, base: fx.Node) -> Callable[[Tensor], Tensor]:
        """`node` as a function of `base`."""

        def evaluate(values: Tensor) -> Tensor:
            held: dict[fx.Node, Any] = {base: values}

            def value(n: fx.Node) -> Any:
                if n in self.constants:
                    constant = self.constants[n]
                    return constant.reshape(()) if isinstance(constant, Tensor) else constant
                if n not in held:
                    if op_name(n) in _SAME:
                        held[n] = value(n.all_input_nodes[0])
                    else:
                        arguments = fx.map_arg(n.args, value)
                        options = fx.map_arg(n.kwargs, value)
                        held[n] = n.target(*arguments, **options)  # type: ignore[operator,misc]
                return held[n]

            result = value(node)
            assert isinstance(result, Tensor)
            return result

        return evaluate


def _divides(node: fx.Node, operands: list[fx.Node]) -> bool:
    """Whether the branch is the divisor: `1 / x` is not linear."""
    return op_name(node) != "mul" and len(node.args) > 1 and node.args[1] is operands[0]

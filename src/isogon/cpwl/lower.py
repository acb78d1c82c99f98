"""`lower`: from a model to its `Program`, by one rule per ATen operation (`isogon.cpwl.rules`)."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from isogon.cpwl.lowering import Lowering
from isogon.cpwl.program import Program
from isogon.nets.calculus import output_tensor, preserved
from isogon.nets.graph import Graph, shape
from isogon.nets.trace import trace

__all__ = ["logits_node", "lower", "lower_graph"]

_SOFTMAX = {"softmax", "_softmax", "log_softmax", "_log_softmax", "softmin"}
_SAME = {"clone", "contiguous", "alias", "detach", "dropout", "squeeze", "to", "_to_copy"}


def lower(model: nn.Module, example: Tensor) -> Program:
    """The program of a continuous piecewise-linear network, in float64 on the CPU.

    A softmax or log-softmax at the output is cut off: the program gives the logits. Dropout and
    batch-norm are as in eval mode. Weights are copied as they are now.

    Args:
        model: Any module of one tensor; left as it was.
        example: An input `[N, ...]` (its shape and dtype are used).

    Raises:
        UnsupportedOp: An operation is not piecewise linear or has no rule; the message names
            the operation, the site and the way out.
        ModelError: The model can't be traced, returns several tensors, or a weight is not finite.
    """
    graph = trace(model, example)
    if len(graph.outputs) > 1:  # none of them is the logits: say so with their names
        with torch.no_grad(), preserved(model) as inner:
            output_tensor(inner(example))
    return lower_graph(graph)


def lower_graph(graph: Graph) -> Program:
    """The program of a traced graph (see `lower`)."""
    return Lowering(graph).program(logits_node(graph))


def logits_node(graph: Graph) -> fx.Node:
    """The node of the model's output, or what enters the softmax or log-softmax at its end."""
    end = node = graph.outputs[0]
    while _name(node) in _SAME and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    below = node.args[0] if node.args else None
    if _name(node) == "log" and isinstance(below, fx.Node) and _name(below) in _SOFTMAX:
        node = below
    if _name(node) in _SOFTMAX and isinstance(node.args[0], fx.Node):
        axis = node.args[1]
        if isinstance(axis, int) and axis % len(shape(node)) != 0:
            return node.args[0]
    return end


def _name(node: fx.Node) -> str:
    if not isinstance(node.target, torch._ops.OpOverload):
        return ""
    return node.target._schema.name.split("::")[-1]

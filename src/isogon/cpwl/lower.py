"""`lower`: from a model to its `Program`, by one rule per ATen operation (`isogon.cpwl.rules`)."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, fx, nn

from isogon.cpwl.lowering import Lowering
from isogon.cpwl.program import Program
from isogon.data.finite import check_inputs
from isogon.errors import DataError, ModelError
from isogon.nets import hygiene
from isogon.nets.behaviour import examine
from isogon.nets.finite import check_finite
from isogon.nets.graph import Graph, shape
from isogon.nets.hygiene import preserved
from isogon.nets.outputs import output_tensor, run_on
from isogon.nets.trace import trace

__all__ = ["check_outputs", "logits_node", "lower", "lower_graph", "program_for"]

_SOFTMAX = {"softmax", "_softmax", "log_softmax", "_log_softmax", "softmin"}
_SAME = {"clone", "contiguous", "alias", "detach", "dropout", "squeeze", "to", "_to_copy"}
_RESHAPING = {
    *("view", "flatten", "reshape", "unsqueeze", "slice", "select"),
    *("mean", "adaptive_avg_pool2d"),
}


def lower(model: nn.Module, example: Tensor) -> Program:
    """The program of a continuous piecewise-linear network, in float64, from and to the CPU.

    Where the model is on another device its large products are computed there (`Program.on`).

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
    program = lower_graph(graph)
    device = device_of(model, example)
    return program if device.type == "cpu" else program.on(device)


def device_of(model: nn.Module, example: Tensor) -> torch.device:
    """Where a model's weights are; where it has none, its input."""
    return next((p.device for p in model.parameters()), example.device)


def lower_graph(graph: Graph) -> Program:
    """The program of a traced graph (see `lower`)."""
    return Lowering(graph).program(logits_node(graph))


def logits_node(graph: Graph) -> fx.Node:
    """The node of the model's output, or what enters the softmax or log-softmax at its end."""
    end = graph.outputs[0]
    node = _unshaped(end)
    below = node.args[0] if node.args else None
    if _name(node) == "log" and isinstance(below, fx.Node):
        below = _unshaped(below)
        node = below if _name(below) in _SOFTMAX else node
    if _name(node) in _SOFTMAX and isinstance(node.args[0], fx.Node):
        axis = node.args[1]
        if isinstance(axis, int) and axis % len(shape(node)) != 0:
            return node.args[0]
    return end


def _unshaped(node: fx.Node) -> fx.Node:
    """What a node is a copy of, up to the shape of a sample's values."""
    while isinstance(before := node.args[0] if node.args else None, fx.Node) and (
        _name(node) in _SAME or (_name(node) in _RESHAPING and _one_row(before, node))
    ):
        node = before
    return node


def _one_row(before: fx.Node, after: fx.Node) -> bool:
    """Whether a sample's values all lie along one axis in both, as those of `[N, C, 1, 1]` do."""
    rows = [[n for n in shape(node)[1:] if n is not None] for node in (before, after)]
    if any(len(row) < len(shape(node)[1:]) or not row for row, node in zip(rows, (before, after))):
        return False
    return prod(rows[0]) == max(rows[0]) == prod(rows[1]) == max(rows[1])


def check_outputs(program: Program, x: Tensor, where: str) -> None:
    """Refuse a network that overflows, or meets NaN, at points `[N, *shape]`.

    An output of -inf is a class that is masked.

    Raises:
        DataError: Its outputs are NaN or infinite.
    """
    found = program.evaluate(x)
    if found.numel() and float(found.max()) < torch.inf:  # the largest of NaN is NaN
        return
    wrong = int((found.isnan() | (found == torch.inf)).sum())
    if wrong:
        raise DataError(
            f"the network's outputs are NaN or infinite at {where}",
            got=f"{wrong} values",
            expected="finite outputs",
            fix="Choose inputs of the size that the network was made for.",
        )


def program_for(
    model: nn.Module | Program, examples: Tensor, shape: tuple[int, ...]
) -> tuple[Program, tuple[int, ...]]:
    """The program of a model and the shape of one input.

    Args:
        model: A module, or a program (returned as it is).
        examples: Two inputs, `[2, *shape]`.
        shape: Their shape as given, perhaps with sample axes of length 1.

    Raises:
        DataError: They don't fit the program's input.
        ModelError: The model does not take them.
    """
    if isinstance(model, Program):
        if examples[0].numel() != torch.Size(model.shape).numel():
            raise DataError(
                "the inputs do not fit the network",
                got=f"shape {list(shape)}",
                expected=f"shape {list(model.shape)}",
            )
        return model, model.shape
    check_finite(model)
    check_inputs(examples)
    shapes = [tuple(shape)]
    while len(shapes[-1]) > 1 and shapes[-1][0] == 1:  # given with a sample axis
        shapes.append(shapes[-1][1:])
    failure: Exception | None = None
    for tried in shapes:
        example = hygiene.cast(examples.reshape(2, *tried), model)
        try:
            with torch.no_grad(), preserved(model) as inner:
                run_on(inner, example)
        except ModelError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            failure = failure or error
            continue
        examine(model, example)
        return lower(model, example), tried
    raise ModelError(
        f"the network does not take these inputs ({failure})",
        got=f"inputs of shape {list(shape)}",
        expected="inputs of the network, without the sample axis",
    ) from failure


def _name(node: fx.Node) -> str:
    if not isinstance(node.target, torch._ops.OpOverload):
        return ""
    return node.target._schema.name.split("::")[-1]

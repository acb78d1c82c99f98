"""Whether two models are of one architecture, and what an input of theirs looks like."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from isogon.errors import ModelError, OptionError
from isogon.nets.graph import place
from isogon.nets.hygiene import device_dtype, preserved
from isogon.nets.origin import shape_of
from isogon.nets.outputs import run_on
from isogon.nets.sites import ExampleInputs, inputs
from isogon.nets.trace import trace
from isogon.nets.unwrap import unwrap

SIZES = (28, 32, 8, 64, 96, 224)  # heights and widths that are tried where nothing tells


def check_same(a: nn.Module, b: nn.Module, example: Tensor | None = None) -> None:
    """Refuse two models of different architectures.

    Args:
        a: One model.
        b: The other one.
        example: An input ``[N, ...]``; with it the operations of the graphs are compared, too.

    Raises:
        ModelError: Names the first difference.
    """
    first, second = (_tensors(unwrap(m)) for m in (a, b))
    for name in [*first, *second]:
        mine, theirs = (side.get(name, "no such tensor") for side in (first, second))
        if mine != theirs:
            raise _different(name, mine, theirs)
    if example is None:
        return
    graphs = [trace(unwrap(m), example).module.graph for m in (a, b)]
    steps = [[_step(n) for n in g.nodes if n.op == "call_function"] for g in graphs]
    for k in range(max(map(len, steps))):
        (where, mine), (_, theirs) = (s[k] if k < len(s) else ("end", "nothing") for s in steps)
        if mine != theirs:
            raise _different(where, mine, theirs)


def _tensors(model: nn.Module) -> dict[str, str]:
    state = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    return {k: str(list(v.shape)) for k, v in state.items()}


def _step(node: fx.Node) -> tuple[str, str]:
    """Where an operation stands and what it is, with its numbers and the names of its operands."""
    name = str(node.target).removeprefix("aten.").removesuffix(".default")
    shown = ", ".join(map(str, node.args))
    return place(node).name, f"{name}({shown})"


def _different(where: str, mine: str, theirs: str) -> ModelError:
    return ModelError(
        "two models of different architectures",
        got=f"{where}: {mine} in a, {theirs} in b",
        expected="the same layers with the same names and shapes",
        fix="Compare their activations: isogon similarity.",
    )


def example_of(
    model: nn.Module, batches: ExampleInputs | None = None, example: ExampleInputs | None = None
) -> Tensor:
    """A few inputs of a model: the ones given, else random ones of the shape that it takes.

    Args:
        model: The model.
        batches: Batches, of which the first is looked at; or None.
        example: Inputs ``[N, ...]``; or None.

    Raises:
        OptionError: The shape is not known and none of the usual ones fits.
    """
    model = unwrap(model)
    given = batches if example is None else example
    if given is not None:
        return inputs(given)[:4]
    known = shape_of(model)
    device, dtype = device_dtype(model)
    generator = torch.Generator().manual_seed(0)
    for shape in [known] if known else _shapes(model):
        x = torch.rand(4, *shape, generator=generator, dtype=torch.float64).to(device, dtype)
        if _takes(model, x):
            return x
    raise OptionError(
        "the shape of an input is not known",
        got="neither batches nor an example",
        expected="inputs [N, ...]",
        fix="Pass batches or example=x.",
    )


def _shapes(model: nn.Module) -> list[tuple[int, ...]]:
    """Shapes that the first layer with weights takes."""
    for m in model.modules():
        if isinstance(m, nn.Linear):
            return [(m.in_features,)]
        if isinstance(m, nn.Conv2d):
            return [(m.in_channels, n, n) for n in SIZES]
        if isinstance(m, nn.Conv1d):
            return [(m.in_channels, n) for n in SIZES]
    return []


def _takes(model: nn.Module, x: Tensor) -> bool:
    try:
        with torch.no_grad(), preserved(model):
            run_on(model, x)
    except (RuntimeError, ValueError, IndexError):
        return False
    return True

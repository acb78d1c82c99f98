"""Where on the way from one input to another the class changes, by exact evaluation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from isogon.cpwl.lower import program_for
from isogon.cpwl.program import Program
from isogon.errors import DataError

STEPS = 256  # of the way, between which a change and a change back are not told apart


def first_crossing(model: Module | Program, a: Tensor, b: Tensor) -> tuple[float, int, int]:
    """The first place where the class changes on the straight way from a to b.

    The way is looked at in `STEPS` steps; the first one between whose ends the class differs is
    halved until the place is known to float64's last digits.

    Args:
        model: A network that can be partitioned, or its program.
        a: An input without a sample axis.
        b: Another one.

    Returns:
        t in (0, 1), the place a + t (b - a), and the classes before and behind it (one output: 0
        where it is negative, 1 where positive).

    Raises:
        DataError: The class is the same all the way.
        UnsupportedOp, ModelError: See `isogon.partition`.
    """
    start, end = a.detach().cpu().double(), b.detach().cpu().double()
    program, shape = program_for(model, torch.stack([start, end]), tuple(start.shape))
    start, end = start.reshape(shape), end.reshape(shape)

    def classes(t: Tensor) -> Tensor:
        z = program.evaluate(torch.stack([start + float(s) * (end - start) for s in t])).flatten(1)
        return (z[:, 0] > 0).long() if z.shape[1] == 1 else z.argmax(1)

    way = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
    seen = classes(way)
    change = (seen[1:] != seen[:-1]).nonzero()
    if not len(change):
        raise DataError(
            "the class does not change between the two inputs",
            got=f"class {int(seen[0])} at {STEPS + 1} points of the way",
            expected="two inputs of which the network says different classes",
            fix="Choose others, e.g. samples of two classes that the network gets right.",
        )
    i = int(change[0])
    low, high, before, behind = float(way[i]), float(way[i + 1]), int(seen[i]), int(seen[i + 1])
    while low < (middle := (low + high) / 2) < high:
        found = int(classes(torch.tensor([middle], dtype=torch.float64))[0])
        low, high, behind = (middle, high, behind) if found == before else (low, middle, found)
    return high, before, behind

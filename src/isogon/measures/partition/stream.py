"""New vertices of a wide site, a chunk at a time: their wide rows are never all in memory.

Where a cut makes so many vertices inside the faces that their live tensors would fill memory,
they stay *pending*: each chunk of them is interpolated, looked at and run on to the next cut,
and only what is live there is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.program import Program
from isogon.measures.partition import edges as ek

LARGE = 256 << 20  # bytes of rows from which vertices are kept pending
CHUNK = 4 << 20  # bytes of rows per chunk


@dataclass(eq=False)
class Pending:
    """Vertices whose rows are `(1 - ratio) rows[source[:, 0]] + ratio rows[source[:, 1]]`."""

    source: np.ndarray
    ratio: np.ndarray

    def rows(self, held: Tensor, part: slice) -> Tensor:
        """The interpolated rows of some of them."""
        source, ratio = self.source[part], self.ratio[part]
        made = torch.empty((len(ratio), *held.shape[1:]), dtype=held.dtype)
        flat = made.reshape(len(ratio), -1).numpy()
        ek.interpolated(held.reshape(len(held), -1).numpy(), source, ratio, flat)
        return made

    def parts(self, width: int):
        """Slices of at most `CHUNK` bytes of rows of so many numbers."""
        return chunks(len(self.ratio), width)


def chunks(count: int, width: int):
    """Slices of `count` rows of `width` numbers, of at most `CHUNK` bytes each."""
    step = max(64, CHUNK // (8 * max(width, 1)))
    for low in range(0, count, step):
        yield slice(low, min(low + step, count))


def advance(
    program: Program, live: dict[str, Tensor], pending: Pending, start: int
) -> tuple[dict[str, Tensor], int]:
    """Run all vertices, the pending ones included, from a stage to the next cut.

    Args:
        program: The network.
        live: Tensors at the vertices that are not pending.
        pending: The others.
        start: Position of the stage to begin with.

    Returns:
        The live tensors of all vertices before the next cut, and its position.
    """
    cuts = set(map(id, program.cuts))
    stages = program.stages
    stop = next((j for j in range(start + 1, len(stages)) if id(stages[j]) in cuts), len(stages))
    count = len(next(iter(live.values())))
    total = count + len(pending.ratio)
    width = max(sum(held[0].numel() for held in live.values()), 1)
    found: dict[str, Tensor] = {}

    def run(values: dict[str, Tensor], place: slice) -> None:
        for j in range(start, stop):
            stage = stages[j]
            values[stage.output] = stage(*(values[name] for name in stage.inputs))
            for name in program.dead_after(j):
                del values[name]
        for name, value in values.items():
            if name not in found:
                found[name] = torch.empty((total, *value.shape[1:]), dtype=value.dtype)
            found[name][place] = value

    for part in chunks(count, width):
        run({name: held[part] for name, held in live.items()}, part)
    for part in pending.parts(width):
        place = slice(count + part.start, count + part.stop)
        run({name: pending.rows(held, part) for name, held in live.items()}, place)
    return found, stop

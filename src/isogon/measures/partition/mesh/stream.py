"""New vertices of a wide site, a chunk at a time: their wide rows are never all in memory.

Where a cut makes so many vertices inside the faces that their live tensors would fill memory,
they stay *pending*: each chunk of them is interpolated, looked at and run on to the next cut,
and only what is live there is kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch import Tensor

from isogon.cpwl.program import Program
from isogon.measures.partition.kernels import edges as ek
from isogon.measures.partition.kernels.threads import each
from isogon.measures.partition.mesh import memory

LARGE = 256 << 20  # bytes of rows from which vertices are kept pending
CHUNK = 4 << 20  # bytes of rows per chunk

Values = dict[str, Tensor]
Chunk = tuple[slice, Callable[[], Values]]  # place of some vertices, and what makes their tensors


@dataclass(eq=False)
class Pending:
    """Vertices whose rows are `(1 - ratio) rows[source[:, 0]] + ratio rows[source[:, 1]]`.

    In the tensor `name`, entry `column` of row `row` (ascending) is `value` instead: the zeros of
    the cut that made them.
    """

    source: np.ndarray
    ratio: np.ndarray
    name: str = ""
    row: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    column: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    value: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def fix(self, name: str, row: np.ndarray, column: np.ndarray, value: np.ndarray) -> None:
        """Note the entries of a tensor that are known."""
        order = np.argsort(row, kind="stable")
        self.name, self.row, self.column, self.value = name, row[order], column[order], value[order]

    def rows(self, held: Tensor, part: slice, name: str) -> Tensor:
        """The interpolated rows of some of them in a tensor of that name."""
        found = between(held, self.source[part], self.ratio[part])
        if name == self.name:
            low, high = np.searchsorted(self.row, [part.start, part.stop])
            at = self.row[low:high] - part.start, self.column[low:high]
            found.reshape(len(found), -1).numpy()[at] = self.value[low:high]
        return found

    def restore(self, found: Tensor, vertices: np.ndarray) -> None:
        """Set the known entries in rows of the tensor for given vertices (others: below 0)."""
        first, last = np.searchsorted(self.row, vertices), np.searchsorted(self.row, vertices + 1)
        count = last - first
        at = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        row = np.repeat(np.arange(len(vertices)), count)
        found.reshape(len(found), -1).numpy()[row, self.column[at]] = self.value[at]

    def parts(self, width: int) -> Iterator[slice]:
        """Slices of at most `CHUNK` bytes of rows of so many numbers."""
        return chunks(len(self.ratio), width)


def between(held: Tensor, source: np.ndarray, ratio: np.ndarray) -> Tensor:
    """Rows `(1 - ratio) held[source[:, 0]] + ratio held[source[:, 1]]`."""
    made = memory.spare.empty((len(ratio), *held.shape[1:]))
    flat = made.reshape(len(ratio), -1).numpy()
    ek.interpolated(held.reshape(len(held), -1).numpy(), source, ratio, flat)
    return made


def chunks(count: int, width: int) -> Iterator[slice]:
    """Slices of `count` rows of `width` numbers, of at most `CHUNK` bytes each."""
    step = max(64, CHUNK // (8 * max(width, 1)))
    for low in range(0, count, step):
        yield slice(low, min(low + step, count))


def wide(live: Values) -> int:
    """Numbers per vertex."""
    return max(sum(held[0].numel() for held in live.values()), 1)


def all_rows(live: Values, pending: Pending | None) -> Iterator[Chunk]:
    """The live tensors of all vertices, the pending ones included, chunk by chunk."""
    count, width = len(next(iter(live.values()))), wide(live)

    def held(part: slice) -> Values:
        return {name: rows[part] for name, rows in live.items()}

    def made(part: slice) -> Values:
        assert pending is not None
        return {name: pending.rows(rows, part, name) for name, rows in live.items()}

    for part in chunks(count, width):
        yield part, partial(held, part)
    if pending is not None:
        for part in pending.parts(width):
            yield slice(count + part.start, count + part.stop), partial(made, part)


def advance(program: Program, start: int, stop: int, total: int, pieces: Iterator[Chunk]) -> Values:
    """Run vertices from one stage up to another, a chunk at a time.

    Args:
        program: The network.
        start: Position of the stage to begin with.
        stop: Position of the stage to stop before.
        total: Number of vertices.
        pieces: Chunk by chunk its place, and what makes its live tensors before `start`.

    Returns:
        The live tensors of all vertices before `stop`.
    """
    found: Values = {}

    def run(piece: Chunk) -> None:
        place, rows = piece
        for name, value in program.run(rows(), start, stop).items():
            if name not in found:
                found[name] = memory.spare.empty((total, *value.shape[1:]))
            found[name][place] = value

    for first in itertools.islice(pieces, 1):
        run(first)  # on its own: it makes room for the others
    each(run, pieces)
    return found

"""What counts as zero: cheap bounds first, carried errors where these don't decide.

A value is zero where it is within 32 carried rounding errors (`cpwl.rounding`) of it. Errors of
every unit at every vertex would cost as much as the network; bounds over all vertices cost one
sample. A value beyond its bound has a sign; the few within are looked at with true errors, and
those that are zero are set to it, so that no later step has to ask again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.bounds import Bounds
from isogon.cpwl.program import Program
from isogon.cpwl.rounding import EPS, ROUNDING
from isogon.cpwl.stages import Kink
from isogon.measures.partition.kernels import edges as ek
from isogon.measures.partition.kernels.edges import WIDE
from isogon.measures.partition.kernels.threads import by_rows
from isogon.measures.partition.mesh.cutting import Functions
from isogon.measures.partition.mesh.following import Following
from isogon.measures.partition.mesh.mesh import Mesh
from isogon.measures.partition.slices import Slice

if TYPE_CHECKING:
    from isogon.measures.partition.reading import Partition

T = TypeVar("T")
NOISY = 1e8  # times the least bound: a unit behind which others see its rounding (ACAS Xu: 2e6)


@dataclass(eq=False)
class Space:
    """Where vertices lie in the network's input space.

    Attributes:
        program: The network.
        embed: Inputs `[n, *shape]` at coordinates `[n, 2]`.
        directions: `[k, *shape]` along which coordinates are rounded ...
        reach: ... by eps times this.
        given: Rounding error of the inputs themselves, `[*shape]`.
        every: Whether all values that contradict a face around their vertex are made zero, also
            where they are what they would be at the place that is meant (see `settle`).
        noise: The largest that was met: what rounding leaves of one value, times another's.
    """

    program: Program
    embed: Callable[[np.ndarray], Tensor]
    directions: Tensor
    reach: float
    given: Tensor
    every: bool = False
    noise: float = 0.0

    @classmethod
    def of_slice(cls, program: Program, plane: Slice, *, every: bool = False) -> Space:
        """That of a slice."""
        reach = float(np.abs(plane.corners).max())
        size = np.abs(plane.origin) + np.abs(plane.basis).sum(1) * reach
        # an input that does not vary, or is a coordinate times a power of two, is not rounded
        terms = (plane.origin != 0).astype(int) + (plane.basis != 0).sum(1)
        powers = (np.abs(np.frexp(plane.basis)[0]) % 0.5 == 0).all(1)
        size[(plane.basis == 0).all(1) | ((terms == 1) & powers)] = 0.0
        return cls(
            program,
            lambda xy: plane.embed(xy).reshape(-1, *program.shape),
            torch.from_numpy(plane.basis.T.copy()).reshape(2, *program.shape),
            reach,
            torch.from_numpy(EPS * size).reshape(program.shape),
            every,
        )

    def along(self, ends: np.ndarray) -> Space:
        """That of points on edges with ends `[S, 2, 2]`; coordinates are place and edge number."""

        def embed(at: np.ndarray) -> Tensor:
            a, b = ends[at[:, 1].astype(np.int64)].transpose(1, 0, 2)
            return self.embed(a + at[:, :1] * (b - a))

        return Space(self.program, embed, self.directions, self.reach, self.given)

    @cached_property
    def following(self) -> Following:
        """Places whose errors were asked for, on their way through the network."""
        return Following(self.program, self.embed, self.given, self.directions, self.reach)

    def zero(self, position: int, xy: np.ndarray) -> np.ndarray:
        """Sizes `[n, entries]` that count as zero, of what the cut at a stage sees at points.

        After the last stage: of the output.
        """
        return ROUNDING * self.following.at(position, xy)[1]


@dataclass(eq=False)
class Judge:
    """Decides what is zero at one cut.

    Attributes:
        space: Where the mesh's vertices lie.
        bounds: Of what the network's tensors hold on the mesh.
        position: The cut's stage.
    """

    space: Space
    bounds: Bounds
    position: int

    def bound(self) -> np.ndarray:
        """What a value `[entries]` must exceed to be clearly not zero, wherever it is."""
        return ROUNDING * self.bounds.at(self.position).numpy()

    def zero(self, xy: np.ndarray) -> np.ndarray:
        """Sizes `[n, entries]` that count as zero at points."""
        return self.space.zero(self.position, xy)

    def surely(self, xy: np.ndarray, entry: np.ndarray, value: np.ndarray) -> np.ndarray:
        """`[n]` whether the value of an entry at each point is what it is at the place meant.

        That is so where it is no farther from it than rounding of that place's value; what rounding
        left of a larger one is farther.
        """
        found = np.zeros(len(xy), bool)
        space = self.space
        if space.every:
            return found
        for low in range(0, len(xy), 1024):
            part = slice(low, low + 1024)
            meant = space.following.at(self.position, xy[part])
            own, error = (t[np.arange(len(t)), entry[part]] for t in meant)
            found[part] = np.abs(value[part] - own) <= ROUNDING * error
        return found

    def noisy(self, bound: np.ndarray) -> bool:
        """Whether what rounding leaves of one value is large beside what it leaves of another.

        Args:
            bound: Of this cut (`bound()`); it is compared with those of all cuts before, too.
        """
        least = bound[bound > 0].min(initial=self.bounds.least)
        self.bounds.least, most = float(least), float(bound.max(initial=0.0))
        if 0 < least < most:
            self.space.noise = max(self.space.noise, most / float(least))
        return bool(most > NOISY * least)


class Errors:
    """How uncertain the zeros of the cut functions of a site are, as values.

    Half of what counts as zero: the places of two zeros are then told apart by as much as one
    is from zero. What two entries are off adds up in squares, as errors do (that they are equal is
    decided by the sum).

    Args:
        judge: Decides.
        mesh: Where the vertices are.
        entry: `[F]` entry of what the cut sees that each function reads ...
        other: ... and the one that it subtracts, -1: none.
        bound: `[entries]`.
    """

    def __init__(
        self, judge: Judge, mesh: Mesh, entry: np.ndarray, other: np.ndarray, bound: np.ndarray
    ) -> None:
        self.judge, self.mesh, self.entry, self.other = judge, mesh, entry, other
        self.bound = np.hypot(bound[entry], np.where(other >= 0, bound[other], 0.0)) / 2

    def at(self, vertices: np.ndarray, functions: np.ndarray) -> np.ndarray:
        """Of pairs of a vertex and a function."""
        found = np.empty(len(vertices))
        unique, inverse = np.unique(vertices, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        step = 1024
        for low in range(0, len(unique), step):
            zero = self.judge.zero(self.mesh.xy[unique[low : low + step]])
            first, last = np.searchsorted(inverse[order], [low, low + step])
            mine = order[first:last]
            row, f = inverse[mine] - low, functions[mine]
            found[mine] = zero[row, self.entry[f]]
            more = self.other[f] >= 0
            less = zero[row[more], self.other[f[more]]]
            found[mine[more]] = np.hypot(found[mine[more]], less)
        return found / 2


class Table:
    """What counts as zero of the columns of a table, vertex by vertex.

    `error[row[v]]` is that of vertex v. Row 0 holds bounds; a vertex at which they don't decide
    gets a row of its own.

    Args:
        bound: `[columns]`.
        count: Number of vertices.
        exact: Gives `[n, columns]` for n vertices; None: bounds are all there is.
    """

    def __init__(
        self, bound: np.ndarray, count: int, exact: Callable[[np.ndarray], np.ndarray] | None
    ) -> None:
        self.error, self.row, self.exact = bound[None], np.zeros(count, np.int64), exact

    def settle(self, vertices: np.ndarray) -> None:
        """Look up the true errors at some vertices."""
        if self.exact is not None and len(vertices):
            self.row[vertices] = len(self.error) + np.arange(len(vertices))
            self.error = np.concatenate([self.error, self.exact(vertices)])

    def settled(self, function: Callable[[np.ndarray, np.ndarray, np.ndarray], T]) -> T:
        """`function(error, row, unclear)`, called until it marks no more vertices as unclear."""
        while True:
            unclear = np.zeros(len(self.row), np.bool_)
            found = function(self.error, self.row, unclear)
            if self.exact is None or not unclear.any():
                return found
            self.settle(np.flatnonzero(unclear))

    def extended(self, count: int) -> None:
        """Make room for further vertices."""
        more = np.zeros(count - len(self.row), np.int64)
        self.row = np.concatenate([self.row, more])


def clear(
    mesh: Mesh, stage: Kink, functions: Functions, judge: Judge
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Set values that are zero to their knot, at all vertices.

    Args:
        mesh: Its live tensors are written to.
        stage: The kink.
        functions: Its cut functions, one per unit and knot, knot by knot.
        judge: Decides what is zero.

    Returns:
        The bounds `[units]`, and the masks of signs of all vertices, `[V, words]` each.
    """
    name, bound = stage.inputs[0], judge.bound()
    z, units = mesh.values(name), len(bound)
    knots = functions.offset.reshape(-1, units)
    unclear = np.empty(len(z), np.bool_)
    signs = sign_room(len(z), len(functions))
    column, offset = functions.column, functions.offset

    def looked(p: slice) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.full(units, np.inf), np.full(units, -np.inf)
        masks = (mask[p] for mask in signs)
        ek.look(z[p], column, offset, WIDE * bound[column], low, high, unclear[p], *masks)
        return low, high

    ranges = by_rows(len(z), units, looked)
    low, high = np.min([r[0] for r in ranges], 0), np.max([r[1] for r in ranges], 0)
    rows = np.flatnonzero(unclear)
    if len(rows):
        z = mesh.writable(name)
        for start in range(0, len(rows), 1024):
            part = rows[start : start + 1024]
            zero, values = judge.zero(mesh.xy[part]), z[part]
            for knot in knots:
                values = np.where(np.abs(values - knot) <= zero, knot, values)
            z[part] = values
            again = sign_room(len(part), len(functions))
            ek.sign_masks(z[part], column, offset, 0.0, *again)
            for mask, new in zip(signs, again, strict=True):
                mask[part] = new
    judge.bounds.cut(judge.position, low, high)
    return bound, signs


def sign_room(count: int, functions: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for the masks of positive and of negative functions at so many vertices."""
    words = max(1, -(-functions // 64))
    return np.empty((count, words), np.uint64), np.empty((count, words), np.uint64)


def store(
    mesh: Mesh,
    name: str,
    vertex: np.ndarray,
    which: np.ndarray,
    column: np.ndarray,
    offset: np.ndarray,
) -> None:
    """Set a live tensor where functions vanish by their own cut: no arithmetic gives that zero.

    Args:
        mesh: The mesh.
        name: The tensor.
        vertex: `[n]` vertices ...
        which: ... and functions that vanish there.
        column: `[F]` columns of all functions in the tensor ...
        offset: ... and their offsets.
    """
    if len(vertex):
        ek.put(mesh.writable(name), vertex, which, column, offset)


def pin(mesh: Mesh, position: int, functions: Functions, name: str) -> None:
    """Store the zeros of a kink that are known of vertices on seams."""
    known = mesh.pins[mesh.pins[:, 0] == position]
    vertex, which = known[:, 1:3].T.copy()
    store(mesh, name, vertex, which, functions.column, functions.offset)


def outputs_at(p: Partition) -> Table:
    """What counts as zero of a partition's outputs, at its vertices.

    One output is compared with a constant 0, which comes first.
    """
    zero = p.arrays.get("output_zero")
    if zero is None:  # readings of old don't hold it
        zero = ROUNDING * EPS * np.abs(p.outputs).max(0, initial=0.0)
    first = np.zeros(int(p.outputs.shape[1] == 1))

    def exact(rows: np.ndarray) -> np.ndarray:
        space = Space.of_slice(p.program, p.plane)
        own = space.zero(len(p.program.stages), p.vertices[rows])
        return np.concatenate([np.tile(first, (len(rows), 1)), own], 1)

    known = None if p.program is None else exact
    return Table(np.concatenate([first, zero]), len(p.vertices), known)

"""Places whose carried errors are asked for at one cut after another: they are carried on.

Begun anew at the input for every cut, errors would cost the square of a network's depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.magnitudes import Coefficients
from isogon.cpwl.program import Program
from isogon.cpwl.rounding import ErrorWalk

HELD = 256 << 20  # bytes of places on their way that are kept, and of those that go on together


class Following:
    """Values and errors of what cuts see at places, in the order in which a mesh is cut.

    A place goes on from the last cut that asked for it, so that it passes every stage once. When an
    earlier cut is asked for (another part of the mesh), all begin anew.

    Args:
        program: The network.
        embed: Inputs `[n, *shape]` at coordinates `[n, 2]`.
        given: Error of the inputs themselves.
        directions: `[k, *shape]` along which coordinates are rounded ...
        reach: ... by eps times this.
    """

    def __init__(
        self,
        program: Program,
        embed: Callable[[np.ndarray], Tensor],
        given: Tensor,
        directions: Tensor,
        reach: float,
    ) -> None:
        self.program, self.embed = program, embed
        self.options = given, directions, reach
        self.rows = max(1, program.chunk() // 2)  # that go through a stage together
        widest = 8 * max(map(math.prod, program.shapes.values()))
        self.most = max(self.rows, HELD // (widest * (2 + len(directions))))
        # by the stage before which they are: their coordinates, as complex numbers, and they
        self.held: dict[int, tuple[np.ndarray, ErrorWalk]] = {}

    @torch.no_grad()
    def at(self, position: int, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values and errors `[n, entries]` of what the cut at a stage sees at places `[n, 2]`.

        After the last stage: of the output. They are those of the places meant (see `ErrorWalk`).
        """
        parts = []
        for low in range(0, len(xy), self.most):
            places = np.ascontiguousarray(xy[low : low + self.most], np.float64)
            asked, inverse = np.unique(places.view(np.complex128), return_inverse=True)
            values, errors = self._at(position, asked)
            parts.append((values[inverse.reshape(-1)], errors[inverse.reshape(-1)]))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([v for v, _ in parts]), np.concatenate([e for _, e in parts])

    def _at(self, position: int, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of places that differ, in ascending order; all of them are held afterwards."""
        self.held = {at: group for at, group in self.held.items() if at <= position}
        blocks: list[ErrorWalk] = []
        found = [np.empty(0, np.complex128)]
        for at, (places, carried) in list(self.held.items()):
            wanted = np.isin(places, asked)
            if not wanted.any():
                continue
            self._hold(at, places[~wanted], carried, ~wanted)
            found.append(places[wanted])
            blocks += self._blocks(carried.kept(torch.from_numpy(np.flatnonzero(wanted))))
        new = np.setdiff1d(asked, np.concatenate(found))
        if len(new):
            x = self.embed(new.view(np.float64).reshape(-1, 2))
            found.append(new)
            blocks += self._blocks(ErrorWalk(self.program, x, *self.options, meant=True))
        self._go_on(blocks, position)
        carried = ErrorWalk.joined(blocks) if len(blocks) > 1 else blocks[0]
        places = np.concatenate(found)
        values, errors = (t.numpy() for t in carried.entries())
        order = np.argsort(places)
        self._hold(position, places, carried)
        self._forget()
        return values[order], errors[order]

    def _blocks(self, carried: ErrorWalk) -> list[ErrorWalk]:
        """Places, by as many as go through a stage together."""
        if len(carried) <= self.rows:
            return [carried]
        parts = torch.arange(len(carried)).split(self.rows)
        return [carried.kept(rows) for rows in parts]

    def _go_on(self, blocks: list[ErrorWalk], position: int) -> None:
        """Bring blocks to the place before a stage, the hindmost first."""
        here = min(block.position for block in blocks)
        while here < position:
            following = min(self.program.next_cut(here), position)
            known = Coefficients()
            for block in blocks:
                if block.position < following:
                    block.to(following, known)
            here = following

    def _hold(
        self, at: int, places: np.ndarray, carried: ErrorWalk, rows: np.ndarray | None = None
    ) -> None:
        """Keep places (or some rows of them) at a stage, beside those that are there."""
        if rows is not None:
            carried = carried.kept(torch.from_numpy(np.flatnonzero(rows)))
            self.held.pop(at)
        if at in self.held:
            before, others = self.held[at]
            places, carried = np.concatenate([before, places]), ErrorWalk.joined([others, carried])
        if len(places):
            self.held[at] = places, carried

    def _forget(self) -> None:
        """Let places go, those first that were not asked for the longest, until there is room."""
        for at in sorted(self.held):
            if sum(carried.nbytes for _, carried in self.held.values()) <= HELD:
                return
            self.held.pop(at)

"""Bounds of carried rounding errors, over all points of a mesh: they cost one sample."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.magnitudes import EPS, finite, squares, summed, summed_up
from isogon.cpwl.program import Program
from isogon.cpwl.rounding import ROUNDING
from isogon.cpwl.stages import Affine, Kink, Max, Stage


class Bounds:
    """Bounds per unit, over all points of a mesh, of values and of their carried errors.

    One sample runs through the network, with the largest size and error of every entry; at each
    cut the true range of the values replaces what was summed up. They are cheap and only say
    where errors must be looked at: a value beyond its bound is not zero.

    Args:
        program: The network.
        start: Inputs of the network between which all points lie, `[n, *shape]`.
    """

    def __init__(self, program: Program, start: Tensor) -> None:
        self.program = program
        size = start.abs().amax(0, keepdim=True)
        self.held = {program.input: (size, (2 * EPS * size).square())}
        self.position = 0
        self.least = np.inf  # of what was asked of them, as who asks keeps it

    def copy(self) -> Bounds:
        """The same, to go on with independently."""
        other = object.__new__(Bounds)
        other.program, other.position, other.least = self.program, self.position, self.least
        other.held = dict(self.held)
        return other

    def at(self, position: int) -> Tensor:
        """Bounds `[entries]` of the errors of what the cut at a stage sees."""
        self.program.run(self.held, self.position, position, self._visit)
        self.position = max(self.position, position)
        if position == len(self.program.stages):
            return self.held[self.program.output][1].sqrt().reshape(-1)
        stage = self.program.stages[position]
        parts = [self.held[name][1].reshape(-1) for name in stage.inputs]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).sqrt()

    def _visit(
        self, position: int, stage: Stage, held: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        if isinstance(stage, Affine):
            size = summed_up(stage, [h[0] for h in held])  # sizes are finite
            square = squares(stage, *(h[1] for h in held))
            if not stage.copies:
                square = square + (EPS * size).square_()
            return size, square
        if stage.output not in self.held:
            self.cut(position)  # a cut that was not made: all its pieces count
        return self.held[stage.output]

    def cut(
        self, position: int, lowest: np.ndarray | None = None, highest: np.ndarray | None = None
    ) -> None:
        """Pass a cut, whose values range from low to high (`[entries]`; None: unknown)."""
        stage = self.program.stages[position]
        if isinstance(stage, Kink) and stage.apply is torch.relu and highest is not None:
            # as below, on arrays: a third of the time where a site is small
            _, square = self.held[stage.inputs[0]]
            e2 = square.numpy().reshape(-1)
            on = highest + ROUNDING * np.sqrt(e2) > 0
            size = np.where(highest < np.inf, np.maximum(highest, 0.0), 0.0)
            size, e2 = (torch.from_numpy(v).reshape(square.shape) for v in (size, e2 * on))
            self.held[stage.output] = size, e2
            return
        low = None if lowest is None else torch.from_numpy(lowest)
        high = None if highest is None else torch.from_numpy(highest)
        if isinstance(stage, Kink):
            size, square = self.held[stage.inputs[0]]
            low = -size if low is None else low.reshape(size.shape)
            high = size if high is None else high.reshape(size.shape)
            slack = ROUNDING * square.sqrt()
            if stage.apply is torch.relu:
                on = high + slack > 0
                self.held[stage.output] = finite(high.clamp(min=0.0)), square * on
                return
            ends, first, last = (stage(low), stage(high)), low - slack, high + slack
            most = torch.maximum(*(finite(end) for end in ends))
            steep = torch.zeros(())
            for k, slope in enumerate(stage.slopes):
                met = torch.ones((), dtype=torch.bool)
                if k > 0:
                    knot = stage.knots[k - 1]
                    met = last > knot
                    here = met & (first <= knot)
                    most = torch.where(here, torch.maximum(most, finite(stage(knot))), most)
                if k < len(stage.knots):
                    met = met & (first <= stage.knots[k])
                steep = torch.maximum(steep, met * slope.abs())
            own = torch.maximum(summed(stage, low), summed(stage, high))
            square = steep.square() * square + (EPS * torch.maximum(own, most)).square()
            self.held[stage.output] = most, square
        elif isinstance(stage, Max):
            held = [self.held[name] for name in stage.inputs]
            sizes, squared = (torch.cat([h[k].reshape(-1) for h in held]) for k in (0, 1))
            alive = stage.index >= 0
            if low is not None and high is not None:
                sizes = torch.maximum(finite(low), finite(high))
                floor = low[stage.index].masked_fill(~alive, -torch.inf).amax(1, keepdim=True)
                alive &= high[stage.index] >= floor
            index = stage.index.clamp(min=0)
            most, square = (
                t[index].masked_fill(~alive, 0.0).amax(1).reshape(1, *stage.shape)
                for t in (sizes, squared)
            )
            self.held[stage.output] = most, square

"""Permutations with positive scales, relaxed so that they can be trained: Birkhoff and Wreath."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from isogon.measures.stitching.maps import AffineMap, Assignment
from isogon.measures.stitching.refine import polytope
from isogon.measures.stitching.refine.refinable import RELATIVE, Refinable

Rounding = Literal["hungarian", "monotone", "relaxed"]


@dataclass(frozen=True)
class Turns:
    """When what is trained.

    Attributes:
        scaled: Whether scales are trained; otherwise they stay.
        hold: Steps before scales move.
        alternate: Length of turns; 0: the permutation and the scales move in every step.
        share: The share of all steps in which the permutation moves.
    """

    scaled: bool = True
    hold: int = 0
    alternate: int = 0
    share: float = 0.5


class Relaxed(Refinable):
    """``y = d (P x)`` with positive scales d and a P that stands for a permutation.

    P is trained for the first share of the steps, then rounded and kept; scales are trained from
    step ``hold`` on, at the same time or in turns.

    Args:
        start: The assignment where it begins; all channels have a partner.
        turns: When what is trained.
    """

    def __init__(self, start: Assignment, turns: Turns) -> None:
        super().__init__()
        self.start, self.turns = copy.deepcopy(start), turns
        self.log = nn.Parameter(torch.zeros_like(start.scale), requires_grad=turns.scaled)
        self.fixed = False

    def relaxed(self) -> Tensor:
        """``P [n, n]``."""
        raise NotImplementedError(type(self).__name__)

    def rounded(self) -> Tensor:
        """The permutation that P stands for: ``order [n]``."""
        raise NotImplementedError(type(self).__name__)

    def fix(self) -> None:
        """P is the permutation that it stands for, and stays."""
        raise NotImplementedError(type(self).__name__)

    def move(self, factor: float) -> None:
        """A step of P."""
        raise NotImplementedError(type(self).__name__)

    def moved(self) -> list[nn.Parameter]:
        """Adam moves scales."""
        return [self.log]

    def scales(self) -> Tensor:
        """``d [n]``."""
        return self.start.scale * (RELATIVE * self.log).exp()

    def forward(self, x: Tensor) -> Tensor:
        """``[n, p, ...]`` to ``[n, q, ...]``."""
        matrix = (self.scales()[:, None] * self.relaxed()).to(x.device, x.dtype)
        found = matrix @ (x.flatten(2) if x.dim() > 2 else x[:, :, None])
        return found.reshape(len(x), -1, *x.shape[2:])

    def update(self, k: int, steps: int, lr: float, factor: float) -> None:
        """P, or scales, or both."""
        t = self.turns
        own = t.alternate == 0 or k // t.alternate % 2 == 0
        if not self.fixed and (own or k < t.hold):
            self.move(factor)
        others = t.alternate == 0 or self.fixed or not own
        if t.scaled and others and k >= t.hold:
            super().update(k, steps, lr, factor)
        if not self.fixed and k + 1 >= t.share * steps:
            with torch.no_grad():
                self.fix()
            self.fixed = True

    def settled(self) -> nn.Module:
        """The assignment and its scales."""
        return Assignment(self.rounded(), self.scales().detach().clone())


class Birkhoff(Relaxed):
    """P in the Birkhoff polytope.

    Args:
        start: The assignment where it begins.
        turns: When what is trained.
        rate: Length of a step, see `polytope.tangent_step` and `polytope.mirror_step`.
        strength: Of ``-strength |P|^2 / n``, which draws P to permutations.
        by: Which steps.
        rounding: How a permutation is read off; relaxed: P itself is the map.
        softness: P begins between the assignment (0) and the centre of the polytope (1).
        generator: Draws vectors of the rounding.
    """

    def __init__(
        self,
        start: Assignment,
        turns: Turns,
        *,
        rate: float,
        strength: float,
        by: Literal["tangent", "mirror"],
        rounding: Rounding,
        softness: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(start, turns)
        n = len(start.order)
        begin = polytope.permutation_matrix(start.order)
        self.matrix = nn.Parameter((1 - softness) * begin + softness / n)
        self.rate, self.strength, self.by = rate, strength, by
        self.rounding: Rounding = rounding
        self.seed = int(torch.randint(2**31, (), generator=generator))

    def relaxed(self) -> Tensor:
        """P."""
        return self.matrix

    def cost(self) -> Tensor | float:
        """Concave: least at the vertices."""
        return -self.strength * self.matrix.square().sum() / len(self.matrix)

    def move(self, factor: float) -> None:
        """Down the tangent, or by mirror descent."""
        step = polytope.tangent_step if self.by == "tangent" else polytope.mirror_step
        gradient = self.matrix.grad
        if gradient is not None:
            with torch.no_grad():
                self.matrix.copy_(step(self.matrix, gradient, self.rate * factor))

    def rounded(self) -> Tensor:
        """By the Hungarian method, or at random."""
        p = self.matrix.detach()
        if self.rounding == "monotone":
            return polytope.monotone(p, torch.Generator().manual_seed(self.seed))
        return polytope.hungarian(p)

    def fix(self) -> None:
        """P is rounded."""
        if self.rounding != "relaxed":
            self.matrix.copy_(polytope.permutation_matrix(self.rounded()))
            self.matrix.requires_grad_(False)

    def settled(self) -> nn.Module:
        """The assignment and its scales; without rounding the matrix."""
        if self.rounding != "relaxed":
            return super().settled()
        matrix = self.scales()[:, None] * self.matrix
        return AffineMap(matrix.detach().clone()).requires_grad_(False)


class Wreath(Relaxed):
    """P by a soft sort of scores: ``P_ij = softmax_j(-|sort(s)_i - s_j| / temperature)``.

    Channels come in the order of the assignment, scores begin one apart: neighbours in this order
    change places first.

    Args:
        start: The assignment where it begins.
        turns: When what is trained.
        rate: Of Adam's steps of the scores.
        temperature: In units of the distance between scores at the start.
    """

    def __init__(self, start: Assignment, turns: Turns, *, rate: float, temperature: float) -> None:
        super().__init__(start, turns)
        n = len(start.order)
        self.scores = nn.Parameter(torch.arange(n - 1, -1, -1, dtype=torch.float64))
        self.rate, self.temperature = rate, temperature
        self.sorting = torch.optim.Adam([self.scores])

    def relaxed(self) -> Tensor:
        """The soft sort, on channels in the order of the assignment."""
        found = softsort(self.scores, self.temperature) if not self.fixed else self._hard()
        columns = torch.empty_like(self.start.order)
        columns[self.start.order] = torch.arange(len(columns))
        return found[:, columns]

    def _hard(self) -> Tensor:
        return polytope.permutation_matrix(
            self.scores.detach().argsort(descending=True, stable=True)
        )

    def move(self, factor: float) -> None:
        """A step of the scores."""
        self.sorting.param_groups[0]["lr"] = self.rate * factor
        self.sorting.step()

    def rounded(self) -> Tensor:
        """The channels by falling score."""
        order = self.scores.detach().argsort(descending=True, stable=True)
        return self.start.order[order]

    def fix(self) -> None:
        """Scores stay."""
        self.scores.requires_grad_(False)


def softsort(scores: Tensor, temperature: float) -> Tensor:
    """Rows of soft positions: row i is a distribution over which score is the i-th largest."""
    down = scores.sort(descending=True, stable=True).values
    return (-(down[:, None] - scores[None]).abs() / temperature).softmax(1)

"""One measurement shared out over processes: each sees its share of the data and keeps its state.

Run by a `SharedOut` every pass of a measure is one of these, in the order in which they are asked
for: a pass of which the states of all shares are there is not run, they are merged; the first one
of which they are not is run over the process's own share, its state is kept and the measure ends
there (`TurnOver`). Whoever merges has no share of its own and ends where a state is missing. So a
measure of p passes takes each process p turns, and every turn begins where all the others are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isogon.errors import FileError
from isogon.nets.elsewhere import Asked, TurnOver
from isogon.stats.state import read_state, write_state


@dataclass
class ShareState:
    """What the watchers of one pass have seen of one share.

    Attributes:
        tree: Of each watcher, see `isogon.stats.state`.
        arrays: The numbers in bulk.
        seen: Samples.
    """

    tree: list[Any]
    arrays: dict[str, np.ndarray]
    seen: int


@dataclass
class SharedOut:
    """The shares of one measurement.

    Attributes:
        states: Of each share the states of its passes so far.
        mine: Which share is run here; None where they are merged only.
        added: The state of the pass that was run here.
        step: The pass that comes next.
    """

    states: Sequence[Sequence[ShareState]]
    mine: int | None = None
    added: ShareState | None = None
    step: int = field(default=0, init=False)

    def all_passes(self, asked: Asked) -> int:
        """What `isogon.nets.passes.all_passes` does, one pass of it here."""
        left, seen, k = list(asked.watchers), 0, 0
        while left:
            seen = self._one(asked.run, left, k)
            left, k = [w for w in left if w.again()], k + 1
        return seen

    def _one(self, run: Callable[..., int], left: list[Any], k: int) -> int:
        step, self.step = self.step, self.step + 1
        if any(len(held) <= step for held in self.states):
            if self.mine is not None and len(self.states[self.mine]) <= step:
                own = [w.share() for w in left]
                seen = run(own, (self.mine, len(self.states)), k)
                arrays: dict[str, np.ndarray] = {}
                self.added = ShareState([write_state(w, arrays) for w in own], arrays, seen)
            raise TurnOver
        for held in self.states:
            state = held[step]
            if len(state.tree) != len(left):
                raise FileError(
                    "a share was measured in another way",
                    got=f"{len(state.tree)} statistics",
                    expected=len(left),
                    fix="Delete the share's record and run it again.",
                )
            for watcher, tree in zip(left, state.tree, strict=True):
                watcher.merge(read_state(tree, state.arrays, watcher.share()))
        return sum(held[step].seen for held in self.states)

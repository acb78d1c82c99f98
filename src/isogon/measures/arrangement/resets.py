"""Accuracy of a model with other states of its layers, cell by cell, by the cheapest way that is
exact: what comes before a layer is kept where the graph shows all that it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from isogon.data import Batches
from isogon.errors import IsogonError
from isogon.measures.arrangement.suffixes import UNUSED, Program, Suffix, Suffixes, in_order
from isogon.nets.behaviour import FEW
from isogon.nets.hygiene import cast, preserved
from isogon.nets.labels import classes_of
from isogon.nets.outputs import correct, logits
from isogon.nets.passes import LOGITS, all_passes
from isogon.nets.states import swapped
from isogon.nets.trace import trace
from isogon.nets.watchers import Once

MOST = 2**30  # bytes of states that are held at a time
SEEN = 2  # samples on which the graph is compared with the model

State = Mapping[str, Tensor]
Report = Callable[[int, int | None, str], Any]


class Right(Once):
    """Which samples are classified right."""

    sites = (LOGITS,)

    def __init__(self) -> None:
        self.chunks: list[tuple[int, Tensor]] = []

    def update(self, values: Mapping[Any, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in logits and labels."""
        z = values[LOGITS].flatten(1)
        hits = correct(z, classes_of(labels, z.shape[1], count=len(z)))
        self.chunks.append((int(rows[0]), hits.cpu()))

    def share(self) -> Right:
        """The same, empty."""
        return Right()

    def merge(self, other: Right) -> Right:
        """Take in what another one has seen."""
        self.chunks += other.chunks
        return self

    def result(self) -> Tensor:
        """Whether each sample was right, ``[N]``."""
        return in_order(self.chunks)


class Resets:
    """A model, its data, and the layers whose states are changed one at a time.

    Args:
        model: The model.
        batches: Labelled samples.
        layers: Names of each layer's tensors, by its path.
        reuse: Whether what comes before a layer is kept; else every cell is a whole pass.

    Attributes:
        suffixes: What follows each layer, where that is known.
        own: Whether the model as it is classifies each sample right.
        base: What is kept of it: None before the first pass.
    """

    def __init__(
        self,
        model: Module,
        batches: Batches,
        layers: Mapping[str, Sequence[str]],
        reuse: bool = True,
    ) -> None:
        self.model, self.batches, self.layers = model, batches, layers
        self.program: Program | None = None
        self.suffixes: dict[str, Suffix] = {}
        self.base: np.ndarray | None = None
        if reuse:
            self._look()

    def _look(self) -> None:
        """Find what follows each layer, and see on a few samples that it gives the same bits."""
        first = cast(self.batches.first(FEW)[0], self.model)
        try:
            program = Program(trace(self.model, first))
        except IsogonError:
            return  # whole passes need no graph
        if not program.whole or len(program.graph.outputs) != 1:
            return
        own = self.model.state_dict(keep_vars=True)
        found = {}
        for path, names in self.layers.items():
            suffix = program.suffix(path, {k: own[k] for k in names if isinstance(own[k], Tensor)})
            if suffix is not None:
                found[path] = suffix
        self.program, self.suffixes = program, self._agreeing(program, found, own, first[:SEEN])

    @torch.no_grad()
    def _agreeing(
        self, program: Program, found: Mapping[str, Suffix], own: State, x: Tensor
    ) -> dict[str, Suffix]:
        """The layers where the graph gives the model's own bits, as it is and with them changed."""
        changed = [
            {
                k: own[k].detach() * 0.5 if own[k].is_floating_point() else own[k].detach()
                for k in self.layers[path]
            }
            for path in found
        ]
        seen: dict[int, Tensor] = {}
        watcher = Suffixes(program, list(zip(found.values(), changed, strict=True)))
        with preserved(self.model):
            whole = logits(self.model, x).flatten(1)
            if not _same(watcher.logits(x, seen.__setitem__), whole):
                return {}
            agreeing = {}
            for i, (path, other) in enumerate(zip(found, changed, strict=True)):
                with swapped(self.model, {k: v for k, v in other.items() if _read(k)}):
                    if _same(seen[i], logits(self.model, x).flatten(1)):
                        agreeing[path] = found[path]
        return agreeing

    def run(self, states: Iterable[Mapping[str, State]], count: int, report: Report) -> np.ndarray:
        """Whether each sample is classified right with each state of each layer.

        Args:
            states: So many states: tensors by name, by layer. Read one after another.
            count: How many there are.
            report: Told after each pass how many cells are done.

        Returns:
            ``[layers, states, N]``, bool.
        """
        columns: list[np.ndarray] = []
        group: list[Mapping[str, State]] = []
        size = 0
        total = count * len(self.layers)
        for state in states:
            group.append(state)
            size += sum(v.numel() * v.element_size() for s in state.values() for v in s.values())
            if size >= MOST or len(columns) + len(group) == count:
                done = len(columns) * len(self.layers)
                columns += self._group(group, done, total, report)
                group, size = [], 0
        return np.stack(columns, 1)

    def _group(
        self, group: list[Mapping[str, State]], done: int, total: int, report: Report
    ) -> list[np.ndarray]:
        """The cells of some states, ``[layers, N]`` for each."""
        found: dict[tuple[str, int], np.ndarray] = {}
        at = [(path, i) for path in self.suffixes for i in range(len(group))]
        if at:
            assert self.program is not None
            watcher = Suffixes(
                self.program, [(self.suffixes[path], group[i][path]) for path, i in at]
            )
            all_passes(self.model, self.batches, [watcher])
            own, cells = watcher.result()
            self.base = own.numpy()
            found |= {place: row.numpy() for place, row in zip(at, cells, strict=True)}
        elif self.base is None:
            self.base = self._right()
        report(done + len(found), total, "reset")
        for path in self.layers:
            if path in self.suffixes:
                continue
            for i, state in enumerate(group):
                with swapped(self.model, state[path]):
                    found[path, i] = self._right()
                report(done + len(found), total, "reset")
        return [np.stack([found[path, i] for path in self.layers]) for i in range(len(group))]

    def _right(self) -> np.ndarray:
        watcher = Right()
        all_passes(self.model, self.batches, [watcher])
        return watcher.result().numpy()


def _read(name: str) -> bool:
    """Whether an operation reads the tensor of this name."""
    return not name.endswith(UNUSED)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)

"""Trials: heads of one model, a map, tails of another, all run on the same batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from isogon.measures.stitching.cuts import Cut, Cuts
from isogon.nets.anatomy import Anatomy
from isogon.nets.hygiene import cast
from isogon.nets.labels import classes_of
from isogon.nets.outputs import correct, outputs
from isogon.nets.passes import INPUT
from isogon.nets.recalibrate import GraphNorm, no_variance, with_norms
from isogon.nets.watchers import Key, Once

Statistics = list[tuple[Tensor, Tensor]]  # mean and variance of each batch-norm, in order


class Tail:
    """The part of a model behind a cut: its parameters shared, batch-norm statistics exchangeable.

    Args:
        anatomy: Of the model.
        cut: Where it begins.
    """

    def __init__(self, anatomy: Anatomy, cut: Cut) -> None:
        self.module, self.norms = with_norms(anatomy.tail(*cut.nodes))
        self.own: Statistics = [(m.running_mean, m.running_var) for m in self.norms]  # type: ignore[misc]  # all have
        self.model = anatomy.model

    def fresh(self) -> Statistics:
        """Statistics to be replaced, beginning as the model's own."""
        return [(mean.clone(), var.clone()) for mean, var in self.own]

    def __call__(
        self, values: Sequence[Tensor], statistics: Statistics, momentum: float | None = None
    ) -> Tensor:
        """Logits ``[n, C]`` from what flows through the cut.

        Args:
            values: The activation ``[n, ...]``, and what flows around it.
            statistics: Of the batch-norms; with a momentum they are brought up to date.
            momentum: Weight of this batch, which is then normalised by itself.
        """
        for m, (mean, var) in zip(self.norms, statistics, strict=True):
            m.running_mean, m.running_var = mean, var
            m.training, m.momentum = momentum is not None, momentum or 0.0
        h, *around = (cast(v, self.model) for v in values)
        return outputs(lambda h: self.module(h, *around), h)[1].flatten(1)


@dataclass(eq=False)
class Trial:
    """One way through: from a cut of one model into the tail of another.

    Attributes:
        cut: Where the head ends.
        tail: What follows.
        stitch: The map between; None for none.
        order: The channels of the head are put in this order first; None as they are.
        statistics: Of the tail's batch-norms.
        like: The trial whose answers it is compared with.
    """

    cut: Cut
    tail: Tail
    statistics: Statistics
    stitch: nn.Module | None = None
    order: Tensor | None = None
    like: Trial | None = None

    def __post_init__(self) -> None:
        self.right = self.total = self.agreed = 0
        self.loss = 0.0
        inside = [] if self.stitch is None else self.stitch.modules()
        self.norms = [m for m in inside if isinstance(m, GraphNorm)]  # of the stitch itself
        self.answer: Tensor | None = None  # to the batch at hand

    def logits(self, values: Sequence[Tensor], momentum: float | None = None) -> Tensor:
        """Logits ``[n, C]`` from what flows through the cut."""
        h, *around = values
        if self.order is not None:
            h = h.index_select(self.cut.axis, self.order.to(h.device))
        if self.stitch is not None:
            for m in self.norms:
                m.training, m.momentum = momentum is not None, momentum or 0.0
            h = self.stitch(h)
        return self.tail([h, *around], self.statistics, momentum)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.total

    def count(self, z: Tensor, labels: Tensor) -> None:
        """Take in logits ``[n, C]`` of a batch and its labels."""
        y = classes_of(labels, z.shape[1], count=len(z)).to(z.device)
        self.total += len(z)
        self.right += int(correct(z, y).sum())
        self.loss += float(entropy(z.double(), labels))
        self.answer = two_sided(z).argmax(1)
        if self.like is not None and self.like.answer is not None:
            self.agreed += int((self.answer == self.like.answer.to(z.device)).sum())


def two_sided(z: Tensor) -> Tensor:
    """Logits ``[n, C]`` with C >= 2: of one output z those of the two classes, 0 and z."""
    return torch.cat([torch.zeros_like(z), z], 1) if z.shape[1] == 1 else z


def entropy(z: Tensor, labels: Tensor) -> Tensor:
    """Sum of cross-entropies of logits ``[n, C]`` (nats)."""
    y = classes_of(labels, z.shape[1], count=len(z)).to(z.device)
    return nn.functional.cross_entropy(two_sided(z), y, reduction="sum")


class Running(Once):
    """What both passes over trials have in common: every head runs once per batch.

    Args:
        sides: Both models, by name, in the order in which they run.
        trials: All ways through.
    """

    def __init__(self, sides: dict[str, Cuts], trials: Sequence[Trial]) -> None:
        self.sides, self.trials = sides, list(trials)
        self.at: dict[str, dict[fx.Node, list[Trial]]] = {name: {} for name in sides}
        for t in self.trials:
            self.at[t.cut.side].setdefault(t.cut.nodes[0], []).append(t)
        self.sites = tuple((name, INPUT) for name in sides if self.at[name])

    def run(self, values: Mapping[Key, Tensor], each: Callable[[Trial, Sequence[Tensor]], None]):
        """Run the heads, and ``each`` on every trial and what flows through its cut."""
        for name, _ in self.sites:

            def visitor(trials: list[Trial]) -> Callable[..., None]:
                def visit(*alive: Tensor) -> None:
                    for t in trials:
                        each(t, alive[: len(t.cut.nodes)])

                return visit

            at = {node: visitor(trials) for node, trials in self.at[name].items()}
            self.sides[name].anatomy.visit(values[name, INPUT], at)


class Recalibrating(Running):
    """Brings the statistics of trials' batch-norms to those of the data that flow there.

    Means over batches, weighted by their sizes, as `isogon.nets.recalibrate.recalibrated`.
    """

    total = 0

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in a batch."""
        self.total += len(rows)

        def each(trial: Trial, alive: Sequence[Tensor]) -> None:
            try:
                trial.logits(alive, len(rows) / self.total)
            except ValueError as error:
                if "more than 1 value" not in str(error):
                    raise
                raise no_variance(alive[0]) from error

        self.run(values, each)


class Counting(Running):
    """Counts the right answers of every trial."""

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in a batch."""
        self.run(values, lambda t, alive: t.count(t.logits(alive), labels))

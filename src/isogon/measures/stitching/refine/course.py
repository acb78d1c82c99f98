"""The loop that trains a stitch on the task loss, and judges it; nothing else is trained."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isogon.measures.stitching.cuts import Cut
from isogon.measures.stitching.maps import Between
from isogon.measures.stitching.refine.kept import Kept
from isogon.measures.stitching.refine.norms import Normed
from isogon.measures.stitching.refine.refinable import Refinable
from isogon.measures.stitching.trials import Tail, Trial, entropy

LOOKS = 4  # times that a map is judged on the way, the end among them
MOMENTUM = 0.1  # of running statistics while training; every minibatch is normalised by itself


@dataclass(frozen=True)
class Pace:
    """How a stitch is trained.

    Attributes:
        steps: Minibatches.
        lr: Learning rate; falls linearly to 0.
        warmup: Steps in which it grows linearly at first.
        size: Samples in a minibatch.
        most: Samples of the training data that batch-norm statistics and losses are taken from.
        seed: Of the order of the samples.
    """

    steps: int
    lr: float
    warmup: int
    size: int
    most: int
    seed: int

    def factor(self, k: int) -> float:
        """What the schedule makes of the learning rate in step k."""
        if k < self.warmup:
            return (k + 1) / (self.warmup + 1)
        return (self.steps - k) / max(1, self.steps - self.warmup)


class Course:
    """One pair of cuts, ready to train maps between them.

    Args:
        kept: What flows through the cut of a, for all samples.
        two: The cut of b.
        tail: What follows it.
        fit: Which samples are trained on ``[N]``.
        pace: How.
    """

    def __init__(self, kept: Kept, two: Cut, tail: Tail, fit: Tensor, pace: Pace) -> None:
        self.kept, self.two, self.tail, self.fit, self.pace = kept, two, tail, fit, pace

    def trial(self, inner: nn.Module) -> Trial:
        """A way through a map of channels."""
        one = self.kept.cut
        between = Between(inner, (one.axis, self.two.axis), self.two.space)
        return Trial(one, self.tail, self.tail.fresh(), between)

    def loss(self, inner: nn.Module, rows: Tensor) -> float:
        """Mean cross-entropy on some samples, with statistics from the training samples (nats)."""
        trial = self.trial(copy.deepcopy(inner))
        with torch.no_grad():
            if trial.norms or self.tail.norms:
                total = 0
                for part in self.fit[: self.pace.most].split(self.pace.size):
                    total += len(part)
                    trial.logits(self.kept.read(part)[0], len(part) / total)
            for part in rows.split(self.pace.size):
                values, labels = self.kept.read(part)
                trial.count(trial.logits(values), labels)
        return trial.loss / trial.total

    def run(
        self, start: nn.Module, refinable: Refinable | None, step: Callable[[], object]
    ) -> nn.Module:
        """Train a map: that of the smallest loss on the training samples, its start among them.

        Args:
            start: The fitted map, with its norms if it has any.
            refinable: The set of maps, at its start; None where norms alone are trained.
            step: Called before every step.

        Returns:
            The map that it settled on.
        """
        norms = copy.deepcopy(start) if isinstance(start, Normed) else None
        own = list(refinable.parameters()) if refinable is not None else []
        around = [p for n in _norms(norms) for p in n.parameters()]
        if not own and not around:
            return start
        around_steps = torch.optim.Adam(around, lr=self.pace.lr) if around else None
        inner = start.inner if isinstance(start, Normed) else start
        moving: nn.Module = refinable if refinable is not None else inner
        trial = self.trial(norms.around(moving) if norms is not None else moving)
        rows = self.fit[: self.pace.most]

        def settled() -> nn.Module:
            found = refinable.settled() if refinable is not None else inner
            return found if norms is None else copy.deepcopy(norms.around(found))

        def objective(found: nn.Module) -> float:
            more = refinable.penalty() if refinable is not None else 0.0
            return self.loss(found, rows) + more

        best = settled()
        least, looked = objective(best), 0
        steps = self.pace.steps
        looks = {round(steps * i / LOOKS) for i in range(1, LOOKS + 1)}
        for k, part in enumerate(self._minibatches(steps)):
            step()
            live = [p for p in own + around if p.requires_grad]
            going = bool(live)
            if going:
                factor = self.pace.factor(k)
                going = self._gradients(trial, part, live, refinable)
            if going:
                if refinable is not None and own:
                    refinable.update(k, steps, self.pace.lr, factor)
                if around_steps is not None:
                    around_steps.param_groups[0]["lr"] = self.pace.lr * factor
                    around_steps.step()
            if k + 1 in looks or (not going and looked < k):
                now, looked = settled(), k + 1
                reached = objective(now)
                if reached < least:
                    best, least = now, reached
            if not going:
                break
        return best.requires_grad_(False)

    def _minibatches(self, steps: int) -> Iterator[Tensor]:
        """Samples of every step: whole minibatches, drawn without replacement, epoch by epoch."""
        generator = torch.Generator().manual_seed(self.pace.seed)
        order = self.fit[:0]
        for _ in range(steps):
            if len(order) < self.pace.size:
                order = self.fit[torch.randperm(len(self.fit), generator=generator)]
            yield order[: self.pace.size]
            order = order[self.pace.size :]

    def _gradients(
        self, trial: Trial, part: Tensor, live: list[nn.Parameter], refinable: Refinable | None
    ) -> bool:
        """Put the gradients of a minibatch on the parameters; False where the loss is no number."""
        values, labels = self.kept.read(part)
        with torch.enable_grad():
            loss = entropy(trial.logits(values, MOMENTUM), labels) / len(part)
            if refinable is not None:
                loss = loss + refinable.cost()
            if not math.isfinite(float(loss.detach())):
                return False
            # not backward(): the parameters of the tail are b's own
            for p, g in zip(live, torch.autograd.grad(loss, live, allow_unused=True)):
                p.grad = g
        return True


def _norms(found: Normed | None) -> list[nn.Module]:
    return [] if found is None else [n for n in (found.before, found.after) if n is not None]

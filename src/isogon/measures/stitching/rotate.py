"""Rotations: what a random element of a group between two layers costs once the rest adapts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, fx, nn
from torch.nn import Module

from isogon import context
from isogon.actions import Channels, Group
from isogon.actions import group as as_group
from isogon.data import Batches, as_batches
from isogon.errors import OptionError
from isogon.measures.stitching.cuts import Cut, Cuts
from isogon.measures.stitching.maps import AffineMap, Between
from isogon.measures.stitching.refine.kept import Kept
from isogon.nets.behaviour import FEW, examine
from isogon.nets.finite import check_finite
from isogon.nets.labels import classes_of
from isogon.nets.origin import check_classes
from isogon.nets.outputs import correct, outputs
from isogon.nets.passes import INPUT, one_pass
from isogon.nets.recalibrate import no_variance, with_norms
from isogon.nets.unwrap import unwrap
from isogon.nets.watchers import Key, Once
from isogon.readings import SiteTable
from isogon.registry import measure


@measure(
    cite="godfrey2022",
    cost=20.0,
    survey=False,
    example={"train": "digits(train, 24)", "test": "digits(test, 12)", "epochs": 1},
    typed={"train": "digits(train)", "epochs": 2},
)
def rotate(
    model: Module,
    group: Group,
    train: Batches,
    test: Batches,
    *,
    sites: str = "activations",
    epochs: int = 5,
    lr: float = 1e-3,
    repeats: int = 1,
    generator: torch.Generator | None = None,
) -> SiteTable:
    """How much accuracy a random element of a group behind a layer costs, once the rest is trained.

    A random element of the group acts on the channels behind the site. All that is computed up to
    it is frozen; the layers behind it (and the paths around it, where the site lies in a residual
    block) are trained for ``epochs`` by Adam on the cross-entropy. ``penalty`` = accuracy after the
    same retraining with the identity inserted - accuracy. An element that commutes with the layers
    behind it costs nothing once they have adapted: a linear layer undoes any of them, a ReLU those
    of G_ReLU alone.

    Retraining sees the samples in an order that is drawn for each epoch, the same for all; what
    is frozen runs once, and what flows out of it is kept. Batch norms behind the site are in
    training mode; dropout stays off. ``epochs=0`` is the model as it is: what the element costs
    before anything has adapted.

    Args:
        model: The trained network; it is not changed.
        group: Where elements are drawn from: orthogonal, G_relu, permutations,
            orthogonal(power=0.1) for elements near the identity, ...
        train: Samples (x, y) of the retraining.
        test: Samples (x, y) that accuracy is measured on.
        sites: Behind which sites, see `isogon.sites`; one at a time.
        epochs: Passes over ``train``.
        lr: Learning rate.
        repeats: Elements per site; their spread is that of the rows.
        generator: Draws elements and orders.

    Returns:
        One row per site and repeat: site, repeat, in_block, accuracy, baseline (accuracy with the
        identity inserted), penalty = baseline - accuracy (fractions).

    Raises:
        OptionError: No site that an element can be inserted behind, or an unknown option.
        ModelError: A model that can't be traced, is random, or depends on the batch.
        DataError: No samples, NaN, or labels that are no classes of the model.
    """
    if epochs < 0 or repeats < 1 or not lr > 0:
        raise OptionError(
            "options out of range",
            got=f"epochs={epochs}, repeats={repeats}, lr={lr:g}",
            expected="epochs >= 0, repeats >= 1, lr > 0",
        )
    group, learn, judge = as_group(group), as_batches(train), as_batches(test)
    few = learn.first(FEW)[0]
    check_finite(model)
    examine(model, few, softmax=True)
    model = unwrap(model)
    check_classes(model, judge)
    generator = generator or torch.Generator().manual_seed(0)
    cuts = Cuts(model, sites, few, "model", in_block=True)
    report, total = context.progress(), len(cuts.found) * max(1, epochs)
    rows = []
    for k, cut in enumerate(cuts.found):
        elements = [group.sample(cut.channels, generator) for _ in range(repeats)]
        tails = [Rotated(cuts, cut, e) for e in (None, *elements)]
        if epochs:
            kept = Kept(cuts, cut, learn)
            one_pass({cut.side: model}, learn, [kept], what="activations to train on")
            for epoch in range(epochs):
                report(k * epochs + epoch, total, "rotations")
                order = torch.randperm(learn.count, generator=generator)
                for rows_of_batch in order.split(learn.batch_size):
                    _retrain(tails, *kept.read(rows_of_batch), lr)
        one_pass(model, judge, [Answers(cuts.anatomy.head(*cut.nodes), tails)])
        baseline, *found = (t.right / t.total for t in tails)
        for repeat, accuracy in enumerate(found):
            rows.append(
                {
                    "site": cut.site.name,
                    "repeat": repeat,
                    "in_block": cut.in_block,
                    "accuracy": accuracy,
                    "baseline": baseline,
                    "penalty": baseline - accuracy,
                }
            )
    report(total, total, "rotations")
    table = pd.DataFrame(rows)
    penalty = table.groupby("site", sort=False)["penalty"]
    summary = pd.DataFrame({"repeats": penalty.size(), "penalty": penalty.mean()})
    if repeats > 1:
        summary["sd"] = penalty.std(ddof=1)
    meta: dict[str, Any] = {
        "group": group.name,
        "epochs": epochs,
        "lr": lr,
        "samples": int(judge.count),
        "summary": summary.reset_index().to_dict("list"),
    }
    if cuts.skipped:
        meta["notes"] = [f"left out: {', '.join(cuts.skipped[:8])}"]
    units = {"accuracy": "1", "baseline": "1", "penalty": "1"}
    return SiteTable("rotate", table, units=units, meta=meta)


class Rotated:
    """A copy of the layers behind a cut, with an element of a group in front of them.

    Args:
        cuts: Of the model.
        cut: Behind which the element acts.
        element: On its channels; None for the identity.
    """

    def __init__(self, cuts: Cuts, cut: Cut, element: Channels | None) -> None:
        self.module, self.norms = with_norms(cuts.anatomy.tail(*cut.nodes), shared=False)
        inner = nn.Identity() if element is None else AffineMap(element.matrix)
        self.element = Between(inner, (cut.axis, cut.axis), cut.space).requires_grad_(False)
        self.right = self.total = 0
        self.steps: torch.optim.Optimizer | None = None

    def prepare(self, lr: float) -> torch.optim.Optimizer | None:
        """What takes the steps; None where nothing can be trained."""
        parameters = [p for p in self.module.parameters() if p.is_floating_point()]
        if self.steps is None and parameters:
            for p in parameters:
                p.requires_grad_(True)
            self.steps = torch.optim.Adam(parameters, lr=lr)
        return self.steps

    def logits(self, values: Sequence[Tensor]) -> Tensor:
        """``[n, C]`` from what flows through the cut."""
        h, *around = values
        h = self.element(h)
        return outputs(lambda h: self.module(h, *around), h)[1].flatten(1)

    def mode(self, training: bool) -> None:
        """Batch norms by the statistics of the batch, or by those that they keep."""
        for m in self.norms:
            m.training, m.momentum = training, 0.1


def _retrain(tails: Sequence[Rotated], alive: Sequence[Tensor], labels: Tensor, lr: float) -> None:
    """A step of every tail on a batch of what flows through the cut."""
    for tail in tails:
        steps = tail.prepare(lr)
        if steps is None:
            continue
        tail.mode(True)
        with torch.enable_grad():
            try:
                z = tail.logits(alive)
            except ValueError as error:
                if "more than 1 value" not in str(error):
                    raise
                raise no_variance(alive[0]) from error
            y = classes_of(labels, z.shape[1], count=len(z)).to(z.device)
            both = torch.cat([torch.zeros_like(z), z], 1) if z.shape[1] == 1 else z
            steps.zero_grad()
            nn.functional.cross_entropy(both, y).backward()
        steps.step()


class Answers(Once):
    """Counts the right answers of every tail.

    Args:
        head: To what flows through the cut.
        tails: What is counted.
    """

    def __init__(self, head: fx.GraphModule, tails: Sequence[Rotated]) -> None:
        self.sites, self.head, self.tails = (INPUT,), head, tails

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in a batch."""
        alive = _flowing(self.head, values[INPUT])
        for tail in self.tails:
            tail.mode(False)
            z = tail.logits(alive)
            y = classes_of(labels, z.shape[1], count=len(z)).to(z.device)
            tail.right += int(correct(z, y).sum())
            tail.total += len(z)


def _flowing(head: fx.GraphModule, x: Tensor) -> tuple[Tensor, ...]:
    found = head(x)
    return found if isinstance(found, tuple) else (found,)

"""The barrier between two networks: loss and accuracy on the line between their weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import Module

from isogon import context
from isogon.data import Batches, as_batches
from isogon.errors import OptionError
from isogon.measures.alignment.architectures import check_same
from isogon.measures.alignment.matching import Match, tensors
from isogon.measures.alignment.matching import match as find_match
from isogon.nets.behaviour import FEW, examine
from isogon.nets.finite import check_finite
from isogon.nets.hygiene import precision
from isogon.nets.origin import check_classes
from isogon.nets.passes import LOGITS, OUTPUT, all_passes
from isogon.nets.recalibrate import recalibrated
from isogon.nets.states import swapped
from isogon.nets.unwrap import unwrap
from isogon.readings import Curve
from isogon.registry import measure
from isogon.training.config import FitConfig
from isogon.training.evaluation import LossSum, loss_of

MIDDLE = 0.5


class Barrier(Curve):
    """Loss and accuracy along the line: one row per point of each curve."""

    def curves(self) -> Iterator[tuple[bool, bool, pd.DataFrame]]:
        """Each curve: matched or not, recalibrated or not, its rows in the order of t."""
        for key, part in self.table.groupby(["matched", "recalibrated"], sort=False):
            matched, repaired = (bool(k) for k in key)  # type: ignore[union-attr]
            yield matched, repaired, part.sort_values("t")

    def summary(self) -> pd.DataFrame:
        """Per curve how far it lies from the straight line between its ends.

        ``gap``: the largest distance, upwards of the loss, downwards of the accuracy;
        ``midpoint``: that at t = 1/2. Accuracies are shares: 0.01 is one point.
        """
        rows = []
        for matched, repaired, part in self.curves():
            row: dict = {"matched": matched, "recalibrated": repaired}
            for name, sign in (("loss", 1.0), ("accuracy", -1.0)):
                t, y = part["t"].to_numpy(float), part[name].to_numpy(float)
                gap = sign * (y - (y[0] + (y[-1] - y[0]) * t))
                row |= {
                    f"{name}_a": y[0],
                    f"{name}_b": y[-1],
                    f"{name}_gap": gap.max(),
                    f"{name}_midpoint": np.interp(MIDDLE, t, gap),
                }
            rows.append(row)
        return pd.DataFrame(rows)


@measure(
    cite=("frankle2020", "entezari2022", "ainsworth2023", "jordan2023"),
    cost=9.5,
    survey={
        "b": "@twin",
        "batches": "@batches",
        "recalibrate": "@norms",
        "points": 11,
        "match": True,
    },
    example={
        "b": "cnn(width=2, seed=1)",
        "batches": "digits(test, 12)",
        "points": 3,
        "match": True,
        "recalibrate": "digits(train, 12)",
    },
    typed={"b": "trained(cnn, digits, epochs=5, seed=1)", "points": 11},
)
def barrier(
    a: Module,
    b: Module,
    batches: Batches,
    *,
    points: int = 25,
    match: bool | Match | None = None,
    recalibrate: Batches | None = None,
) -> Barrier:
    """Loss and accuracy of the networks on the straight line between the weights of two networks.

    The network at t has weights ``(1 - t) a + t b``, running statistics of batch-norm included.
    Two networks of different seeds differ by a reordering of their units to begin with, so the
    line may lead over a barrier that is gone once b is matched to a (`match`). What is left is
    often a loss of variance in the middle, which statistics of batch-norm that are taken anew at
    each t, on ``recalibrate``, make up for.

    Args:
        a: The model at t = 0.
        b: The model at t = 1, of the same architecture; neither is changed.
        batches: Samples (x, y) that loss and accuracy are measured on.
        points: Points on the line, both ends included.
        match: Measure the line to b's image under a match as well: true makes it, by weights.
        recalibrate: Samples for statistics of batch-norm; measures each curve with them as well,
            its ends included.

    Returns:
        One row per curve and point: matched, recalibrated, t in [0, 1], loss (mean cross-entropy
        of classes, mean squared error of targets), accuracy in [0, 1] (NaN of targets).

    Raises:
        ModelError: Different architectures; names the first difference.
        OptionError: Fewer than 3 points.
        DataError: No samples, or labels that are no classes of the models.
    """
    if points < 3:
        raise OptionError("a line of too few points", got=points, expected="points >= 3")
    for model in (a, b):
        check_finite(model)
    check_same(a, b)
    batches = as_batches(batches)
    repair = None if recalibrate is None else as_batches(recalibrate)
    x, y = batches.first(FEW)
    for model in (a, b):
        examine(model, x, softmax=True)
        check_classes(model, batches)
    ends = {False: tensors(b)}
    found = match if isinstance(match, Match) else None
    if match is True:
        found = find_match(a, b, batches=batches)
    if found is not None:
        ends[True] = tensors(found.apply(b))
    kind, loss = loss_of(FitConfig(), y)
    report, rows = context.progress(), []
    line = np.linspace(0.0, 1.0, points).tolist()
    total = len(line) * len(ends) * (2 if repair is not None else 1)
    for matched, end in ends.items():
        for repaired in (False, True)[: total // (len(line) * len(ends))]:
            for t in line:
                with _between(a, end, t) as model:
                    model = recalibrated(model, repair) if repaired else model  # type: ignore[arg-type]
                    watcher = LossSum(kind, loss, LOGITS if kind == "cross_entropy" else OUTPUT)
                    all_passes(model, batches, [watcher])
                values = watcher.result()
                rows.append(
                    (matched, repaired, t, values["loss"], values.get("accuracy", math.nan))
                )
                report(len(rows), total, "barrier")
    meta = {"samples": int(watcher.sums[0]), "loss": kind, "dtype": precision(a)}
    if found is not None:
        meta |= {"by": found.meta["by"], "objective": found.objective}
    return Barrier(
        "barrier",
        pd.DataFrame(rows, columns=["matched", "recalibrated", "t", "loss", "accuracy"]),
        meta=meta,
    )


@contextmanager
def _between(a: nn.Module, b: dict[str, Tensor], t: float) -> Iterator[nn.Module]:
    """The model a with weights ``(1 - t) a + t b`` inside, its very own outside.

    Args:
        a: The model.
        b: Parameters and buffers of the other end, by name.
        t: 0 is a, 1 is b, bit by bit.
    """
    values = {}
    for name, mine in tensors(a).items():
        theirs = b[name].to(mine.device)
        if mine.is_floating_point():
            theirs = theirs.to(mine.dtype)
            values[name] = mine if t == 0 else theirs if t == 1 else torch.lerp(mine, theirs, t)
    with swapped(unwrap(a), values) as model:
        yield model

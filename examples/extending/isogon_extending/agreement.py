"""`isogon agreement --a ... --b ... --batches ...`: a measure of two models."""

from __future__ import annotations

import pandas as pd
from torch import Tensor
from torch.nn import Module

from isogon.data import Batches, as_batches
from isogon.nets.behaviour import FEW, examine
from isogon.nets.finite import check_finite
from isogon.nets.passes import all_passes
from isogon.nets.watchers import LOGITS, Once
from isogon.readings import SampleTable
from isogon.registry import measure


class Predictions(Once):
    """What both models say of each sample, in the order of the data."""

    def __init__(self) -> None:
        self.sites = (("a", LOGITS), ("b", LOGITS))
        self.blocks: list[tuple[int, list]] = []

    def update(self, values: dict, labels: Tensor, rows: Tensor) -> None:
        """Take in a chunk."""
        said = [values[site].argmax(1).tolist() for site in self.sites]
        self.blocks.append((int(rows[0]), list(zip(labels.tolist(), *said, strict=True))))

    def share(self) -> Predictions:
        """The same, empty: for another share of the data."""
        return Predictions()

    def merge(self, other: Predictions) -> Predictions:
        """Take in what another share has seen."""
        self.blocks += other.blocks
        return self

    def result(self) -> list[tuple[int, int, int]]:
        """Label and both predictions of each sample."""
        return [row for _, block in sorted(self.blocks) for row in block]


@measure(cost=1.0, shards=True)
def agreement(a: Module, b: Module, batches: Batches) -> SampleTable:
    """On which samples two networks give the same class.

    Args:
        a: Any module from [N, ...] to logits [N, C].
        b: Another one, of the same inputs and classes.
        batches: Samples (x [n, ...], y [n]).

    Returns:
        One row per sample: sample, label, prediction_a, prediction_b, agree (0 or 1).
    """
    batches = as_batches(batches)
    for model in (a, b):
        check_finite(model)
        examine(model, batches.first(FEW)[0])  # a function of one sample, not random

    watcher = Predictions()
    all_passes({"a": a, "b": b}, batches, [watcher], what="agreement")  # each model once per chunk
    rows = watcher.result()
    table = pd.DataFrame(rows, columns=["label", "prediction_a", "prediction_b"])
    table["agree"] = (table["prediction_a"] == table["prediction_b"]).astype(float)
    table.insert(0, "sample", range(len(table)))
    return SampleTable("agreement", table)

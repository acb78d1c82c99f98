"""A measure and its figure: how decided is the network at each sample?"""

from __future__ import annotations

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch.nn import Module

from isogon.data import Batches, as_batches
from isogon.nets import hygiene
from isogon.nets.behaviour import FEW, examine
from isogon.nets.finite import check_finite
from isogon.nets.outputs import logits
from isogon.readings import SampleTable
from isogon.registry import draws, measure


@measure(cost=0.5)
def margin(model: Module, batches: Batches, *, relative: bool = False) -> SampleTable:
    """Margin of the decision: the highest logit minus the second highest.

    m(x) = z_(1)(x) - z_(2)(x) >= 0, in units of logits; 0 on the decision boundary.

    Args:
        model: Any module from [N, ...] to logits [N, C], C >= 2.
        batches: Samples (x [n, ...], y [n]).
        relative: Divide by the standard deviation of the logits at the sample.

    Returns:
        One row per sample: sample, label, prediction, margin.
    """
    batches = as_batches(batches)
    check_finite(model)
    examine(model, batches.first(FEW)[0])  # a function of one sample, not random
    rows = []
    with hygiene.preserved(model), torch.no_grad():
        for x, y in batches:
            z = logits(model, hygiene.cast(x, model)).double()
            top = z.topk(2, dim=1)
            m = top.values[:, 0] - top.values[:, 1]
            if relative:
                m = m / z.std(dim=1)
            rows += zip(y.tolist(), top.indices[:, 0].tolist(), m.tolist(), strict=True)
    table = pd.DataFrame(rows, columns=["label", "prediction", "margin"])
    table.insert(0, "sample", range(len(table)))
    return SampleTable("margin", table, units={"margin": "logits"})


@draws("margin")
def picture(reading: SampleTable, *, bins: int = 30) -> Figure:
    """Histogram of the margins."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.hist(reading.table["margin"], bins=bins)
    axes.set(xlabel="margin (logits)", ylabel="samples")
    return figure

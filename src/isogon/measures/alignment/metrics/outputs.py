"""What two models say: their logits, not their insides."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isogon.measures.alignment.metrics.metric import Metric
from isogon.registry import register

Outputs = tuple[Tensor, Tensor]  # logits [n, C], labels [n]


@register("metric")
def disagreement() -> Metric:
    """Share of samples that the two models classify differently.

    Source: `klabunde2023`.
    """

    def pair(x: Outputs, y: Outputs, _: None) -> float:
        return float((x[0].argmax(1) != y[0].argmax(1)).double().mean())

    return _of("disagreement", pair, 1.0)


@register("metric")
def jsd() -> Metric:
    """Mean Jensen-Shannon divergence of the two predicted distributions, in nats.

    Source: `klabunde2023`.
    """

    def pair(x: Outputs, y: Outputs, _: None) -> float:
        p, q = (v[0].double().log_softmax(1) for v in (x, y))
        middle = torch.logaddexp(p, q) - math.log(2)
        terms = p.exp() * (p - middle) + q.exp() * (q - middle)
        return float(terms.sum(1).mean() / 2)

    return _of("jsd", pair, math.log(2))


@register("metric")
def accuracy_difference() -> Metric:
    """Difference of the two accuracies.

    Source: `klabunde2023`.
    """

    def pair(x: Outputs, y: Outputs, _: None) -> float:
        right = [(v[0].argmax(1) == v[1]).double().mean() for v in (x, y)]
        return abs(float(right[0] - right[1]))

    return _of("accuracy_difference", pair, 1.0)


def _of(name: str, pair, top: float) -> Metric:
    return Metric(
        name,
        "outputs",
        lambda x: x,
        pair,
        closer="lower",
        bounds=(0.0, top),
        identical=0.0,
        invariant=(),
        maps="flatten",
        centred=False,
    )

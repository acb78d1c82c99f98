"""A metric of similarity: `isogon similarity ... --metric rv`."""

from __future__ import annotations

from isogon.measures.alignment.metrics.metric import Metric
from isogon.measures.alignment.moments import CrossView, SiteView
from isogon.registry import register


@register("metric")
def rv(power: float = 1.0) -> Metric:
    """The RV coefficient of Robert and Escoufier (1976), raised to a power.

    ``|X^T Y|_F^2 / (|X^T X|_F |Y^T Y|_F)`` of centred representations; 1 for those that differ by
    a rotation, a scale and an offset.

    Args:
        power: Exponent, positive.
    """

    def pair(x: SiteView, y: SiteView, cross: CrossView) -> float:
        shared = cross.centred.square().sum()
        return float((shared / (x.centred.norm() * y.centred.norm())) ** power)

    return Metric("rv", "moments", lambda view: view, pair)

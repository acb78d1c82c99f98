"""Procrustes: the distance that is left when a group has done its best."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from isogon.actions import group
from isogon.errors import OptionError
from isogon.measures.alignment.metrics.metric import Metric
from isogon.measures.alignment.moments import CrossView, SiteView, nuclear
from isogon.registry import register

Modulo = Literal["orthogonal", "permutations", "signed_permutations", "G_relu", "G_abs"]
Form = Literal["similarity", "size_and_shape", "angular", "one_sided"]


@register("metric")
def procrustes(
    modulo: Modulo = "orthogonal", *, center: bool = False, form: Form = "similarity"
) -> Metric:
    """Procrustes similarity modulo a group: how near the best of its elements brings y to x.

    Modulo O(c) and permutations both sides have Frobenius norm 1, t is the most that an element A
    gives of ``tr(X^T Y A)``, and the similarity is ``1 - sqrt(2 - 2 t) / 2``. Modulo G_ReLU every
    channel has norm 1 (dead ones 0), and ``d^2 = sum |x|^2 + sum |y|^2 - 2 t`` gives
    ``1 - sqrt(d^2 / (4 c))``, c the larger width; the narrower is padded with zeros.

    Args:
        modulo: ``orthogonal``, ``permutations``, ``signed_permutations``, ``G_relu``, ``G_abs``.
        center: Subtract the mean of each channel first.
        form: ``similarity``; ``size_and_shape``, the distance without any normalisation;
            ``angular``, the angle ``arccos t``, centred; ``one_sided``, the least
            ``|Y - A X|_F / |Y|_F`` over the group, which is not symmetric.

    Source: `williams2021`, `godfrey2022`.
    """
    scaled = modulo in ("G_relu", "G_abs")
    if scaled and form in ("size_and_shape", "angular"):
        raise OptionError(
            f"{form} is not defined modulo a group with scales",
            got=f"modulo={modulo}",
            expected="form=similarity or form=one_sided",
        )
    center = center or form == "angular"
    invariant = {
        "orthogonal": ("permutation", "orthogonal"),
        "permutations": ("permutation",),
        "signed_permutations": ("permutation",),
        "G_relu": ("permutation", "G_relu"),
        "G_abs": ("permutation", "G_relu"),
    }[modulo]
    if form == "one_sided" and scaled:
        invariant = ("permutation", "scale")
    elif form not in ("size_and_shape", "one_sided"):
        invariant = (*invariant, "scale")
    if center:
        invariant = (*invariant, "translation")

    def pair(x: SiteView, y: SiteView, cross: CrossView) -> float:
        moments = cross.centred if center else cross.raw
        a, b = x.norms(centre=center), y.norms(centre=center)
        if not (bool(a.any()) and bool(b.any())):
            return math.nan
        if form == "one_sided":
            return _one_sided(modulo, x, y, cross, center)
        if scaled:
            return _per_channel(moments, a, b, signed=modulo == "G_abs")
        both = float(a.norm() * b.norm())
        best = _best(moments, modulo)
        if form == "size_and_shape":
            return math.sqrt(max(0.0, float(a.square().sum() + b.square().sum()) - 2 * best))
        t = min(1.0, best / both)
        return math.acos(t) if form == "angular" else 1 - math.sqrt(2 - 2 * t) / 2

    distance = form != "similarity"
    top = {"similarity": 1.0, "angular": math.pi / 2, "one_sided": 1.0}.get(form, math.inf)
    return Metric(
        "procrustes",
        "moments",
        _itself,
        pair,
        closer="lower" if distance else "higher",
        bounds=(0.0, top),
        identical=0.0 if distance else 1.0,
        invariant=invariant,
        centred=center,
    )


def _itself(view: SiteView) -> SiteView:
    return view


def _best(moments: Tensor, modulo: str) -> float:
    """The most that an element of the group gives of the trace."""
    if modulo == "orthogonal":
        return nuclear(moments)
    gain = moments.abs() if modulo == "signed_permutations" else moments
    return float(gain[linear_sum_assignment(gain.numpy(), maximize=True)].sum())


def _per_channel(moments: Tensor, a: Tensor, b: Tensor, *, signed: bool) -> float:
    one = torch.ones(())
    cosines = moments / torch.outer(torch.where(a > 0, a, one), torch.where(b > 0, b, one))
    gain = cosines.abs() if signed else cosines
    best = float(gain[linear_sum_assignment(gain.numpy(), maximize=True)].sum())
    squared = float((a > 0).sum() + (b > 0).sum()) - 2 * best
    return 1 - math.sqrt(max(0.0, squared) / (4 * max(len(a), len(b))))


class _Raw:
    """Moments as groups are fitted to them."""

    def __init__(self, x: Tensor, xy: Tensor, y: Tensor) -> None:
        self._x, self._xy, self._y = x, xy, y

    def raw_xx(self) -> Tensor:
        return self._x

    def raw_xy(self) -> Tensor:
        return self._xy

    def raw_yy(self) -> Tensor:
        return self._y


def _one_sided(modulo: str, x: SiteView, y: SiteView, cross: CrossView, center: bool) -> float:
    parts: list[Any] = [x, cross, y]
    xx, xy, yy = (p.centred if center else p.raw for p in parts)
    a = group(modulo).fit(_Raw(xx, xy, yy)).matrix
    left = yy.trace() - 2 * (a * xy.T).sum() + (a @ xx * a).sum()
    return math.sqrt(max(0.0, float(left / yy.trace())))

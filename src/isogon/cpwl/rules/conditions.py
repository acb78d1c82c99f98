"""Comparisons and `where`: accepted only where the result is continuous."""

from __future__ import annotations

import torch
from torch import Tensor

from isogon.cpwl.lowering import Condition, Lowering, Ref
from isogon.registry import lowers

_CONTINUITY = 1e-12  # relative


@lowers("aten.gt.Scalar", "aten.gt.Tensor", "aten.ge.Scalar", "aten.ge.Tensor")
def above(lower: Lowering, a, b):
    """`a > b` (at equality both sides agree wherever it may be used)."""
    return _compare(lower, a, b, True)


@lowers("aten.lt.Scalar", "aten.lt.Tensor", "aten.le.Scalar", "aten.le.Tensor")
def below(lower: Lowering, a, b):
    """`a < b`."""
    return _compare(lower, a, b, False)


def _compare(lower: Lowering, a, b, is_above: bool) -> Condition:
    if isinstance(a, Ref) and isinstance(b, Ref):
        lower.refuse(
            "compares two branches that depend on the input",
            "Use torch.maximum or torch.minimum.",
        )
    if isinstance(b, Ref):
        a, b, is_above = b, a, not is_above
    return Condition(a, lower.sample(torch.as_tensor(b, dtype=torch.float64)), is_above)


@lowers("aten.logical_not.default", "aten.bitwise_not.default")
def logical_not(lower: Lowering, condition):
    """The opposite comparison."""
    if not isinstance(condition, Condition):
        lower.refuse("turns numbers into truth values, which jump")
    return Condition(condition.ref, condition.bound, not condition.above)


@lowers("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def where(lower: Lowering, condition, a, b):
    """A choice by a comparison with a constant, or by a constant mask."""
    if isinstance(condition, Condition):
        return choose(lower, condition, a, b)
    if not isinstance(condition, Tensor):
        lower.refuse("chooses by the sign of a number that is no comparison")
    mask = condition.bool()
    a, b = (t if isinstance(t, Ref) else torch.as_tensor(t, dtype=torch.float64) for t in (a, b))
    zero = torch.zeros((), dtype=torch.float64)
    return lower.linear(
        lambda x, y: torch.where(mask, x, zero) + torch.where(mask, zero, y), a, b, copies=True
    )


@lowers("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(lower: Lowering, x, mask, value):
    """A constant where the mask is true."""
    return where(lower, mask, value, x)


def choose(lower: Lowering, condition: Condition, yes, no) -> Ref:
    """`where(condition, yes, no)` as a kink: both must be affine in what is compared and meet.

    Args:
        lower: The lowering.
        condition: `z > c` or `z < c` with a constant c.
        yes: A constant, or element by element `scale * base + shift` with the base of z.
        no: Likewise.
    """
    base, scale, shift = lower.form(condition.ref)
    if not scale.all():
        lower.refuse("compares a constant")
    knot = (condition.bound - shift) / scale
    right = (scale > 0) == condition.above  # whether `yes` holds to the right of the knot
    sides = []
    for value in (yes, no):
        if isinstance(value, Ref):
            source, slope, offset = lower.form(value)
            if source is not base:
                lower.refuse(
                    "chooses between branches that are not functions of what is compared: "
                    "not continuous",
                    "Use torch.maximum, torch.minimum or an activation of what is compared.",
                )
        elif isinstance(value, Condition):
            lower.refuse("chooses between comparisons, which jump")
        else:
            offset = lower.sample(torch.as_tensor(value, dtype=torch.float64))
            slope = torch.zeros_like(offset)
        sides.append((slope, offset))
    if lower.shape != base.shape:
        lower.refuse("compares along axes that it repeats")
    (s_yes, t_yes), (s_no, t_no) = sides
    v_yes, v_no = s_yes * knot + t_yes, s_no * knot + t_no
    size = (s_yes * knot).abs() + t_yes.abs() + (s_no * knot).abs() + t_no.abs()
    jump = (v_yes - v_no).abs()
    if bool((jump > _CONTINUITY * size).any()):
        lower.refuse(
            f"is not continuous: it jumps by {float(jump.max()):.3g} where its condition changes",
            "Let both values agree there (for a threshold: value == threshold).",
        )
    shapes = torch.broadcast_shapes(knot.shape, v_yes.shape, v_no.shape, right.shape)
    left = torch.where(right, s_no, s_yes).expand(shapes)
    slopes = torch.stack([left, torch.where(right, s_yes, s_no).expand(shapes)])
    return lower.kink(base, knot.expand(shapes)[None], slopes, v_yes.expand(shapes))

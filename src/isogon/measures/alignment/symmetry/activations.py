"""What activations do to labels: the scales that they let through, and as which.

Of a function of single numbers that is found as its group is, from its values
(`isogon.actions.intertwiners.group_of`): which a have ``s(a x) = b s(x)`` for all x, and the b.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from isogon.actions.channels import Invertible, Permutations
from isogon.actions.intertwiners import group_of
from isogon.errors import OptionError
from isogon.measures.alignment.symmetry.labelling import OTHERS, Labelling, operation, rule
from isogon.measures.alignment.symmetry.units import FIXED, POSITIVE, UNIT, ZERO, Data, Held
from isogon.nets.graph import shape


@dataclass(frozen=True)
class Passing:
    """What gets through a function of single numbers.

    Attributes:
        degree: ``s(a x) = a^degree s(x)`` for positive a; None where only a = 1 gets through.
        odd: Whether ``s(-x) = -s(x)``.
        even: Whether ``s(-x) = s(x)``.
        zero: Whether ``s(0) = 0``.
    """

    degree: float | None
    odd: bool
    even: bool
    zero: bool


_NOTHING = Passing(None, False, False, False)
_FOUND: dict[str, Passing | None] = {}
_REFUSED = (OptionError, RuntimeError, IndexError, TypeError, ValueError, NotImplementedError)


def passing(target: Callable, args: tuple = (), kwargs: dict | None = None) -> Passing | None:
    """What gets through ``target(x, *args, **kwargs)``.

    None where it is no function of single numbers that has a value everywhere.
    """
    kwargs = kwargs or {}
    key = f"{target} {args} {kwargs}"
    if key not in _FOUND:
        _FOUND[key] = _tried(lambda x: target(x, *args, **kwargs))
    return _FOUND[key]


def _tried(function: Callable[[Tensor], Tensor]) -> Passing | None:
    try:
        group = group_of(function)
        zero = not bool(function(torch.zeros(1, dtype=torch.float64)).any())
    except _REFUSED:
        return None
    if isinstance(group, Invertible):
        return Passing(1.0, odd=True, even=False, zero=True)
    assert isinstance(group, Permutations)
    degree = group.degree if group.scaled and group.degree else None  # of sign(x): the sign alone
    return Passing(degree, group.signed and not group.even, group.signed and group.even, zero)


def through(walk: Labelling, x: Data, found: Passing) -> Data:
    """The labels behind a function of single numbers."""
    units = x.units if found.zero else torch.where(x.units == ZERO, FIXED, x.units)
    if not (found.odd or found.even):
        walk.scales.say(x.scales, POSITIVE)
    if found.degree is None:
        walk.scales.say(x.scales, UNIT)
    scales = walk.scales.power(x.scales, found.degree or 1.0, even=not found.odd)
    return Data(units, torch.where(units == ZERO, ZERO, torch.where(x.scales == ZERO, 0, scales)))


@rule(
    *("relu", "leaky_relu", "abs", "tanh", "sin", "asinh", "atan", "erf", "softsign", "tanhshrink"),
    *("sinh", "hardtanh", "clamp", "gelu", "sigmoid", "silu", "elu", "selu", "celu", "softplus"),
    *("hardswish", "hardsigmoid", "relu6", "mish", "exp", "log", "sqrt", "rsqrt", "square", "pow"),
    *("cos", "log_sigmoid", "threshold", "hardshrink", "softshrink", "reciprocal", "sign"),
    *("round", "floor", "log1p", "expm1", "erfc", "tan", "cosh", "rrelu", "neg"),
    weights=True,
)
def _pointwise(walk: Labelling, node: fx.Node, x: object, *args: Any, **kwargs: Any) -> Data:
    """The same function of every number."""
    operands = [v for v in (x, *args, *kwargs.values()) if isinstance(v, Held | Data)]
    numbers = [v for v in operands if v is not x and _single(walk, v)]  # a learned exponent, say
    wide = [v for v in operands if not any(v is n for n in numbers)]
    if len(wide) > 1:
        raise walk.refusal(node, f"operands of {operation(node)} that differ by unit")
    for v in numbers:
        if isinstance(v, Held):
            walk.keep(v)
    if not wide:
        return walk.blank(shape(node))
    found = None
    if wide[0] is x and not numbers:
        assert callable(node.target)
        found = _by_name(operation(node), args) or passing(node.target, args, kwargs)
    return through(walk, walk.taken(wide[0]), found or _NOTHING)


def _single(walk: Labelling, v: Held | Data) -> bool:
    """Whether it is one number that stays as it is."""
    if isinstance(v, Held):
        return walk.tensors[v.name].numel() == 1
    return v.units.numel() == 1 and v.fixed


def _by_name(name: str, args: tuple) -> Passing | None:
    """Of powers that have no value at negative numbers."""
    degree: Any = {"sqrt": 0.5, "rsqrt": -0.5}.get(name, args[0] if name == "pow" and args else 0)
    if not isinstance(degree, int | float) or degree in (0, 1) or degree == round(degree):
        return None
    return Passing(float(degree), odd=False, even=False, zero=degree > 0)


@rule(OTHERS, weights=True)
def _unknown(walk: Labelling, node: fx.Node, *args: Any, **kwargs: Any) -> Data | None:
    """An operation that has no rule, if it is a function of single numbers."""
    rest = (*args[1:], *kwargs.values())
    if not args or not isinstance(args[0], Data) or any(isinstance(v, Held | Data) for v in rest):
        return None
    if tuple(shape(node))[1:] != tuple(args[0].units.shape)[1:]:
        return None
    assert callable(node.target)
    found = passing(node.target, args[1:], kwargs)
    return found and through(walk, args[0], found)


@rule("prelu", weights=True)
def _prelu(walk: Labelling, node: fx.Node, x: Data, weight: Any) -> Data:
    walk.scales.say(x.scales, POSITIVE)
    if not isinstance(weight, Held) or walk.tensors[weight.name].numel() == 1:
        return x
    inner = walk.along(x, [0, *range(2, x.units.dim())])
    walk.units.join(walk.vector(weight, scaled=False).units, inner.units)
    return x


@rule("softmax", "log_softmax", "_softmax", "_log_softmax")
def _softmax(walk: Labelling, node: fx.Node, x: Data, dim: int, *_: Any, **__: Any) -> Data:
    first = x.units.narrow(dim, 0, 1)
    if bool(((x.units != first) & (x.units != ZERO) & (first != ZERO)).any()):
        walk.mark(x.units.movedim(dim, -1).reshape(-1, x.units.shape[dim]))
    return through(walk, x, _NOTHING)


@rule("glu")
def _glu(walk: Labelling, node: fx.Node, x: Data, dim: int = -1) -> Data:
    a, b = (Data(u, s) for u, s in zip(x.units.chunk(2, dim), x.scales.chunk(2, dim)))
    walk.units.join(a.units, b.units)
    walk.unscaled(b)
    return a

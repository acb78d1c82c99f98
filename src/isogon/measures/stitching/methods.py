"""Stitches: how the activations of one layer are turned into those of another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from isogon import registry
from isogon.errors import OptionError
from isogon.measures.stitching import closed
from isogon.measures.stitching.maps import AffineMap, Assignment
from isogon.measures.stitching.refine import refinable
from isogon.measures.stitching.refine.refinable import Refinable
from isogon.measures.stitching.refine.relaxed import Birkhoff, Turns, Wreath
from isogon.specs import Spec, parse
from isogon.stats.cross import Cross


@dataclass(frozen=True, eq=False)
class Stitch:
    """A set of maps from activations x to activations y, and the one of them that is taken.

    Another package adds one by a function that returns a `Stitch`, registered by
    ``isogon.registry.register("stitch")``.

    Attributes:
        fit: From the second moments of x ``[N, p]`` and y ``[N, q]`` and a generator to a module
            from ``[n, p, ...]`` to ``[n, q, ...]``.
        same: Whether x and y need equally many channels.
        name: The canonical spec.
        train: From the fitted map and a generator to the set of maps at this map, to be trained on
            the task loss; None where there is nothing to train.
        only: Whether the map is there only once it is trained.
        among: Several stitches to choose from, by their strength (or rank); none for this alone.
    """

    fit: Callable[[Cross, torch.Generator], nn.Module]
    same: bool = False
    name: str = "stitch"
    train: Callable[..., Refinable] | None = None
    only: bool = False
    among: tuple[tuple[float, Stitch], ...] = ()

    @property
    def choices(self) -> tuple[tuple[float | None, Stitch], ...]:
        """Those to choose from: by default itself."""
        return self.among or ((None, self),)


def stitches(given: str | Spec | Stitch | tuple) -> list[Stitch]:
    """One or several stitches, each once.

    Raises:
        SpecError: No such stitch, or wrong arguments.
        OptionError: None at all.
    """
    many = (given,) if isinstance(given, str | Spec | Stitch) else tuple(given)
    if not many:
        raise OptionError("no stitch", got="()", expected="e.g. by=linear")
    found = {s.name: s for s in map(stitch, many)}
    return list(found.values())


@registry.register(
    "noun",
    "Stitch",
    kinds=("stitch",),
    help="a map between the activations of two layers, see `isogon list stitches`",
    typed="linear",
    example="linear",
    light=True,
)
def stitch(spec: str | Spec | Stitch) -> Stitch:
    """The stitch that a spec names, e.g. ``"low_rank(4)"``; stitches pass through.

    Raises:
        SpecError: No such stitch, or wrong arguments.
    """
    if isinstance(spec, Stitch):
        return spec
    spec = parse(spec)
    found = registry.build("stitch", spec)
    return dataclasses.replace(found, name=str(spec))


# --------------------------------------------------------------------------- the stitches


@registry.register("stitch")
def identity() -> Stitch:
    """Nothing: channel k to channel k; layers of one width."""
    return Stitch(lambda _m, _g: nn.Identity(), same=True)


@registry.register("stitch")
def random_permutation() -> Stitch:
    """Channels in a random order: what a permutation costs that is not the right one."""
    return Stitch(lambda m, g: Assignment(_drawn(m.xy.shape[0], m.xy.shape[1], g)))


@registry.register("stitch")
def permutation() -> Stitch:
    """The assignment of channels of the largest sum of uncentred cosines, nothing scaled."""
    return Stitch(lambda m, _: Assignment(closed.assignment(m)))


@registry.register("stitch", "G_relu")
def g_relu() -> Stitch:
    """The assignment of the largest sum of uncentred cosines, each pair scaled by least squares.

    The element of G_ReLU that is the same from a to b as from b to a, up to the scales; the one
    that brings a closest to b in squares, which follows the largest channels of b, is
    ``isogon.group("G_relu").fit``.
    """
    return Stitch(_scaled, train=lambda map, _: refinable.Scales(map))


@registry.register("stitch")
def orthogonal() -> Stitch:
    """A rotation times a scale, by orthogonal Procrustes, nothing centred."""
    return Stitch(
        lambda m, _: AffineMap(closed.scaled_rotation(m)),
        train=lambda map, _: refinable.Rotation(map),
    )


@registry.register("stitch")
def linear(bias: bool = True) -> Stitch:
    """Any linear map of channels, by least squares: a convolution of size 1.

    Args:
        bias: Add an offset.
    """
    return Stitch(_least_squares(bias), train=lambda map, _: refinable.Free(map))


@registry.register("stitch")
def low_rank(rank: int | tuple[int, ...], bias: bool = True) -> Stitch:
    """A linear map of channels of a rank at most, by reduced-rank regression.

    Args:
        rank: The rank; of several that of the least loss on validation samples.
        bias: Add an offset.
    """

    def one(rank: float) -> Stitch:
        if rank < 1:
            raise OptionError("a rank too low", got=rank, expected="at least 1")
        return Stitch(
            lambda m, _: AffineMap(*closed.reduced_rank(m, int(rank), bias=bias)),
            train=lambda map, _: refinable.LowRank(map, int(rank)),
        )

    return _choice(rank, one)


@registry.register("stitch")
def lasso(strength: float | tuple[float, ...] = 0.01, bias: bool = True) -> Stitch:
    """A sparse linear map: trained with proximal steps of ``strength sum |W_ij|``.

    Starts from least squares.

    Args:
        strength: Of the penalty (nats per unit); of several that of the least loss on validation
            samples.
        bias: Add an offset, which is free.
    """

    def one(strength: float) -> Stitch:
        start = _least_squares(bias)
        return Stitch(start, train=lambda map, _: refinable.Lasso(map, strength), only=True)

    return _choice(_strengths(strength), one)


def _turns(scaled: bool, hold: int, alternate: int, share: float) -> Turns:
    _ranges(share=(share, 0, 1))
    return Turns(scaled, hold, alternate, share)


def _permuting(train: Callable[..., Refinable], scaled: bool) -> Stitch:
    """A stitch that begins as an assignment and is a permutation only once it is trained."""
    return Stitch(_scaled if scaled else _assigned, same=True, train=train, only=True)


@registry.register("stitch")
def birkhoff(
    strength: float | tuple[float, ...] = 0.0,
    *,
    by: Literal["tangent", "mirror"] = "tangent",
    rate: float = 0.02,
    rounding: Literal["hungarian", "monotone", "relaxed"] = "hungarian",
    softness: float = 0.1,
    scaled: bool = True,
    hold: int = 0,
    alternate: int = 0,
    share: float = 0.5,
) -> Stitch:
    """A permutation, trained as a doubly stochastic matrix and rounded, with positive scales.

    Starts from the assignment of ``G_relu``; layers of one width.

    Args:
        strength: Of ``-strength |P|^2 / n``, which draws P to permutations (nats); of several that
            of the least loss on validation samples.
        by: Steps down the tangent of the polytope, projected on it, or mirror descent.
        rate: Length of a step, as a share of the length of P (tangent) or of the largest change of
            a logarithm (mirror).
        rounding: The nearest permutation (hungarian), the best of 32 that order a random vector
            nearly as P does (monotone), or relaxed: P itself is the map.
        softness: P begins so far from the assignment on the way to the centre of the polytope.
        scaled: Train scales, too; otherwise they are 1.
        hold: Steps in which P alone is trained at first.
        alternate: Steps of P and steps of scales in turns of this length; 0: both in every step.
        share: Of all steps, those after which P is rounded; scales go on alone.
    """
    _ranges(rate=(rate, 0, 1e3), softness=(softness, 0, 1))
    turns = _turns(scaled, hold, alternate, share)

    def one(strength: float) -> Stitch:
        def train(map: Assignment, generator: torch.Generator) -> Refinable:
            return Birkhoff(
                map,
                turns,
                rate=rate,
                strength=strength,
                by=by,
                rounding=rounding,
                softness=softness,
                generator=generator,
            )

        return _permuting(train, scaled)

    return _choice(_strengths(strength), one)


@registry.register("stitch")
def wreath(
    temperature: float = 0.5,
    *,
    rate: float = 0.05,
    scaled: bool = True,
    hold: int = 0,
    alternate: int = 0,
    share: float = 0.5,
) -> Stitch:
    """A permutation, trained by a soft sort of scores, with positive scales.

    Starts from the assignment of ``G_relu``; layers of one width.

    Args:
        temperature: Of the soft sort, in units of the distance of neighbouring scores at the start.
        rate: Learning rate of the scores.
        scaled: Train scales, too; otherwise they are 1.
        hold: Steps in which scores alone are trained at first.
        alternate: Steps of scores and of scales in turns of this length; 0: both in every step.
        share: Of all steps, those after which the order is fixed; scales go on alone.
    """
    _ranges(rate=(rate, 0, 1e3), temperature=(temperature, 1e-6, 1e6))
    turns = _turns(scaled, hold, alternate, share)

    def train(map: Assignment, _: torch.Generator) -> Refinable:
        return Wreath(map, turns, rate=rate, temperature=temperature)

    return _permuting(train, scaled)


# --------------------------------------------------------------------------- what they share


def _assigned(m: Cross, _: torch.Generator) -> nn.Module:
    return Assignment(closed.assignment(m))


def _scaled(m: Cross, _: torch.Generator) -> nn.Module:
    order = closed.assignment(m)
    return Assignment(order, closed.scales(m, order))


def _least_squares(bias: bool) -> Callable[[Cross, torch.Generator], nn.Module]:
    return lambda m, _: AffineMap(*closed.least_squares(m, bias=bias))


def _choice(given: float | tuple[float, ...], one: Callable[[float], Stitch]) -> Stitch:
    """The stitch of a strength; of several one that is chosen among them."""
    if not isinstance(given, tuple | list):
        return one(given)
    if not given:
        raise OptionError("nothing to choose from", got="()", expected="at least one strength")
    among = tuple((float(v), one(v)) for v in dict.fromkeys(given))
    return dataclasses.replace(among[0][1], among=among)


def _strengths(given: float | tuple[float, ...]) -> float | tuple[float, ...]:
    for value in given if isinstance(given, tuple | list) else (given,):
        if not value >= 0:
            raise OptionError("a negative strength", got=value, expected="0 or more")
    return given


def _ranges(**given: tuple[float, float, float]) -> None:
    for name, (value, least, most) in given.items():
        if not least <= value <= most:
            expected = f"between {least:g} and {most:g}"
            raise OptionError(f"{name} out of range", got=value, expected=expected)


def _drawn(p: int, q: int, generator: torch.Generator) -> torch.Tensor:
    """A random partner among p channels for each of q, -1 for none, each taken once at most."""
    order = torch.full((max(p, q),), -1)
    order[:p] = torch.arange(p)
    return order[torch.randperm(len(order), generator=generator)][:q]

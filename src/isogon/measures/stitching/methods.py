"""Stitches: how the activations of one layer are turned into those of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from isogon import registry
from isogon.errors import OptionError
from isogon.measures.stitching import closed
from isogon.measures.stitching.maps import Affine, Assignment
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
    """

    fit: Callable[[Cross, torch.Generator], nn.Module]
    same: bool = False
    name: str = "stitch"


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
    return Stitch(found.fit, found.same, str(spec))


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

    def fit(m: Cross, _generator: torch.Generator) -> nn.Module:
        order = closed.assignment(m)
        return Assignment(order, closed.scales(m, order))

    return Stitch(fit)


@registry.register("stitch")
def orthogonal() -> Stitch:
    """A rotation times a scale, by orthogonal Procrustes, nothing centred."""
    return Stitch(lambda m, _: Affine(closed.scaled_rotation(m)))


@registry.register("stitch")
def linear(bias: bool = True) -> Stitch:
    """Any linear map of channels, by least squares: a convolution of size 1.

    Args:
        bias: Add an offset.
    """
    return Stitch(lambda m, _: Affine(*closed.least_squares(m, bias=bias)))


@registry.register("stitch")
def low_rank(rank: int, bias: bool = True) -> Stitch:
    """A linear map of channels of a rank at most, by reduced-rank regression.

    Args:
        rank: The rank.
        bias: Add an offset.
    """
    if rank < 1:
        raise OptionError("a rank too low", got=rank, expected="at least 1")
    return Stitch(lambda m, _: Affine(*closed.reduced_rank(m, rank, bias=bias)))


def _drawn(p: int, q: int, generator: torch.Generator) -> torch.Tensor:
    """A random partner among p channels for each of q, -1 for none, each taken once at most."""
    order = torch.full((max(p, q),), -1)
    order[:p] = torch.arange(p)
    return order[torch.randperm(len(order), generator=generator)][:q]

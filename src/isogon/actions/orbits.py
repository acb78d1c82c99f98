"""Activations along the orbits of inputs, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from isogon.actions.family import Family
from isogon.errors import DataError, OptionError
from isogon.nets.calculus import cast, check_finite
from isogon.nets.sites import Site
from isogon.nets.sites import sites as select_sites
from isogon.nets.tap import visit

CHUNK = 128  # most transformed inputs per forward pass
VALUES = 2**20  # and about as many numbers in them, except that
WHOLE = 128  # an orbit of at most so many members is never taken apart


@dataclass(frozen=True)
class Orbit:
    """A few samples under every member of a family.

    Attributes:
        x: Inputs ``[n, *shape]``.
        labels: Their labels ``[n]``.
        values: Activations ``[T, n, *site.shape]`` by site; empty where they were received.
    """

    x: Tensor
    labels: Tensor
    values: dict[Site, Tensor] = field(default_factory=dict)


Receive = Callable[[Site, Tensor, Orbit], None]


def orbits(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    family: Family,
    sites: Sequence[Site],
    *,
    chunk: int | None = None,
    receive: Receive | None = None,
) -> Iterator[Orbit]:
    """Activations of every sample under every member, each sample's orbit as a whole.

    How the samples are grouped depends on the size of the family, not of the batches; none is
    dropped.

    Args:
        model: Any module; in evaluation mode inside, as it came afterwards.
        batches: Re-iterable pairs of inputs and labels.
        family: T transformations of inputs.
        sites: Where to read.
        chunk: Most transformed inputs in one forward pass; by default fewer of large ones.
        receive: Called with a site, its activations ``[T, n, *site.shape]`` and their orbit while
            the forward pass runs (nothing is kept in ``values``); what it keeps it has to copy.

    Yields:
        One `Orbit` after another, in the order of the samples.
    """
    parts: dict[Site, list[Tensor]] = {site: [] for site in sites}
    orbit = Orbit(torch.empty(0), torch.empty(0))
    pieces = 1

    def take(site: Site, value: Tensor) -> None:
        held = parts[site]
        if pieces > 1:  # an orbit that is larger than a pass comes piece by piece
            held.append(value.clone())
            if len(held) < pieces:
                return
            value = torch.cat(held)
            held.clear()
        value = value.reshape(len(family), len(orbit.x), *value.shape[1:])
        if receive is None:
            orbit.values[site] = value.clone() if pieces == 1 else value
        else:
            receive(site, value, orbit)

    with visit(model, sites, take) as forward:
        for x, y in batches:
            x = cast(x, model)
            most = chunk or _together(x[:1].numel(), len(family))
            together = max(1, most // len(family))
            for start in range(0, len(x), together):
                part = x[start : start + together]
                orbit = Orbit(part, y[start : start + together])
                flat = family.orbit(part).flatten(0, 1)
                pieces = -(-len(flat) // most)
                for piece in flat.split(most):
                    forward(piece)
                yield orbit


def prepare(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    family: Family,
    sites: str | Sequence[Site],
) -> list[Site]:
    """The sites, after the checks that come before an expensive pass.

    Raises:
        ModelError: Weights that are not finite.
        OptionError: The selector matches nothing, or the family is the identity alone.
        DataError: No data.
    """
    check_finite(model)
    if len(family) < 2:
        raise OptionError(
            "a family of one member can't move anything",
            got=repr(family),
            expected="at least two members",
            fix="Ask for more, e.g. rotations(16).",
        )
    x = next(iter(batches), (torch.empty(0), None))[0]
    if not isinstance(x, Tensor) or not len(x):
        raise DataError("no samples", got="an empty data set", expected="at least two samples")
    return select_sites(model, sites, example=x[:2]) if isinstance(sites, str) else list(sites)


def _together(size: int, members: int) -> int:
    """Inputs in one pass: many, so that sums are fetched once for several; fewer large ones."""
    most = min(CHUNK, max(16, VALUES // max(1, size)))
    return max(most, members) if members <= WHOLE else most

"""Activations along the orbits of inputs, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isogon.actions.family import Family
from isogon.errors import DataError, OptionError
from isogon.nets.calculus import cast, check_finite
from isogon.nets.sites import Site
from isogon.nets.sites import sites as select_sites
from isogon.nets.tap import tap

CHUNK = 128  # transformed inputs per forward pass


@dataclass(frozen=True)
class Orbit:
    """A few samples under every member of a family.

    Attributes:
        x: Inputs ``[n, *shape]``.
        labels: Their labels ``[n]``.
        values: Activations ``[T, n, *site.shape]`` by site.
    """

    x: Tensor
    labels: Tensor
    values: dict[Site, Tensor]


def orbits(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    family: Family,
    sites: Sequence[Site],
    *,
    chunk: int = CHUNK,
) -> Iterator[Orbit]:
    """Activations of every sample under every member, each sample's orbit as a whole.

    How the samples are grouped depends on the size of the family, not of the batches; none is
    dropped.

    Args:
        model: Any module; in evaluation mode inside, as it came afterwards.
        batches: Re-iterable pairs of inputs and labels.
        family: T transformations of inputs.
        sites: Where to read.
        chunk: Most transformed inputs in one forward pass.

    Yields:
        One `Orbit` after another, in the order of the samples.
    """
    together = max(1, chunk // len(family))
    with tap(model, sites) as read:
        for x, y in batches:
            x = cast(x, model)
            for start in range(0, len(x), together):
                part = x[start : start + together]
                moved = family.orbit(part)
                flat = moved.reshape(-1, *moved.shape[2:])
                parts = [read(flat[i : i + chunk])[1] for i in range(0, len(flat), chunk)]
                values = {
                    site: _joined([p[site] for p in parts]).reshape(
                        len(family), len(part), *parts[0][site].shape[1:]
                    )
                    for site in parts[0]
                }
                yield Orbit(part, y[start : start + together], values)


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
    return select_sites(model, sites, example=x) if isinstance(sites, str) else list(sites)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)

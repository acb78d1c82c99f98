"""How much unit i of one model shares with unit j of another, from their activations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from isogon.errors import ModelError
from isogon.measures.alignment.symmetry.assignment import Gain
from isogon.measures.alignment.symmetry.symmetries import SitePlace, Symmetries
from isogon.nets.passes import Of, all_passes
from isogon.nets.sites import Site, called
from isogon.stats import CrossMoments, Pair

if TYPE_CHECKING:
    from isogon.stats.cross import Cross


def correlations(
    a: nn.Module,
    b: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    found: Symmetries,
    example: Tensor,
) -> list[Gain]:
    """Correlation of each unit of a with each of b, summed over the sites of their group.

    Sites behind a nonlinearity, where the group has any. A position of a map is a sample.

    Args:
        a: One model.
        b: The other one, of the same architecture.
        batches: Inputs.
        found: The groups.
        example: A few inputs.

    Returns:
        For each group ``[n, n]``, apart for sites whose channels change sign with their unit.

    Raises:
        ModelError: A group that no site shows.
    """
    known = {s.name: s for s in called(a, example)}
    shown = [p for p in found.places if p.name in known]
    chosen: dict[int, list[SitePlace]] = {}
    for group in range(len(found.groups)):
        mine = [p for p in shown if group in p.slots]
        chosen[group] = [p for p in mine if p.active] or mine
        if not mine:
            raise ModelError(
                "units that no activation shows can't be matched by activations",
                got=f"a group of {found.groups[group]} units",
                expected="groups that a layer's output shows",
                fix="Match by weights.",
            )
    places = {p.name: p for group in chosen.values() for p in group}
    watchers = {name: _watcher(known[name], p.axis) for name, p in places.items()}
    all_passes({"a": a, "b": b}, batches, list(watchers.values()), what="activations")
    values = {name: _correlation(w.result()) for name, w in watchers.items()}
    gains = []
    for group, n in enumerate(found.groups):
        gain = Gain(np.zeros((n, n)), np.zeros((n, n)))
        for p in chosen[group]:
            odd = found.odd(p, group)
            for slots, flips in zip(p.slots[group].T, odd, strict=True):
                (gain.odd if flips else gain.even)[:] += values[p.name][np.ix_(slots, slots)]
        gains.append(gain)
    return gains


def _watcher(site: Site, axis: int) -> Of:
    return Of((("a", site), ("b", site)), lambda: Pair(CrossMoments(), axes=(axis, axis)))


def _correlation(moments: Cross) -> np.ndarray:
    """Pearson's correlation ``[p, q]``; 0 with what is constant."""
    assert moments.xx is not None
    assert moments.yy is not None
    spread = [m.diagonal().clamp(min=0).sqrt().cpu().numpy() for m in (moments.xx, moments.yy)]
    inverse = [np.where(s > 0, 1 / np.where(s > 0, s, 1), 0) for s in spread]
    return inverse[0][:, None] * moments.xy.cpu().numpy() * inverse[1][None]

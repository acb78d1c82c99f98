"""Feature maps that show what a statistic of invariance means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor, nn

from isogon.actions.family import Family
from isogon.actions.measuring import OrbitTable
from isogon.actions.orbits import orbits, prepare
from isogon.nets.sites import Site


def keep_maps(
    reading: OrbitTable,
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    family: Family,
    sites: str | Sequence[Site],
    count: int,
) -> None:
    """Add the feature maps of the most and least invariant channels, on the first sample.

    Arrays ``images`` ``[T, C, H, W]`` and ``maps`` ``[K, T, h, w]`` (smaller maps in the upper
    left corner); ``meta["maps_kept"]`` says which.
    """
    chosen = [s for s in prepare(model, batches, family, sites) if len(s.shape) == 3]
    orbit = next(iter(orbits(model, ((x[:1], y[:1]) for x, y in batches), family, chosen)), None)
    if orbit is None or not chosen:
        return
    facts, found = [], []
    for site in chosen:
        table = reading.table[reading.table["site"] == str(site)]
        if "channel" not in table:
            continue
        live = table[(table["sample_variance"] > 0) & np.isfinite(table["normalized_variance"])]
        scores = live.groupby("channel")["normalized_variance"].mean().sort_values()
        picks = list(dict.fromkeys([*scores.index[:count], *scores.index[-count:]]))
        for channel in picks:
            found.append(orbit.values[site][:, 0, int(channel)].cpu().numpy())
            facts.append(
                {
                    "site": str(site),
                    "channel": int(channel),
                    "value": float(scores[channel]),
                    "size": list(found[-1].shape[1:]),
                }
            )
    if not found:
        return
    size = [max(m.shape[i] for m in found) for i in (1, 2)]
    maps = np.zeros((len(found), len(family), *size), found[0].dtype)
    for held, m in zip(maps, found):
        held[:, : m.shape[1], : m.shape[2]] = m
    reading.arrays |= {"images": family.orbit(orbit.x[:1])[:, 0].cpu().numpy(), "maps": maps}
    reading.axes["images"] = ("transformation", "channel", "row", "column")
    reading.axes["maps"] = ("map", "transformation", "map_row", "map_column")
    reading.meta["maps_kept"] = facts

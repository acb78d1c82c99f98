"""Feature maps that show what a statistic of invariance means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Self

import numpy as np
import pandas as pd
from torch import Tensor, nn

from isogon.actions import Family
from isogon.measures.orbits.reading import OrbitTable
from isogon.measures.orbits.watcher import channels_last, prepare
from isogon.nets.passes import INPUT, Of, all_passes
from isogon.nets.sites import Site
from isogon.stats import Kept


class Picked:
    """Chosen channels of maps ``[n, T, C, h, w]``, kept.

    Args:
        channels: Which channels.
        last: Whether maps are ``[n, T, h, w, C]``.
    """

    def __init__(self, channels: Sequence[int], last: bool = False) -> None:
        self.channels, self.kept, self.last = list(channels), Kept(), last

    def update(self, a: Tensor) -> Self:
        """Keep their maps."""
        a = a.movedim(-1, 2) if self.last else a
        self.kept.update(a[:, :, self.channels])
        return self

    def merge(self, other: Self) -> Self:
        """Take in what another one has kept."""
        self.kept.merge(other.kept)
        return self

    def compute(self) -> Tensor:
        """``[N, T, K, h, w]``."""
        return self.kept.compute()


def extremes(table: pd.DataFrame, count: int) -> pd.Series:
    """Normalised variance of the most and least invariant channels of a site, by channel."""
    if "channel" not in table:
        return pd.Series(dtype=float)
    live = table[(table["sample_variance"] > 0) & np.isfinite(table["normalized_variance"])]
    scores = live.groupby("channel")["normalized_variance"].mean().sort_values()
    return scores.loc[list(dict.fromkeys([*scores.index[:count], *scores.index[-count:]]))]


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
    first = [(x[:1], y[:1]) for x, y in [next(iter(batches))]]
    chosen = [s for s in prepare(model, batches, family, sites) if len(s.shape) == 3]
    picked = {s: extremes(reading.table[reading.table["site"] == str(s)], count) for s in chosen}
    channels = {s: [int(c) for c in scores.index] for s, scores in picked.items()}
    last = channels_last(model, first[0][0], chosen)
    watchers = [Of(s, partial(Picked, kept, s in last)) for s, kept in channels.items() if kept]
    images = Of(INPUT, Kept)
    all_passes(model, first, [*watchers, images], orbit=family)
    facts, found = [], []
    for watcher in watchers:
        (site,) = watcher.sites
        assert isinstance(site, Site)
        for k, channel in enumerate(channels[site]):
            found.append(watcher.result()[0, :, k].numpy())
            facts.append(
                {
                    "site": str(site),
                    "channel": channel,
                    "value": float(picked[site][channel]),
                    "size": list(found[-1].shape[-2:]),
                }
            )
    if not found:
        return
    size = [max(m.shape[i] for m in found) for i in (1, 2)]
    maps = np.zeros((len(found), len(family), *size), found[0].dtype)
    for held, m in zip(maps, found):
        held[:, : m.shape[1], : m.shape[2]] = m
    reading.arrays |= {"images": images.result()[0].numpy(), "maps": maps}
    reading.axes["images"] = ("transformation", "channel", "row", "column")
    reading.axes["maps"] = ("map", "transformation", "map_row", "map_column")
    reading.meta["maps_kept"] = facts

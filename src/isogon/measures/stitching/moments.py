"""Second moments of the activations of two models, for all pairs of sites in one pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isogon.measures.stitching.cuts import Cut
from isogon.measures.stitching.maps import placed
from isogon.nets.watchers import Key, Once
from isogon.stats.cross import Cross

BLOCK = 2**17  # numbers that are worked on at a time: they stay in the cache

Form = tuple[Any, tuple[int, ...]]  # a cut's key, and the positions that it is brought to


class CutSums:
    """Sums over the shifted columns of one activation in one form.

    Args:
        shift: ``[p]``, near the mean.
    """

    def __init__(self, shift: Tensor) -> None:
        self.shift, self.count = shift, 0
        self.total = torch.zeros_like(shift)
        self.square = shift.new_zeros(len(shift), len(shift))

    def update(self, x: Tensor) -> None:
        """Take in shifted columns ``[p, m]``."""
        self.count += x.shape[1]
        self.total += x.sum(1)
        self.square.addmm_(x, x.T)

    def merge(self, other: CutSums) -> None:
        """Add the sums of other columns, whatever their shift."""
        apart = other.shift - self.shift
        moved = torch.outer(other.total, apart)
        self.square += other.square + moved + moved.T + other.count * torch.outer(apart, apart)
        self.total += other.total + other.count * apart
        self.count += other.count

    @property
    def mean(self) -> Tensor:
        """``[p]``."""
        return self.shift + self.total / self.count

    @property
    def centred(self) -> Tensor:
        """``[p, p]``."""
        return self.square - torch.outer(self.total, self.total / self.count)


class PairSums(Once):
    """What closed forms need of pairs of cuts: each activation's sums once, and those of pairs.

    Maps of a are brought to the size of those of b by the nearest position.

    Args:
        pairs: Cuts of a and of b.
        room: Where columns are put, by their number within a block; may be shared by watchers that
            are updated in turn. Fresh memory would cost as much as what is computed in it.
    """

    def __init__(
        self, pairs: Sequence[tuple[Cut, Cut]], room: dict[int, Tensor] | None = None
    ) -> None:
        self.pairs, self.room = list(pairs), {} if room is None else room
        self.sites = tuple(dict.fromkeys(c.key for pair in pairs for c in pair))
        most = max(math.prod(c.site.shape) for pair in self.pairs for c in pair)
        self.size = max(1, BLOCK // max(1, most))
        self.own: dict[Form, CutSums] = {}
        self.cross: dict[tuple[Form, Form], Tensor] = {}

    def update(self, values: Mapping[Key, Tensor], labels: Tensor, rows: Tensor) -> None:
        """Take in a chunk."""
        for first in range(0, len(rows), self.size):
            block = {k: v[first : first + self.size] for k, v in values.items()}
            held: dict[Form, Tensor] = {}
            for a, b in self.pairs:
                x, y = (self._columns(held, c, b.space, block) for c in (a, b))
                key = ((a.key, b.space), (b.key, b.space))
                if key not in self.cross:
                    self.cross[key] = x.new_zeros(len(x), len(y))
                self.cross[key].addmm_(x, y.T)

    def _columns(self, held: dict, cut: Cut, space: tuple[int, ...], values: dict) -> Tensor:
        """Shifted channels ``[p, m]`` of a cut in one form; made, and summed, once per block."""
        form = (cut.key, space)
        if form not in held:
            x = placed(values[cut.key], cut.axis, space).transpose(0, 1)
            x = self._room(len(held), x).copy_(x).flatten(1)
            if form not in self.own:
                self.own[form] = CutSums(x.mean(1))
            x -= self.own[form].shift[:, None]
            self.own[form].update(x)
            held[form] = x
        return held[form]

    def _room(self, slot: int, x: Tensor) -> Tensor:
        """Contiguous float64 memory of the shape of ``x``, used again for every block."""
        held = self.room.get(slot)
        if held is None or held.numel() < x.numel() or held.device != x.device:
            held = torch.empty(x.numel(), dtype=torch.float64, device=x.device)
            self.room[slot] = held
        return held[: x.numel()].view(x.shape)

    def of(self, a: Cut, b: Cut) -> Cross:
        """The moments of a pair."""
        one, other = (self.own[c.key, b.space] for c in (a, b))
        xy = self.cross[(a.key, b.space), (b.key, b.space)]
        xy = xy - torch.outer(one.total, other.total / one.count)
        return Cross(one.count, one.mean, other.mean, one.centred, xy, other.centred)

    def itself(self, b: Cut) -> Cross:
        """The moments of a cut of b with itself."""
        own = self.own[b.key, b.space]
        return Cross(own.count, own.mean, own.mean, own.centred, own.centred, own.centred)

    def share(self) -> PairSums:
        """The same, empty."""
        return PairSums(self.pairs, self.room)

    def merge(self, other: PairSums) -> PairSums:
        """Take in what another one has summed."""
        for (one, two), theirs in other.cross.items():
            if (one, two) not in self.cross:
                self.cross[one, two] = theirs
                continue
            x, y = other.own[one], other.own[two]
            dx, dy = (self.own[f].shift - other.own[f].shift for f in (one, two))
            moved = theirs - torch.outer(dx, y.total) - torch.outer(x.total, dy)
            self.cross[one, two] = self.cross[one, two] + moved + x.count * torch.outer(dx, dy)
        for form, sums in other.own.items():
            if form in self.own:
                self.own[form].merge(sums)
            else:
                self.own[form] = sums
        return self

    def result(self) -> PairSums:
        """Itself: see `of` and `itself`."""
        return self


def connected(pairs: Sequence[tuple[Cut, Cut]]) -> list[list[tuple[Cut, Cut]]]:
    """Pairs that share a cut together: each group can be summed by itself."""
    groups: list[list[tuple[Cut, Cut]]] = []
    for pair in pairs:
        near = [g for g in groups if _keys(g) & _keys([pair])]
        groups = [g for g in groups if g not in near] + [[*(p for g in near for p in g), pair]]
    return groups


def _keys(pairs: Sequence[tuple[Cut, Cut]]) -> set[Key]:
    return {c.key for pair in pairs for c in pair}

"""Numbers of the scales that a model's weight symmetries may change."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from isogon.measures.alignment.symmetry.factors import Resolved
from isogon.measures.alignment.symmetry.labelling import Labelling
from isogon.measures.alignment.symmetry.units import FIXED, UNIT, ZERO


@dataclass(frozen=True)
class Numbers:
    """The scales that may differ from 1, by numbers: sizes first, then signs.

    Attributes:
        labels: What every label stands for.
        size: Number of each root of a size, -1 where it is 1.
        sign: Number of each root of a sign, -1 where it is 1.
        facts: What each is.
    """

    labels: Resolved
    size: np.ndarray
    sign: np.ndarray
    facts: np.ndarray

    @classmethod
    def of(cls, walk: Labelling, units: np.ndarray) -> Numbers:
        """Those of one unit each."""
        labels = walk.scales.resolved()
        kept = []
        for roots in (labels.size, labels.sign):
            owners: dict[int, set[int]] = defaultdict(set)
            for blocks in walk.blocks.values():
                for axis in (axis for block in blocks for axis in block.axes):
                    for at, _ in axis.scales:
                        pairs = np.stack([roots[at.numpy()], units[axis.units.numpy()]], 1)
                        for scale, unit in np.unique(pairs, axis=0).tolist():
                            owners[scale].add(unit)
            kept.append(sorted(s for s, own in owners.items() if s != FIXED and len(own) == 1))
        size = np.full(len(labels.facts), -1)
        size[kept[0]] = np.arange(len(kept[0]))
        sign = np.full(int(labels.sign.max()) + 1, -1)
        sign[kept[1]] = np.arange(len(kept[1])) + len(kept[0])
        facts = np.concatenate([labels.facts[kept[0]], np.full(len(kept[1]), UNIT)]).astype(int)
        return cls(labels, size, sign, facts)

    def at(self, labels: np.ndarray, power: int = 1) -> list[tuple[np.ndarray, float]]:
        """Pairs of numbers and powers of labels that enter with a power; ZERO has no scale."""
        zero = labels == ZERO
        sizes = np.where(zero, -1, self.size[self.labels.size[labels]])
        powers, found = self.labels.power[labels] * power, []
        for p in np.unique(powers[sizes >= 0]).tolist():
            found.append((np.where(powers == p, sizes, -1), int(p) if p == int(p) else p))
        signs = np.where(zero, -1, self.sign[self.labels.sign[labels]])
        if power % 2 and (signs >= 0).any():
            found.append((signs, 1))
        return found

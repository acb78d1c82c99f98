"""Transformed samples: a random member of a family on each, and which member it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from isogon.actions import Family
from isogon.data import Samples
from isogon.errors import OptionError
from isogon.storage import digests
from isogon.training import draws


def members(indices: np.ndarray, count: int, *, seed: int, epoch: int) -> np.ndarray:
    """A random member ``0 .. count-1`` for each sample, keyed by sample and epoch."""
    drawn = draws.uniform(indices, seed=seed, epoch=epoch, purpose=draws.AUGMENT)[:, 0]
    return (drawn * count).astype(np.int64)


def posed(x: Tensor, member: np.ndarray, family: Family) -> Tensor:
    """Each sample ``x[i]`` under member ``member[i]``: ``[N, *shape]``, a new tensor."""
    result = x.clone()
    for k in np.unique(member):
        rows = torch.from_numpy(np.flatnonzero(member == k))
        result[rows] = family[int(k)](x[rows])
    return result


def targets(family: Family) -> tuple[Tensor, list[str]]:
    """What a network is to say of each member: its parameters in standard units.

    Returns:
        ``[T, P]``, each column with mean 0 and standard deviation 1 over the members, and the
        names of the parameters. Parameters that never vary are left out.

    Raises:
        OptionError: No parameter varies.
    """
    names = list(dict.fromkeys(name for action in family for name in action.parameters))
    # an action without a parameter leaves it at rest: factors at 1, all else at 0
    rest = {n: float(n.startswith(("scale", "brightness"))) for n in names}
    rows = [[float(a.parameters.get(n, rest[n])) for n in names] for a in family]
    table = torch.tensor(rows, dtype=torch.float64).reshape(len(family), len(names))
    sd = table.std(0, unbiased=False)
    kept = [i for i in range(len(names)) if sd[i] > 1e-12]
    if not kept:
        raise OptionError(
            "nothing to predict about this family",
            got=f"{family.name} with parameters {names}",
            expected="a parameter that differs between members, such as rotations(8)",
        )
    standard = (table[:, kept] - table[:, kept].mean(0)) / sd[kept]
    return standard.float(), [names[i] for i in kept]


class Posed(Samples):
    """Samples under a fixed random member each; the label is the member's parameters.

    Args:
        data: The samples.
        family: The transformations.
        seed: Of the choice of members.
    """

    def __init__(self, data: Samples, family: Family, seed: int) -> None:
        self.raw, self.family = data, family
        self.table, self.parameters = targets(family)
        self.member = members(np.arange(len(data)), len(family), seed=seed, epoch=0)
        self.name, self.classes, self.shape = data.name, None, data.shape

    def __len__(self) -> int:
        return len(self.raw)

    def digest(self) -> str:
        """Digest of the samples, the family, and which member each is under."""
        return digests.of("posed", self.raw, self.family, self.table, self.member)

    @property
    def labels(self) -> Tensor:
        """Parameters of each sample's member ``[N, P]``."""
        return self.table[self.member]

    def take(self, indices: Any) -> tuple[Tensor, Tensor]:
        """Transformed inputs and the parameters of their members."""
        part = indices if isinstance(indices, slice) else np.asarray(indices)
        x, _ = self.raw.take(indices)
        return posed(x, self.member[part], self.family), self.table[self.member[part]]

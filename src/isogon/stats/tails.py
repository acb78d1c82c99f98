"""The largest values of each unit of a stream, by a compiled loop."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch

from isogon import jit
from isogon.errors import DataError

BLOCK = 64  # values that are compared before any is looked at
STEP = 4096  # values of a unit that are taken in at once, at least


@jit.loop()
def _offer(values, sign, bound, held, filled, block):
    """Append what is not at most each unit's bound (NaN: no bound); how many are no numbers."""
    units, many = values.shape
    wrong = 0
    for u in range(units):
        limit, at = bound[u], filled[u]
        for start in range(0, many, block):
            stop = min(start + block, many)
            above = 0
            for i in range(start, stop):
                above += not (values[u, i] * sign <= limit)
            if above == 0:
                continue
            for i in range(start, stop):
                v = values[u, i] * sign
                if v != v:
                    wrong += 1
                elif not (v <= limit):
                    held[u, at] = v
                    at += 1
        filled[u] = at
    return wrong


class Tail:
    """The ``size`` largest values of each unit, or the smallest; every unit sees as many.

    Once ``size`` values of a unit are known, the smallest of them is a bound that a later value has
    to exceed; so nearly all of a long stream is compared once and forgotten.

    Args:
        size: How many values of each unit.
        largest: Whether the largest or the smallest ones.
    """

    def __init__(self, size: int, *, largest: bool = True) -> None:
        self.size, self.largest = size, largest
        self.held = np.empty((0, 0), dtype=np.float32)  # [U, room], negated for the smallest
        self.filled = np.empty(0, dtype=np.int64)  # [U], how many of them are values
        self.bound = np.empty(0)  # [U], NaN before there is one

    @staticmethod
    def serves(x: torch.Tensor) -> bool:
        """Whether compiled loops can read a tensor where it lies."""
        return x.device.type == "cpu"

    def update(self, values: np.ndarray) -> Self:
        """Take in values ``[U, N]`` of any strides, float32 or float64.

        Raises:
            DataError: NaN.
        """
        if not len(self.filled):
            self.held = np.empty((len(values), 0), dtype=values.dtype)
            self.filled = np.zeros(len(values), dtype=np.int64)
            self.bound = np.full(len(values), np.nan)
        if values.dtype == np.float64 and self.held.dtype != np.float64:
            self.held = self.held.astype(np.float64)
        step = max(self.size, STEP)
        for start in range(0, values.shape[1], step):
            part = values[:, start : start + step]
            self._make_room(part.shape[1])
            sign = self.held.dtype.type(1 if self.largest else -1)
            if _offer(part, sign, self.bound, self.held, self.filled, BLOCK):
                raise DataError(
                    "NaN has no rank", expected="numbers", fix="Check the model's weights."
                )
        return self

    def _make_room(self, many: int) -> None:
        if int(self.filled.max()) + many <= self.held.shape[1]:
            return
        self._select()
        most = int(self.filled.max())
        room = most + max(many, self.size)
        if room > self.held.shape[1]:
            held = np.empty((len(self.held), room), dtype=self.held.dtype)
            held[:, :most] = self.held[:, :most]
            self.held = held

    def _select(self) -> None:
        """Forget what can't be among the largest; the smallest of those is the bound."""
        most = int(self.filled.max(initial=0))
        if most <= self.size:  # then all units have as many
            return
        held = self.held[:, :most]
        held[np.arange(most) >= self.filled[:, None]] = -np.inf
        held.partition(most - self.size, axis=1)
        self.bound = held[:, most - self.size].astype(np.float64)
        self.held[:, : self.size] = held[:, most - self.size :].copy()
        self.filled = np.full(len(self.filled), self.size)

    def merge(self, other: Self) -> Self:
        """Take in what another one has seen."""
        other._select()
        kept = other.held[:, : int(other.filled.max(initial=0))]
        return self.update(kept if self.largest else -kept) if kept.size else self

    def ordered(self) -> np.ndarray:
        """The values kept, ascending, ``[k, U]`` float64.

        With ``largest`` they are the last k of all that were seen, else the first k.
        """
        self._select()
        kept = self.held[:, : int(self.filled.max(initial=0))].astype(np.float64)
        kept.sort(axis=1)
        return np.ascontiguousarray((kept if self.largest else -kept[:, ::-1]).T)

    def state_dict(self) -> dict[str, Any]:
        """Arrays and numbers that `load_state_dict` takes back."""
        self._select()
        held = self.held[:, : int(self.filled.max(initial=0))]
        return {**vars(self), "held": held}

    def load_state_dict(self, state: dict[str, Any]) -> Self:
        """Become the one that gave the state."""
        vars(self).update(state)
        return self

"""All values of a stream, on disk where they are many."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch

from isogon.stats.base import check_shape
from isogon.storage import write_error

KEPT = 2**28  # bytes held in memory by one of them; more go to a temporary file


class Kept:
    """Every value of a stream ``[N, *shape]``, read back a few units at a time.

    Args:
        limit: Bytes held in memory.

    Attributes:
        count: Number of rows.
        shape: Shape of a row.
    """

    def __init__(self, limit: int = KEPT) -> None:
        self.limit, self.count = limit, 0
        self.shape: tuple[int, ...] = ()
        self._parts: list[np.ndarray] = []
        self._bytes = 0
        self._file: Any = None

    def update(self, x: torch.Tensor) -> Self:
        """Keep rows ``[n, *shape]``.

        Raises:
            FileError: The disk is full.
            DataError: Another shape than before.
        """
        return self._append(np.array(x.detach().cpu().numpy(), order="C", copy=True))

    def merge(self, other: Self) -> Self:
        """Take in what another one has kept, behind what this one has."""
        for block in other._blocks():
            self._append(np.array(block, order="C", copy=True))
        return self

    def compute(self) -> torch.Tensor:
        """All rows ``[N, *shape]``, as they came."""
        blocks = list(self._blocks())
        return torch.from_numpy(np.concatenate(blocks) if blocks else np.zeros((0, *self.shape)))

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes back."""
        return {"rows": self.compute()}

    def load_state_dict(self, state: dict[str, Any]) -> Self:
        """Become the one that gave the state."""
        self.__init__(self.limit)
        return self.update(state["rows"])

    def columns(self, start: int, stop: int, axes: int = 0) -> np.ndarray:
        """Part of all rows, ``[N, *shape[:axes], stop - start]`` in float64.

        Args:
            start: First place of those that the axes behind the first few have, in one row.
            stop: Place behind the last one.
            axes: How many axes of a row are kept as they are.
        """
        found = [b.reshape(*b.shape[: 1 + axes], -1)[..., start:stop] for b in self._blocks()]
        if not found:
            return np.zeros((0, *self.shape[:axes], stop - start))
        return np.concatenate(found).astype(np.float64)

    def _blocks(self) -> Iterator[np.ndarray]:
        if self._file is not None:
            rows = self.count - sum(len(p) for p in self._parts)
            yield np.memmap(self._file, self.dtype, "r", shape=(rows, *self.shape))
        yield from self._parts

    def _append(self, block: np.ndarray) -> Self:
        if not len(block):
            return self
        if self.count:
            check_shape(block.shape[1:], self.shape, "x")
            block = block.astype(self.dtype, copy=False)
        self.shape, self.dtype = block.shape[1:], block.dtype
        self.count += len(block)
        self._parts.append(block)
        self._bytes += block.nbytes
        if self._bytes <= self.limit:
            return self
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as this)
            for part in self._parts:
                self._file.write(part.data)
            self._file.flush()
        except OSError as error:
            raise write_error(tempfile.gettempdir(), error) from error
        self._parts, self._bytes = [], 0
        return self

"""How large a partition may grow before it fills the machine's memory.

A network with wide sites carries kilobytes per vertex. A mesh whose vertices' values would take
more than `budget` is grown tile by tile; where even that or the mesh itself would not fit, the
partition stops with what it has, marked incomplete, rather than being killed.
"""

from __future__ import annotations

import math
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.program import Program
from isogon.errors import OptionError

SHARE = 0.6  # of the memory that is free now
LARGE = 384 << 20  # bytes of vertices' values from which a mesh is grown tile by tile
TILE = 128 << 20  # bytes of vertices' values that a tile starts with
SMALL = 1 << 20  # bytes of a tensor whose memory is worth keeping
MOST = 2 << 30  # bytes of blocks that wait, untouched ones included ...
PART = 0.25  # ... and of the memory that is free when a partition begins
FACE = 700  # bytes of the mesh per face, without its pattern


MOMENT = 0.05  # seconds for which a figure of the system's stands

_seen: list[float] = [0.0, -1.0]  # bytes, and when


def free() -> int:
    """Bytes that can be taken without swapping; 8 GB where the system does not say."""
    now = time.monotonic()
    if not 0 <= now - _seen[1] < MOMENT:
        _seen[:] = _asked(), now
    return int(_seen[0])


def _asked() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 8 << 30


class Spare:
    """Memory of tensors that are no longer read, for those that are made next.

    Memory that is given back to the system and asked for again is cleared page by page: a fifth of
    the time of a partition of convolutions. (Huge pages were tried: on a virtual machine the first
    touch of one may cost more than that of all its small ones.)
    """

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []
        self.users, self.lock, self.most = 0, RLock(), MOST

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor of doubles, not filled."""
        return self.room(shape[0], shape[1:], more=1.0)[: shape[0]]

    def room(self, rows: int, shape: tuple[int, ...], more: float = 1.5) -> Tensor:
        """A tensor `[>= rows, *shape]` of doubles, not filled, about `more` times as many rows.

        Memory that is never touched costs nothing.
        """
        width = max(1, math.prod(shape))
        size = int(rows * more) * width
        if self.users == 0 or 8 * size < SMALL:
            return torch.empty((size // width, *shape), dtype=torch.float64)
        with self.lock:  # in ascending order
            fitting = [n for n, b in enumerate(self.blocks) if len(b) >= rows * width]
            best = next(
                (n for n in fitting if len(self.blocks[n]) >= size),
                fitting[-1] if fitting else None,
            )
            block = None if best is None else self.blocks.pop(best)
        if block is None:
            block = torch.empty(size, dtype=torch.float64).numpy()
        count = len(block) // width
        own = block[: count * width].reshape(count, *shape)
        weakref.finalize(own, self._back, block).atexit = False
        return torch.from_numpy(own)

    def _back(self, block: np.ndarray) -> None:
        """Called when nobody holds a tensor any longer."""
        if self.users == 0:
            return
        with self.lock:
            self.blocks = sorted([*self.blocks, block], key=len)
            while sum(b.nbytes for b in self.blocks) > self.most:
                self.blocks.pop(0)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Memory is kept inside, and given back at the end."""
        with self.lock:
            self.users += 1
            self.most = min(MOST, PART * free())
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if self.users == 0:
                    self.blocks.clear()


spare = Spare()


def has_room(live: dict[str, Tensor], new: int) -> bool:
    """Whether the live tensors can be extended by `new` vertices, with half as much to spare."""
    count = next(iter(live.values())).shape[0]
    width = sum(held.numel() // count for held in live.values())
    return 8 * width * (1.5 * (count + new) + new) < SHARE * free()


def width(program: Program, position: int) -> int:
    """Numbers per vertex that are alive when the next cut after a cut is made."""
    alive = program.alive(program.next_cut(position))
    return max(1, sum(math.prod(program.shapes[name]) for name in alive))


def tiles(program: Program, position: int, vertices: int) -> int:
    """In how many tiles a mesh of so many vertices is to be grown on from a cut."""
    size = 8 * width(program, position) * vertices
    spare = SHARE * free()
    if size <= min(LARGE, spare / 3):
        return 1
    return max(2, int(-(-size // max(1.0, min(TILE, spare / 12)))))


def face(program: Program) -> int:
    """Bytes per face of a finished mesh, its pattern and outputs (at vertices and centroids)."""
    words = sum(program.units(cut) // 64 + 1 for cut in program.cuts)
    outputs = 3 * math.prod(program.shapes[program.output])
    return FACE + 8 * (words + outputs)


def most(program: Program) -> int:
    """Faces whose mesh, patterns and outputs fit in memory."""
    return max(1, int(SHARE * free() / face(program)))


def check_room(size: int, what: str, fix: str) -> None:
    """Refuse what would not fit in memory.

    Args:
        size: Numbers of 8 bytes.
        what: What they are.
        fix: What to do instead.

    Raises:
        OptionError: They would take more than is free.
    """
    spare = free()
    if 8 * size > spare:
        raise OptionError(
            f"memory does not suffice for {what}",
            got=f"{8 * size / 2**30:,.1f} GiB",
            expected=f"at most the {spare / 2**30:,.1f} GiB that are free",
            fix=fix,
        )

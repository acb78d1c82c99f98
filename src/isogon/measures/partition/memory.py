"""How far a partition may grow before the values at its vertices fill the machine's memory.

A network with wide sites carries kilobytes per vertex; where they would not fit, the partition
stops with what it has, marked incomplete, rather than being killed.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from isogon.cpwl.program import Kink, Max, Program

SHARE = 0.6  # of the memory that is free now


def free() -> int:
    """Bytes that can be taken without swapping; 8 GB where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 8 << 30


def fits(live: dict[str, Tensor], new: int) -> bool:
    """Whether the live tensors can be extended by `new` vertices, with half as much to spare."""
    width = sum(held[0].numel() for held in live.values())
    count = len(next(iter(live.values())))
    return 8 * width * (1.5 * (count + new) + new) < SHARE * free()


def most(program: Program, position: int) -> int:
    """Faces whose vertices' values fit in memory at the next cut after a stage."""
    alive, width = {program.input}, 1
    for j, stage in enumerate(program.stages):
        if j > position and isinstance(stage, Kink | Max):
            break
        alive.add(stage.output)
        alive.difference_update(program.dead_after(j))
        width = max(1, sum(torch.Size(program.shapes[name]).numel() for name in alive))
    return max(1, int(SHARE * free() / (2.5 * 8 * width)))

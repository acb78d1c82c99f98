"""Where a line through input space is cut by the units of a network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.bounds import Bounds
from isogon.cpwl.program import Program
from isogon.cpwl.rounding import EPS
from isogon.measures.partition.mesh import stream
from isogon.measures.partition.mesh.zeros import Judge, Space
from isogon.measures.partition.tiles.seams import cut_line, strings


@torch.no_grad()
def break_points(
    program: Program, ends: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions `[P]` from 0 to 1, site and unit of each (-1 at the ends), outputs `[P, C]`."""
    last = len(program.stages)
    size = ends.abs().sum(0) * (ends[0] != ends[1])  # inputs that do not vary are not rounded
    space = Space(
        program,
        lambda at: (
            ends[0]
            + torch.from_numpy(at[:, :1]).reshape(-1, *[1] * (ends.ndim - 1)) * (ends[1] - ends[0])
        ),
        (ends[1] - ends[0])[None],
        1.0,
        EPS * size,
    )
    line = strings({program.input: ends}, 1)
    judge = Judge(space, Bounds(program, ends), -1)
    makers = cut_line(program, line, judge)
    t = line.xy[:, 0]
    order = np.argsort(t, kind="stable")
    order = order[np.concatenate([[True], np.diff(t[order]) > 0])]  # by what coordinates tell apart
    # of all that vanishes at a point, what made it
    vertex, first = np.unique(makers[:, 0], return_index=True)
    site, unit = np.full((2, len(t)), -1)
    site[vertex], unit[vertex] = makers[first, 1], makers[first, 2]
    (outputs,) = stream.advance(
        program, max(judge.position, 0), last, len(t), stream.all_rows(line.live, None)
    ).values()
    outputs = outputs.reshape(len(t), -1).numpy()
    return t[order], site[order], unit[order], outputs[order]

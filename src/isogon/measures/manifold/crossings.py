"""How many linear regions a walk goes through: `segments` between the frames of a `walk`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch.nn import Module

from isogon import context
from isogon.errors import IsogonError
from isogon.measures.segments import segments
from isogon.readings import Path, Reading

COLUMN = "regions_crossed"
LIMIT = 2000  # crossings that a survey looks for: each costs about a forward pass


def with_regions(model: Module, path: Path, *, limit: int = LIMIT) -> Path:
    """The same walks with the number of linear regions that they leave on their way.

    ``regions_crossed`` stands in the rows of kept frames and counts the breakpoints of the
    network, by the registered measure ``segments``, on the straight line from the frame before
    (0 in the row of the start; NaN elsewhere). It is exact for the path itself where every step
    is kept (``frames`` >= steps), else for the polygon through the frames.

    Lines between frames are taken in an order that spreads evenly over the walks, until
    ``limit`` crossings are found; ``summary`` gives the crossings per unit of length over the
    lines that were counted, and ``meta["regions"]`` says how many these are. A network that is
    not piecewise linear gets no column and the reason there.

    Args:
        model: The network that the walks were made on.
        path: A reading of `walk`; it is left as it is.
        limit: Crossings after which no further line is begun.
    """
    walks, steps = path.arrays["frame_walk"], path.arrays["frame_step"]
    frames = torch.from_numpy(path.arrays["frames"])
    lines = [i for i in range(1, len(steps)) if walks[i] == walks[i - 1]]
    counts = np.where(np.r_[True, walks[1:] != walks[:-1]], 0.0, np.nan)
    length, report, meta = np.zeros(len(steps)), context.progress(), dict(path.meta)
    found = 0
    try:
        for done, place in enumerate(_spread(len(lines))):
            if found >= limit:
                break
            i = lines[place]
            counts[i] = _between(model, frames[i - 1], frames[i], float(path.meta["step"]))
            length[i] = float((frames[i] - frames[i - 1]).double().norm())
            found += int(counts[i])
            report(done + 1, len(lines), "regions crossed")
    except IsogonError as error:
        meta["regions"] = f"not counted: {error.problem}"
        return replace(path, meta=meta)
    known = np.isfinite(counts) & np.isin(np.arange(len(steps)), lines)
    meta["regions"] = f"on {int(known.sum())} of {len(lines)} lines between frames"
    at = pd.MultiIndex.from_arrays([walks, steps])
    index = pd.MultiIndex.from_frame(path.table[["walk", "step"]])
    column = pd.Series(counts, at).reindex(index).to_numpy()
    if "summary" in meta:
        rate = []
        for walk in meta["summary"]["walk"]:
            mine = known & (walks == walk)
            total = length[mine].sum()
            rate.append(float(counts[mine].sum() / total) if total > 0 else float("nan"))
        meta["summary"] = {**meta["summary"], "regions per unit of length": rate}
    return replace(path, table=path.table.assign(**{COLUMN: column}), meta=meta)


def complements(measure: str) -> tuple[str, ...]:
    """The other measures that what `complemented` gives for this one comes from."""
    return ("segments",) if measure == "walk" else ()


def complemented(reading: Reading, model: Module) -> Reading:
    """What a reading of one measure gains from another, where both are at hand."""
    if not isinstance(reading, Path) or not complements(reading.measure):
        return reading
    if COLUMN in reading.table:
        return reading
    return with_regions(model, reading) if isinstance(model, Module) else reading


def _between(model: Module, a: torch.Tensor, b: torch.Tensor, step: float) -> int:
    """Breakpoints from a to b; in pieces of about a step, so that memory stays small."""
    a, b = a.double(), b.double()
    pieces = max(1, round(float((b - a).norm()) / step))
    ends = [torch.lerp(a, b, k / pieces) for k in range(pieces + 1)]
    pairs = pairwise(ends)
    return sum(len(segments(model, p, q).table) - 1 for p, q in pairs if not torch.equal(p, q))


def _spread(count: int) -> Iterator[int]:
    """0 .. count - 1 in an order whose beginnings are spread evenly: bits reversed."""
    bits = max(1, (count - 1).bit_length())
    for k in range(2**bits):
        place = int(f"{k:0{bits}b}"[::-1], 2)
        if place < count:
            yield place

"""The certificate of the pieces on a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from isogon import options
from isogon.cpwl.certificate import Certificate, Ledger
from isogon.cpwl.program import Program
from isogon.cpwl.stages import Kink, Max
from isogon.measures.partition.certificate.allowances import SAMPLE, Allowances, Closeness, gaps
from isogon.measures.partition.certificate.certify import CORNERS, Clock
from isogon.measures.partition.certificate.contradictions import Found, seen_by

if TYPE_CHECKING:
    from isogon.measures.segments import Segments

POINTS = 1000  # random points at which outputs are compared
BESIDE = 1e-6  # of the line: how far beside a breakpoint outputs are compared, at most


def certify_line(
    s: Segments, points: int | None, generator: torch.Generator | None, seconds: float | None
) -> Certificate:
    """Check the pieces of a network along a line against the network.

    - *Sorted*: the breakpoints ascend, between 0 and 1; *cover*: the pieces follow each other
      from 0 to 1 and their lengths add up to the line's.
    - *Completeness*: at both ends of every piece each pre-activation, computed by the network,
      lies on the side where it lies in the piece's middle, or is zero within rounding; it is
      affine there, so that no breakpoint is missing.
    - *Units*: at every breakpoint the unit that it is attributed to changes.
    - *Distinct*: no two pieces have the same pattern (a pattern's points on a line are convex).
    - *Outputs*: at middles, just beside breakpoints and at random points the network's output is
      that of the piece; most of the middles are no nearer to a knot than rounding (*decided*).

    Rounding is that of a partition's certificate: per unit and point.
    """
    clock, found = Clock(seconds), Ledger()
    n = POINTS if points is None else options.whole("points", points)
    source = options.generator(generator) or torch.Generator().manual_seed(0)
    knots = np.concatenate([[0.0], s.breakpoints, [1.0]])
    count = len(knots) - 1
    found.facts |= {"breakpoints": len(s.breakpoints), "every piece": count}
    unordered = int((np.diff(knots) <= 0).sum())
    found.check("sorted", unordered, 0, "breakpoints that do not ascend between 0 and 1")
    _cover(s, found, knots)
    knots = np.maximum.accumulate(np.clip(np.nan_to_num(knots), 0, 1))
    allowances = allowances_of(s, knots)
    gap = _pieces(s, found, knots, allowances, clock)
    draw = torch.rand(n, generator=source)
    for part in allowances.chunks(n):
        if part.start and points is None and clock.over():
            break
        own = draw[part].double().numpy()
        gap = np.maximum(gap, _outputs(s, own, allowances))
        found.facts["points"] += len(own)
    note = "largest difference of outputs in the pieces and beside breakpoints, in allowances"
    found.check("outputs", gap, 1, note)
    whole = found.facts["pieces"] >= count
    return found.certificate(f"{count} pieces on a line", whole=whole)


def allowances_of(s: Segments, knots: np.ndarray) -> Allowances:
    """Of points at places `t [n, 1]` on the line."""
    a, b = torch.from_numpy(s.arrays["ends"])
    rows = np.random.default_rng(0).permutation(len(knots))[:SAMPLE]

    def embed(t: np.ndarray) -> torch.Tensor:
        place = torch.from_numpy(np.ascontiguousarray(t[:, 0]))
        return a + place.reshape(-1, *[1] * a.ndim) * (b - a)

    size = torch.maximum(a.abs(), b.abs())
    assert s.program is not None  # `Segments.certify` says so in words
    return Allowances(s.program, embed, (b - a)[None], 1.0, size, knots[rows, None])


def _cover(s: Segments, found: Ledger, knots: np.ndarray) -> None:
    table = s.table
    starts, ends = table["start"].to_numpy(float), table["end"].to_numpy(float)
    same = len(table) == len(knots) - 1
    same = same and np.array_equal(starts, knots[:-1]) and np.array_equal(ends, knots[1:])
    length = float(s.meta["length"])
    gap = abs(float(table["length"].sum()) - length) / length if same else np.inf
    note = "lengths of the pieces against the line's, relative; infinite where they leave a gap"
    found.check("cover", gap, 1e-9, note)


@torch.no_grad()
def _pieces(
    s: Segments, found: Ledger, knots: np.ndarray, allowances: Allowances, clock: Clock
) -> float:
    """Signs at the ends and in the middle of every piece; returns the difference of outputs."""
    count = len(knots) - 1
    sites = allowances.program.cuts
    numbers = {stage.site: k for k, stage in enumerate(sites)}
    # site and unit at both ends of each piece; -1 at those of the line
    site = np.array([numbers.get(name, -1) for name in s.table["site"]])
    unit = s.table["unit"].to_numpy(np.int64)
    own = np.stack([np.concatenate([[-1], site[:-1]]), site], 1)
    units = np.stack([np.concatenate([[-1], unit[:-1]]), unit], 1)
    state = np.full((count, 2), -1)  # the piece or winner of these units, -1 where undecided
    keys = np.zeros(count, np.uint64)
    seen, undecided = np.zeros((2, count), bool)
    wrong, gap = 0, 0.0
    order = np.arange(count)
    if clock.seconds is not None:
        order = np.random.default_rng(0).permutation(count)
    step = max(1, allowances.program.chunk() // 6)
    for low in range(0, count, step):
        if low and clock.over(CORNERS):
            break
        part = np.sort(order[low : low + step])
        n = len(part)
        middle = (knots[part] + knots[part + 1]) / 2
        t = np.concatenate([knots[part], knots[part + 1], middle])[:, None]
        values = seen_by(allowances.program, allowances.embed(t))
        close = Closeness(allowances, middle[:, None])
        rng = np.random.default_rng(0)
        ends, middles = [], []
        for number, stage in enumerate(sites):
            z = next(values)
            within = close.units(number, stage, z[2 * n :])
            undecided[part] |= within.any(1)
            within |= gaps(allowances.program, stage, z[2 * n :])[0] == 0
            at_end, at_middle, piece = _compared(allowances.program, stage, z, n)
            ends.append(at_end)
            middles.append(at_middle)
            odd = rng.integers(1, 2**63, piece.shape[1], np.uint64) * 2 + 1
            with np.errstate(over="ignore"):
                keys[part] += (piece.astype(np.uint64) * odd).sum(1, dtype=np.uint64)
            for side in (0, 1):
                mine = np.flatnonzero(own[part, side] == number)
                state[part[mine], side] = piece[mine, units[part[mine], side]]
                zero = within[mine, units[part[mine], side]]
                state[part[mine[zero]], side] = -1
        at = np.arange(3 * n)
        real, _ = allowances.judged(ends, t, at)
        certain, _ = allowances.judged(middles, t, at)
        wrong += sum(int((a & b).sum()) for a, b in zip(real, certain, strict=True))
        output = next(values)
        wrong += int((~np.isfinite(output)).sum())
        off = np.abs(s.at(t[:, 0]) - output)
        gap = np.maximum(gap, allowances.exceeded(off, t, 2.0))
        beside = np.minimum((knots[part + 1] - knots[part]) / 4, BESIDE)
        near = np.concatenate([knots[part] + beside, knots[part + 1] - beside])
        gap = np.maximum(gap, _outputs(s, near, allowances))
        seen[part] = True
    total = int(seen.sum())
    where = "" if total == count else f" (of {total:,} of {count:,} pieces)"
    found.check("complete", wrong, 0, f"units that change inside a piece{where}", pieces=total)
    left, right = state[:-1, 1], state[1:, 0]
    known = (left >= 0) & (right >= 0) & seen[:-1] & seen[1:]
    still = int((left[known] == right[known]).sum())
    found.check("units", still, 0, "breakpoints whose unit does not change there")
    clear = keys[seen & ~undecided]
    note = "pieces that share a pattern"
    found.check("distinct", len(clear) - len(np.unique(clear)), 0, note)
    share = float(undecided[seen].mean()) if total else 1.0
    note = "share of the middles at which a unit is within rounding of its knot"
    found.check("decided", share, 0.5, note, points=5 * total)
    return float(gap)


def _compared(program: Program, stage: Kink | Max, z: np.ndarray, n: int) -> tuple:
    """Where the ends of pieces contradict their middles.

    Args:
        program: The network.
        stage: The site's.
        z: What it sees at starts, ends and middles of n pieces, `[3 n, ...]`.
        n: See there.

    Returns:
        What is found at the ends, the same values in the middle (as rows of z), and the linear
        pieces (winners) `[n, units]` in the middles.
    """
    rows = np.arange(2 * n)
    if isinstance(stage, Max):
        winner = z[2 * n :].argmax(-1)
        held = np.take_along_axis(z[: 2 * n], np.tile(winner, (2, 1))[..., None], 2)[..., 0]
        top = z[: 2 * n].argmax(-1)
        best = np.take_along_axis(z[: 2 * n], top[..., None], 2)[..., 0]
        row, unit = np.nonzero(held < best)
        entry, rival = winner[row % n, unit], top[row, unit]
        end = Found.of(row, best[row, unit] - held[row, unit], unit, entry, rival)
        middle = 2 * n + row % n
        ahead = z[middle, unit, entry] - z[middle, unit, rival]
        return end, Found.of(middle, ahead, unit, entry, rival), winner
    shape = program.shapes[stage.inputs[0]]
    parts, inside = [], []
    piece = np.zeros((n, z.shape[1]), np.int16)
    for knot in stage.knots:
        d = z - knot.expand(shape).reshape(-1).numpy()
        piece += d[2 * n :] > 0
        row, unit = np.nonzero(d[: 2 * n] * np.sign(d[2 * n + rows % n]) < 0)
        middle = 2 * n + row % n
        parts.append(Found.of(row, np.abs(d[row, unit]), unit))
        inside.append(Found.of(middle, np.abs(d[middle, unit]), unit))
    return Found.joined(parts), Found.joined(inside), piece


def _outputs(s: Segments, t: np.ndarray, allowances: Allowances) -> float:
    """Largest difference of outputs at places, in allowances."""
    worst = 0.0
    for part in allowances.chunks(len(t)):
        x = allowances.embed(t[part, None])
        output = allowances.program.evaluate(x).reshape(len(x), -1).numpy()
        off = np.abs(s.at(t[part]) - output)
        worst = float(np.maximum(worst, allowances.exceeded(off, t[part, None], 2.0)))
    return worst

"""The certificate of a traced boundary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from isogon import context, options
from isogon.cpwl.certificate import Certificate, Ledger
from isogon.cpwl.rounding import ROUNDING, errors
from isogon.measures.boundary.frozen import Frozen
from isogon.measures.boundary.scan import GOLDEN, Scan
from isogon.measures.boundary.strokes import BORDER, TRIPLE, Strokes
from isogon.measures.partition.certificate.certify import Clock
from isogon.measures.partition.kernels.threads import each
from isogon.measures.partition.mesh.zeros import Space

if TYPE_CHECKING:
    from isogon.measures.boundary.reading import Boundary

POINTS = 1000  # places of the grid at which the class is computed again
MARGIN = 2.0  # a corner is off by rounding of its own, too
NEAR = 1e-9  # of the slice's extent
SHARE = 0.7  # of the time that is for pieces, where time is bounded
SAMPLE = 128  # corners at which rounding is looked at: what the least of it explains is right
ROWS = 256  # points whose carried errors are looked at together
SHORTEST = 1e-12  # of the slice's extent: a stretch without a length


def certify_boundary(
    b: Boundary,
    frozen: Frozen,
    points: int | None,
    generator: torch.Generator | None,
    seconds: float | None,
) -> Certificate:
    """Check a boundary against the network.

    - *Ties*: at the middle and at both ends of every piece the two largest outputs, computed by
      the network, are those of the piece's classes, and equal within their carried rounding
      errors. They are affine between the ends where these lie in one region.
    - *Joints*: where a piece was left and the next one entered are the same point; *drift*: no
      trace was beside its line behind an exit.
    - *Carried*: the states that were carried from region to region were those computed afresh.
    - *Ends*: a curve that is not closed ends at the slice's border, where a third class comes
      in; *triple points*: three curves end at each.
    - *Once*: no piece is there twice.
    - *Grid*: along every line of the grid, and along the border, the crossings lead from the
      class at each place to the class at the next; *image*: these classes are the network's.

    Closed curves between the lines of the grid are not seen; what a second grid found beyond
    the first is among the facts (`missed`).
    """
    clock, found = Clock(seconds), Ledger()
    n = POINTS if points is None else options.whole("points", points)
    generator = options.generator(generator)
    segments = b.segments
    extent = float(np.ptp(b.plane.corners, axis=0).max())
    size = np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)
    found.facts |= {"every piece": len(segments), "curves": len(b)}
    _ends(b, found, extent)
    found.check("joints", b.meta["joint"], NEAR, "largest gap between two pieces, of the extent")
    found.check("drift", b.meta["drift"], NEAR, "largest distance from the line, of the extent")
    note = "largest difference of a carried state from one computed afresh, relative"
    found.check("carried", b.meta.get("carried", 0.0), NEAR, note)
    middles = np.round(segments.mean(1) / (SHORTEST * extent)).astype(np.int64)
    real = size > 1e3 * SHORTEST * extent
    double = real.sum() - len(
        np.unique(np.concatenate([middles, b.segment_classes], 1)[real], axis=0)
    )
    found.check("once", double, 0, "pieces that are there twice")
    _ties(b, frozen, found, clock)
    _grid(b, frozen, found, n, generator)
    whole = found.facts["pieces"] >= len(segments)
    return found.certificate(f"a boundary of {len(segments)} pieces", whole=whole)


def _ends(b: Boundary, found: Ledger, extent: float) -> None:
    """Why curves end, and how many at one point."""
    loose = ~b.table["closed"].to_numpy(bool)
    first, last = b.points[b.offsets[:-1]], b.points[b.offsets[1:] - 1]
    at = np.concatenate([first[loose], last[loose]])
    why = np.concatenate([b.ends[loose, 0], b.ends[loose, 1]])
    corners = b.plane.corners
    along = np.roll(corners, -1, 0) - corners
    inward = np.stack([-along[:, 1], along[:, 0]], 1)
    inward /= np.linalg.norm(inward, axis=1, keepdims=True)
    inside = (at @ inward.T - (inward * corners).sum(1)).min(1, initial=np.inf)
    wrong = ~np.isin(why, (BORDER, TRIPLE))
    wrong |= (why == BORDER) & (np.abs(inside) > NEAR * extent)
    note = "curves that end inside the slice for no reason, and stretches of the grid without one"
    found.check("ends", int(wrong.sum()) + b.meta["open"] + b.meta["unexplained"], 0, note)
    closed = b.table["closed"].to_numpy(bool)
    off = np.abs(first - last)[closed].max(initial=0.0) / extent
    found.check("closed", off, 0, "distance between start and end of closed curves")
    triple = at[why == TRIPLE]
    group = _clusters(triple, NEAR * extent)
    count = np.bincount(group) if len(group) else np.zeros(0, np.int64)
    note = "points at which other than three curves end"
    found.check("triple points", int((count < 3).sum()), 0, note, triples=len(count))


def _clusters(at: np.ndarray, size: float) -> np.ndarray:
    """`[n]` group of each point: those within a distance of each other."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    if not len(at):
        return np.zeros(0, np.int64)
    a, b = KDTree(at).query_pairs(size, output_type="ndarray").T
    graph = coo_matrix((np.ones(len(a)), (a, b)), (len(at), len(at)))
    return connected_components(graph, directed=False)[1]


def _ties(b: Boundary, frozen: Frozen, found: Ledger, clock: Clock) -> None:
    """Outputs at the middles and corners of pieces, in allowances."""
    first = np.arange(len(b.curve_of)) + b.curve_of  # corner at which each piece begins
    order = np.arange(len(first))
    if clock.seconds is not None:
        order = np.random.default_rng(0).permutation(len(first))
    space = Space.of_slice(frozen.program, frozen.plane)
    place = {int(name): k for k, name in enumerate(frozen.names)}
    pairs = b.table[["class_i", "class_j"]].to_numpy(np.int64).tolist()
    numbers = np.array([[place[i], place[j]] for i, j in pairs], np.int64).reshape(-1, 2)
    curve = np.repeat(np.arange(len(b)), np.diff(b.offsets))  # of each corner
    step = max(1, frozen.program.chunk() // 2)
    some = b.points[np.random.default_rng(0).permutation(len(b.points))[:SAMPLE]]
    least = _allowed(space, frozen, some).min(0) if len(some) else np.zeros(len(frozen.names))
    seen: list[tuple[int, float, float]] = []  # pieces, and the two largest excesses at them

    def look(part: slice) -> None:
        own = order[part]
        corner = np.unique(np.concatenate([first[own], first[own] + 1]))  # neighbours share them
        middle = (b.points[first[own]] + b.points[first[own] + 1]) / 2
        at = np.concatenate([middle, b.points[corner]])
        pair = numbers[np.concatenate([curve[first[own]], curve[corner]])]
        value = frozen.values(at)
        gap = _excess(value, pair, least[None])
        unsure = ~(gap.max(0) <= 1)  # rounding there decides; NaN is as unsure
        for low in range(0, int(unsure.sum()), ROWS):
            rows = np.flatnonzero(unsure)[low : low + ROWS]
            gap[:, rows] = _excess(value[rows], pair[rows], _allowed(space, frozen, at[rows]))
        seen.append((len(own), *gap.max(1, initial=0.0).tolist()))

    def parts() -> Iterator[slice]:
        for low in range(0, len(order), step):
            if low and clock.over(SHARE):
                return
            yield slice(low, low + step)

    each(look, parts())
    count, tie, beaten = zip(*seen) if seen else ((0,), (0.0,), (0.0,))
    note = "largest difference of the two outputs at middles and corners, in allowances"
    found.check("ties", float(np.max(tie)), 1, note, pieces=sum(count))
    note = "by how much another output is larger there, in allowances"
    found.check("largest", float(np.max(beaten)), 1, note)


def _excess(value: np.ndarray, pair: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """`[2, n]` in allowances: the difference of two outputs, and by how much another is larger."""
    rows = np.arange(len(value))
    i, j = pair.T
    zero = np.broadcast_to(zero, value.shape)
    allowed = zero[rows, i] + zero[rows, j] + np.finfo(float).tiny
    tie = np.abs(value[rows, i] - value[rows, j]) / allowed
    over = (value - value[rows, i][:, None]) / (zero + zero[rows, i][:, None] + 1e-300)
    return np.stack([tie, over.max(1)])


def _allowed(space: Space, frozen: Frozen, at: np.ndarray) -> np.ndarray:
    """`[n, C]` by how much each output may be off at points."""
    return MARGIN * frozen.competing(_rounding(space, at)).numpy()


@torch.no_grad()
def _rounding(space: Space, at: np.ndarray) -> torch.Tensor:
    """`[n, C]` 32 carried errors of the outputs at points, whose places are rounded, too."""
    *_, last = errors(
        space.program,
        space.embed(at),
        given=space.given,
        directions=space.directions,
        reach=space.reach,
    )
    return ROUNDING * last


def _grid(
    b: Boundary, frozen: Frozen, found: Ledger, points: int, generator: torch.Generator | None
) -> None:
    """The classes of the image against the network, and against the curves."""
    row, column = np.nonzero(b.image >= 0)
    draw = torch.randperm(len(row), generator=generator or torch.Generator().manual_seed(0))
    some = draw[:points].numpy()
    at = np.stack([b.arrays["image_x"][column[some]], b.arrays["image_y"][row[some]]], 1)
    wrong = int((frozen.names[frozen.label(at)] != b.image[row[some], column[some]]).sum())
    found.check("image", wrong, 0, "places of the grid that have another class", places=len(some))
    place = np.full(int(frozen.names.max()) + 2, -1)
    place[frozen.names] = np.arange(len(frozen.names))
    image = np.where(b.image < 0, -1, place[b.image])
    scan = Scan(frozen, len(image), GOLDEN, context.silent, image)
    gaps = scan.gaps(strokes_of(b, place))
    long = (gaps.ends[:, 1] - gaps.ends[:, 0]) > SHORTEST * scan.length[gaps.line]
    note = "stretches of the grid's lines along which the crossings don't fit the classes"
    missed = b.meta["missed"]
    found.check("grid", int(long.sum()), 0, note, missed=missed["curves"])


def strokes_of(b: Boundary, place: np.ndarray) -> Strokes:
    """The pieces of a reading as they were when they were traced, without links.

    `place` is the position of each class among those that compete.
    """
    found = Strokes()
    pairs = b.table[["class_i", "class_j"]].to_numpy(np.int64).reshape(-1, 2)
    found.ends = [tuple(e) for e in b.segments.reshape(-1, 4).tolist()]
    found.pairs = [tuple(e) for e in place[pairs[b.curve_of]].tolist()]
    corners = b.plane.corners
    along = np.roll(corners, -1, 0) - corners
    inward = np.stack([-along[:, 1], along[:, 0]], 1)
    inward /= np.linalg.norm(inward, axis=1, keepdims=True)
    first = b.offsets[:-1] - np.arange(len(b))  # first piece of each curve
    last = np.append(first[1:], len(b.curve_of)) - 1
    for k in range(len(b)):
        for side, piece, corner in (
            (0, first[k], b.offsets[k]),
            (1, last[k], b.offsets[k + 1] - 1),
        ):
            if b.ends[k, side] == BORDER:
                gap = (b.points[corner] - corners) * inward
                found.stops[int(piece), side] = (BORDER, int(np.abs(gap.sum(1)).argmin()))
    return found

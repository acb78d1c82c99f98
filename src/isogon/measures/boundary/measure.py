"""The measure: `boundary(model, plane)`."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable

import numpy as np
import pandas as pd
from torch.nn import Module

from isogon import context, options
from isogon.cpwl.lower import check_outputs
from isogon.cpwl.program import Program
from isogon.errors import IncompleteWarning, OptionError
from isogon.measures.boundary.frozen import Frozen
from isogon.measures.boundary.live import Limits
from isogon.measures.boundary.reading import Boundary
from isogon.measures.boundary.scan import GOLDEN, Gaps, Scan
from isogon.measures.boundary.strokes import TIED, Strokes
from isogon.measures.boundary.trace import Tracer
from isogon.measures.partition.lowering import lowered
from isogon.measures.partition.slices import Slice
from isogon.registry import measure

FIRST = 60  # stretches inside the slice from which the first traces start
SEEDS = 128  # stretches per round after that
DRIFT = 1e-9  # of the slice's extent


@measure(
    cite=("humayun2023", "berzins2023"),
    cost=8.5,
    survey=False,
    example={
        "plane": "anchors(digits(test)[0], digits(test)[1], digits(test)[2], radius=1000)",
        "grid": 24,
    },
)
def boundary(
    model: Module,
    plane: Slice,
    *,
    grid: int = 200,
    classes: tuple[int, ...] | None = None,
    max_pieces: int | None = None,
    seconds: float | None = None,
    progress: context.Progress | None = None,
) -> Boundary:
    """The exact decision boundary of a network on a slice, traced from region to region.

    In a region of a continuous piecewise-linear network two outputs are equal on a line; where
    it leaves the region by the zero line of a unit, the boundary goes on in the next region
    with another slope, or a third class comes in. So it costs a few passes of the network per
    piece of the boundary, however many regions the slice holds, in float64 and without
    sampling. Traces start where the classes on a grid change, until the known boundary explains
    every class on every line of the grid. A curve that fits between these lines, closed or from
    the slice's border back to it, is missed; what a second grid, between the lines of the first,
    finds beyond the first is kept and told as an estimate of that (`meta["missed"]`).

    Args:
        model: Any network of piecewise-linear operations (also with skips, max-pooling,
            several kinds of activation); evaluated in float64, left as it was. One output
            counts as two classes, 0 where it is not positive and 1 where it is.
        plane: A `Slice`.
        grid: Lines of the grid, each way.
        classes: Outputs among which the largest counts (two or more); the others don't exist.
            Default: all.
        max_pieces: Stop after about so many pieces; what was traced by then is exact, and the
            reading says that it is not all (`complete`, `meta["stopped"]`). Default: all.
        seconds: Stop tracing after so much time, likewise.
        progress: Called with (pieces done, pieces expected, what); default: the context's.

    Returns:
        A `Boundary`: one row per curve with curve, class_i (on its left), class_j, length (in
        slice coordinates), closed; arrays `points`, `offsets`.

    Raises:
        UnsupportedOp: The network is not continuous piecewise linear.
        DataError: The slice does not fit the network's input.
        OptionError: A grid of fewer than two lines, classes that don't exist, no room for a
            piece, or an option that is no number.
    """
    grid = options.whole("grid", grid)
    max_pieces = None if max_pieces is None else options.whole("max_pieces", max_pieces)
    seconds = None if seconds is None else options.number("seconds", seconds)
    if grid < 2:
        raise OptionError("no grid", got=grid, expected="grid >= 2")
    for name, most in (("max_pieces", max_pieces), ("seconds", seconds)):
        if most is not None and not most > 0:
            raise OptionError(f"no room for a piece: {name}", got=most, expected="> 0, or None")
    found = traced(model, plane, grid, classes, progress, max_pieces, seconds)
    if not found.complete:
        warnings.warn(_told(found), IncompleteWarning, stacklevel=2)
    return found


def _told(b: Boundary) -> str:
    """What is missing from a boundary, in words."""
    m = b.meta
    if m["stopped"]:
        return (
            f"the boundary is not whole: tracing stopped at its limit, after {m['pieces']:,} "
            f"pieces of length {b.length:.4g}; by the class image {m['expected_length']:.4g} is to "
            f"be expected, about {m['expected_pieces']:,} pieces. "
            "Raise max_pieces or seconds, or take a smaller slice."
        )
    return (
        f"the boundary is not whole: {m['open']} curves end inside the slice and "
        f"{m['unexplained']} stretches of the grid are not explained by it (drift "
        f"{m['drift']:.1e} of the slice's extent)."
    )


def traced(
    model: Module | Program,
    plane: Slice,
    grid: int,
    classes: tuple[int, ...] | None = None,
    progress: context.Progress | None = None,
    max_pieces: int | None = None,
    seconds: float | None = None,
) -> Boundary:
    """The boundary, without a warning where it is not whole."""
    report = progress or context.progress()
    program, plane = lowered(model, plane)
    start = plane.embed(plane.corners).reshape(-1, *program.shape)
    check_outputs(program, start, "the slice's corners")
    frozen = Frozen(program, plane, _checked(program, classes))
    first = Scan(frozen, grid, GOLDEN, report)
    end = math.inf if seconds is None else time.monotonic() + seconds
    limits = Limits(math.inf if max_pieces is None else max_pieces, end)
    tracer = Tracer(frozen, report, limits)
    tracer.expected = first.expected()
    changes = first.changes()
    border = changes.line >= first.first_border
    inside = np.flatnonzero(~border)
    inside = inside[np.linspace(0, len(inside) - 1, min(FIRST, len(inside))).astype(np.int64)]
    start_at = changes.take(np.concatenate([np.flatnonzero(border), inside]))
    tracer.seed(*first.roots(start_at))
    tracer.run()
    unexplained = explain(tracer, first)
    known = len(tracer.strokes)
    if not tracer.stopped:
        second = Scan(frozen, grid, GOLDEN + 0.5, report)
        unexplained += explain(tracer, second)
    return read_off(tracer, first, known, unexplained)


def explain(tracer: Tracer, scan: Scan) -> int:
    """Trace from stretches that the known boundary does not explain, until all are.

    Returns how many are left that no trace explains.
    """
    tried: set[tuple[int, float, float]] = set()
    while True:
        gaps = scan.gaps(tracer.strokes)
        names = [(int(k), *ends) for k, ends in zip(gaps.line, gaps.ends.tolist(), strict=True)]
        new = np.array([n for n, name in enumerate(names) if name not in tried], np.int64)
        if not len(new) or tracer.stopped:
            return _real(scan, gaps)
        new = new[np.unique(np.linspace(0, len(new) - 1, min(SEEDS, len(new))).astype(np.int64))]
        tried.update(names[n] for n in new)
        tracer.seed(*scan.roots(gaps.take(new)))
        tracer.run()


def _real(scan: Scan, gaps: Gaps) -> int:
    """How many stretches are longer than rounding."""
    size = gaps.ends[:, 1] - gaps.ends[:, 0]
    return int((size > 1e-12 * scan.length[gaps.line]).sum())


def _checked(program: Program, classes: tuple[int, ...] | None) -> list[int] | None:
    if classes is None:
        return None
    count = math.prod(program.shapes[program.output])
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise OptionError(
            "no such classes",
            got=repr(classes),
            expected=f"two or more of 0..{count - 1}" if count > 1 else "None for one output",
            fix="Give a tuple of numbers: classes=(0, 1).",
        )
    chosen = sorted({options.whole("classes", c) for c in classes})
    if len(chosen) < 2 or chosen[0] < 0 or chosen[-1] >= count:
        raise OptionError(
            "no such classes",
            got=tuple(classes),
            expected=f"two or more of 0..{count - 1}" if count > 1 else "None for one output",
        )
    return chosen


def read_off(tracer: Tracer, scan: Scan, known: int, unexplained: int) -> Boundary:
    """The reading of what was traced; pieces from `known` on came from the second image."""
    frozen, strokes, plane = tracer.frozen, tracer.strokes, tracer.frozen.plane
    tracer.junctions.link(strokes)
    table, arrays, late = curves(strokes, frozen.names, known)
    arrays |= {
        "image": np.where(scan.image < 0, -1, frozen.names[scan.image]),
        "image_x": scan.x,
        "image_y": scan.y,
        "slice_origin": plane.origin,
        "slice_basis": plane.basis,
        "slice_corners": plane.corners,
        "slice_marks": plane.marks,
    }
    left = strokes.left() + tracer.junctions.torn
    ratio = tracer.expected / strokes.length if strokes.length else 0.0
    meta = {
        "pieces": len(strokes) - len(strokes.gone),
        "stopped": tracer.stopped,
        "expected_length": tracer.expected,
        "expected_pieces": max(len(strokes), round(len(strokes) * ratio)),
        "steps": tracer.steps,
        "grid": len(scan.x),
        "missed": {"curves": int(late.sum()), "length": float(table["length"][late].sum())},
        "drift": tracer.drift,
        "carried": tracer.carried,
        "joint": strokes.joint() / tracer.extent,
        "tied": tracer.ended.get(TIED, 0),
        "open": left,
        "unexplained": unexplained,
        "single": frozen.single,
        "outputs": frozen.outputs,
        "classes": None if frozen.classes is None else frozen.classes.tolist(),
        "shape": list(plane.shape),
        "dtype": "float64",
    }
    drift = max(tracer.drift, tracer.carried)
    whole = not (left or unexplained or tracer.stopped) and drift <= DRIFT
    units = {"length": "slice coordinates"}
    found = Boundary("boundary", table=table, arrays=arrays, units=units, meta=meta, complete=whole)
    found.frozen = frozen
    return found


def curves(
    strokes: Strokes, names: np.ndarray, known: int
) -> tuple[pd.DataFrame, dict[str, np.ndarray], np.ndarray]:
    """Table and arrays of the curves, longest first; which of them have no piece before `known`."""
    ends, pairs = strokes.arrays()
    rows = []
    for order, ahead, closed in strokes.chains():
        forth = np.array(ahead)
        own = ends[order]
        own = np.where(forth[:, None, None], own, own[:, ::-1])
        corners = np.concatenate([own[:, 0], own[-1:, 1]])
        if closed:
            corners[-1] = corners[0]
        left, right = pairs[order[0]] if ahead[0] else pairs[order[0]][::-1]
        first, last = (order[0], 0 if ahead[0] else 1), (order[-1], 1 if ahead[-1] else 0)
        why = (0, 0) if closed else (strokes.stop_of(first), strokes.stop_of(last))
        length = float(np.linalg.norm(np.diff(corners, axis=0), axis=1).sum())
        rows.append((length, corners, names[left], names[right], closed, why, min(order) >= known))
    rows.sort(key=lambda row: -row[0])
    table = pd.DataFrame(
        {
            "curve": np.arange(len(rows)),
            "class_i": np.array([row[2] for row in rows], np.int64),
            "class_j": np.array([row[3] for row in rows], np.int64),
            "length": np.array([row[0] for row in rows], np.float64),
            "closed": np.array([row[4] for row in rows], bool),
        }
    )
    arrays = {
        "points": np.concatenate([np.zeros((0, 2)), *(row[1] for row in rows)]),
        "offsets": np.cumsum([0, *(len(row[1]) for row in rows)]),
        "ends": np.array([row[5] for row in rows], np.int64).reshape(-1, 2),
    }
    return table, arrays, np.array([row[6] for row in rows], bool)

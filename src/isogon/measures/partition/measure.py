"""The measure: `partition(model, plane)`."""

from __future__ import annotations

import warnings

import numpy as np
from torch.nn import Module

from isogon import context, jit, options
from isogon.cpwl.program import Program
from isogon.errors import IncompleteWarning, OptionError
from isogon.measures.partition.certificate.narrow import misread
from isogon.measures.partition.forecast import Outlook
from isogon.measures.partition.grow import grow
from isogon.measures.partition.lowering import lowered
from isogon.measures.partition.mesh import memory
from isogon.measures.partition.mesh.mesh import Mesh
from isogon.measures.partition.mesh.zeros import Space
from isogon.measures.partition.patterns import SitePattern
from isogon.measures.partition.reading import Partition
from isogon.measures.partition.slices import Slice
from isogon.registry import measure

UNLIMITED = 1 << 40
DROWNED = 1e10  # times the least bound of what counts as zero: what it is of drowns the others


@measure(
    cite=("humayun2023", "berzins2023"),
    cost=8.0,
    survey={"max_regions": 100_000},
    example={"plane": "anchors(digits(test)[0], digits(test)[1], digits(test)[2], radius=0.3)"},
    typed={
        "plane": "crossing(trained(cnn, digits, epochs=5), digits(test)[0], digits(test)[1],"
        " radius=0.3)"
    },
)
def partition(
    model: Module,
    plane: Slice,
    *,
    max_regions: int | None = None,
    progress: context.Progress | None = None,
) -> Partition:
    """The exact linear regions and decision boundary of a network on a slice.

    A continuous piecewise-linear network is affine on each region of a polygonal partition of
    the slice: the maximal sets with one activation pattern. They are found in float64 by
    cutting one planar mesh, with shared vertices and edges, along the zero lines of every
    unit, site after site; no point is sampled. `Partition.certify` checks the result against
    the network.

    Args:
        model: Any network of piecewise-linear operations (also with skips, max-pooling,
            several kinds of activation); evaluated in float64, left as it was.
        plane: A `Slice`.
        max_regions: Never make more regions than this. Where it (or memory) does not suffice,
            the regions around the slice's anchors (else its middle) are cut to the end, as far
            as there is room; the others are marked (`Partition.finished`), have label -1, no
            affine map and no boundary, and an `IncompleteWarning` says how many they are.
        progress: Called with (sites done, sites, what); default: the context's. After a second
            it tells how many regions to expect (see `forecast`), and an `IncompleteWarning` says
            where they won't fit, and which radius would.

    Returns:
        A `Partition`.

    Raises:
        UnsupportedOp: The network is not continuous piecewise linear.
        DataError: The slice does not fit the network's input.
        OptionError: `max_regions` is not positive, or no whole number.
    """
    max_regions = None if max_regions is None else options.whole("max_regions", max_regions)
    if max_regions is not None and max_regions < 1:
        raise OptionError("no room for a region", got=max_regions, expected="max_regions >= 1")
    found = partitioned(model, plane, max_regions, progress, forewarn=True)
    if not found.complete:
        warnings.warn(_told(found, max_regions), IncompleteWarning, stacklevel=2)
    return found


def _told(p: Partition, max_regions: int | None) -> str:
    """What is missing from a partition that stopped early, in words."""
    left = ~p.finished
    share = float(p.area[left].sum() / p.plane.area)
    short = max_regions is None or memory.most(p.program) < max_regions
    reason = "memory" if short else f"max_regions={max_regions}"
    return (
        f"the partition stopped early ({reason}): {int(left.sum()):,} of {len(p):,} regions, "
        f"{100 * share:.3g} % of the slice, are not cut to the end (label -1, no affine map, no "
        "boundary). Raise max_regions or choose a smaller slice."
    )


def partitioned(
    model: Module | Program,
    plane: Slice,
    max_regions: int | None,
    progress: context.Progress | None = None,
    *,
    forewarn: bool = False,
) -> Partition:
    """The partition, without a warning where it stopped early.

    Where `forewarn` is set, progress tells how many regions to expect, with a warning where
    they won't fit.
    """
    report = progress or context.progress()
    program, plane = lowered(model, plane)
    with jit.announced(lambda: report(0, None, "compiling the kernels (once; cached on disk)")):
        outlook = Outlook(report, program, plane, max_regions) if forewarn else report
        return _cut(program, plane, max_regions or UNLIMITED, outlook)


def _cut(program: Program, plane: Slice, limit: int, report: context.Progress) -> Partition:
    space = Space.of_slice(program, plane)
    found = read_off(*grow(program, plane, limit, report, space), program, plane)
    if space.noise < DROWNED or not (wrong := misread(found)):
        return found
    # Where lines of a unit and of one that it drowns meet within rounding, a vertex can hold what
    # the faces on one side ask for or what those on the other do: the better one is taken.
    space = Space.of_slice(program, plane, every=True)
    other = read_off(*grow(program, plane, limit, report, space), program, plane)
    return other if misread(other) < wrong else found


def read_off(
    mesh: Mesh, sites: list[SitePattern], zero: np.ndarray, program: Program, plane: Slice
) -> Partition:
    """The partition that a finished mesh is; its live tensor is the output at the vertices.

    `zero [C]` bounds what counts as zero of each output.
    """
    (outputs,) = mesh.live.values()
    arrays = {
        "vertices": mesh.xy,
        "edges": mesh.ends,
        "edge_site": mesh.site,
        "edge_unit": mesh.unit,
        "face_offsets": mesh.offsets,
        "face_edges": mesh.borders,
        "face_vertices": mesh.loops,
        "outputs": outputs.reshape(len(outputs), -1).numpy(),
        "output_zero": zero,
        "slice_origin": plane.origin,
        "slice_basis": plane.basis,
        "slice_corners": plane.corners,
        "slice_marks": plane.marks,
    }
    for i, site in enumerate(sites):
        for name in ("base", "unit", "bits", "parent"):
            arrays[f"site{i}_{name}"] = getattr(site, name)
    complete = bool(mesh.open.all())
    if not complete:
        arrays["depth"] = np.where(mesh.open, len(sites), mesh.stopped).astype(np.int32)
    meta = {
        "sites": [s.site for s in sites],
        "kinds": [s.kind for s in sites],
        "tolerances": [s.tol for s in sites],
        "shape": list(plane.shape),
        "dtype": "float64",
    }
    found = Partition("partition", arrays=arrays, meta=meta, complete=complete)
    found.program = program
    return found

"""Cutting the mesh along the knots of a kink's units."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from isogon.cpwl.stages import Kink
from isogon.measures.partition.kernels import edges as ek
from isogon.measures.partition.kernels import sides as ks
from isogon.measures.partition.kernels.threads import by_rows
from isogon.measures.partition.mesh import memory, stream
from isogon.measures.partition.mesh.cutting import Full, Functions, Limit, cut_edges, cut_faces
from isogon.measures.partition.mesh.mesh import INDEX, Mesh, sizes
from isogon.measures.partition.mesh.stream import Pending
from isogon.measures.partition.mesh.zeros import Errors, Judge, clear, pin, sign_room, store
from isogon.measures.partition.patterns import SitePattern

TABLE = "#cut"  # name of the table of cut values among the live tensors


def every_function(stage: Kink, sample: torch.Size) -> Functions:
    """A cut function per unit and knot, knot by knot."""
    units = sample.numel()
    if len(stage.knots) == 1:
        column = np.arange(units)
        level = stage.knots[0].expand(sample).reshape(-1).numpy()
        return Functions(column, np.full(units, -1), level, column)
    column = np.tile(np.arange(units), len(stage.knots))
    levels = [knot.expand(sample).reshape(-1) for knot in stage.knots]
    return Functions(column, np.full(len(column), -1), torch.cat(levels).numpy(), column)


def of_bits(words: np.ndarray, count: int) -> np.ndarray:
    """Bits of a mask as booleans `[count]`."""
    return np.unpackbits(words.view(np.uint8), bitorder="little")[:count].astype(bool)


def select(functions: Functions, which: np.ndarray) -> Functions:
    """Some of the functions."""
    f = functions
    return Functions(f.column[which], f.other[which], f.offset[which], f.unit[which])


def masks(z: np.ndarray, functions: Functions) -> tuple[np.ndarray, np.ndarray]:
    """Sign masks of all vertices, `[V, words]` each."""
    found = sign_room(len(z), len(functions))
    column, offset = functions.column, functions.offset
    by_rows(
        len(z),
        len(column),
        lambda p: ek.sign_masks(z[p], column, offset, 0.0, *(m[p] for m in found)),
    )
    return found


def count_then_fill(
    kernel: Callable, rows: int, width: int, arguments: Callable[[slice], Sequence[np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Run a count-then-fill kernel: CSR offsets and entries.

    Args:
        kernel: Takes `arguments`, offsets to fill, entries to fill where there is room for any.
        rows: How many there are ...
        width: ... of about so many numbers.
        arguments: Those of some consecutive rows.
    """

    def some(p: slice) -> tuple[np.ndarray, np.ndarray]:
        own, first = arguments(p), np.empty(p.stop - p.start + 1, np.int64)
        kernel(*own, first, np.empty(0, np.int64))
        entries = np.empty(first[-1], np.int64)
        if len(entries):
            kernel(*own, first, entries)
        return first, entries

    parts = by_rows(rows, width, some)
    if len(parts) == 1:
        return parts[0]
    before = np.cumsum([0, *(len(entries) for _, entries in parts)])
    offsets = [first[:-1] + n for (first, _), n in zip(parts, before, strict=False)]
    return np.concatenate([*offsets, before[-1:]]), np.concatenate([e for _, e in parts])


def cut_kink(
    mesh: Mesh,
    stage: Kink,
    site: int,
    limit: Limit,
    judge: Judge,
    units: np.ndarray | None = None,
) -> tuple[SitePattern, Pending | None]:
    """Cut the mesh along the knots of every unit of a kink.

    Args:
        mesh: What to cut; its fixed edges have their vertices already.
        stage: The kink.
        site: Its number.
        limit: Faces that may be made.
        judge: Decides what is zero.
        units: Those that cut; default: all.

    Returns:
        The pattern of every face, the vertices left pending.

    Raises:
        Full: There would be more faces, or memory would not suffice; the mesh is half cut.
    """
    name = source = stage.inputs[0]
    held = mesh.live[name]
    functions = every_function(stage, held.shape[1:])
    pin(mesh, judge.position, functions, name)
    bound, signs = clear(mesh, stage, functions, judge)
    tol = float(bound.max(initial=0))
    held = mesh.live[name]
    up, down = np.zeros_like(signs[0][0]), np.zeros_like(signs[0][0])
    ek.either(*signs, up, down)
    up, down = of_bits(up, len(functions)), of_bits(down, len(functions))
    varying = np.nonzero(up & down)[0]
    if units is not None:
        varying = varying[np.isin(functions.unit[varying], units)]
    # the piece of a unit: knots that are passed everywhere, plus the bits of those that vary
    passed = (up & ~down).reshape(len(stage.knots), -1)
    base = passed.sum(0).astype(np.int16)
    parent = np.arange(len(mesh), dtype=INDEX)
    if len(varying) == 0:
        empty = np.zeros((len(mesh), 0), np.uint64)
        pattern = SitePattern(stage.site, "kink", base, varying, empty, parent, tol)
        pattern.note(varying, passed.reshape(-1))
        return pattern, None
    every = np.arange(len(functions))
    narrower = -(-len(varying) // 64) < signs[0].shape[1] and len(varying) < 0.75 * len(functions)
    if narrower or units is not None:  # fewer words: what follows reads fewer columns
        every, functions = varying, select(functions, varying)
        used, functions.column = np.unique(functions.column, return_inverse=True)
        flat = held.reshape(len(held), -1)
        name, mesh.live[TABLE] = TABLE, flat[:, torch.from_numpy(used)]
        signs = masks(mesh.values(name), functions)
    else:
        base[:] = 0  # every function has its bit
    first, which = by_face(mesh, signs)
    bits = np.empty((len(mesh), signs[0].shape[1]), np.uint64)
    by_rows(
        len(mesh),
        8 * bits.shape[1],
        lambda p: ks.face_bits(mesh.offsets[p.start : p.stop + 1], mesh.loops, signs[0], bits[p]),
    )
    new = sizes(first)
    if len(mesh) + new.sum() > limit.counted:
        raise Full(new)
    by_edge = _crossings(mesh, signs)
    if not memory.has_room(mesh.live, len(by_edge[1])):
        raise Full(new, memory=True)
    errors = Errors(judge, mesh, functions.unit, functions.other, bound)
    vertex, f = cut_edges(mesh, name, functions, errors, *by_edge)
    _keep(mesh, source, functions, vertex, f)
    # values that are zero have been set to it
    tie = np.empty((0, 0)), np.empty(0, np.int64)
    parent, new, pending, zeros, bits = cut_faces(
        mesh,
        name,
        functions,
        errors,
        tie,
        site,
        first,
        which,
        bits,
        limit.counted,
        stream.LARGE if units is None else np.inf,
    )
    if len(mesh) > limit.faces:
        raise Full(new)
    if pending is None:
        _keep(mesh, source, functions, *zeros)
    else:
        vertex, f = zeros[0] - len(mesh.live[source]), zeros[1]
        pending.fix(source, vertex, functions.unit[f], functions.offset[f])
    if judge.noisy(bound):
        settle(mesh, source, functions, judge, bits, pending)
    mesh.forget([TABLE])
    pattern = SitePattern(stage.site, "kink", base, functions.unit, bits, parent, tol)
    pattern.note(every, passed.reshape(-1))
    return pattern, pending


def _keep(
    mesh: Mesh, name: str, functions: Functions, vertex: np.ndarray, which: np.ndarray
) -> None:
    """Store that functions vanish at new vertices, in the kink's input and in its table."""
    store(mesh, name, vertex, which, functions.unit, functions.offset)
    if TABLE in mesh.live:
        store(mesh, TABLE, vertex, which, functions.column, functions.offset)


def settle(
    mesh: Mesh,
    name: str,
    functions: Functions,
    judge: Judge,
    bits: np.ndarray,
    pending: Pending | None,
) -> None:
    """Store zeros where a value has another sign than a face around its vertex.

    There it is zero within rounding. But what rounding leaves of a unit of 1e16 is no small number
    to the units behind it, and in a face where that unit is off they don't see it. A value that
    does not rest on such units is kept: it is that of a face on which all of them are off.
    """
    up, down = sign_room(len(mesh.xy), len(functions))
    ks.both_sides(mesh.offsets, mesh.loops, mesh.stopped, bits, up, down)
    held = mesh.live[name]
    rows = len(held)

    def found(z: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
        own = slice(first, first + len(z))
        values = z, functions.unit, functions.offset, up[own], down[own]
        pairs = np.empty((2, ks.contrary(*values, *np.empty((2, 0), np.int64))), np.int64)
        ks.contrary(*values, *pairs)
        vertex, which = pairs
        unit = functions.unit[which]
        pairs = pairs[:, ~judge.surely(mesh.xy[first + vertex], unit, z[vertex, unit])]
        return pairs[0], pairs[1]

    vertex, which = found(mesh.values(name), 0)
    store(mesh, name, vertex, which, functions.unit, functions.offset)
    if pending is None:
        return
    row, column, value = [pending.row], [pending.column], [pending.value]
    for part in pending.parts(held[0].numel()):
        made = pending.rows(mesh.live[name], part, name)
        vertex, which = found(made.reshape(len(made), -1).numpy(), rows + part.start)
        row.append(part.start + vertex)
        column.append(functions.unit[which])
        value.append(functions.offset[which])
    pending.fix(name, *map(np.concatenate, (row, column, value)))


def by_face(mesh: Mesh, signs: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """CSR by face of the functions that change sign over it; none for those that were left."""
    faces, offsets, loops = mesh.open_faces()
    words = signs[0].shape[1]
    own, functions = count_then_fill(
        ek.face_functions,
        len(faces),
        16 * words,
        lambda p: (offsets[p.start : p.stop + 1], loops, *signs),
    )
    return _spread(own, faces, len(mesh)), functions


def _crossings(mesh: Mesh, signs: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """CSR by edge of the functions that change sign along it.

    None for the fixed edges, and none where no face is still cut on either side.
    """
    free = mesh.free_edges()
    ends = mesh.ends[free]
    own, functions = count_then_fill(
        ek.edge_crossings, len(free), 8 * signs[0].shape[1], lambda p: (ends[p], *signs)
    )
    return _spread(own, free, len(mesh.ends)), functions


def _spread(first: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """CSR offsets of some rows (ascending) as those of all rows."""
    if len(rows) == count:
        return first
    found = np.zeros(count + 1, np.int64)
    found[1 + rows] = sizes(first)
    return np.cumsum(found, out=found)

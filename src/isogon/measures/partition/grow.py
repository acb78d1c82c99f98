"""Run a program over a growing mesh: affine stages transport the vertices' values, kinks cut."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from isogon.context import Progress
from isogon.cpwl.program import Kink, Max, Program
from isogon.measures.partition import edges as ek
from isogon.measures.partition import memory, stream
from isogon.measures.partition.maxima import cut_max
from isogon.measures.partition.mesh import INDEX, Functions, Mesh, cut_edges, cut_faces
from isogon.measures.partition.patterns import SitePattern
from isogon.measures.partition.stream import Pending

TABLE = "#cut"  # name of the table of cut values among the live tensors
EPS = np.finfo(np.float64).eps
ROUNDING = 32.0  # zero means: within this many eps of the largest value at the site


def tolerance(held: Tensor) -> float:
    """32 eps times the largest value of the whole site.

    Relative to a unit's own largest value it would call the noise of dead units a sign.
    """
    low, high = torch.aminmax(held) if held.numel() else (held, held)
    size = max(-float(low), float(high)) if held.numel() else 0.0
    return ROUNDING * EPS * max(size, 1e-290)


def every_function(stage: Kink, sample: torch.Size) -> Functions:
    """A cut function per unit and knot, knot by knot."""
    units = sample.numel()
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


def masks(
    z: np.ndarray, functions: Functions, tol: float, known: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sign masks of all vertices, `[V, words]` each; those of the first ones may be known."""
    words = max(1, -(-len(functions) // 64))
    start = 0 if known is None else len(known[0])
    found = np.empty((len(z), words), np.uint64), np.empty((len(z), words), np.uint64)
    if known is not None:
        found[0][:start], found[1][:start] = known
    ek.sign_masks(z, functions.column, functions.offset, tol, start, *found)
    return found


def listed(kernel, count: int, *arguments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run a count-then-fill kernel: CSR offsets and entries."""
    first = np.empty(count + 1, np.int64)
    kernel(*arguments, first, np.empty(0, np.int64))
    entries = np.empty(first[-1], np.int64)
    if len(entries):
        kernel(*arguments, first, entries)
    return first, entries


def cut_kink(
    mesh: Mesh, stage: Kink, site: int, limit: int
) -> tuple[SitePattern | None, bool, Pending | None]:
    """Cut the mesh along the knots of every unit of a kink; None: memory would not suffice."""
    name = stage.inputs[0]
    held = mesh.live[name]
    tol = tolerance(held)
    functions = every_function(stage, held.shape[1:])
    signs = masks(mesh.values(name), functions, tol, None)
    up, down = np.zeros_like(signs[0][0]), np.zeros_like(signs[0][0])
    ek.either(*signs, up, down)
    up, down = of_bits(up, len(functions)), of_bits(down, len(functions))
    varying = np.nonzero(up & down)[0]
    # the piece of a unit: knots that are passed everywhere, plus the bits of those that vary
    passed = (up & ~down).reshape(len(stage.knots), -1)
    base = passed.sum(0).astype(np.int16)
    parent = np.arange(len(mesh), dtype=INDEX)
    if len(varying) == 0:
        empty = np.zeros((len(mesh), 0), np.uint64)
        return SitePattern(stage.site, "kink", base, varying, empty, parent, tol), True, None
    if len(varying) < 0.75 * len(functions):
        functions = select(functions, varying)
        used, functions.column = np.unique(functions.column, return_inverse=True)
        flat = held.reshape(len(held), -1)
        name, mesh.live[TABLE] = TABLE, flat[:, torch.from_numpy(used)]
        signs = masks(mesh.values(name), functions, tol, None)
    else:
        base[:] = 0  # every function has its bit
    by_face = listed(ek.face_functions, len(mesh), mesh.offsets, mesh.loops, *signs)
    by_edge = listed(ek.edge_crossings, len(mesh.ends), mesh.ends, *signs)
    if not memory.fits(mesh.live, len(by_edge[1])):
        mesh.forget([TABLE])
        return None, False, None
    cut_edges(mesh, name, functions, tol, *by_edge)
    parent, complete, pending = cut_faces(
        mesh, name, functions, tol, site, *by_face, limit, stream.LARGE
    )
    signs = masks(mesh.values(name), functions, tol, signs)
    if pending is not None:
        signs = pending_masks(mesh.live[name], pending, functions, tol, signs)
    bits = np.empty((len(mesh), signs[0].shape[1]), np.uint64)
    mixed = np.empty_like(bits)
    if ek.face_bits(mesh.offsets, mesh.loops, *signs, mixed, bits) and complete:
        settle(mesh, mesh.live[name], pending, functions, mixed, bits)
    mesh.forget([TABLE])
    pattern = SitePattern(stage.site, "kink", base, functions.unit, bits, parent, tol)
    return pattern, complete, pending


def pending_masks(
    held: Tensor,
    pending: Pending,
    functions: Functions,
    tol: float,
    known: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Sign masks with those of the pending vertices appended."""
    count = len(known[0])
    shape = (count + len(pending.ratio), known[0].shape[1])
    found = np.empty(shape, np.uint64), np.empty(shape, np.uint64)
    found[0][:count], found[1][:count] = known
    for part in pending.parts(held[0].numel()):
        rows = pending.rows(held, part)
        place = slice(count + part.start, count + part.stop)
        z = rows.reshape(len(rows), -1).numpy()
        column, offset = functions.column, functions.offset
        ek.sign_masks(z, column, offset, tol, 0, found[0][place], found[1][place])
    return found


def settle(
    mesh: Mesh,
    held: Tensor,
    pending: Pending | None,
    functions: Functions,
    mixed: np.ndarray,
    bits: np.ndarray,
) -> None:
    """Where rounding left both signs on a face, the sign of the largest value counts."""
    count = len(held)
    for face, word in zip(*np.nonzero(mixed), strict=True):
        rows = []
        for v in mesh.loops[mesh.offsets[face] : mesh.offsets[face + 1]].tolist():
            n = v - count
            row = held[v] if n < 0 or pending is None else pending.rows(held, slice(n, n + 1))[0]
            rows.append(row.reshape(-1).numpy())
        z = np.stack(rows)
        for k in range(64):
            if not int(mixed[face, word]) >> k & 1:
                continue
            f = 64 * word + k
            d = z[:, functions.column[f]] - functions.offset[f]
            flag = np.uint64(1 << k)
            if d[np.abs(d).argmax()] > 0:
                bits[face, word] |= flag
            else:
                bits[face, word] &= ~flag


@torch.no_grad()
def grow(
    program: Program, start: Tensor, corners: np.ndarray, limit: int, progress: Progress
) -> tuple[Mesh, list[SitePattern], bool]:
    """Partition a polygon: `start` are the network's inputs at its corners.

    Returns the mesh, with the network's output at its vertices as the only live tensor, the
    cuts in order, and whether all were made (False: `limit` faces were reached).
    """
    mesh = Mesh.of_polygon(corners)
    mesh.live[program.input] = start
    cuts: list[SitePattern] = []
    complete = True
    chunk = program.chunk()
    total = len(program.cuts)
    i = 0
    while i < len(program.stages):
        stage, pending = program.stages[i], None
        if isinstance(stage, Kink | Max) and complete:
            progress(len(cuts), total, f"{len(mesh)} regions before {stage.site}")
            limit = min(limit, memory.most(program, i))
            if isinstance(stage, Kink):
                cut, complete, pending = cut_kink(mesh, stage, len(cuts), limit)
            else:
                cut, complete = cut_max(mesh, stage, len(cuts), limit, ROUNDING * EPS, TABLE)
            if cut is not None:
                cuts.append(cut)
        if pending is not None:
            mesh.live, i = stream.advance(program, mesh.live, pending, i)
            mesh.room = {}
            continue
        arguments = [mesh.live[name] for name in stage.inputs]
        dead = program.dead_after(i)
        plain = isinstance(stage, Kink) and stage.apply is torch.relu
        if plain and stage.inputs[0] in dead and mesh.owns(stage.inputs[0]):
            mesh.live[stage.output] = arguments[0].relu_()
        else:
            mesh.live[stage.output] = in_chunks(stage, arguments, chunk)
        mesh.forget(dead)
        i += 1
    progress(total, total, f"{len(mesh)} regions")
    return mesh, cuts, complete


def in_chunks(stage, arguments: list[Tensor], chunk: int) -> Tensor:
    """A stage on many vertices, with bounded intermediates."""
    n = len(arguments[0])
    if n <= chunk:
        return stage(*arguments)
    first = stage(*(a[:chunk] for a in arguments))
    result = torch.empty((n, *first.shape[1:]), dtype=first.dtype)
    result[:chunk] = first
    for low in range(chunk, n, chunk):
        result[low : low + chunk] = stage(*(a[low : low + chunk] for a in arguments))
    return result

"""Run a program over a growing mesh: affine stages transport the vertices' values, kinks cut."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from isogon.context import Progress
from isogon.cpwl.program import Kink, Max, Program
from isogon.measures.partition import edges as ek
from isogon.measures.partition.maxima import cut_max
from isogon.measures.partition.mesh import INDEX, Functions, Mesh, cut_edges, cut_faces
from isogon.measures.partition.patterns import SitePattern

EPS = np.finfo(np.float64).eps
ROUNDING = 32.0  # zero means: within this many eps of the largest value at the site


def tolerance(low: Tensor, high: Tensor) -> float:
    """32 eps times the largest value of the whole site.

    Relative to a unit's own largest value it would call the noise of dead units a sign.
    """
    size = float(torch.maximum(low.abs(), high.abs()).max()) if low.numel() else 0.0
    return ROUNDING * EPS * max(size, 1e-290)


def kink_functions(
    stage: Kink, flat: Tensor, sample: torch.Size
) -> tuple[Functions, np.ndarray, float]:
    """The (unit, knot) pairs with both signs at the vertices, and the pieces of the others."""
    low, high = torch.aminmax(flat, dim=0)
    tol = tolerance(low, high)
    units = flat.shape[1]
    base = torch.zeros(units, dtype=torch.int16)
    unit, offset = [], []
    for knot in stage.knots:
        level = knot.expand(sample).reshape(-1)
        base += (low - level >= -tol) & (high - level > tol)
        varying = torch.nonzero((low - level < -tol) & (high - level > tol))[:, 0]
        unit.append(varying)
        offset.append(level[varying])
    units_cut = torch.cat(unit).numpy()
    functions = Functions(
        units_cut, np.full(len(units_cut), -1), torch.cat(offset).numpy(), units_cut
    )
    return functions, base.numpy(), tol


def table(flat: Tensor, functions: Functions) -> np.ndarray:
    """The columns that the functions read, contiguous; renumbers the functions' columns."""
    used = np.unique(np.concatenate([functions.column, functions.other[functions.other >= 0]]))
    if len(used) > 0.75 * flat.shape[1]:
        return flat.numpy()
    functions.column = np.searchsorted(used, functions.column)
    functions.other = np.where(functions.other >= 0, np.searchsorted(used, functions.other), -1)
    return flat[:, torch.from_numpy(used)].numpy()


def masks(z: np.ndarray, functions: Functions, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """Sign masks of all vertices, `[V, words]` each."""
    words = max(1, -(-len(functions) // 64))
    positive, negative = (np.empty((len(z), words), np.uint64) for _ in range(2))
    ek.sign_masks(z, functions.column, functions.offset, tol, positive, negative, 0)
    return positive, negative


def listed(kernel, count: int, *arguments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run a count-then-fill kernel: CSR offsets and entries."""
    first = np.empty(count + 1, np.int64)
    kernel(*arguments, first, np.empty(0, np.int64))
    entries = np.empty(first[-1], np.int64)
    if len(entries):
        kernel(*arguments, first, entries)
    return first, entries


def cut_kink(mesh: Mesh, stage: Kink, site: int, limit: int) -> tuple[SitePattern, bool]:
    """Cut the mesh along the knots of every unit of a kink."""
    held = mesh.live[stage.inputs[0]]
    flat = held.reshape(len(held), -1)
    functions, base, tol = kink_functions(stage, flat, held.shape[1:])
    parent = np.arange(len(mesh), dtype=INDEX)
    if len(functions) == 0:
        empty = np.zeros((len(mesh), 0), np.uint64)
        return SitePattern(stage.site, "kink", base, functions.unit, empty, parent, tol), True
    z = table(flat, functions)
    signs = masks(z, functions, tol)
    by_face = listed(ek.face_functions, len(mesh), mesh.offsets, mesh.loops, *signs)
    by_edge = listed(ek.edge_crossings, len(mesh.ends), mesh.ends, *signs)
    z = cut_edges(mesh, z, functions, tol, *by_edge)
    z, parent, complete = cut_faces(mesh, z, functions, tol, site, *by_face, limit)
    signs = masks(z, functions, tol)
    bits = np.empty((len(mesh), signs[0].shape[1]), np.uint64)
    mixed = np.empty_like(bits)
    conflicts = ek.face_bits(mesh.offsets, mesh.loops, *signs, mixed, bits)
    if conflicts and complete:
        settle(mesh, z, functions, mixed, bits)
    return SitePattern(stage.site, "kink", base, functions.unit, bits, parent, tol), complete


def settle(
    mesh: Mesh, z: np.ndarray, functions: Functions, mixed: np.ndarray, bits: np.ndarray
) -> None:
    """Where rounding left both signs on a face, the sign of the largest value counts."""
    for face, word in zip(*np.nonzero(mixed), strict=True):
        around = mesh.loops[mesh.offsets[face] : mesh.offsets[face + 1]]
        for k in range(64):
            if not int(mixed[face, word]) >> k & 1:
                continue
            f = 64 * word + k
            d = z[around, functions.column[f]] - functions.offset[f]
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
    for i, stage in enumerate(program.stages):
        if isinstance(stage, Kink | Max) and complete:
            progress(len(cuts), total, f"{len(mesh)} regions before {stage.site}")
            if isinstance(stage, Kink):
                cut, complete = cut_kink(mesh, stage, len(cuts), limit)
            else:
                cut, complete = cut_max(mesh, stage, len(cuts), limit, ROUNDING * EPS)
            cuts.append(cut)
        arguments = [mesh.live[name] for name in stage.inputs]
        mesh.live[stage.output] = in_chunks(stage, arguments, chunk)
        for name in program.dead_after(i):
            del mesh.live[name]
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

"""Run a program over a growing mesh: affine stages transport the vertices' values, kinks cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isogon.context import Progress
from isogon.cpwl.bounds import Bounds
from isogon.cpwl.lower import check_outputs
from isogon.cpwl.program import Program
from isogon.cpwl.stages import Affine, Kink, Max, Product, Stage
from isogon.measures.partition.kernels.threads import each
from isogon.measures.partition.mesh import memory, stopping, stream
from isogon.measures.partition.mesh.cut_kinks import cut_kink
from isogon.measures.partition.mesh.cut_maxima import cut_max
from isogon.measures.partition.mesh.cutting import Full, Limit
from isogon.measures.partition.mesh.dissolving import straighten
from isogon.measures.partition.mesh.mesh import Mesh
from isogon.measures.partition.mesh.stream import Pending
from isogon.measures.partition.mesh.zeros import Judge, Space
from isogon.measures.partition.patterns import SitePattern
from isogon.measures.partition.slices import Slice
from isogon.measures.partition.tiles import tiles
from isogon.measures.partition.tiles.joining import joined_patterns
from isogon.measures.partition.tiles.seams import Seams

STEPS = 1000  # progress is counted in so many


@dataclass(eq=False)
class TileTask:
    """What the parts of one partition share.

    Attributes:
        space: The network, and where coordinates lie in its input space.
        limit: Most faces.
        progress: Called with what is going on.
        marks: `[m, 2]` points near which faces are cut first where there is no room for all.
        elsewhere: Faces outside the mesh that is being grown: those of other tiles.
        span: How much of the whole is done before this mesh, and after it.
        stopping: Whether there was no room for all cuts.
        tiled: Whether there were tiles.
    """

    space: Space
    limit: int
    progress: Progress
    marks: np.ndarray
    elsewhere: int = 0
    span: tuple[float, float] = (0.0, 1.0)
    stopping: bool = False
    tiled: bool = False

    @property
    def program(self) -> Program:
        """The network."""
        return self.space.program

    def report(self, share: float, mesh: Mesh, where: str) -> None:
        """Say how far this mesh is."""
        low, high = self.span
        done = round(STEPS * (low + share * (high - low)))
        self.progress(done, STEPS, f"{len(mesh) + self.elsewhere} regions {where}")


@torch.no_grad()
def grow(
    program: Program,
    plane: Slice,
    limit: int,
    progress: Progress,
    space: Space | None = None,
) -> tuple[Mesh, list[SitePattern], np.ndarray]:
    """Partition a slice; `space` is that of the slice, where its options differ from the usual.

    Returns the mesh, with the network's output at its vertices as the only live tensor, the cuts
    in order, and a bound `[C]` of what counts as zero of each output. It never has more than
    `limit` faces; those that were left before the end (`Mesh.stopped`) are the farthest from the
    slice's marks (where there are none: its middle).
    """
    corners = plane.corners
    mesh = Mesh.of_polygon(corners)
    near = plane.marks if len(plane.marks) else corners.mean(0, keepdims=True)
    task = TileTask(space or Space.of_slice(program, plane), limit, progress, near)
    start = mesh.live[program.input] = task.space.embed(corners)
    check_outputs(program, start, "the slice's corners")
    bounds = Bounds(program, start)
    with memory.spare.keeping():
        mesh, cuts = _run(task, mesh, 0, bounds)
        _settle(mesh)
    if task.tiled:
        straighten(mesh)
    task.report(1.0, mesh, "")
    return mesh, cuts, Judge(task.space, bounds, len(program.stages)).bound()


def _run(task: TileTask, mesh: Mesh, i: int, bounds: Bounds) -> tuple[Mesh, list[SitePattern]]:
    """Grow a mesh to the end.

    Args:
        task: What it is part of.
        mesh: Its live tensors are those that stage i and later ones read.
        i: Position of a stage; a cut there is yet to be made.
        bounds: Of what the tensors hold on the mesh, and of its errors.

    Returns:
        The mesh with the network's output at its vertices, the patterns from stage i on.
    """
    program = task.program
    first = i
    cuts: list[SitePattern] = []
    while i < len(program.stages):
        stage = program.stages[i]
        if isinstance(stage, Kink | Max):
            share = (i - first) / (len(program.stages) - first)
            task.report(share, mesh, f"before {stage.site}")
            if not mesh.open.any():
                rows = stream.all_rows(mesh.live, None)
                mesh.live = stream.advance(program, i, len(program.stages), len(mesh.xy), rows)
                return mesh, cuts + nothing_from(program, i, len(mesh))
            cut, pending = make_cut(task, mesh, stage, Judge(task.space, bounds, i))
            cuts.append(cut)
            count = memory.tiles(program, i, len(mesh.xy))
            if count > 1 and len(mesh) > 1 and mesh.open.any():
                return by_tiles(task, mesh, pending, i, cuts, bounds, count)
            if pending is not None:
                stop = program.next_cut(i)
                rows = stream.all_rows(mesh.live, pending)
                mesh.live = stream.advance(program, i, stop, len(mesh.xy), rows)
                mesh.room, i = {}, stop
                continue
        i = _carry(program, mesh, i)
    return mesh, cuts


def _settle(mesh: Mesh) -> None:
    """Take the outputs of a finished mesh out of memory that was made for wider tensors."""
    mesh.live = {name: held.clone() for name, held in mesh.live.items()}
    mesh.room = {}


def _carry(program: Program, mesh: Mesh, start: int) -> int:
    """Run the live tensors of a mesh through a stage and on to the next cut, whose position it is.

    A ReLU takes over the memory of what it reads where nobody else holds it.
    """
    chunk, stop = program.chunk(), program.next_cut(start)

    def visit(i: int, stage: Stage, arguments: list[Tensor]) -> Tensor:
        name = stage.inputs[0]
        plain = isinstance(stage, Kink) and stage.apply is torch.relu
        if plain and name in program.dead_after(i) and mesh.owns(name):
            return arguments[0].relu_()
        return in_chunks(stage, arguments, chunk, mesh)

    program.run(mesh.live, start, stop, visit, forget=lambda name: mesh.forget([name]))
    return stop


def make_cut(
    task: TileTask, mesh: Mesh, stage: Kink | Max, judge: Judge
) -> tuple[SitePattern, Pending | None]:
    """Cut a mesh at a site, as much of it as there is room for."""
    site = task.program.sites.index(stage.site)

    def cut(limit: Limit, units: np.ndarray | None = None) -> tuple[SitePattern, Pending | None]:
        if isinstance(stage, Kink):
            return cut_kink(mesh, stage, site, limit, judge, units)
        return cut_max(mesh, stage, site, limit, judge, units)

    first, parent = len(mesh), np.arange(len(mesh))
    room = spare = max(0, min(task.limit - task.elsewhere - first, memory.most(task.program)))
    while True:
        if task.stopping:  # the later sites want some, too
            room = 2 * spare // (len(task.program.sites) - site + 1) - len(mesh) + first
        start, before = len(mesh), mesh.snapshot()
        try:
            found, pending = cut(stopping.limit(start + room, task.stopping))
            parent = parent[found.parent]
            # fewer faces than were counted beforehand: what was left may have another turn
            left = mesh.stopped == site
            if left.any() and pending is None and len(mesh) - start > room // 50:
                mesh.stopped = np.where(left, -1, mesh.stopped)
                continue
            found.parent = parent.astype(found.parent.dtype)
            return found, pending
        except Full as full:
            mesh.restore(before)
            if not task.stopping:
                task.stopping = True
                continue
            room = 0 if full.memory else room
            order, own = stopping.asking(mesh, full.new, task.marks)
            large = order[:own][full.new[order[:own]] > room // own]
            made = None
            if len(large):
                near, spared = task.marks, room // own // 2
                made = stopping.divide(mesh, lambda *a: cut(*a)[0], stage, large[0], spared, near)
            if made is None:
                stopping.leave(mesh, site, full.new, room, order)
            else:
                parent = parent[made]


def nothing_from(program: Program, i: int, faces: int) -> list[SitePattern]:
    """Patterns of the sites from stage i on, where no face is still cut."""
    return [
        SitePattern.nothing(stage.site, "max" if isinstance(stage, Max) else "kink", faces)
        for stage in program.stages[i:]
        if isinstance(stage, Kink | Max)
    ]


def by_tiles(
    task: TileTask,
    mesh: Mesh,
    pending: Pending | None,
    i: int,
    cuts: list[SitePattern],
    bounds: Bounds,
    count: int,
) -> tuple[Mesh, list[SitePattern]]:
    """Grow a mesh tile by tile from the stage of a cut that has been made.

    All later vertices on the seams between the tiles are found first, edge by edge; a tile then
    never cuts a seam, so that the tiles fit together vertex by vertex whatever rounding does.
    The tiles nearest to the marks come first.
    """
    program = task.program
    task.tiled = True
    rows = tiles.TileRows(mesh.live, pending)
    group = tiles.assigned(mesh, count)
    stop = program.next_cut(i)
    seams = Seams.between(mesh, group)
    seams.cut(mesh, program, rows.of, i, Judge(task.space, bounds, i))
    parts = tiles.cut_out(mesh, group, seams, rows)
    parts.sort(key=lambda part: float(stopping.distance(part.mesh, task.marks).min()))
    low, high = task.span
    start = low + (high - low) * i / len(program.stages)
    outside, waiting = task.elsewhere, len(mesh)
    found: list[list[SitePattern]] = []
    for n, part in enumerate(parts):
        waiting -= len(part.mesh)
        task.elsewhere = outside + waiting
        share = (high - start) / len(parts)
        task.span = start + n * share, start + (n + 1) * share
        total = len(part.mesh.xy)
        part.mesh.live = stream.advance(program, i, stop, total, part.rows())
        part.mesh, patterns = _run(task, part.mesh, stop, bounds.copy())
        _settle(part.mesh)
        found.append(patterns)
        outside += len(part.mesh)
    task.elsewhere, task.span = outside - sum(len(part.mesh) for part in parts), (low, high)
    return tiles.joined(mesh, parts), joined_patterns(cuts, [p.faces for p in parts], found)


def in_chunks(stage: Stage, arguments: list[Tensor], chunk: int, mesh: Mesh) -> Tensor:
    """A stage on a mesh's vertices, with bounded intermediates, and with room for more vertices."""
    n = arguments[0].shape[0]
    if n <= chunk:
        return stage(*arguments)
    first = stage(*(a[:chunk] for a in arguments))
    room = mesh.room[stage.output] = memory.spare.room(n, first.shape[1:], more=4.0)
    result = room[:n]
    result[:chunk] = first

    layer = stage.apply if isinstance(stage, Affine) else None

    def run(low: int) -> None:
        part = slice(low, low + chunk)
        if not (isinstance(layer, Product) and layer.into(arguments[0][part], result[part])):
            result[part] = stage(*(a[part] for a in arguments))

    each(run, range(chunk, n, chunk))
    return result

"""What the flip of one unit does to everything behind it: sparse columns of the frozen network.

Behind a unit the network is made of linear maps between cuts. With every other unit held on its
piece a unit's change runs through them as one vector, mostly zeros: a pixel reaches a few of the
next layer's. The columns of all these maps are laid out so that a compiled loop can add them:
arguments with their channels last, so that a convolution's column is a few runs of neighbours,
and equal runs (the same filter at another pixel) kept once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from isogon.cpwl.matrices import TooManyEntries, axes, matrix
from isogon.cpwl.stages import Affine, Kink, Max
from isogon.measures.boundary.frozen import Frozen, knots_of

MOST = 60_000_000  # entries of the matrices: 0.7 GB while they are made


class Suffix(NamedTuple):
    """The network behind each unit, and what tells where a unit changes its piece.

    Arguments of all cuts have one numbering of their own (`place` of each cut gives it), the
    outputs that compete come last; units are numbered cut after cut.

    Attributes:
        argument_start: `[cuts + 1]` first argument of each cut; of the outputs at the end.
        unit_start: `[cuts + 1]` first unit of each cut.
        is_max: `[cuts]` whether a cut is a maximum.
        unit_of: `[arguments]` unit of a kink's argument; -1: of a maximum.
        argument_of: `[units]` its argument; -1: of a maximum.
        value: `[arguments]` what counts as zero of a value.
        rate: `[arguments]` and of a derivative.
        slope: `[pieces, units]` slope of each piece of a kink.
        knot: `[pieces + 1, units]` the ends of the pieces, from -inf to inf.
        entry: `[units of maxima, K]` arguments that compete; -1: none.
        first_max: `[cuts]` row of `entry` of the cut's first unit.
        max_start: `[arguments + 1]` into `max_unit`: the units that each argument competes in.
        max_unit: These, as unit numbers.
        cut_of: `[units]` cut of each unit.
        column_start: `[units + 1]` into the runs.
        run_row: First argument of each run.
        run_cut: Cut of its arguments; a run has those of one cut only.
        run_size: How many.
        run_value: Where its values begin in `values`.
        values: The values of all distinct runs.
    """

    argument_start: np.ndarray
    unit_start: np.ndarray
    is_max: np.ndarray
    unit_of: np.ndarray
    argument_of: np.ndarray
    value: np.ndarray
    rate: np.ndarray
    slope: np.ndarray
    knot: np.ndarray
    entry: np.ndarray
    first_max: np.ndarray
    max_start: np.ndarray
    max_unit: np.ndarray
    cut_of: np.ndarray
    column_start: np.ndarray
    run_row: np.ndarray
    run_cut: np.ndarray
    run_size: np.ndarray
    run_value: np.ndarray
    values: np.ndarray


def suffix_of(frozen: Frozen, most: int = MOST) -> tuple[Suffix, list[np.ndarray]] | None:
    """The columns of a network, and the number of each cut's arguments, flattened as in a sample.

    None where the matrices have more than `most` entries.
    """
    cuts, program = frozen.cuts, frozen.program
    sizes = [sum(_size(program.shapes[name]) for name in cut.inputs) for cut in cuts]
    argument_start = np.cumsum([0, *sizes])
    unit_start = np.cumsum([0, *(program.units(cut) for cut in cuts)])
    place = [
        np.concatenate(_last(argument_start[k], [program.shapes[name] for name in cut.inputs]))
        for k, cut in enumerate(cuts)
    ]
    try:
        blocks = _blocks(frozen, place, int(argument_start[-1]), most)
    except TooManyEntries:
        return None
    rows = int(argument_start[-1]) + len(frozen.names)
    columns = _columns(blocks, argument_start, rows, np.diff(unit_start))
    return Suffix(*_tables(frozen, argument_start, unit_start, place), *columns), place


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _last(start: int, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """The number of each entry of some samples, with the channels last."""
    found = []
    for shape in shapes:
        size = _size(shape)
        found.append(start + np.arange(size).reshape(-1, axes(shape)[0]).T.reshape(-1))
        start += size
    return found


def _blocks(
    frozen: Frozen, place: list[np.ndarray], outputs: int, most: int
) -> list[list[sparse.coo_matrix]]:
    """For each cut the matrices from its units to all arguments and outputs behind it."""
    program = frozen.program
    held: dict[str, dict[int, sparse.csr_matrix]] = {program.input: {}}
    found: list[list[sparse.coo_matrix]] = [[] for _ in frozen.cuts]
    total, cut = 0, 0
    for i, stage in enumerate(program.stages):
        if isinstance(stage, Affine):
            shapes = [program.shapes[name] for name in stage.inputs]
            made: dict[int, sparse.csr_matrix] = {}
            for k, name in enumerate(stage.inputs):
                if not held[name]:
                    continue
                own = matrix(stage, k, shapes, most)
                for source, before in held[name].items():
                    after = own @ before
                    made[source] = made[source] + after if source in made else after
            if sum(m.nnz for m in made.values()) > most:
                raise TooManyEntries
            held[stage.output] = made
        else:
            sources = [held[name] for name in stage.inputs]
            for source in sorted({s for part in sources for s in part}):
                width = program.units(frozen.cuts[source])
                parts = [
                    part.get(source, sparse.csr_matrix((_size(program.shapes[name]), width)))
                    for part, name in zip(sources, stage.inputs, strict=True)
                ]
                own: Any = sparse.vstack(parts).tocoo()
                found[source].append(_at(own, place[cut], outputs))
                total += own.nnz
            units = program.units(stage)
            held[stage.output] = {cut: sparse.csr_matrix(sparse.identity(units))}
            cut += 1
        if total > most:
            raise TooManyEntries
        for name in program.dead_after(i):
            if name != program.output:
                del held[name]
    competing = np.arange(len(frozen.names)) if frozen.classes is None else frozen.classes.numpy()
    for source, all_of in held[program.output].items():
        rows: Any = all_of if frozen.single else all_of[competing]
        last = outputs + frozen.single + np.arange(rows.shape[0])
        found[source].append(_at(rows.tocoo(), last, outputs))
    return found


def _at(own: Any, place: np.ndarray, outputs: int) -> sparse.coo_matrix:
    """A matrix with its rows where the arguments are."""
    shape = (max(outputs, int(place.max(initial=-1)) + 1), own.shape[1])
    return sparse.coo_matrix((own.data, (place[own.row], own.col)), shape=shape)


def _columns(
    blocks: list[list[sparse.coo_matrix]], argument_start: np.ndarray, rows: int, units: np.ndarray
) -> tuple:
    """The columns of all units as runs of neighbouring rows, equal runs kept once."""
    border = np.zeros(rows + 1, bool)
    border[argument_start] = True
    starts, row, size, value, pool = [np.zeros(1, np.int64)], [], [], [], []
    count = kept = 0
    for own, width in zip(blocks, units, strict=True):
        if not own:
            starts.append(np.full(width, count))
            continue
        data = np.concatenate([b.data for b in own])
        at = np.concatenate([b.row for b in own]), np.concatenate([b.col for b in own])
        whole = sparse.csc_matrix((data, at), shape=(rows, width))
        whole.sort_indices()
        index, data = whole.indices, whole.data
        fresh = np.ones(len(index), bool)
        fresh[1:] = (np.diff(index) != 1) | border[index[1:]]
        first = whole.indptr[:-1]
        fresh[first[first < len(index)]] = True
        begin = np.flatnonzero(fresh)
        length = np.diff(np.append(begin, len(index)))
        # equal runs: by a sum of products with odd numbers, and looked at again
        inside = np.arange(len(index)) - np.repeat(begin, length)
        odd = np.random.default_rng(0).integers(-(2**62), 2**62, length.max(initial=1)) * 2 + 1
        if len(begin):
            print_ = np.add.reduceat(data.view(np.int64) * odd[inside], begin)
            _, which, same = np.unique(
                np.stack([length, print_], 1), axis=0, return_index=True, return_inverse=True
            )
            same = same.reshape(-1)
            if not np.array_equal(data, data[np.repeat(begin[which[same]], length) + inside]):
                which = same = np.arange(len(begin))
            long = length[which]
            into = np.cumsum(long) - long
            source = np.repeat(begin[which] - into, long) + np.arange(long.sum())
            pool.append(data[source])
            value.append(kept + into[same])
            kept += int(long.sum())
        row.append(index[begin])
        size.append(length)
        starts.append(count + np.searchsorted(begin, whole.indptr[1:]))
        count += len(begin)
    none: list[np.ndarray] = [np.zeros(0)]
    first_row = np.concatenate(none + row).astype(np.int64)
    return (
        np.concatenate(starts).astype(np.int64),
        first_row,
        np.searchsorted(argument_start, first_row, side="right") - 1,
        np.concatenate(none + size).astype(np.int64),
        np.concatenate(none + value).astype(np.int64),
        np.concatenate(none + pool),
    )


def _tables(
    frozen: Frozen, argument_start: np.ndarray, unit_start: np.ndarray, place: list[np.ndarray]
) -> tuple:
    cuts, program = frozen.cuts, frozen.program
    arguments, units = int(argument_start[-1]), int(unit_start[-1])
    pieces = max((c.pieces for c in cuts if isinstance(c, Kink)), default=2)
    unit_of, argument_of = np.full(arguments, -1), np.full(units, -1)
    value, rate = np.zeros(arguments), np.zeros(arguments)
    slope, knot = np.zeros((pieces, units)), np.full((pieces + 1, units), np.inf)
    knot[0] = -np.inf
    widest = max((c.index.shape[1] for c in cuts if isinstance(c, Max)), default=1)
    entries, first_max, rows = [np.zeros((0, widest), np.int64)], [], 0
    competes = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for k, cut in enumerate(cuts):
        own = slice(int(unit_start[k]), int(unit_start[k + 1]))
        count = own.stop - own.start
        first_max.append(rows)
        most, speed = (t[0].numpy() for t in (frozen.allow[k].value, frozen.allow[k].rate))
        if isinstance(cut, Kink):
            argument_of[own], unit_of[place[k]] = place[k], np.arange(own.start, own.stop)
            value[place[k]], rate[place[k]] = most, speed
            shape = program.shapes[cut.inputs[0]]
            for n, at in enumerate(knots_of(cut, count, shape)):
                knot[n + 1, own] = at.expand(count).numpy()
            for n, steep in enumerate(cut.slopes):
                slope[n, own] = steep.expand(shape).reshape(-1).numpy()
            continue
        index = cut.index.numpy()
        at = np.where(index < 0, -1, place[k][np.maximum(index, 0)])
        entries.append(np.pad(at, ((0, 0), (0, widest - at.shape[1])), constant_values=-1))
        rows += count
        unit, column = np.nonzero(at >= 0)
        competes.append((at[unit, column], unit + own.start))
        value[at[unit, column]] = most[unit, column]
        rate[at[unit, column]] = speed[unit, column]
    argument, unit = (np.concatenate(parts) for parts in zip(*competes, strict=True))
    order = np.argsort(argument, kind="stable")
    return (
        argument_start,
        unit_start,
        np.array([isinstance(c, Max) for c in cuts], bool),
        unit_of,
        argument_of,
        value,
        rate,
        slope,
        knot,
        np.concatenate(entries),
        np.array(first_max, np.int64),
        np.searchsorted(argument[order], np.arange(arguments + 1)),
        unit[order],
        np.repeat(np.arange(len(cuts)), np.diff(unit_start)),
    )

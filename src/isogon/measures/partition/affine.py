"""A program restricted to given linear pieces: values and slice gradients, region by region."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.program import Program
from isogon.cpwl.stages import Kink, Max, Stage
from isogon.measures.partition.patterns import Patterns
from isogon.measures.partition.slices import Slice


def pieces_of(patterns: Patterns, faces: np.ndarray) -> dict[str, Tensor]:
    """Site -> `[n, units]` linear pieces (kink) or winners (max) of regions."""
    rows = patterns.ancestors(faces)
    return {
        s.site: torch.from_numpy(s.rows(at).astype(np.int16))
        for s, at in zip(patterns.sites, rows, strict=True)
    }


@torch.no_grad()
def linearized(
    program: Program, x: Tensor, directions: Tensor, pieces: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Value and derivatives of the affine map that the network is on given linear pieces.

    Args:
        program: The network.
        x: `[n, *shape]`: where each map is evaluated (anywhere, also outside its region).
        directions: `[2, *shape]` directions of input space.
        pieces: Site -> `[n, units]`.

    Returns:
        Values `[n, C]` and derivatives `[2, n, C]` along the directions.
    """

    def visit(_: int, stage: Stage, held: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        v, d = [h[0] for h in held], [h[1] for h in held]
        if isinstance(stage, Kink):
            piece = pieces[stage.site].reshape(v[0].shape)
            both = torch.cat([piece, piece]).reshape(d[0].shape)
            return stage.on_piece(v[0], piece), d[0] * stage.slope(both)
        if isinstance(stage, Max):
            winner = pieces[stage.site]
            return stage.choose(winner, *v), stage.choose(torch.cat([winner, winner]), *d)
        return stage(*v), stage.linear(*d)

    n, both = len(x), torch.cat([direction.expand(x.shape) for direction in directions])
    value, slope = program.run({program.input: (x, both)}, visit=visit)[program.output]
    return value.reshape(n, -1), slope.reshape(2, n, -1)


def affine_maps(
    program: Program, plane: Slice, patterns: Patterns, faces: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Output values at slice coordinates `at [n, 2]` and gradients `[n, C, 2]` of regions."""
    directions = torch.from_numpy(plane.basis.T.copy()).reshape(2, *program.shape)
    step = max(1, program.chunk() // 2)
    values, slopes = [], []
    for low in range(0, len(faces), step):
        part = slice(low, low + step)
        x = plane.embed(at[part]).reshape(-1, *program.shape)
        v, d = linearized(program, x, directions, pieces_of(patterns, faces[part]))
        values.append(v.numpy())
        slopes.append(d.permute(1, 2, 0).numpy())
    if not values:
        return np.zeros((0, 1)), np.zeros((0, 1, 2))
    return np.concatenate(values), np.concatenate(slopes)


@torch.no_grad()
def held_values(program: Program, x: Tensor, pieces: dict[str, Tensor]) -> Tensor:
    """Values `[n, C]` at `x [n, *shape]` of the affine maps on given linear pieces."""

    def visit(_: int, stage: Stage, v: list[Tensor]) -> Tensor:
        if isinstance(stage, Kink):
            return stage.on_piece(v[0], pieces[stage.site].reshape(v[0].shape))
        if isinstance(stage, Max):
            return stage.choose(pieces[stage.site], *v)
        return stage(*v)

    return program.run({program.input: x}, visit=visit)[program.output].reshape(len(x), -1)


def region_values(
    program: Program, plane: Slice, patterns: Patterns, faces: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """Output values `[n, C]` of regions' affine maps at slice coordinates `at [n, 2]`.

    A region that is asked for several times is linearised once, at its first point; where few
    are, the maps are evaluated at the points, which costs a third of finding their slopes.
    """
    regions, first, which = np.unique(faces, return_index=True, return_inverse=True)
    if 0 < len(faces) <= 3 * len(regions):
        step = max(1, program.chunk())
        values = []
        for low in range(0, len(faces), step):
            part = slice(low, low + step)
            x = plane.embed(at[part]).reshape(-1, *program.shape)
            values.append(held_values(program, x, pieces_of(patterns, faces[part])))
        return torch.cat(values).numpy()
    value, slope = affine_maps(program, plane, patterns, regions, at[first])
    moved = at - at[first][which]
    return value[which] + np.einsum("nci,ni->nc", slope[which], moved)

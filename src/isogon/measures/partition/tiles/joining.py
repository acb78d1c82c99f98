"""Joining the patterns of tiles: one pattern per site for the faces of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from isogon.measures.partition.patterns import SitePattern

ROWS = 1 << 26  # bytes of flags that are unpacked at a time


def joined_patterns(
    before: list[SitePattern], faces: list[np.ndarray], found: list[list[SitePattern]]
) -> list[SitePattern]:
    """The patterns of the joined mesh: those before the tiles, then those of all tiles.

    Args:
        before: Patterns of the whole, up to the moment it was divided.
        faces: Numbers of each tile's faces at that moment, in the order of the joined mesh.
        found: The patterns of each tile since then.
    """
    known = [*before[:-1], taken(before[-1], np.concatenate(faces))]
    sizes = [len(own) for own in faces]
    for level in zip(*found, strict=True):
        known.append(_merged(level, np.cumsum([0, *sizes[:-1]])))
        sizes = [len(pattern.parent) for pattern in level]
    return known


def taken(pattern: SitePattern, faces: np.ndarray) -> SitePattern:
    """The pattern of given faces, in their order."""
    return replace(pattern, bits=pattern.bits[faces], parent=pattern.parent[faces])


def _merged(level: Sequence[SitePattern], start: np.ndarray) -> SitePattern:
    """One site's patterns of all tiles; `start`: number of each tile's first parent."""
    parent = np.concatenate([p.parent + s for p, s in zip(level, start, strict=True)])
    said = next((p for p in level if not p.void), None)
    if said is None:
        pattern = SitePattern.nothing(level[0].site, level[0].kind, len(parent))
    else:
        join = maxima if said.kind == "max" else kinks
        pattern = join([like(p, said) if p.void else p for p in level])
    pattern.parent = parent.astype(level[0].parent.dtype)
    pattern.tol = max(p.tol for p in level)
    return pattern


def like(pattern: SitePattern, other: SitePattern) -> SitePattern:
    """A pattern that says nothing, with what is the same everywhere taken from another one."""
    nothing = np.zeros(0, np.int64)
    return replace(pattern, base=other.base, passed=other.passed, function=nothing, void=False)


def kinks(level: Sequence[SitePattern]) -> SitePattern:
    """A function has its bit where it varies in a tile, or differs between tiles."""
    passed = np.stack([known(p.passed) for p in level])
    differ = np.flatnonzero(passed.any(0) & ~passed.all(0))
    function = np.unique(np.concatenate([differ, *(known(p.function) for p in level)]))
    units = len(level[0].base)
    fixed = passed[0].copy()
    fixed[function] = False
    words = -(-len(function) // 64)
    bits = np.empty((sum(len(p.bits) for p in level), words), np.uint64)
    at = 0
    for pattern, always in zip(level, passed, strict=True):
        own = known(pattern.function)
        count = len(pattern.bits)
        if np.array_equal(own, function):
            bits[at : at + count] = pattern.bits
        else:
            step = max(1, ROWS // (64 * words + 1))
            for low in range(0, count, step):
                high = min(low + step, count)
                flags = np.zeros((high - low, 64 * words), bool)
                flags[:, : len(function)] = always[function]
                flags[:, np.searchsorted(function, own)] = pattern.flags(np.arange(low, high))
                packed = np.packbits(flags, axis=1, bitorder="little")
                bits[at + low : at + high] = packed.view(np.uint64)
        at += count
    base = fixed.reshape(-1, units).sum(0).astype(np.int16)
    result = replace(level[0], base=base, unit=function % units, bits=bits)
    result.note(function, fixed)
    return result


def maxima(level: Sequence[SitePattern]) -> SitePattern:
    """A group has its word where it varies in a tile, or has other winners in another tile."""
    base = np.stack([p.base for p in level])
    varying = (base != base[0]).any(0)
    for pattern in level:
        varying[pattern.unit] = True
    unit = np.flatnonzero(varying)
    parts = []
    for pattern in level:
        words = np.repeat(pattern.base[unit][None], len(pattern.bits), 0)
        words[:, np.searchsorted(unit, pattern.unit)] = pattern.bits
        parts.append(words)
    return replace(level[0], base=base[0], unit=unit, bits=np.concatenate(parts))


def known(array: np.ndarray | None) -> np.ndarray:
    """What a pattern notes while growing."""
    return np.zeros(0, np.int64) if array is None else array

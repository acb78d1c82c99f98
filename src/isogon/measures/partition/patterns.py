"""Activation patterns of the regions, stored once per site for the faces of that moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(eq=False)
class SitePattern:
    """The pattern at one site.

    A face after site s came from one face after site s - 1 (`parent`); a region's pattern at
    site s is that of its ancestor. Only what varies over the slice is stored per face.

    Attributes:
        site: Name.
        kind: "kink" or "max".
        base: `[units]`: kink: number of knots that are passed everywhere; max: mask of the
            entries that are largest everywhere.
        unit: `[f]` unit of each varying function (kink) or group (max).
        bits: `[F, words]`: kink: bit f is set where function f is positive; max: word f is the
            mask of the entries that are largest in group f.
        parent: `[F]` face before the site.
        tol: Values up to this size counted as zero.
        function: While growing: `[f]` number of each varying function among all of the site
            (kink: knot by knot).
        passed: While growing, kink: which of all functions are positive everywhere, `[all]`.
    """

    site: str
    kind: str
    base: np.ndarray
    unit: np.ndarray
    bits: np.ndarray
    parent: np.ndarray
    tol: float
    function: np.ndarray | None = None
    passed: np.ndarray | None = None

    def note(self, function: np.ndarray, passed: np.ndarray) -> None:
        """Keep what is needed to join this pattern with that of another part of the slice."""
        self.function, self.passed = function, passed

    def rows(self, faces: np.ndarray) -> np.ndarray:
        """The pattern of given faces (of this moment), `[n, units]`.

        Kink: index of the linear piece. Max: lowest position among the largest entries.
        """
        found = np.repeat(self.base[None], len(faces), 0)
        if self.kind == "max":
            if len(self.unit):
                found[:, self.unit] = self.bits[faces]
            return lowest(found)
        if len(self.unit):
            on = self.flags(faces)
            # functions come knot by knot; within a knot every unit comes once
            starts = np.flatnonzero(np.diff(self.unit) <= 0) + 1
            for part in np.split(np.arange(len(self.unit)), starts):
                found[:, self.unit[part]] += on[:, part]
        return found

    def flags(self, faces: np.ndarray) -> np.ndarray:
        """Bits of the varying functions as booleans, `[n, f]` (kink)."""
        raw = np.ascontiguousarray(self.bits[faces]).view(np.uint8)
        return np.unpackbits(raw, axis=1, bitorder="little")[:, : len(self.unit)].astype(bool)


def lowest(masks: np.ndarray) -> np.ndarray:
    """Position of the lowest set bit of each 64-bit mask (0 for an empty one)."""
    low = masks & (~masks + np.uint64(1))
    return np.where(low > 0, np.log2(np.maximum(low, 1).astype(np.float64)), 0).astype(np.int16)


@dataclass(eq=False)
class Patterns:
    """The patterns of all regions, site by site."""

    sites: list[SitePattern]

    def ancestors(self, faces: np.ndarray) -> list[np.ndarray]:
        """The faces after each site from which given regions came."""
        found = []
        for site in reversed(self.sites):
            found.append(faces)
            faces = site.parent[faces]
        return found[::-1]

    def of(self, face: int) -> dict[str, np.ndarray]:
        """Pattern of one region: site -> `[units]`."""
        rows = self.ancestors(np.array([face]))
        return {s.site: s.rows(at)[0] for s, at in zip(self.sites, rows, strict=True)}

    def keys(self) -> np.ndarray:
        """Two 64-bit hashes of each region's pattern, `[R, 2]`; equal patterns, equal keys."""
        rng = np.random.default_rng(0)
        key = np.zeros((1, 2), np.uint64)
        with np.errstate(over="ignore"):
            for site in self.sites:
                key = key[site.parent] if len(key) else key
                odd = rng.integers(1, 2**63, (2, site.bits.shape[1] + 1), np.uint64) * 2 + 1
                for column in range(2):
                    h = key[:, column] * odd[column, -1]
                    for w in range(site.bits.shape[1]):
                        word = site.bits[:, w]
                        h = h + (word ^ (word >> np.uint64(29))) * odd[column, w]
                        h ^= h >> np.uint64(32)
                    key[:, column] = h
        return key

    def differences(self, left: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
        """Per site, the (row, unit) pairs in which regions `left[n]` and `right[n]` differ."""
        found = []
        pairs = zip(self.ancestors(left), self.ancestors(right), strict=True)
        for site, (a, b) in zip(self.sites, pairs, strict=True):
            rows = np.nonzero(a != b)[0]
            words = site.bits[a[rows]] ^ site.bits[b[rows]]
            if site.kind == "max":
                n, f = np.nonzero(words)
            else:
                raw = np.ascontiguousarray(words).view(np.uint8)
                if raw.size == 0:
                    n, f = np.zeros(0, np.int64), np.zeros(0, np.int64)
                else:
                    n, f = np.nonzero(np.unpackbits(raw, axis=1, bitorder="little"))
            found.append(np.stack([rows[n], site.unit[f]], 1))
        return found

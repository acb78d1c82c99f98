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
        void: While growing: nothing was still cut here, so that it says nothing.
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
    void: bool = False

    @classmethod
    def nothing(cls, site: str, kind: str, faces: int) -> SitePattern:
        """The pattern at a site where all faces were left before."""
        none, parent = np.zeros(0, np.int64), np.arange(faces, dtype=np.int32)
        bits = np.zeros((faces, 0), np.uint64)
        base = np.zeros(0, np.int16 if kind == "kink" else np.uint64)
        return cls(site, kind, base, none, bits, parent, 0.0, void=True)

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
    """The patterns of all regions, site by site.

    Attributes:
        sites: In order.
        depth: `[R]` how many of them, the first ones, cut each region; default: all.
    """

    sites: list[SitePattern]
    depth: np.ndarray | None = None

    def cut(self, faces: np.ndarray, site: int) -> np.ndarray:
        """Which of some regions a site cut: `[n]`."""
        if self.depth is None:
            return np.ones(len(faces), bool)
        return self.depth[faces] > site

    def ancestors(self, faces: np.ndarray) -> list[np.ndarray]:
        """The faces after each site from which given regions came."""
        found = []
        for site in reversed(self.sites):
            found.append(faces)
            faces = site.parent[faces]
        return found[::-1]

    def of(self, face: int) -> dict[str, np.ndarray]:
        """Pattern of one region: site -> `[units]`, of the sites that cut it."""
        rows = self.ancestors(np.array([face]))
        own = list(zip(self.sites, rows, strict=True))
        own = own if self.depth is None else own[: self.depth[face]]
        return {s.site: s.rows(at)[0] for s, at in own}

    def _left(self) -> list[np.ndarray]:
        """Per site, which of the faces after it were left before it."""
        found = []
        depth = np.full(0, 0) if self.depth is None else self.depth
        for number, site in reversed(list(enumerate(self.sites))):
            found.append(depth <= number)
            before = np.empty(int(site.parent.max(initial=-1)) + 1, depth.dtype)
            if len(depth):
                before[site.parent] = depth
            depth = before if len(depth) else depth
        return found[::-1]

    def keys(self) -> np.ndarray:
        """Two 64-bit hashes of each region's pattern, `[R, 2]`; equal patterns, equal keys."""
        rng = np.random.default_rng(0)
        key = np.zeros((1, 2), np.uint64)
        with np.errstate(over="ignore"):
            for site, left in zip(self.sites, self._left(), strict=True):
                key = key[site.parent] if len(key) else key
                odd = rng.integers(1, 2**63, (2, site.bits.shape[1] + 1), np.uint64) * 2 + 1
                for column in range(2):
                    h = key[:, column] * odd[column, -1]
                    for w in range(site.bits.shape[1]):
                        word = site.bits[:, w]
                        h = h + (word ^ (word >> np.uint64(29))) * odd[column, w]
                        h ^= h >> np.uint64(32)
                    key[:, column] = np.where(left, key[:, column], h) if len(left) else h
        return key

    def differences(self, left: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
        """Per site, the (row, unit) pairs in which regions `left[n]` and `right[n]` differ.

        Where both were cut by the site.
        """
        found = []
        pairs = zip(self.ancestors(left), self.ancestors(right), strict=True)
        for number, (site, (a, b)) in enumerate(zip(self.sites, pairs, strict=True)):
            rows = np.nonzero((a != b) & self.cut(left, number) & self.cut(right, number))[0]
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

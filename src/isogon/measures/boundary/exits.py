"""Where a line leaves the region of its pieces: the first unit, class or border that is met."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isogon.cpwl.magnitudes import EPS
from isogon.cpwl.stages import Kink
from isogon.measures.boundary.frozen import MARGIN, Frozen, Pieces, Seen, knots_of
from isogon.measures.boundary.slack import Allowance, Outputs

# what a cut sees at the start of rays, its rates along them, and what counts as zero of both
Ray = tuple[Tensor, Tensor, Allowance]
EDGE, UNIT, CLASS = 0, 1, 2  # what is met
NOTHING = np.array([-1, -1, -1])
FAR = 1e-6  # of the slice's extent: a trace that is so far beside its line is lost
WIDE = 1e-3  # ... where a unit tells the place on it
SLANT = 0.05  # sine of the angle at which two lines tell a point


@dataclass(eq=False)
class Exit:
    """The ends of rays, one per row.

    Attributes:
        s: `[n]` distances.
        kind: `[n]` what is met.
        which: `[n, 3]` cut, unit and the piece that it changes to; edge of the slice's polygon,
            -1, -1; or class, -1, -1.
    """

    s: np.ndarray
    kind: np.ndarray
    which: np.ndarray


@dataclass(eq=False)
class Line:
    """Where two classes are equal in the regions of rows.

    Attributes:
        delta: `[n, 2]` from the rows' points onto the line (0: flat or lost) ...
        t: `[n, 2]` ... and along it, the first class on the left.
        flat: `[n]` whether the two are equal all over the region, or nowhere.
        lost: `[n]` whether a point is far beside the line.
        off: `[n]` how far it is beside it, in parts of the extent.
        sharp: `[n]` whether the line is entered where the unit vanishes by which rows came.
    """

    delta: np.ndarray
    t: np.ndarray
    flat: np.ndarray
    lost: np.ndarray
    off: np.ndarray
    sharp: np.ndarray


class Regions:
    """The tests of rows against the borders of their regions.

    Args:
        frozen: The network on its slice.
    """

    def __init__(self, frozen: Frozen) -> None:
        self.frozen = frozen
        self.zero = torch.cat([frozen.zero.rate, frozen.zero.value]).numpy()
        rng = np.random.default_rng(0)
        counts = [frozen.program.units(stage) for stage in frozen.cuts]
        self.odd = [
            torch.from_numpy(rng.integers(-(2**62), 2**62, (2, units)) * 2 + 1) for units in counts
        ]
        self.lower: list[Tensor | None] = []
        self.upper: list[Tensor | None] = []
        for stage in frozen.cuts:
            if not isinstance(stage, Kink):
                self.lower.append(None)
                self.upper.append(None)
                continue
            shape = frozen.program.shapes[stage.inputs[0]]
            units = frozen.program.units(stage)
            knots = [k.expand(units) for k in knots_of(stage, units, shape)]
            end = torch.full((units,), torch.inf, dtype=torch.float64)
            self.lower.append(torch.stack([-end, *knots]))
            self.upper.append(torch.stack([*knots, end]))
        corners = frozen.plane.corners
        along = np.roll(corners, -1, 0) - corners
        inward = np.stack([-along[:, 1], along[:, 0]], 1)
        self.inward = inward / np.linalg.norm(inward, axis=1, keepdims=True)
        self.offset = (self.inward * corners).sum(1)

    def onto(
        self,
        values: Outputs,
        pair: np.ndarray,
        seen: list[Seen],
        pieces: Pieces,
        banned: np.ndarray,
        extent: float,
    ) -> Line:
        """The lines on which rows go on (arguments as those of `first`)."""
        rows, (i, j) = np.arange(len(pair)), pair.T
        gap = values.value[rows, i] - values.value[rows, j]
        g = (values.slope[:, rows, i] - values.slope[:, rows, j]).T
        steep = np.linalg.norm(g, axis=1)
        flat = ~(steep > values.rate[rows, i] + values.rate[rows, j])
        unit = g / np.where(flat, 1.0, steep)[:, None]
        with np.errstate(invalid="ignore"):
            delta = -(gap / np.where(flat, 1.0, steep))[:, None] * unit
        off, sharp = np.abs(delta).max(1) / extent, np.zeros(len(rows), bool)
        if self.frozen.noisy:
            # Behind a unit that is huge the line runs so close to its own that rounding hides where
            # they meet. Seen from the other side, where it is off, they do so at an angle.
            for r in np.flatnonzero((banned[:, 0] >= 0) & ~flat & (off > EPS)):
                at = self._meeting(int(r), gap[r], g[r], seen, pieces, banned[r])
                if at is not None and np.abs(at).max() <= WIDE * extent:
                    delta[r], off[r], sharp[r] = at, 0.0, True
        lost = ~(off <= FAR) & ~flat
        delta[flat | lost] = 0.0
        t = np.stack([unit[:, 1], -unit[:, 0]], 1)
        return Line(delta, t, flat, lost, off, sharp)

    def _meeting(
        self, r: int, gap: float, g: np.ndarray, seen: list[Seen], pieces: Pieces, back: np.ndarray
    ) -> np.ndarray | None:
        """`[2]` from a row's point to where its line meets that of the unit by which it came."""
        cut, unit, before = back.tolist()
        own, now, lower = seen[cut], int(pieces[cut][r, unit]), self.lower[cut]
        if lower is not None:
            z = float(own.z[r, unit] - lower[max(now, before), unit])
            d = own.d[:, r, unit].numpy()
        else:
            z = float(own.z[r, unit, now] - own.z[r, unit, before])
            d = (own.d[:, r, unit, now] - own.d[:, r, unit, before]).numpy()
        across = g[0] * d[1] - g[1] * d[0]
        if not abs(across) > SLANT * np.linalg.norm(g) * np.linalg.norm(d):
            return None
        return np.array([g[1] * z - d[1] * gap, d[0] * gap - g[0] * z]) / across

    def keys(self, pieces: Pieces, n: int) -> np.ndarray:
        """`[n, 2]` the 128-bit keys of regions: sums of odd numbers times pieces."""
        total = torch.zeros((n, 2), dtype=torch.int64)
        for piece, odd in zip(pieces, self.odd, strict=True):
            wide = piece.to(torch.int64)
            total[:, 0] += (wide * odd[0]).sum(1)
            total[:, 1] += (wide * odd[1]).sum(1)
        return total.numpy()

    def settle(self, seen: list[Seen], pieces: Pieces, rays: list[Ray]) -> np.ndarray:
        """Give units that are at a knot all along the line their lower piece, in place.

        Of equal entries of a maximum the first one wins.

        Args:
            seen: What the cuts see.
            pieces: Of the rows; changed where a unit and its derivatives are zero: the map
                stays the same.
            rays: The lines, as the cuts see them.

        Returns:
            `[n]` whether the line runs along the border of its region: a unit is zero along it,
            but not beside it.
        """
        along = np.zeros(len(seen[0].z) if seen else 0, bool)
        for cut, (own, piece) in enumerate(zip(seen, pieces, strict=True)):
            z, rate, zero = rays[cut]
            if own.z.ndim == 2:
                still = rate.abs() <= zero.rate
                if not still.any():
                    continue
                row, unit = still.nonzero(as_tuple=True)
                at, here = z[row, unit], piece[row, unit]
                lower, upper = self.lower[cut], self.upper[cut]
                assert lower is not None
                assert upper is not None
                slack, give = zero.of(row, unit)
                low = (at - lower[here.long(), unit]).abs() <= slack
                high = (at - upper[here.long(), unit]).abs() <= slack
                flat = (own.d[:, row, unit].abs() <= give).all(0)
                change = low & flat
                piece[row[change], unit[change]] = here[change] - 1
                edge = (low | high) & ~flat
            else:
                won = piece[..., None].long()
                best = z.gather(2, won)
                slack = zero.value + zero.value.expand_as(z).gather(2, won)
                give = zero.rate + zero.rate.expand_as(z).gather(2, won)
                near = (best - z <= slack) & ((rate - rate.gather(2, won)).abs() <= give)
                index = torch.arange(z.shape[2])
                near &= index != won
                if not near.any():
                    continue
                gap = own.d - own.d.gather(3, won.expand(2, *won.shape))
                flat = near & (gap.abs() <= give).all(0)
                first = torch.where(flat, index, z.shape[2]).amin(-1)
                piece.copy_(torch.minimum(piece, first.to(piece.dtype)))
                row = (near & ~flat).any(-1).nonzero(as_tuple=True)[0]
                edge = torch.ones(len(row), dtype=torch.bool)
            along[row[edge].numpy()] = True
        return along

    def edge_of(self, start: np.ndarray, end: np.ndarray, size: float) -> np.ndarray:
        """`[n]` edge of the slice's border along which a piece runs; -1: none, or no length.

        There is no other side, so that classes that are equal there don't change.
        """
        far = [np.abs(p @ self.inward.T - self.offset) <= size for p in (start, end)]
        both = far[0] & far[1] & (np.abs(end - start).max(1) > size)[:, None]
        return np.where(both.any(1), both.argmax(1), -1)

    def outside(self, seen: list[Seen], pieces: Pieces, delta: np.ndarray) -> np.ndarray:
        """`[n]` whether rows start outside the regions of their pieces, by more than rounding."""
        found = np.zeros(len(delta), bool)
        for cut, (own, piece) in enumerate(zip(seen, pieces, strict=True)):
            z, _, zero = moved(own, delta, delta)
            lower, upper = self.lower[cut], self.upper[cut]
            if lower is not None and upper is not None:
                here = piece.long()
                slack = MARGIN * zero.value
                beyond = (z < lower.gather(0, here) - slack) | (z > upper.gather(0, here) + slack)
            else:
                won = piece[..., None].long()
                slack = zero.value + zero.value.expand_as(z).gather(2, won)
                beyond = (z > z.gather(2, won) + MARGIN * slack).any(-1)
            found |= beyond.any(-1).numpy()
        return found

    def rivals(
        self,
        values: Outputs,
        delta: np.ndarray,
        t: np.ndarray,
        pair: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """`[n]` whether a third class is larger where a ray starts; whether one is tied all along.

        The arguments are those of `first`.
        """
        rows, slack, own = np.arange(len(pair)), values.slack, values.known(pair)
        with np.errstate(invalid="ignore"):
            value = values.value + delta[:, :1] * values.slope[0] + delta[:, 1:] * values.slope[1]
            rate = t[:, :1] * values.slope[0] + t[:, 1:] * values.slope[1]
            ahead = value - value[rows, own][:, None]
            speed = np.abs(rate - rate[rows, own][:, None])
        tied = np.abs(ahead) <= MARGIN * (slack + slack[rows, own][:, None])
        tied &= speed <= values.rate + values.rate[rows, own][:, None]
        tied[rows[:, None], pair] = False
        ahead[rows[:, None], pair] = -np.inf
        return (ahead - slack).max(1) > 2 * slack[rows, own], tied.any(1)

    def first(
        self,
        rays: list[Ray],
        pieces: Pieces,
        values: Outputs,
        start: tuple[np.ndarray, np.ndarray, np.ndarray],
        pair: np.ndarray,
        banned: np.ndarray,
    ) -> Exit:
        """The first exit of each row; a unit counts only where its own side is being left.

        Args:
            rays: What the cuts see along the rays.
            pieces: Of the rows.
            values: What competes at `p`.
            start: `p [n, 2]`, and from there the start `delta` and direction `t` of the rays.
            pair: `[n, 2]` the two classes that are equal along the ray.
            banned: `[n, 3]` a change (`Exit.which`) that is not made: the one just made, back;
                a class is told by (-2, class, -1).
        """
        p, delta, t = start
        n = len(p)
        rows = np.arange(n)
        # the slice's border
        q = p + delta
        speed = -(t @ self.inward.T)
        gap = np.maximum(q @ self.inward.T - self.offset, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            s = np.where(speed > 1e-14, gap / speed, np.inf)
        k = s.argmin(1)
        found = Exit(s[rows, k], np.full(n, EDGE), np.stack([k, *np.full((2, n), -1)], 1))
        # another class
        value, slope = values.value, values.slope
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            value = value + delta[:, :1] * slope[0] + delta[:, 1:] * slope[1]
            rate = t[:, :1] * slope[0] + t[:, 1:] * slope[1]
            own = values.known(pair)
            speed = rate - rate[rows, own][:, None]
            gap = np.maximum(value[rows, own][:, None] - value, 0.0)
            least = values.rate + values.rate[rows, own][:, None]
            s = np.where(speed > least, gap / speed, np.inf)
        s[rows[:, None], pair] = np.inf
        no = banned[:, 0] == -2
        s[rows[no], banned[no, 1]] = np.inf
        k = s.argmin(1)
        _closer(found, s[rows, k], CLASS, k, np.full(n, -1), np.full(n, -1))
        for cut, ray in enumerate(rays):
            own = self._kink if ray[0].ndim == 2 else self._max
            s, unit, to = own(cut, ray, pieces[cut], banned)
            _closer(found, s, UNIT, np.full(n, cut), unit, to)
        return found

    def _kink(self, cut: int, ray: Ray, piece: Tensor, banned: np.ndarray):
        z, rate, zero = ray
        lower, upper = self.lower[cut], self.upper[cut]
        assert lower is not None
        assert upper is not None
        up = rate > 0
        if len(lower) == 2:  # one knot: on the lower piece it is above, on the upper one below
            leaving = (piece > 0) != up
            gap = lower[1] - z
        else:
            below, above = lower.gather(0, piece.long()), upper.gather(0, piece.long())
            leaving = torch.ones((), dtype=torch.bool)
            gap = torch.where(up, above, below) - z
        leaving = leaving & (rate.abs() > zero.rate)
        s = gap.div_(rate).clamp_(min=0.0).masked_fill_(leaving.logical_not_(), torch.inf)
        no = np.flatnonzero(banned[:, 0] == cut)
        if len(no):
            unit = torch.from_numpy(banned[no, 1])
            to = piece[no, unit] + torch.where(up[no, unit], 1, -1)
            back = to == torch.from_numpy(banned[no, 2])
            s[torch.from_numpy(no)[back], unit[back]] = torch.inf
        best, unit = s.min(1)
        one = torch.arange(len(s))
        to = piece[one, unit] + torch.where(up[one, unit], 1, -1)
        return best.numpy(), unit.numpy(), to.numpy()

    def _max(self, cut: int, ray: Ray, piece: Tensor, banned: np.ndarray):
        z, rate, zero = ray
        won = piece[..., None].long()
        speed = rate - rate.gather(2, won)
        gap = z.gather(2, won) - z
        leaving = speed > zero.rate + zero.rate.expand_as(z).gather(2, won)
        s = (gap.clamp_(min=0.0) / speed).masked_fill_(~leaving, torch.inf)
        no = np.flatnonzero(banned[:, 0] == cut)
        s[no, banned[no, 1], banned[no, 2]] = torch.inf
        best, k = s.flatten(1).min(1)
        return best.numpy(), (k // z.shape[2]).numpy(), (k % z.shape[2]).numpy()


def moved(own: Seen, t: np.ndarray, delta: np.ndarray) -> Ray:
    """What a cut sees at the start of the rays, its rate along them, what counts as zero."""
    shape = (len(t), *[1] * (own.z.ndim - 1))
    a, b = (torch.from_numpy(np.ascontiguousarray(c)).reshape(shape) for c in delta.T)
    z = torch.addcmul(torch.addcmul(own.z, a, own.d[0]), b, own.d[1])
    a, b = (torch.from_numpy(np.ascontiguousarray(c)).reshape(shape) for c in t.T)
    return z, (a * own.d[0]).addcmul_(b, own.d[1]), own.zero


def _closer(found: Exit, s: np.ndarray, kind: int, *which: np.ndarray) -> None:
    """Put those exits in place of the ones found before that are nearer."""
    nearer = s < found.s
    found.s[nearer], found.kind[nearer] = s[nearer], kind
    found.which[nearer] = np.stack(which, 1)[nearer]

"""The pieces of a boundary that were traced so far, how they hang together, and their curves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

OPEN, BORDER, TRIPLE, TIED, TOUCH, STUCK = range(6)  # how a piece ends where no other follows
Region = tuple[int, int, int, int]  # two halves of a key, and two classes, ascending
End = tuple[int, int]  # piece, and which of its ends: 0 or 1


@dataclass(eq=False)
class Strokes:
    """Straight pieces of the boundary, one per region and pair of classes.

    Attributes:
        ends: Per piece x, y of its start and of its end.
        pairs: Class on its left and class on its right.
        links: End of a piece -> the end of the piece that follows there.
        stops: End of a piece -> why none follows, and where it is the slice's border, which
            edge of it.
        known: Region and classes -> piece.
        length: Of all pieces.
        gone: Pieces that lie in one point, around which the others follow each other.
    """

    ends: list[tuple[float, float, float, float]] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    links: dict[End, End] = field(default_factory=dict)
    stops: dict[End, tuple[int, int]] = field(default_factory=dict)
    known: dict[Region, int] = field(default_factory=dict)
    length: float = 0.0
    gone: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.ends)

    def add(self, key: Region, ends: list[float], left: int, right: int) -> int:
        """Keep a piece with its ends (x, y, x, y); returns its number."""
        self.known[key] = len(self.ends)
        self.ends.append((ends[0], ends[1], ends[2], ends[3]))
        self.pairs.append((left, right))
        self.length += math.hypot(ends[2] - ends[0], ends[3] - ends[1])
        return len(self.ends) - 1

    def place(self, end: End) -> np.ndarray:
        """`[2]` where an end lies."""
        piece, side = end
        return np.array(self.ends[piece][2 * side : 2 * side + 2])

    def move(self, end: End, to: np.ndarray) -> None:
        """Let an end lie elsewhere."""
        piece, side = end
        ends = list(self.ends[piece])
        ends[2 * side : 2 * side + 2] = to.tolist()
        self.ends[piece] = (ends[0], ends[1], ends[2], ends[3])

    def link(self, a: End, b: End) -> bool:
        """Let the piece of one end go on at the other; False where one goes on elsewhere."""
        if self.links.get(a, b) != b or self.links.get(b, a) != a:
            return False
        self.links[a], self.links[b] = b, a
        return True

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """`[B, 2, 2]` ends of all pieces, `[B, 2]` classes on their left and right."""
        ends = np.array(self.ends, np.float64).reshape(-1, 2, 2)
        return ends, np.array(self.pairs, np.int64).reshape(-1, 2)

    def stop_of(self, end: End) -> int:
        """Why no piece follows at an end."""
        return self.stops.get(end, (OPEN, -1))[0]

    def left(self) -> int:
        """How many ends nothing follows, for no reason: what is missing there is not known."""
        ends = ((k, e) for k in range(len(self.ends)) if k not in self.gone for e in (0, 1))
        good = (BORDER, TRIPLE)
        return sum(end not in self.links and self.stop_of(end) not in good for end in ends)

    def joint(self) -> float:
        """Largest distance between two ends that are linked."""
        if not self.links:
            return 0.0
        ends = np.array(self.ends).reshape(-1, 2, 2)
        a, b = np.array(list(self.links)), np.array(list(self.links.values()))
        gap = ends[a[:, 0], a[:, 1]] - ends[b[:, 0], b[:, 1]]
        return float(np.linalg.norm(gap, axis=1).max())

    def borders(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ends on the slice's border: piece, which of its ends, edge of the polygon."""
        found = [(k, e, edge) for (k, e), (why, edge) in self.stops.items() if why == BORDER]
        piece, which, edge = np.array(found, np.int64).reshape(-1, 3).T
        return piece, which, edge

    def chains(self) -> list[tuple[list[int], list[bool], bool]]:
        """Curves: their pieces in order, whether each is passed from start to end, closed.

        A curve goes on as long as its two classes meet: to the border, to a point where a third
        class comes in, or back to its start. The first class of a piece passed from start to
        end is on the left.
        """
        seen = np.zeros(len(self.ends), bool)
        seen[list(self.gone)] = True
        found = []
        for first in range(len(self.ends)):
            if seen[first]:
                continue
            # back to where the curve starts, or once around it
            piece, entered, closed, steps = first, 0, False, 0
            while (before := self.links.get((piece, entered))) is not None:
                closed = before == (first, 1)
                steps += 1
                if closed or steps > len(self.ends):
                    piece, entered = first, 0
                    break
                piece, entered = before[0], 1 - before[1]
            order: list[int] = []
            ahead: list[bool] = []
            at: int | None = piece
            while at is not None and not seen[at]:
                seen[at] = True
                order.append(at)
                ahead.append(entered == 0)
                after = self.links.get((at, 1 - entered))
                at, entered = (None, 0) if after is None else after
            if order:
                found.append((order, ahead, closed))
        return found

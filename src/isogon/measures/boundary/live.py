"""Traces that wait for their turn, those that advance together, and where all of them stop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from isogon.measures.boundary.carried import Carried
from isogon.measures.boundary.frozen import Frozen, Pieces
from isogon.measures.boundary.strokes import End

Tail = End | None


@dataclass(frozen=True)
class Limits:
    """Where tracing stops before all is found.

    Attributes:
        pieces: Most pieces.
        end: Time (`time.monotonic`) after which it stops.
    """

    pieces: float = math.inf
    end: float = math.inf

    def reached(self, pieces: int) -> bool:
        """Whether it stops with so many pieces."""
        return pieces >= self.pieces or time.monotonic() > self.end


@dataclass(eq=False)
class Start:
    """A trace that waits for its turn.

    Attributes:
        p: Where it starts.
        pair: Class on its left, class on its right.
        pieces: Those of its region; None: the network's own at `p`, and the trace goes both ways.
        banned: A change that is not made first.
        tail: End of the piece that it comes from; None: a point where three classes meet, or
            many units vanish.
    """

    p: np.ndarray
    pair: tuple[int, int]
    pieces: Pieces | None
    banned: np.ndarray
    tail: Tail


@dataclass(eq=False)
class Live:
    """The traces that advance: `n` rows of what a `Start` has one of."""

    p: np.ndarray
    pair: np.ndarray
    pieces: Pieces
    banned: np.ndarray
    tail: list[Tail]
    idle: np.ndarray
    fresh: np.ndarray
    carried: list[Carried | None]

    def __len__(self) -> int:
        return len(self.p)

    def take(self, rows: np.ndarray) -> Live:
        """Some of the rows."""
        at = torch.from_numpy(rows)
        return Live(
            self.p[rows],
            self.pair[rows],
            [x[at] for x in self.pieces],
            self.banned[rows],
            [self.tail[r] for r in rows],
            self.idle[rows],
            self.fresh[rows],
            [self.carried[r] for r in rows],
        )

    def joined(self, new: Live) -> Live:
        """These rows and others."""
        both = zip(self.pieces, new.pieces, strict=True)
        return Live(
            np.concatenate([self.p, new.p]),
            np.concatenate([self.pair, new.pair]),
            [torch.cat(parts) for parts in both],
            np.concatenate([self.banned, new.banned]),
            self.tail + new.tail,
            np.concatenate([self.idle, new.idle]),
            np.concatenate([self.fresh, new.fresh]),
            self.carried + new.carried,
        )


def started(starts: list[Start], frozen: Frozen) -> Live:
    """The rows of traces whose turn it is; those that need their pieces first."""
    fresh = [s for s in starts if s.pieces is None]
    starts = fresh + [s for s in starts if s.pieces is not None]
    rows: list[Pieces] = []
    if fresh:
        rows.append(frozen.natural(np.stack([s.p for s in fresh])))
    rows += [[x[None] for x in s.pieces] for s in starts if s.pieces is not None]
    return Live(
        np.stack([s.p for s in starts]),
        np.array([s.pair for s in starts]),
        [torch.cat(parts) for parts in zip(*rows, strict=True)],
        np.stack([s.banned for s in starts]),
        [s.tail for s in starts],
        np.zeros(len(starts), np.int64),
        np.arange(len(starts)) < len(fresh),
        [None] * len(starts),
    )

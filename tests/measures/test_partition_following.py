"""Errors that are carried from cut to cut are those that are begun anew at every cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import isogon as ig
from isogon.cpwl.lower import program_for
from isogon.cpwl.rounding import ErrorWalk
from isogon.measures.partition.mesh import following
from isogon.measures.partition.mesh.following import Following
from isogon.measures.partition.slices import Slice


class Residual(nn.Module):
    """A convolutional network with a skip and a maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.pool, self.last = nn.MaxPool2d(2), nn.Linear(27, 3)

    def forward(self, x):
        x = self.first(x).relu()
        x = x + nn.functional.hardtanh(self.second(x))
        return self.last(self.pool(x).flatten(1).relu())


torch.manual_seed(0)
X = torch.rand(3, 1, 6, 6, dtype=torch.float64)
PROGRAM, _ = program_for(Residual(), X[:2], (1, 6, 6))
PLANE = Slice.polygon(
    X[0].reshape(-1).numpy(), torch.linalg.qr((X[1:] - X[:1]).reshape(2, -1).T).Q.numpy(),
    [[-1, -1], [1, -1], [1, 1], [-1, 1]],
)  # fmt: skip
PLACES = np.random.default_rng(0).uniform(-1, 1, (9, 2))
CUTS = [i for i in range(len(PROGRAM.stages)) if PROGRAM.stages[i] in PROGRAM.cuts]
STOPS = [*CUTS, len(PROGRAM.stages)]
OPTIONS = (
    torch.full((1, 6, 6), 1e-16),
    torch.from_numpy(PLANE.basis.T.copy()).reshape(2, 1, 6, 6),
    1.0,
)


def embed(xy):
    return PLANE.embed(xy).reshape(-1, 1, 6, 6)


def anew(position, xy):
    """As `Following`, from the input."""
    carried = ErrorWalk(PROGRAM, embed(xy), *OPTIONS, meant=True)
    carried.to(position)
    return [t.numpy() for t in carried.entries()]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, len(STOPS) - 1), st.lists(st.integers(0, 8), min_size=1)),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 4),
    st.sampled_from([0, 20_000, 1 << 28]),
)
def test_it_does_not_matter_what_was_asked_before(asked, rows, held):
    """Whatever the order of cuts and places, however many go together, whatever was let go."""
    follow = Following(PROGRAM, embed, *OPTIONS)
    follow.rows, follow.most = rows, max(rows, 5)
    before, following.HELD = following.HELD, held
    try:
        for which, places in asked:
            found = follow.at(STOPS[which], PLACES[places])
            for a, b in zip(found, anew(STOPS[which], PLACES[places]), strict=True):
                assert np.allclose(a, b, rtol=1e-9, atol=1e-300)
            assert all(at <= STOPS[which] for at in follow.held)
            assert sum(carried.nbytes for _, carried in follow.held.values()) <= held
    finally:
        following.HELD = before


def test_a_place_passes_every_stage_once(monkeypatch):
    passed = np.zeros(len(PROGRAM.stages), int)
    go_on = ErrorWalk.to

    def counted(self, position, known=None):
        passed[self.position : position] += len(self)
        go_on(self, position, known)

    monkeypatch.setattr(ErrorWalk, "to", counted)
    follow = Following(PROGRAM, embed, *OPTIONS)
    for stop in STOPS:
        follow.at(stop, PLACES)
        follow.at(stop, PLACES[::-1])
    assert (passed == len(PLACES)).all()
    follow.at(STOPS[0], PLACES[:1])  # an earlier cut: anew
    assert passed.sum() == len(PLACES) * len(passed) + STOPS[0]


def test_a_place_that_was_not_asked_for_goes_on_later(monkeypatch):
    starts = []
    go_on = ErrorWalk.to
    monkeypatch.setattr(
        ErrorWalk, "to", lambda self, *a: (starts.append(self.position), go_on(self, *a))[1]
    )
    follow = Following(PROGRAM, embed, *OPTIONS)
    follow.at(STOPS[0], PLACES)
    follow.at(STOPS[1], PLACES[:1])
    starts.clear()
    found = follow.at(STOPS[2], PLACES)
    assert min(starts) == STOPS[0]
    assert np.allclose(found[1], anew(STOPS[2], PLACES)[1], rtol=1e-9)


@pytest.mark.parametrize("depth", [20])
def test_errors_cost_no_more_than_the_depth(depth, monkeypatch):
    """Segments of a deep network: places pass few stages more than there are."""
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (nn.Linear(8, 8), nn.ReLU())]
    passed = [0]
    go_on = ErrorWalk.to

    def counted(self, position, known=None):
        passed[0] += len(self) * (position - self.position)
        go_on(self, position, known)

    monkeypatch.setattr(ErrorWalk, "to", counted)
    found = ig.segments(nn.Sequential(*layers), *torch.randn(2, 8, dtype=torch.float64))
    assert passed[0] <= 2 * depth * (len(found) + 2)

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import DataError, OptionError


@pytest.fixture(scope="module")
def pooled():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.2), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(36, 12), nn.Hardtanh(), nn.Linear(12, 3),
    ).eval()  # fmt: skip


def test_segments_are_exact(pooled, generator):
    a, b = torch.randn(2, 1, 8, 8, generator=generator).double()
    s = ig.segments(pooled, 2 * a, 2 * b)
    t = np.linspace(0, 1, 4001)
    x = 2 * (a + torch.from_numpy(t)[:, None, None, None] * (b - a).double())
    out = pooled.double()(x.double()).detach().numpy()
    pooled.float()
    assert np.abs(s.at(t) - out).max() < 1e-12
    # every breakpoint is one: the slope changes there, and nowhere else
    bend = np.abs(np.diff(out, 2, axis=0)).max(1) > 1e-9
    cells = np.unique((s.breakpoints * 4000).astype(int))
    seen = set(np.flatnonzero(bend) + 1) | set(np.flatnonzero(bend))
    assert set(np.flatnonzero(bend)) <= set(cells) | set(cells - 1)
    assert len(seen) > 10
    assert len(s) == len(s.breakpoints) + 1
    assert s.table["length"].sum() == pytest.approx(float((2 * (b - a)).norm()))


def test_segments_agree_with_a_partition(pooled, generator):
    a, b, c = torch.randn(3, 1, 8, 8, generator=generator)
    p = ig.partition(pooled, ig.Slice.through(a, b, c))
    u, v = p.plane.marks[:2]
    t = np.linspace(0, 1, 100_001)[:, None]
    regions = p.locate(u + t * (v - u))
    runs = 1 + np.count_nonzero(np.diff(regions))
    pieces = ig.segments(pooled, a, b).table
    assert runs <= len(pieces) <= runs + 3  # pieces shorter than the sampling step


def test_wrong_lines(pooled):
    x = torch.zeros(1, 8, 8)
    with pytest.raises(DataError, match="two different"):
        ig.segments(pooled, x, x)


def test_local_complexity(pooled, generator):
    x = torch.randn(3, 1, 8, 8, generator=generator)
    table = ig.local_complexity(pooled, x, radius=0.5, directions=8).table
    assert list(table.columns[:3]) == ["sample", "hyperplanes", "patterns"]
    wide = ig.local_complexity(pooled, x, radius=2.0, directions=8).table
    assert (wide["hyperplanes"] > table["hyperplanes"]).all()
    assert (table["patterns"] <= 17).all()
    assert (table["hyperplanes"] == table.filter(like="@").sum(axis=1)).all()
    again = ig.local_complexity(pooled, x, radius=0.5, directions=8).table
    assert table.equals(again)
    with pytest.raises(OptionError, match="directions"):
        ig.local_complexity(pooled, x, radius=1.0, directions=65)


def test_local_complexity_counts_lines_of_one_layer():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0], [0, 1], [1, 1]]))
        model[0].bias.copy_(torch.tensor([0.1, 5.0, 0.0]))
    table = ig.local_complexity(model, torch.zeros(1, 2), radius=1.0, directions=2).table
    assert table["hyperplanes"].tolist() == [2]

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon import readings
from isogon.measures.manifold.crossings import with_regions
from isogon.survey.declaring.job import Job
from isogon.survey.running import run


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 3)).double()


def patterns(model, a, b, count=20_000):
    """Changes of the first layer's signs along a line, by dense sampling."""
    t = torch.linspace(0, 1, count, dtype=torch.float64)[:, None]
    signs = model[0](a + t * (b - a)) > 0
    return int((signs[1:] != signs[:-1]).any(1).sum())


def test_counts_are_those_of_dense_sampling(model, generator):
    start = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    path = ig.walk(model, start, toward=-start, steps=12, step=0.3, frames=40, stop=0.0)
    found = with_regions(model, path)
    assert "regions_crossed" not in path.table
    frames, walks = torch.from_numpy(path.arrays["frames"]), path.arrays["frame_walk"]
    for walk in (0, 1):
        rows = found.table[found.table["walk"] == walk]["regions_crossed"].to_numpy()
        mine = frames[walks == walk]
        slow = [patterns(model, a, b) for a, b in pairwise(mine)]
        assert rows.tolist() == [0, *slow]
        length = (mine[1:] - mine[:-1]).norm(dim=1).sum()
        rate = found.meta["summary"]["regions per unit of length"][walk]
        assert rate == pytest.approx(sum(slow) / float(length))
    assert sum(found.table["regions_crossed"]) > 10


def test_the_limit_leaves_lines_out_evenly(model, generator):
    start = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    path = ig.walk(model, start, toward=-start, steps=16, step=0.3, frames=40, stop=0.0)
    some = with_regions(model, path, limit=5)
    whole = with_regions(model, path)
    a, b = some.table["regions_crossed"], whole.table["regions_crossed"]
    assert b.notna().all()
    assert 1 < a.notna().sum() < len(a)
    assert np.array_equal(a[a.notna()], b[a.notna()])
    assert some.meta["regions"].startswith(f"on {a.notna().sum() - 1} of ")


def test_a_smooth_network_says_why_not(generator):
    torch.manual_seed(0)
    smooth = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    found = with_regions(smooth, ig.walk(smooth, torch.rand(1, 4, generator=generator), steps=3))
    assert "regions_crossed" not in found.table
    assert found.meta["regions"].startswith("not counted: ")


def test_walks_that_are_run_as_jobs_have_the_column(tmp_path):
    inputs = {"model": "mlp(width=8)", "start": "digits(test)[0]", "toward": "digits(test)[1]"}
    session = run.Session()
    record = run.run(Job("walk", inputs, {"steps": 4}, 0), out=tmp_path, session=session)
    assert record.reading.table["regions_crossed"].notna().all()
    path = readings.read(record.directory / "reading")
    assert path.equals(record.reading)
    ig.draw(path).savefig(tmp_path / "figure.png")

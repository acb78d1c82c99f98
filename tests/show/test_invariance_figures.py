"""Figures of invariance and equivariance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import OptionError
from isogon.measures.equivariance import equivariance
from isogon.measures.invariance import invariance
from isogon.show.invariance import draw_models


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 4), nn.ReLU(),
    )  # fmt: skip
    x = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return model, [(x, torch.zeros(12))]


def pixels(fig):
    fig.canvas.draw()
    return np.asarray(fig.canvas.buffer_rgba())


def test_units_and_means(case):
    reading = invariance(*case, "rotations(4)", measures=("variance", "anova"), bootstrap=5)
    fig = ig.draw(reading)
    assert pixels(fig).std() > 1
    assert len(fig.axes) == 3
    other = ig.draw(reading, column="anova_f")
    assert not np.array_equal(pixels(fig), pixels(other))
    with pytest.raises(OptionError, match="no such column"):
        ig.draw(reading, column="anova")
    one = ig.draw(invariance(*case, "rotations(4)", aggregate="site"))
    assert len(one.axes) == 1


def test_models_share_an_axis_of_depth(case):
    a = invariance(*case, "rotations(4)")
    b = invariance(*case, "rotations(4)", sites="1,6")
    fig = draw_models([a, b], ["all", "two"])
    lines = [line for line in fig.axes[0].get_lines() if len(line.get_xdata()) in (2, 3)]
    assert {tuple(np.asarray(line.get_xdata(), float)) for line in lines} >= {
        (0.0, 50.0, 100.0),
        (0.0, 100.0),
    }
    assert pixels(ig.draw(a, others=[b], names=["a", "b"])).std() > 1
    with pytest.raises(OptionError, match="one name for each"):
        draw_models([a, b], ["a"])


def test_maps(case, tmp_path):
    reading = invariance(*case, "rotations(4)", maps=1)
    kept = reading.meta["maps_kept"]
    assert [k["site"] for k in kept] == ["1", "1", "3", "3"]
    assert kept[0]["value"] <= kept[1]["value"]
    assert reading.arrays["images"].shape == (4, 1, 8, 8)
    with torch.no_grad():
        first = case[0][:2](case[1][0][0][:1])[0, kept[0]["channel"]]
    np.testing.assert_allclose(reading.arrays["maps"][0, 0], first, atol=1e-6)
    again = ig.read(reading.save(tmp_path))
    assert pixels(ig.draw(again, maps=True)).std() > 1
    with pytest.raises(OptionError, match="no feature maps were kept"):
        ig.draw(invariance(*case, "rotations(4)"), maps=True)


def test_equivariance(case):
    fig = ig.draw(equivariance(*case, "rotations(4)"))
    assert pixels(fig).std() > 1
    with pytest.raises(OptionError, match="nothing to draw"):
        ig.draw(equivariance(*case, "rotations(4)", sites="6"))


def test_stability(case):
    model, data = case
    reading = invariance(model, data, "rotations(4)", stability=True)
    curve = reading.arrays["stability"]
    assert reading.axes["stability"] == ("site", "samples")
    assert reading.coords["samples"][-1] == 12
    few = invariance(model, [(x[:4], y[:4]) for x, y in data], "rotations(4)").summary()
    at = [c for c in reading.coords["samples"] if c <= 12]
    assert curve.shape == (3, len(at))
    np.testing.assert_allclose(curve[:, -1], reading.summary()["normalized_variance"])
    if 4 in at:
        np.testing.assert_allclose(curve[:, at.index(4)], few["normalized_variance"])
    assert pixels(ig.draw(reading, stability=True)).std() > 1
    with pytest.raises(OptionError, match="no curves were kept"):
        ig.draw(invariance(model, data, "rotations(4)"), stability=True)

"""Figures of invariance and equivariance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.patches import FancyBboxPatch
from torch import nn

import isogon as ig
from isogon.errors import OptionError
from isogon.measures.orbits.equivariance import equivariance
from isogon.measures.orbits.invariance import invariance
from isogon.show.invariance import draw_models
from isogon.show.invariance_models import colours, in_order, over_models
from isogon.show.together import Panel, draw_together, has_own


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


def texts(ax):
    return [t.get_text() for t in ax.texts]


def test_graph_of_the_model(case):
    model, data = case
    reading = invariance(model, data, "rotations(4)")
    fig = ig.draw(reading, graph=model, example=data)
    means = [f"{v:.2f}" for v in reading.summary()["normalized_variance"]]
    assert texts(fig.axes[0]) == ["input", "1", means[0], "3", means[1], "6", means[2], "output"]
    boxes = [p for p in fig.axes[0].patches if isinstance(p, FancyBboxPatch)]
    assert len({tuple(p.get_facecolor()) for p in boxes}) == 3
    with pytest.raises(OptionError, match="example input"):
        ig.draw(reading, graph=model)


def test_graph_marks_sites_without_a_number(case):
    model, data = case
    reading = invariance(model, data, "rotations(4)")
    reading.table.loc[reading.table["site"] == "3", "normalized_variance"] = np.inf
    assert "–" in texts(ig.draw(reading, graph=model, example=data[0][0]).axes[0])


def test_scatter_of_two_statistics(case):
    reading = invariance(*case, "rotations(4)", measures=("variance", "anova"))
    fig = ig.draw(reading, scatter="anova_f")
    assert "TV / SV" in fig.axes[0].get_xlabel()
    both = ig.draw(reading, scatter=("anova_f", "normalized_variance"))
    assert both.axes[0].get_xlabel() == fig.axes[0].get_ylabel()
    kept = reading.table[["normalized_variance", "anova_f"]].replace(np.inf, np.nan).dropna()
    dots = sum(len(c.get_offsets()) for c in fig.axes[0].collections)
    sites = reading.table.loc[kept.index, "site"].nunique()
    assert dots == len(kept) + 2 * sites
    for wrong, said in ((("anova_f",) * 2, "different"), (("a", "b", "c"), "two"), ("f", "column")):
        with pytest.raises(OptionError, match=said):
            ig.draw(reading, scatter=wrong)


def test_seeds_are_pooled_and_tested_against_each_other(case):
    data = case[1]
    readings, names = [], []
    for seed in range(6):
        torch.manual_seed(seed)
        twin = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))
        name = "plain" if seed % 2 else "constant"
        if name == "constant":  # sees nothing of the family: its units hardly move
            nn.init.constant_(twin[0].weight, 0.1)
        names.append(name)
        readings.append(invariance(twin, data, "rotations(4)"))
    panel = Panel("", tuple(readings), tuple(names))
    rows = over_models(panel)
    assert [r["name"] for r in rows] == ["constant", "plain"]
    own = [r.summary()["normalized_variance"][0] for r in readings[1::2]]
    assert rows[1]["mean"] == pytest.approx(np.mean(own))
    assert rows[1]["sd"] == pytest.approx(np.std(own, ddof=1))
    fig = draw_models(readings, names)
    assert "means of models" in fig.get_supxlabel()
    assert len(fig.axes[0].get_lines()) == 2 * 3 + 2 + 1  # seeds, means, the line at 1


def test_panels_have_one_legend_and_one_scale(case):
    a = invariance(*case, "rotations(4)")
    b = invariance(*case, "translations(1)")
    panels = [
        Panel("r", (a, b), ("2 turns", "1 turn")),
        Panel("t", (b, a), ("2 turns", "10 turns")),
    ]
    assert has_own("invariance")
    assert not has_own("data_matrix")
    fig = draw_together(panels)
    assert pixels(fig).std() > 1
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["1 turn", "2 turns", "10 turns"]
    assert fig.axes[0].get_ylim() == fig.axes[1].get_ylim()


def test_names_with_numbers_are_ordered():
    assert in_order(["10 epochs", "2 epochs", "1 epoch"]) == ["1 epoch", "2 epochs", "10 epochs"]
    assert in_order(["relu", "elu", "tanh"]) == ["relu", "elu", "tanh"]
    assert len(set(colours(["1 epoch", "2 epochs", "10 epochs"]).values())) == 3

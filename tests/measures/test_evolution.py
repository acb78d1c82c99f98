"""The partition over snapshots: numbers, order, what is left alone, what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import isogon as ig
from isogon import readings
from isogon.errors import DataError, ModelError, OptionError
from isogon.measures.evolution.evolution import correlations, evenly
from isogon.measures.evolution.states import score

PLANE = ig.Slice.box2d((-1, -1), (1, 1))


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(),
                             nn.Linear(8, 3)).eval()  # fmt: skip


@pytest.fixture(scope="module")
def data():
    g = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(90, 2, generator=g) - 1
    return [(x[:50], net(0)(x[:50]).argmax(1)), (x[50:], net(1)(x[50:]).argmax(1))]


@pytest.fixture(scope="module")
def found(data):
    model = net(0)
    given = {str(k): net(k) for k in (3, 2, 1)}
    return ig.evolution(model, given, PLANE, train=data[:1], test=data[1:], radius=0.2, frames=3)


def test_each_row_is_the_partition_of_that_snapshot(found, data):
    table = found.to_frame()
    assert table["snapshot"].tolist() == ["3", "2", "1", "model"]
    assert found.complete
    assert "epoch" not in table
    for (_, row), seed in zip(table.iterrows(), (3, 2, 1, 0), strict=True):
        p = ig.partition(net(seed), PLANE)
        s = p.statistics(near=data[0][0], radius=0.2).set_index("regions")
        assert row["regions"] == len(p)
        assert row["boundary_length"] == s.loc["all", "boundary_length"]
        for group in ("near", "far"):
            for name in ("count", "density", "area_mean", "eccentricity_mean", "boundary_length"):
                assert row[f"{name}_{group}"] == pytest.approx(s.loc[group, name], nan_ok=True)
        for part, (x, y) in zip(("train", "test"), data, strict=True):
            z = net(seed)(x)
            assert row[f"{part}_accuracy"] == (z.argmax(1) == y).double().mean().item()
            loss = nn.functional.cross_entropy(z.double(), y).item()
            assert row[f"{part}_loss"] == pytest.approx(loss)
        assert row["gap"] == row["train_accuracy"] - row["test_accuracy"]
        assert row["loss_gap"] == row["test_loss"] - row["train_loss"]
    assert table["train_accuracy"].iloc[-1] == 1


def test_the_correlation_is_given_with_its_n(found):
    known = found.meta["correlation"]["density_near"]
    table = found.to_frame()
    expected = stats.spearmanr(table["density_near"], table["gap"]).statistic
    assert known["spearman"] == pytest.approx(expected)
    assert known["n"] == 4
    assert "not independent" in found.meta["caption"]
    summary = found.summary().set_index("statistic")
    assert summary.loc["density_near", "n"] == 4
    assert summary.loc["density_near", "correlation_with_gap"] == pytest.approx(expected)
    assert summary.loc["regions", "first"] == table["regions"].iloc[0]
    few = correlations(table.iloc[:2])
    assert few == {}  # two points always lie on a line
    assert correlations(table.assign(gap=0.1)) == {}
    assert correlations(table.assign(complete=False)) == {}


def test_frames_are_partitions_and_come_back(found, tmp_path):
    assert found.frames == [0, 2, 3]
    p = ig.partition(net(1), PLANE)
    frame = found.frame(2)
    assert np.allclose(frame["vertices"][: len(p.vertices)], p.vertices)
    assert np.array_equal(frame["edges"], p.edges)
    assert set(frame["region"]) == set(range(len(p)))
    assert np.allclose(frame["area"], p.area[frame["region"]])
    with pytest.raises(OptionError, match="one of"):
        found.frame(1)
    found.save(tmp_path)
    back = readings.read(tmp_path)
    assert back.equals(found)
    assert back.frame(3).keys() == frame.keys()


def test_the_model_is_as_it_was_also_after_a_wrong_snapshot(data):
    model = net(0).train()
    model.register_forward_hook(lambda *_: None)
    before = {k: (v, v.clone(), v.requires_grad) for k, v in model.named_parameters()}
    wrong = net(1)
    wrong[2] = nn.Linear(8, 7)
    wrong[4] = nn.Linear(7, 3)
    for given, match in (
        ({"a": net(1), "b": wrong}, "snapshot 'b' does not fit"),
        ({"a": {"0.weight": torch.zeros(8, 2)}}, "missing"),
    ):
        with pytest.raises(ModelError, match=match):
            ig.evolution(model, given, PLANE)
    bad = net(1)
    with torch.no_grad():
        bad[0].bias[3] = float("nan")
    with pytest.raises(ModelError, match=r"'a' holds NaN .*0\.bias"):
        ig.evolution(model, {"a": bad}, PLANE)
    ig.evolution(model, {"a": net(1)}, PLANE)
    assert model.training
    for k, p in model.named_parameters():
        assert p is before[k][0]
        assert torch.equal(p, before[k][1])
        assert p.requires_grad == before[k][2]


def test_the_last_snapshot_is_not_counted_twice(data):
    model = net(0)
    one = ig.evolution(model, [net(2), copy.deepcopy(model)], PLANE)
    assert one.to_frame()["snapshot"].tolist() == ["0", "1"]
    alone = ig.evolution(model, {}, PLANE, train=data[:1], test=data[1:])
    assert alone.to_frame()["snapshot"].tolist() == ["model"]
    assert "gap" in alone.to_frame()
    assert "density_near" not in one.to_frame()  # no anchors and no data: nothing is near


def test_batch_norm_statistics_belong_to_the_snapshot():
    def normed(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            m = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
            m[1].running_mean.normal_()
            return m.eval()

    table = ig.evolution(normed(0), {"1": normed(1)}, PLANE).to_frame()
    assert table["regions"].tolist() == [len(ig.partition(normed(k), PLANE)) for k in (1, 0)]


def test_anchors_are_the_data_where_the_slice_has_them():
    plane = ig.Slice.anchors(torch.zeros(2), torch.tensor([0.5, 0.0]), radius=1.0)
    found = ig.evolution(net(0), {"1": net(1)}, plane, test=[(torch.ones(4, 2), torch.zeros(4))])
    assert np.array_equal(found.marks, plane.marks)
    assert found.meta["data"] == "anchors of the slice"


def test_regression_and_one_output():
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    model.requires_grad_(False)
    x, y = torch.randn(20, 2), torch.randn(20)
    accuracy, loss = score(model, [(x, y)])
    assert np.isnan(accuracy)
    assert loss == pytest.approx(float((model(x)[:, 0] - y).double().square().mean()), rel=1e-6)
    labels = (y > 0).long()
    accuracy, loss = score(model, [(x[:7], labels[:7]), (x[7:], labels[7:].float())])
    z = model(x)[:, 0]
    assert accuracy == ((z > 0) == (labels > 0)).double().mean().item()
    expected = nn.functional.binary_cross_entropy_with_logits(z, labels.float())
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    with pytest.raises(DataError, match="not one number per sample"):
        score(model, [(x, torch.randn(20, 2))])
    with pytest.raises(DataError, match="no class of the model"):
        score(model, [(x, labels + 4)])
    with pytest.raises(DataError, match="no samples"):
        score(model, [])


def test_a_row_that_stopped_early_says_so():
    found = ig.evolution(net(0), {"1": net(1)}, PLANE, max_regions=5)
    assert not found.complete
    assert not found.to_frame()["complete"].any()


@pytest.mark.parametrize("option", [{"most": 0}, {"frames": -1}, {"max_regions": 0}])
def test_numbers_that_make_no_sense_are_refused(option):
    with pytest.raises(OptionError, match="too small"):
        ig.evolution(net(0), {"1": net(1)}, PLANE, **option)


def test_spread():
    assert evenly("abcdef", 3) == ["a", "c", "f"]
    assert evenly("ab", 5) == ["a", "b"]
    assert evenly("abc", 1) == ["c"]
    assert evenly("abc", 0) == []
    assert evenly("abc", None) == ["a", "b", "c"]


def test_a_run_with_snapshots_by_its_spec(tmp_path):
    from isogon.survey.declaring.job import Job
    from isogon.survey.running.run import run

    spec = "trained(mlp(4), two_moons, epochs=4, snapshot_every=2)"
    inputs = {"model": spec, "snapshots": spec, "plane": "box2d()", "train": "two_moons(train, 40)"}
    table = run(Job("evolution", inputs, {"frames": 0})).reading.to_frame()
    assert table["epoch"].tolist() == [2, 4]
    assert (table["step"] > 0).all()
    assert {"density_near", "train_accuracy"} <= set(table)


def test_anchors_outside_the_slice_are_no_data_in_it():
    far = torch.tensor([50.0, 0.0]), torch.tensor([-50.0, 1.0])
    table = ig.evolution(net(0), {"1": net(1)}, ig.Slice.anchors(*far, radius=1.0)).to_frame()
    assert "density" in table
    assert not [c for c in table if c.endswith(("_near", "_far"))]

"""The barrier: exact ends, none towards an image of the network itself, gaps by their words."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import ModelError, OptionError
from isogon.measures.alignment.barrier import Barrier
from isogon.measures.alignment.matching import image
from isogon.measures.alignment.symmetry.symmetries import symmetries
from isogon.nets.accuracy import accuracy


@pytest.fixture(scope="module")
def trained():
    a = ig.load("trained(cnn(width=4, batch_norm=true), digits, epochs=2)")
    b = ig.load("trained(cnn(width=4, batch_norm=true), digits, epochs=2, seed=1)")
    return a, b, ig.batches("digits(test, 150)"), ig.batches("digits(train, 200)")


@pytest.fixture(scope="module")
def reading(trained):
    a, b, test, train = trained
    return ig.barrier(a, b, test, points=5, match=True, recalibrate=train)


def test_ends_are_the_models(trained, reading):
    a, b, test, _ = trained
    for _matched, repaired, part in reading.curves():
        if repaired:
            continue
        assert part["accuracy"].iloc[0] == accuracy(a, test)
        assert part["accuracy"].iloc[-1] == pytest.approx(accuracy(b, test), abs=0.01)
    x, y = test.first(150)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(a(x), y)
    first = reading.table.iloc[0]
    assert (first["matched"], first["recalibrated"], first["t"]) == (False, False, 0.0)
    assert first["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_curves_are_of_every_kind(reading):
    kinds = [(m, r) for m, r, _ in reading.curves()]
    assert kinds == [(False, False), (False, True), (True, False), (True, True)]
    assert len(reading.table) == 20
    assert reading.table["t"].unique().tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_matching_lowers_the_barrier(reading):
    gaps = reading.summary().set_index(["matched", "recalibrated"])["loss_gap"]
    assert gaps[True, False] < gaps[False, False]
    assert gaps[True, True] < gaps[False, True]


def test_the_middle_is_the_mean_of_the_weights(trained, reading):
    a, b, test, _ = trained
    inner = copy.deepcopy(a)
    state = {k: (v + b.state_dict()[k]) / 2 if v.is_floating_point() else v
             for k, v in a.state_dict().items()}  # fmt: skip
    inner.load_state_dict(state)
    row = reading.table.query("not matched and not recalibrated and t == 0.5")
    assert float(row["accuracy"].iloc[0]) == pytest.approx(accuracy(inner, test), abs=1e-9)


def test_no_barrier_towards_an_image_of_the_model_itself(trained):
    a, _, test, _ = trained
    found = symmetries(a, test.first(2)[0])
    twin = image(a, found, found.sample(torch.Generator().manual_seed(2), scales=0.0))
    summary = ig.barrier(a, twin, test, points=3, match=True).summary().set_index("matched")
    assert summary.loc[False, "loss_midpoint"] > 0.1
    assert abs(summary.loc[True, "loss_midpoint"]) < 1e-4
    assert abs(summary.loc[True, "accuracy_midpoint"]) < 1e-9


def test_a_match_that_was_made_is_used(trained):
    a, b, test, _ = trained
    made = ig.match(a, b, batches=test)
    one = ig.barrier(a, b, test, points=3, match=made)
    two = ig.barrier(a, b, test, points=3, match=True)
    assert one.table.equals(two.table)


def test_gaps_are_from_the_straight_line_between_the_ends():
    table = pd.DataFrame({
        "matched": False, "recalibrated": False, "t": [0, 0.25, 0.5, 1.0],
        "loss": [1.0, 3.0, 2.5, 2.0], "accuracy": [0.9, 0.5, 0.6, 0.8],
    })  # fmt: skip
    row = Barrier("barrier", table).summary().iloc[0]
    assert row["loss_gap"] == pytest.approx(3.0 - 1.25)
    assert row["loss_midpoint"] == pytest.approx(1.0)
    assert row["accuracy_gap"] == pytest.approx(0.875 - 0.5)
    assert row["accuracy_midpoint"] == pytest.approx(0.25)


def test_targets_have_a_loss_alone():
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1)) for _ in range(2)]
    x = torch.randn(20, 2)
    found = ig.barrier(*nets, [(x, x.sum(1))], points=3, match=True)
    assert found.meta["loss"] == "mse"
    assert found.table["accuracy"].isna().all()
    assert np.isfinite(found.table["loss"]).all()


def test_refusals(trained):
    a, _, test, _ = trained
    with pytest.raises(ModelError, match="different architectures"):
        ig.barrier(a, ig.load("cnn(width=3, batch_norm=true, size=8)"), test)
    with pytest.raises(OptionError, match="points >= 3"):
        ig.barrier(a, a, test, points=2)


def test_figures(reading):
    (left, right) = ig.draw(reading).axes[:2]
    assert len(left.lines) == 8  # four curves, and the line between the ends of each
    assert left.get_ylabel() == "loss"
    assert right.get_ylabel() == "accuracy"
    labels = [t.get_text() for t in right.get_legend().get_texts()]
    assert labels == [
        "as trained", "as trained, recalibrated", "matched", "matched, recalibrated"
    ]  # fmt: skip


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_the_loss_is_of_logits_also_behind_a_softmax(end):
    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)) for _ in range(2))
    data = [(torch.rand(9, 5), torch.arange(9) % 3)]
    plain = ig.barrier(a, b, data, points=3).to_frame()
    ended = ig.barrier(nn.Sequential(*a, end), nn.Sequential(*b, end), data, points=3).to_frame()
    assert ended["loss"].tolist() == plain["loss"].tolist()
    assert ended["accuracy"].tolist() == plain["accuracy"].tolist()

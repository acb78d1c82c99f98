"""Labels that are no classes are refused with what was seen, everywhere that labels are read."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.data import Samples
from isogon.errors import DataError
from isogon.nets.accuracy import accuracy
from isogon.nets.labels import classes_of, reported
from isogon.training.config import FitConfig
from isogon.training.evaluation import evaluate

GOOD = torch.tensor([0, 1, 2, 2, 1, 0, 1, 2])
NAN = GOOD.float().clone()
NAN[3] = math.nan
WRONG = {
    "from 1": (GOOD + 1, "from 1 to 3", "y = y - 1"),
    "missing": (torch.where(GOOD == 2, -1, GOOD), "3 of 8 negative", "Drop the samples"),
    "too many": (GOOD + torch.tensor([0] * 7 + [5]), "from 0 to 7", "more outputs"),
    "one-hot": (nn.functional.one_hot(GOOD), "one-hot", "y.argmax(1)"),
    "float one-hot": (nn.functional.one_hot(GOOD).float(), "one-hot", "y.argmax(1)"),
    "multi-hot": (torch.tensor([[1, 1, 0]] * 8), "multi-hot", "y[:, k]"),
    "probabilities": (torch.softmax(torch.rand(8, 3), 1), "probabilities", "y.argmax(1)"),
    "NaN": (NAN, "1 of 8 values, the first at sample 3", "Drop"),
    "infinite": (NAN.nan_to_num(math.inf), "infinity", "Drop"),
    "real": (GOOD + 0.5, "real-valued", "classification"),
    "none": (torch.full((8,), math.nan), "no labels", "(x, y)"),
    "two columns": (torch.stack([GOOD, GOOD * 7], 1), "not one number per sample", "one class"),
}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(18, 5), nn.ReLU(), nn.Linear(5, 3)
    ).eval()


X = torch.rand(8, 1, 3, 3)
READERS = {
    "accuracy": lambda net, y: accuracy(net, [(X, y)]),
    "reset": lambda net, y: ig.reset(net, None, [(X, y)], random=1),
    "invariance": lambda net, y: ig.invariance(net, [(X, y)], "rotations(4)", by_class=True),
    "equivariance": lambda net, y: ig.equivariance(net, [(X, y)], "rotations(4)", by_class=True),
    "evaluate": lambda net, y: evaluate(
        net, Samples(X, y, name="data"), config=FitConfig(loss="cross_entropy")
    ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", WRONG)
def test_wrong_labels_are_refused_with_the_fix(net, reader, kind):
    y, seen, fix = WRONG[kind]
    if reader == "evaluate" and y.is_floating_point() and kind != "none":
        seen, fix = "cross-entropy needs class labels", "loss=mse"
    with pytest.raises(DataError) as caught:
        READERS[reader](net, y)
    assert seen in str(caught.value), caught.value
    assert fix in str(caught.value), caught.value


@pytest.mark.parametrize("reader", READERS)
def test_right_labels_in_any_type(net, reader):
    for y in (GOOD, GOOD.int(), GOOD.double(), GOOD[:, None], GOOD.numpy().astype(np.uint8)):
        y = torch.as_tensor(y)
        if reader == "evaluate" and y.is_floating_point():
            continue
        READERS[reader](net, y)


def test_evolution_refuses_them_too(net):
    plane = ig.Slice.through(X[0], X[1], X[2])
    for kind in ("from 1", "one-hot", "NaN", "missing"):
        with pytest.raises(DataError, match=r"label|class"):
            ig.evolution(net, {}, plane, test=[(X, WRONG[kind][0])])


def test_names_of_classes_bound_labels_by_class(net):
    ten = nn.Sequential(*net[:5], nn.Linear(5, 2)).eval()  # an encoder of two numbers
    data = ig.batches(Samples(X, GOOD, name="data", classes=["a", "b", "c"]))
    assert set(ig.invariance(ten, data, "mirrors()", by_class=True).table["class"]) == set("abc")
    with pytest.raises(DataError, match="no class of the model"):
        ig.invariance(ten, [(X, GOOD)], "mirrors()", by_class=True)


def test_one_output_tells_two_classes(net):
    one = nn.Sequential(*net[:5], nn.Linear(5, 1)).eval()
    y = (one(X)[:, 0] > 0).long()
    y[0] = 1 - y[0]
    assert accuracy(one, [(X, y)]) == 7 / 8
    assert accuracy(one, [(X, y[:, None].float())]) == 7 / 8
    found = evaluate(one, Samples(X, y, name="data"))
    assert found["accuracy"] == 7 / 8
    z = one(X)[:, 0].double()
    loss = nn.functional.binary_cross_entropy_with_logits(z, y.double())
    assert found["loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
    with pytest.raises(DataError, match=r"y = \(y > 0\)"):
        accuracy(one, [(X, 2 * y - 1)])
    with pytest.raises(DataError, match="the model has one output"):
        accuracy(one, [(X, y + 1)])


def test_maps_of_labels_for_dense_outputs():
    net = nn.Conv2d(1, 3, 1)
    y = torch.randint(0, 3, (8, 3, 3))
    found = evaluate(net, Samples(X, y, name="data"))
    assert found["accuracy"] == pytest.approx(float((net(X).argmax(1) == y).float().mean()))
    assert found["loss"] == pytest.approx(nn.functional.cross_entropy(net(X), y).item(), rel=1e-6)
    with pytest.raises(DataError, match="no class"):
        evaluate(net, Samples(X, y + 1, name="data"))


def test_numbers_of_a_regression_are_free(net):
    y = torch.randn(8, 3)
    found = evaluate(net, Samples(X, y, name="data"))
    assert found == {"loss": pytest.approx(float((net(X) - y).square().mean()), rel=1e-6)}


def test_data_matrix_reports_labels_and_needs_none(net):
    whole = ig.data_matrix(net, [(X, GOOD)]).table
    assert list(whole["label"]) == GOOD.tolist()
    for batches in (X, [X], [(X,)], [(X, None)], X.numpy()):
        table = ig.data_matrix(net, batches).table
        assert table["label"].isna().all()
        assert list(table["trace"]) == list(whole["trace"])
    for kind in ("one-hot", "NaN", "from 1", "real", "multi-hot"):
        y = WRONG[kind][0]
        table = ig.data_matrix(net, [(X, y)]).table
        assert list(table["trace"]) == list(whole["trace"])
        expected = y.tolist() if y.dim() == 1 else [math.nan] * 8
        assert np.array_equal(table["label"], expected, equal_nan=True)
    assert ig.integrability(net, X).table["label"].isna().all()
    one = nn.Sequential(nn.Flatten(), nn.Linear(9, 1)).eval()
    assert ig.data_matrix(one, X).table["trace"].min() > 0


def test_fit_refuses_them(tmp_path):
    for kind in ("from 1", "missing", "one-hot"):
        data = Samples(X, WRONG[kind][0], name="data")
        net = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))
        with pytest.raises(DataError, match=r"class|one-hot"):
            ig.fit(net, data, config=FitConfig(epochs=1))


def test_classes_of_is_exact_at_its_ends():
    assert classes_of([0, 2], 3).tolist() == [0, 2]
    assert classes_of(torch.tensor([5]), None).tolist() == [5]
    with pytest.raises(DataError):
        classes_of([0, 3], 3)
    with pytest.raises(DataError):
        classes_of([-1], None)
    with pytest.raises(DataError, match="number"):
        classes_of([0, 1], 3, count=3)
    assert np.isnan(reported(torch.zeros(2, 2), 2)).all()

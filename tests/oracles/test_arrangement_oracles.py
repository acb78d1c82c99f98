"""Projections, mass and distances from initialisation, against published code."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from isogon.measures.arrangement.orientation import orientation
from isogon.measures.arrangement.reset import reset


@pytest.fixture(scope="module")
def oracle(shared):
    return json.loads((shared / "oracles" / "arrangement" / "oracles.json").read_text())


@pytest.fixture(scope="module")
def fill(shared):
    spec = importlib.util.spec_from_file_location("recipes", shared / "oracles" / "recipes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.arrangement_weights


def check(reading, want, column):
    """Every figure of one entry; ``column`` says which of the two the oracle normalised to."""
    table, summary = reading.to_frame(), reading.summary()
    places = {(int(s), int(b)): v for s in want if s != "net" for b, v in want[s].items()}
    seen = list(table[["stage", "block"]].drop_duplicates().itertuples(index=False, name=None))
    assert seen == list(places)
    mean = "mean" if column == "projection" else "mean_cosine"
    for place, value in places.items():
        rows = table[(table["stage"] == place[0]) & (table["block"] == place[1])][column]
        line = summary[(summary["stage"] == place[0]) & (summary["block"] == place[1])].iloc[0]
        p = value["projections"]
        scale = max(1.0, abs(p["min"]), abs(p["max"]))  # of one float32 sum in the oracle
        assert len(rows) == p["n"]
        assert np.allclose(rows[:5], p["first5"], atol=1e-6 * scale)
        assert np.allclose([rows.min(), rows.max()], [p["min"], p["max"]], atol=1e-6 * scale)
        assert rows.sum() == pytest.approx(p["sum"], abs=1e-6 * scale * len(rows) ** 0.5)
        assert line["mass"] == pytest.approx(value["mass"], abs=1e-12)
        assert line[mean] == pytest.approx(value["mean"], abs=1e-6)
        assert line["l2_distance"] == pytest.approx(value["l2_dist"], abs=1e-6)
        assert line["linf_distance"] == pytest.approx(value["l_inf_dist"], abs=1e-6)
    network = summary.iloc[-1]
    assert network["site"] == "network"
    assert network["units"] == want["net"]["n"]
    assert network["mass"] == pytest.approx(want["net"]["mass"], abs=1e-12)
    assert network[mean] == pytest.approx(want["net"]["mean"], abs=1e-6)


def pair(build, fill):
    initial = fill(build(), 1)
    return fill(build(), 2, base=initial), initial


def check_all(model, initial, want, linear):
    reading = orientation(model, initial=initial, linear=linear)
    check(reading, want[f"normalize=False,with_linear={linear}"], "projection")
    check(reading, want[f"normalize=True,with_linear={linear}"], "cosine")


def test_vgg11_features(oracle, fill):
    # the recipe numbers parameters in order, so the features are filled the same on their own
    model, initial = pair(lambda: torchvision.models.vgg11().features, fill)
    check_all(model, initial, oracle["vgg11"], False)


@pytest.mark.long
def test_vgg11(oracle, fill):
    model, initial = pair(lambda: torchvision.models.vgg11(num_classes=10), fill)
    assert sum(p.numel() for p in model.parameters()) == oracle["vgg11"]["n_params"]
    check_all(model, initial, oracle["vgg11"], False)
    check_all(model, initial, oracle["vgg11"], True)


def test_mlp(oracle, fill):
    def build():
        return nn.Sequential(
            nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 5)
        )

    model, initial = pair(build, fill)
    assert sum(p.numel() for p in model.parameters()) == oracle["mlp"]["n_params"]
    check_all(model, initial, oracle["mlp"], True)


def conv(weight):
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:])
    layer.weight = nn.Parameter(weight)
    return layer


def test_edge_cases(oracle):
    edge = oracle["edge"]
    w = torch.arange(24.0).reshape(2, 3, 2, 2) - 12
    table = orientation(conv(w)).to_frame()
    assert np.allclose(table["projection"], edge["W=arange(24).reshape(2,3,2,2)-12 raw"])
    assert np.allclose(table["cosine"], edge["... normalized"], atol=1e-6)
    last = orientation(conv(w.to(memory_format=torch.channels_last))).to_frame()
    assert last.equals(table)
    zero = orientation(conv(torch.zeros(2, 3, 2, 2)))
    assert zero.to_frame()[["projection", "cosine"]].eq(0).all(axis=None)
    assert zero.to_frame()["zero"].all()
    assert zero.summary()["mass"].tolist() == [1.0, 1.0]
    single = orientation(conv(torch.ones(1, 3, 2, 2))).to_frame()
    assert single["cosine"].tolist() == [float(edge["single filter (returns scalar, not list)"])]
    both = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    mass = orientation(conv(both)).summary()["mass"][0]
    assert 100 * mass == edge["perc_negative(zeros+ones)"]
    twice = orientation(conv(2 * torch.ones(2, 1, 2, 2)), initial=conv(torch.ones(2, 1, 2, 2)))
    want = edge["distance_from_init_layer(2*ones,ones)"]
    assert twice.summary()[["l2_distance", "linf_distance"]].iloc[0].tolist() == want
    from_zero = orientation(conv(w), initial=conv(torch.zeros_like(w))).summary()
    assert np.isinf(from_zero[["l2_distance", "linf_distance"]].to_numpy()).all()


@pytest.mark.long
def test_layer_resets_of_vgg11(oracle, fill):
    model, initial = pair(lambda: torchvision.models.vgg11(num_classes=10), fill)
    x = np.random.RandomState(7).standard_normal((64, 3, 32, 32)).astype(np.float32)
    x = torch.from_numpy(x)
    with torch.no_grad():
        y = torch.cat([model.eval()(part).argmax(1) for part in x.split(16)])
    batches = list(zip(x.split(16), y.split(16), strict=True))
    reading = reset(model, {"0": initial}, batches, sites="features.*")
    want = oracle["reinit_vgg11"]["top1_per_layer"]
    assert (100 * reading.arrays["accuracy"][:, 0]).tolist() == want

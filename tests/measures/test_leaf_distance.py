from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import DataError
from isogon.measures.manifold.leaf_distance import leaf_distance
from isogon.measures.manifold.tangent import tangent


@pytest.fixture
def images(generator):
    return torch.rand(3, 1, 6, 6, generator=generator, dtype=torch.float64)


def test_on_a_linear_model_it_is_pythagoras(images):
    """Leaves are flat: the way within one is the tangent part, what remains the kernel part."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).double()
    target = images.flip(0)
    table = leaf_distance(model, images, toward=target, step=0.01, stop=0.0).to_frame()
    part = tangent(model, images).project(target - images).flatten(1).norm(dim=1)
    whole = (target - images).flatten(1).norm(dim=1)
    assert np.allclose(table["euclidean"], whole)
    assert np.allclose(table["leaf"], part, atol=0.03)
    assert np.allclose(table["remaining"] ** 2 + part.numpy() ** 2, whole**2, atol=0.03)
    assert not table["reached"].any() or part.min() < 1e-3


def test_transforms_of_a_family(images, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 9), nn.Tanh(), nn.Linear(9, 4)).double()
    reading = leaf_distance(model, images, ig.family("rotations(4)"), steps=30)
    table = reading.to_frame()
    assert len(table) == 3 * 4
    identity = table[table["transformation"] == table["transformation"][0]]
    assert (identity[["euclidean", "leaf", "remaining"]] == 0).all(axis=None)
    assert identity["reached"].all()
    assert (table["remaining"] <= table["euclidean"] + 1e-12).all()
    ig.draw(reading).savefig(tmp_path / "a.png")
    with pytest.raises(DataError):
        leaf_distance(model, images, toward=torch.rand(3, 1, 5, 5))


def test_one_sample_without_its_axis():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    x = torch.randn(4, 6)
    want = leaf_distance(model, x[:1], toward=x[1:2], steps=5).to_frame()
    assert len(want) == 1
    for start, toward in ((x[0], x[1]), (x[0], x[1:2]), (x[:1], x[1])):
        assert leaf_distance(model, start, toward=toward, steps=5).to_frame().equals(want)
    each = leaf_distance(model, x[:3], toward=x[3], steps=5).to_frame()
    assert len(each) == 3, "one target for all"
    assert each["euclidean"].to_numpy() == pytest.approx((x[:3] - x[3]).norm(dim=1).numpy())
    bad = x[0].clone()
    bad[2] = torch.nan
    with pytest.raises(DataError, match=r"the starts hold NaN values: got 1 of them, in 1 of 1 "):
        leaf_distance(model, bad, toward=x[1])
    with pytest.raises(DataError, match="the targets hold NaN"):
        leaf_distance(model, x[0], toward=bad)
    with pytest.raises(DataError, match="no starts"):
        leaf_distance(model, torch.zeros(0, 6), toward=x[1])
    with pytest.raises(DataError, match="targets don't fit the starts"):
        leaf_distance(model, x[0], toward=x[:2])


def test_one_image_without_its_axis(images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).double()
    want = leaf_distance(model, images[:1], ig.family("rotations(4)"), steps=3).to_frame()
    found = leaf_distance(model, images[0], ig.family("rotations(4)"), steps=3).to_frame()
    assert found.equals(want)

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

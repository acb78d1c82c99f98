"""Networks of different kinds on colour images: every pair of sites has a value."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import isogon as ig

METRICS = ("cka", "procrustes(modulo=G_relu)", "mutual_knn(k=3)")
SPECS = {
    "resnet": "cifar_resnet20(width=4)",
    "vgg": "cifar_vgg11_bn(width=4, size=16)",
    "cct": "cct(blocks=2, heads=2, ratio=1, width=16, size=16)",
}
SITES = {"resnet": 19, "vgg": 8, "cct": 4}


def images(n, size):
    x = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))
    return [(part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(5)]


def check_map(a, b, data, same):
    found = ig.similarity(a, b, data, metric=METRICS)
    for k, name in enumerate(found.coords["metric"]):
        values = found.arrays["similarity"][k]
        low, high = found.meta["metrics"][name]["range"]
        assert np.isfinite(values).all(), name
        assert values.min() >= low - 1e-6, name
        assert values.max() <= high + 1e-6, name
        if same:
            assert np.allclose(np.diag(values), found.meta["metrics"][name]["identical"], atol=1e-4)
    return found


@pytest.mark.parametrize(
    "names", list(itertools.combinations_with_replacement(SPECS, 2)), ids="-".join
)
def test_residual_plain_and_transformer(names):
    a, b = (ig.load(f"{SPECS[n][:-1]}, seed={k})") for k, n in enumerate(names))
    b = a if names[0] == names[1] else b
    found = check_map(a, b, images(10, 16), a is b)
    assert found.arrays["similarity"].shape == (3, SITES[names[0]], SITES[names[1]])


def test_two_residual_networks_of_one_architecture():
    a, b = (ig.load(f"cifar_resnet20(width=4, seed={s})") for s in (0, 1))
    found = ig.similarity(a, b, images(12, 32), metric=METRICS[:2])
    assert found.arrays["similarity"].shape == (2, 19, 19)
    assert np.isfinite(found.arrays["similarity"]).all()


@pytest.mark.long
def test_networks_of_torchvision():
    """ResNet-18, VGG11 with batch-norm and a vision transformer, 64 x 64 images."""
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    vit = models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128
    )
    torch.nn.init.normal_(vit.heads[0].weight, std=0.02)  # zero by default: no logits to speak of
    zoo = (models.resnet18(num_classes=10), models.vgg11_bn(num_classes=10), vit)
    for a, b in itertools.combinations_with_replacement([m.eval() for m in zoo], 2):
        check_map(a, b, images(10, 64), a is b)

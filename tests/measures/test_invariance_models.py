"""Invariance and equivariance of models that were not made for them: torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import models

from isogon.measures.orbits.equivariance import equivariance
from isogon.measures.orbits.invariance import invariance

MOMENTS = ("variance", "squared", "anova")


def images(count, size):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, 3, size, size, generator=generator)
    return [(x[:2], torch.zeros(2)), (x[2:], torch.zeros(count - 2))]


def direct(model, batches, family, sites):
    """Activations ``[N, T, *shape]`` by hooks of our own: the literal way."""
    found = {site: [] for site in sites}
    handles = [
        model.get_submodule(site).register_forward_hook(
            lambda m, i, o, site=site: found[site].append(o.double().clone())
        )
        for site in sites
    ]
    with torch.no_grad():
        for x, _ in batches:
            for image in x:
                model(family.orbit(image[None])[:, 0])
    for handle in handles:
        handle.remove()
    return {site: torch.stack(values).numpy() for site, values in found.items()}


def test_resnet18():
    """Blocks add in place onto what was tapped, and each ReLU is called twice."""
    import isogon as ig

    torch.manual_seed(0)
    model = models.resnet18(num_classes=4).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    batches, family = images(5, 32), ig.family("rotations(3)")
    reading = invariance(model, batches, family, measures=MOMENTS)
    table = reading.table
    assert reading.meta["sites"][:3] == ["relu", "layer1.0.relu", "layer1.0.relu:1"]
    assert len(reading.meta["sites"]) == 17
    assert np.isfinite(table["transformation_variance"]).all()
    # an inner site and the one that the block's sum overwrites in place
    norms = invariance(model, batches, family, sites="layer1.0.bn2,layer2.1.bn1").table
    for site, a in direct(model, batches, family, ["layer1.0.bn2", "layer2.1.bn1"]).items():
        found = norms.loc[norms["site"] == site, "transformation_variance"].to_numpy()
        np.testing.assert_allclose(
            found, a.std(1, ddof=1).mean(0).reshape(-1), rtol=1e-4, atol=1e-6
        )
    moved = equivariance(model, batches, family, measures=(*MOMENTS, "simple", "floor"))
    assert moved.meta["not_applicable"] == []
    assert len(moved.table) == len(table)
    assert moved.table["transformation_variance"].mean() > 0
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def check_tokens(model, batches, tokens, width):
    reading = invariance(model, batches, "rotations(3)", measures=MOMENTS)
    assert set(map(tuple, reading.meta["shapes"].values())) == {(tokens, width)}
    assert np.isfinite(reading.table["normalized_variance"]).all()
    channels = invariance(model, batches, "rotations(3)", aggregate="channel").table
    assert len(channels) == width * len(reading.meta["sites"])
    still = equivariance(model, batches, "rotations(3)")
    assert still.meta["not_applicable"] == reading.meta["sites"]  # tokens have no plane to turn
    assert len(still.table) == 0
    maps = equivariance(model, batches, "rotations(3)", sites="conv_proj")  # the patches have
    assert maps.meta["not_applicable"] == []
    assert np.isfinite(maps.table["simple_distance"]).all()


def test_a_vision_transformer():
    torch.manual_seed(0)
    model = models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=20,
        num_classes=3,
    ).eval()  # fmt: skip
    check_tokens(model, images(4, 16), 4 * 4 + 1, 20)


@pytest.mark.long
def test_vit_b_16():
    torch.manual_seed(0)
    check_tokens(models.vit_b_16().eval(), images(3, 224), 14 * 14 + 1, 3072)

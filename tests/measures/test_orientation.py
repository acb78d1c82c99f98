from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import isogon as ig
from isogon.errors import ModelError
from isogon.measures.arrangement.orientation import filters, orientation


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.AdaptiveAvgPool2d(2),
        nn.ConvTranspose2d(6, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip


def test_sites_stages_blocks():
    table = orientation(cnn()).to_frame()
    assert list(table)[:6] == ["site", "stage", "block", "unit", "projection", "cosine"]
    places = table.groupby("site", sort=False)[["stage", "block"]].first()
    assert places.to_dict("index") == {
        "0": {"stage": 0, "block": 0}, "4": {"stage": 1, "block": 0},
        "8": {"stage": 1, "block": 1}, "10": {"stage": 1, "block": 2},
    }  # fmt: skip
    assert set(orientation(cnn(), pointwise=True).table["site"]) == {"0", "4", "6", "8", "10"}
    assert set(orientation(cnn(), linear=False).table["site"]) == {"0", "4", "8"}


def test_a_unit_answers_ones_with_its_projection():
    """The projection is the unit's answer to the all-ones input (of its own group)."""
    model = cnn().double()
    table = orientation(model, pointwise=True).to_frame()
    for site in ("0", "4", "6"):
        conv = model[int(site)]
        out = F.conv2d(torch.ones(1, conv.in_channels, *conv.kernel_size).double(), conv.weight,
                       groups=conv.groups)[0, :, 0, 0]  # fmt: skip
        want = table[table["site"] == site]["projection"]
        assert np.allclose(out.detach(), want, atol=1e-12)
    t = model[8]
    out = F.conv_transpose2d(torch.ones(1, 6, 5, 5).double(), t.weight, groups=2)[0, :, 3, 3]
    assert np.allclose(out.detach(), table[table["site"] == "8"]["projection"], atol=1e-12)
    assert filters(t).shape == (4, 3 * 9)


def test_invariances():
    """Cosine does not change under scaling of a filter; channel order of memory plays no part."""
    model = cnn()
    base = orientation(model).to_frame()
    scaled = cnn()
    with torch.no_grad():
        scaled[0].weight.mul_(7.0)
    assert np.allclose(orientation(scaled).to_frame()["cosine"], base["cosine"], atol=1e-7)
    assert not np.allclose(orientation(scaled).to_frame()["projection"], base["projection"])
    last = orientation(cnn().to(memory_format=torch.channels_last)).to_frame()
    assert last.equals(base)


def test_folded_batch_norm():
    model = cnn().double().eval()
    bn = model[1]
    with torch.no_grad():
        bn.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0]))
        bn.running_var.copy_(torch.tensor([0.1, 1.0, 2.0, 3.0]))
    table = orientation(model, fold=True).to_frame()
    first = table[table["site"] == "0"]
    fused = nn.utils.fuse_conv_bn_eval(model[0], bn)
    assert np.allclose(first["projection"], fused.weight.detach().sum((1, 2, 3)))
    assert first["zero"].tolist() == [False, False, False, True]
    assert first["cosine"].tolist()[3] == 0.0
    rest = orientation(model).to_frame()
    assert table[table["site"] != "0"].equals(rest[rest["site"] != "0"])


def test_distances():
    a, b = cnn(), cnn()
    with torch.no_grad():
        for p in a.parameters():
            p.mul_(2.0)
    summary = orientation(a, initial=b).summary()
    assert np.allclose(summary[["l2_distance", "linf_distance"]], 1.0)
    assert orientation(a).summary()["l2_distance"].isna().all()
    with torch.no_grad():
        b[0].weight.zero_()
        a[4].weight.zero_()
        b[4].weight.zero_()
    summary = orientation(a, initial=b).summary().set_index("site")
    assert summary.loc["0", "l2_distance"] == np.inf
    assert summary.loc["4", "l2_distance"] == 0.0
    with pytest.raises(ModelError, match="another architecture"):
        orientation(a, initial=nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(ModelError, match="another architecture"):
        orientation(nn.Sequential(nn.Conv2d(3, 4, 3)), initial=a)


def test_parametrized_weights_are_read_as_used():
    plain = nn.Linear(5, 3)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(5, 3))
    with torch.no_grad():
        normed.weight = plain.weight.detach()
    a, b = orientation(plain).to_frame(), orientation(normed).to_frame()
    assert a["site"].tolist() == b["site"].tolist() == ["model"] * 3
    assert np.allclose(a["projection"], b["projection"], atol=1e-6)


def test_refusals():
    with pytest.raises(ModelError, match="no layer"):
        orientation(nn.ReLU())
    with pytest.raises(ModelError, match="linear or pointwise"):
        orientation(nn.Linear(2, 2), linear=False)


def test_reads_back_and_draws(tmp_path):
    reading = ig.orientation(cnn(), initial=cnn())
    reading.save(tmp_path)
    again = ig.read(tmp_path)
    assert again.equals(reading)
    assert again.summary().equals(reading.summary())
    ig.draw(again).savefig(tmp_path / "a.png")

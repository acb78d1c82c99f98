from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import isogon as ig
from isogon.errors import ModelError, OptionError
from isogon.measures.arrangement.layers import filters
from isogon.measures.arrangement.orientation import orientation


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


@pytest.mark.parametrize("arch", ["cnn(width=32)", "cifar_resnet20", "cifar_vgg11_bn(width=16)",
                                  "all_conv(24)", "mlp_bn"])  # fmt: skip
def test_untrained_networks_are_within_their_null(arch):
    """Mass of the non-positive at initialisation, every layer, corrected over the layers."""
    torch.manual_seed(0)
    model = ig.load(arch)
    summary = orientation(model, pointwise=True).summary().iloc[:-1]
    assert len(summary) >= 3
    assert (summary["p_corrected"] > 0.05).all()
    assert (abs(summary["mass"] - 0.5) < 4 * summary["null_sd"]).all()


def test_p_values_are_those_of_the_binomial_test():
    from scipy import stats

    from isogon.measures.arrangement.null import corrected, p_values

    units = np.array([1, 10, 31, 64])
    for counts in ([0, 0, 10, 50], [1, 5, 15, 32], [1, 10, 31, 20]):
        want = [stats.binomtest(c, int(n)).pvalue for c, n in zip(counts, units)]
        assert np.allclose(p_values(np.array(counts), units, None), want)
    # of random states: how many are at least as far from half, the layer itself among them
    drawn = np.array([[5], [2], [9], [5]])
    assert p_values(np.array([[8], [5], [10]]), np.array([10]), drawn).tolist() == [
        [3 / 5], [1.0], [1 / 5],
    ]  # fmt: skip
    assert corrected(np.array([0.01, 0.02, 0.9])).tolist() == pytest.approx([0.03, 0.03, 0.9])


def test_a_layer_that_was_turned_is_named():
    """Filters that all sum to something positive part from the null; the others don't."""
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Conv2d(40, 50, 3))
    with torch.no_grad():
        w = wide[2].weight
        w.mul_(w.sum((1, 2, 3), keepdim=True).sign())
    for null in (0, 199):
        summary = orientation(wide, null=null).summary().set_index("site")
        assert summary.loc["2", "mass"] == 0
        assert summary.loc["2", "p_corrected"] == pytest.approx(2 / 200 if null else 0, abs=1e-9)
        assert summary.loc["0", "p_corrected"] > 0.05
    assert orientation(wide, null=50, seed=3).equals(orientation(wide, null=50, seed=3))
    drawn = orientation(wide, null=50, fresh=lambda: nn.Sequential(
        nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Conv2d(40, 50, 3)))  # fmt: skip
    assert drawn.summary().set_index("site").loc["2", "p_value"] == 1 / 51


def test_random_states_keep_what_is_folded_in_and_leave_the_model_alone():
    model = cnn().eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0]))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.random.get_rng_state()
    summary = orientation(model, fold=True, null=20).summary()
    assert summary.loc[0, "mass"] == 1.0
    assert summary.loc[0, "p_value"] == 1.0  # every random state is all zeros too
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_series_is_each_snapshot_by_itself(tmp_path):
    from isogon.training import FitConfig

    config = FitConfig(epochs=2, snapshot_at=(0.0, 0.5, 1.0), seed=3)
    done = ig.fit("cnn(width=4)", "digits(train, 200)", config=config, out=tmp_path / "run")
    model = done.model()
    reading = orientation(model, snapshots=str(tmp_path / "run"), initial=model, null=19)
    series = reading.series()
    assert series["snapshot"].unique().tolist() == ["epoch-0000", "epoch-0001", "epoch-0002"]
    assert series["epoch"].unique().tolist() == [0, 1, 2]
    for name, rows in series.groupby("snapshot"):
        state = ig.load(str(tmp_path / "run" / "snapshots" / f"{name}.safetensors"))
        alone = orientation(state, initial=model, null=19).summary()
        for column in ("units", "mean", "mass", "mean_cosine", "null_sd", "p_value", "p_corrected",
                       "l2_distance", "linf_distance"):  # fmt: skip
            assert np.allclose(rows[column], alone[column], equal_nan=True), column
    reading.save(tmp_path / "reading")
    again = ig.read(tmp_path / "reading")
    assert again.equals(reading)
    assert again.series().equals(series)
    ig.draw(again).savefig(tmp_path / "a.png")
    ig.draw(again, series=False).savefig(tmp_path / "b.png")
    assert len(orientation(model).series()) == 0
    with pytest.raises(OptionError, match="no series"):
        ig.draw(orientation(model), series=True)


def test_refusals():
    with pytest.raises(OptionError, match="null"):
        orientation(cnn(), null=-1)
    with pytest.raises(ModelError, match="does not fit"):
        orientation(cnn(), snapshots=[nn.Linear(2, 2)])
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

"""Theorems of invariance and equivariance, and that they fail where their hypothesis does."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import isogon as ig
from isogon.actions import Family, Function
from isogon.errors import DataError, ModelError, OptionError
from isogon.measures.orbits.distances import Gaps, PairDistances, pair_gaps, pair_norms
from isogon.measures.orbits.equivariance import equivariance
from isogon.measures.orbits.invariance import invariance
from isogon.measures.orbits.statistics import benjamini_hochberg, bonferroni
from isogon.nets.passes import all_passes

EVERYTHING = ("variance", "squared", "anova", "distance", "goodfellow")


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 1, 8, 8, generator=generator, dtype=torch.float64)
    return x, torch.arange(40) % 3


def split(data, *sizes):
    x, y = data
    return list(
        zip(
            x.split(sizes if len(sizes) > 1 else sizes[0]),
            y.split(sizes if len(sizes) > 1 else sizes[0]),
        )
    )


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 10), nn.ReLU(),
    ).double()  # fmt: skip


class Averaged(nn.Module):
    """The mean of a network over the four quarter turns of its input: exactly invariant."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.out = nn.Identity()

    def forward(self, x):
        return self.out(sum(self.inner(torch.rot90(x, k, (2, 3))) for k in range(4)) / 4)


def test_an_invariant_network_scores_zero_on_live_units(data):
    model = Averaged(net())
    table = invariance(
        model, split(data, 16), "rotations(4)", sites="out", measures=EVERYTHING
    ).table
    live = table[table["sample_variance"] > 1e-12]
    assert len(live) > 3
    for column in ("normalized_variance", "normalized_squared", "normalized_distance"):
        assert live[column].max() < 1e-10
    assert live["anova_f"].max() < 1e-10
    assert live["anova_p"].min() > 0.999
    fired = live.dropna(subset="goodfellow")
    np.testing.assert_allclose(fired["goodfellow_local"], 1)
    # off the group, and without the average, it is not
    off = invariance(model, split(data, 16), "rotations(8)", sites="out").table
    assert off["normalized_variance"].loc[live.index].min() > 1e-3
    plain = invariance(net(), split(data, 16), "rotations(4)", sites="7").table
    assert plain[plain["sample_variance"] > 0]["normalized_variance"].min() > 1e-3


def test_a_constant_family_scores_zero(data):
    still = Family([Function(torch.clone, torch.clone, label=str(k)) for k in range(5)])
    table = invariance(
        net(), split(data, 16), still, measures=("variance", "distance", "anova")
    ).table
    live = table["sample_variance"] > 0
    assert (table["transformation_variance"] == 0).all()
    assert (table["normalized_variance"][live] == 0).all()
    assert (table["normalized_variance"][~live] == 1).all()  # 0/0
    assert (table["transformation_distance"] == 0).all()
    assert (table["anova_f"][live] == 0).all()


def symmetric(conv):
    with torch.no_grad():
        turned = [torch.rot90(conv.weight, k, (2, 3)) for k in range(4)]
        conv.weight.copy_(sum(turned) / 4)
    return conv


def test_symmetric_kernels_are_equivariant_under_quarter_turns(data):
    torch.manual_seed(0)
    convs = [nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)]
    model = nn.Sequential(
        *[m for c in convs for m in (symmetric(c), nn.ReLU())], nn.AvgPool2d(2)
    ).double()
    for c in convs:
        symmetric(c)
    options = {"sites": "1,3,4", "measures": ("variance", "distance", "simple", "floor")}
    table = equivariance(model, split(data, 16), "rotations(4)", **options).table
    for column in ("transformation_variance", "transformation_distance", "simple_distance"):
        assert table[column].max() < 1e-12, column
    assert table["transformation_floor"].max() == 0
    torch.nn.init.normal_(convs[0].weight)
    broken = equivariance(model, split(data, 16), "rotations(4)", **options).table
    assert broken["transformation_variance"].mean() > 1e-3
    assert broken["simple_distance"].mean() > 1e-3


@pytest.mark.parametrize("spec", ["rotations(6)", "product(rotations(3), scales(2, 0.8, 1.2))"])
def test_the_identity_network_scores_the_floor_and_nothing_more(data, spec):
    model = nn.Sequential(nn.Identity()).double()
    options = {"sites": "0", "measures": ("variance", "simple", "floor")}
    table = equivariance(model, split(data, 16), spec, **options).table
    np.testing.assert_allclose(
        table["transformation_variance"], table["transformation_floor"], atol=1e-15
    )
    np.testing.assert_allclose(table["normalized_variance"], table["normalized_floor"], rtol=1e-12)
    assert table["simple_distance"].max() == 0
    assert table["normalized_floor"].mean() > 0.01


def test_a_shift_over_the_stride_is_undone(data):
    """A pooled map moves by half the shift of its input; the borders apart."""
    model = nn.Sequential(nn.AvgPool2d(2)).double()
    table = equivariance(
        model, split(data, 16), "translations(1, 2)", sites="0", measures=("simple",)
    ).table
    inner = table[table["row"].between(1, 2) & table["column"].between(1, 2)]
    assert inner["simple_distance"].max() < 1e-12
    assert table["simple_distance"].max() > 1e-3  # the border repeats other pixels at each scale


@pytest.mark.parametrize("measure", [invariance, equivariance])
def test_batches_and_their_order_do_not_matter(data, measure):
    x, y = data
    options = {"measures": EVERYTHING, "sites": "1,4"}
    whole = measure(net(), [(x, y)], "rotations(5)", **options).table
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    for batches in (
        split(data, 1),
        split(data, 7),
        split(data, 33, 7),
        split((x[order], y[order]), 13),
    ):
        again = measure(net(), batches, "rotations(5)", **options).table
        for column in whole.select_dtypes("number"):
            np.testing.assert_allclose(
                again[column], whole[column], rtol=1e-9, atol=1e-12, err_msg=column
            )


def test_orbits_that_do_not_fit_into_a_pass(data, monkeypatch):
    """Pieces of an orbit are put together before anything is summed."""
    from isogon.nets import passes

    options = {"measures": (*EVERYTHING, "simple", "floor"), "sites": "1,4"}
    whole = equivariance(net(), split(data, 16), "rotations(5)", **options).table
    monkeypatch.setattr(passes, "CHUNK", 3)
    monkeypatch.setattr(passes, "WHOLE", 0)
    pieces = equivariance(net(), split(data, 16), "rotations(5)", **options).table
    for column in whole.select_dtypes("number"):
        np.testing.assert_allclose(pieces[column], whole[column], rtol=1e-9, atol=1e-12)


def test_gaps():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 4, 6, 3, 5, 5, generator=generator)
    for dtype in (torch.float32, torch.float64):
        for least in (0, 2**60):
            gaps = Gaps((3, 5, 5))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("isogon.measures.orbits.distances.COMPILE", least)
                for x, y in zip(a.to(dtype).split(4, 1), b.to(dtype).split(4, 1)):
                    gaps.update(x, y)
            unit, channel = gaps.compute()
            apart = (a.double() - b.double()).abs()
            torch.testing.assert_close(unit, apart.mean((0, 1)), rtol=1e-12, atol=0)
            per = apart.square().mean((-1, -2)).sqrt().mean((0, 1))
            torch.testing.assert_close(channel, per, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "spec", ["rotations(4)", "rotations(7)", "product(mirrors(), scales(2, 0.7, 1.3))"]
)
@pytest.mark.parametrize("shape", [(3, 7, 7), (33, 8, 5), (1, 1, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_moved_by_the_compiled_loop_are_those_moved_by_torch(spec, shape, dtype, monkeypatch):
    from isogon.measures.orbits import moved

    family = ig.family(spec)
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(5, len(family), *shape, generator=generator).to(dtype)
    x = torch.zeros(5, len(family), 1, 14, 10)
    found = []
    for least in (0, 2**60):
        monkeypatch.setattr(moved, "COMPILE", least)
        stat = moved.Moved(shape, family, ("simple", "floor"))
        assert (stat._warps(a, (14, 10)) is None) == bool(least)
        other = moved.Moved(shape, family, ("simple", "floor")).update(a[3:], x[3:])
        found.append(stat.update(a[:2], x[:2]).update(a[2:3], x[2:3]).merge(other).compute())
    for one, two in zip(*found):
        assert one.keys() == two.keys()
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-12, atol=1e-14)
    (unit, channel), _ = found
    moved_there = family.act(a[:, 0], (14, 10)).transpose(0, 1)
    gap = (a.double() - moved_there.double()).abs()
    torch.testing.assert_close(unit["simple_distance"], gap.mean((0, 1)), rtol=1e-12, atol=0)
    per = gap.square().mean((-1, -2)).sqrt().mean((0, 1))
    torch.testing.assert_close(channel["simple_distance"], per, rtol=1e-12, atol=0)
    again = family.undo(moved_there.transpose(0, 1), (14, 10)).double()  # [T, n, C, h, w]
    floor = again.std(0).mean(0)
    torch.testing.assert_close(unit["transformation_floor"], floor, rtol=1e-6, atol=1e-7)


def watchers(model, data, measure, **options):
    """Those of a measure, before any pass."""
    from isogon.measures.orbits.reading import OrbitOptions
    from isogon.measures.orbits.watcher import OrbitWatcher

    family, undone = ig.family("rotations(3)"), measure is equivariance
    found = ig.sites(model, "1,4,7" if not undone else "1,4", example=data[0])
    return [OrbitWatcher(s, OrbitOptions(**options), family, undone) for s in found], family


@settings(max_examples=12, deadline=None)
@given(
    shares=st.integers(2, 5),
    size=st.integers(1, 9),
    measure=st.sampled_from([invariance, equivariance]),
    by_class=st.booleans(),
    bootstrap=st.sampled_from([0, 3]),
    threshold=st.sampled_from(["normal", "quantile"]),
    aggregate=st.sampled_from(["unit", "channel", "site"]),
)
def test_merged_shares_are_the_whole(
    data, shares, size, measure, by_class, bootstrap, threshold, aggregate
):
    """Every statistic, over both passes: what is shared out and merged is what one pass saw."""
    model, batches = net(), split(data, size)
    options = {
        "measures": (*EVERYTHING, "simple", "floor"), "by_class": by_class, "bootstrap": bootstrap,
        "threshold": threshold, "aggregate": aggregate,
    }  # fmt: skip
    one, family = watchers(model, data, measure, **options)
    many, _ = watchers(model, data, measure, **options)
    assert all_passes(model, batches, one, orbit=family) == 40
    assert all_passes(model, batches, many, orbit=family, shards=shares) == 40
    for a, b in zip(one, many):
        whole, merged = a.result(), b.result()
        labels = [c for c in ("site", "class") if c in whole]
        keys = [*labels, "unit"]
        whole, merged = (t.sort_values(keys, ignore_index=True) for t in (whole, merged))
        assert list(whole.columns) == list(merged.columns)
        for column in whole:
            if column in labels:
                assert (whole[column] == merged[column]).all()
            else:
                np.testing.assert_allclose(
                    merged[column], whole[column], rtol=1e-8, atol=1e-10, err_msg=column
                )


def literal(a):
    """TV, SV, TD, SD of ``a[i, t]``, pair by pair."""
    n, t = a.shape
    tv = np.mean([a[i].std(ddof=1) for i in range(n)])
    sv = np.mean([a[:, k].std(ddof=1) for k in range(t)])
    td = np.mean(
        [np.mean([abs(a[i, k] - a[i, m]) for m in range(t) for k in range(m)]) for i in range(n)]
    )
    sd = np.mean(
        [np.mean([abs(a[i, k] - a[j, k]) for i in range(n) for j in range(i)]) for k in range(t)]
    )
    return tv, sv, td, sd


def test_against_the_definition(data):
    x, y = data
    model = net()
    table = invariance(
        model,
        [(x[:9], y[:9])],
        "rotations(4)",
        sites="7",
        measures=("variance", "distance", "goodfellow"),
    ).table
    orbit = ig.family("rotations(4)").orbit(x[:9])
    with torch.no_grad():
        a = torch.stack([model(part) for part in orbit], 1).numpy()
    z = scipy.stats.norm.ppf(0.99)
    for u in range(10):
        found = table.iloc[u]
        columns = [
            "transformation_variance",
            "sample_variance",
            "transformation_distance",
            "sample_distance",
        ]
        np.testing.assert_allclose(
            found[columns].to_numpy(float), literal(a[:, :, u]), rtol=1e-10, atol=1e-14
        )
        threshold = a[:, 0, u].mean() + z * a[:, 0, u].std(ddof=1)
        firing = a[:, 0, u] > threshold
        assert found["goodfellow_global"] == pytest.approx(firing.mean())
        if firing.any():
            local = (a[firing][:, :, u] > threshold).mean()
            assert found["goodfellow"] == pytest.approx(local / firing.mean())
        else:
            assert np.isnan(found["goodfellow"])


def test_quantile_threshold(data):
    x, y = data
    table = invariance(
        net(), [(x, y)], "rotations(3)", sites="7", measures=("goodfellow",), threshold="quantile"
    ).table
    with torch.no_grad():
        first = net()(x).numpy()
    np.testing.assert_allclose(
        table["goodfellow_threshold"], np.quantile(first, 0.99, axis=0), rtol=1e-12
    )


def test_classes_are_measured_apart(data):
    x, y = data
    table = invariance(net(), split(data, 11), "rotations(3)", sites="7", by_class=True).table
    assert table["class"].unique().tolist() == ["0", "1", "2"]
    alone = invariance(net(), [(x[y == 1], y[y == 1])], "rotations(3)", sites="7").table
    mine = table[table["class"] == "1"].reset_index()
    np.testing.assert_allclose(mine["normalized_variance"], alone["normalized_variance"], rtol=1e-9)
    with pytest.raises(DataError, match=r"too few samples to vary in class 0.*by_class"):
        invariance(net(), [(x[:3], y[:3])], "rotations(3)", sites="7", by_class=True)


def test_aggregates(data):
    options = {"sites": "4,7", "measures": ("variance",)}
    batches = split(data, 16)
    units = invariance(net(), batches, "rotations(3)", **options).table
    grouped = units[units["site"] == "4"].groupby("channel")
    moments = invariance(net(), batches, "rotations(3)", aggregate="channel", **options).table
    assert moments["site"].value_counts().to_dict() == {"4": 6, "7": 10}
    tv, sv = grouped["transformation_variance"].mean(), grouped["sample_variance"].mean()
    np.testing.assert_allclose(moments["normalized_variance"][:6], (tv / sv).fillna(1))
    scores = invariance(
        net(), batches, "rotations(3)", aggregate="channel", pooling="scores", **options
    ).table
    finite = units[np.isfinite(units["normalized_variance"]) & (units["site"] == "4")]
    np.testing.assert_allclose(
        scores["normalized_variance"][:6], finite.groupby("channel")["normalized_variance"].mean()
    )
    top = invariance(
        net(),
        batches,
        "rotations(3)",
        aggregate="channel",
        pooling="scores",
        reduce="max",
        **options,
    ).table
    np.testing.assert_allclose(
        top["normalized_variance"][:6], finite.groupby("channel")["normalized_variance"].max()
    )
    site = invariance(net(), batches, "rotations(3)", aggregate="site", **options).table
    assert len(site) == 2
    early = invariance(
        net(), batches, "rotations(3)", aggregate="channel", pooling="activations", **options
    ).table
    pooled = nn.Sequential(*net()[:5], nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    expected = invariance(pooled, batches, "rotations(3)", sites="6").table
    np.testing.assert_allclose(
        early["normalized_variance"][:6], expected["normalized_variance"], rtol=1e-9
    )


def test_bootstrap_intervals_hold_the_value_and_narrow_with_samples():
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6)).double()
    widths = []
    for n in (64, 512):
        x = torch.rand(n, 1, 8, 8, generator=generator, dtype=torch.float64)
        table = invariance(
            model, [(x, torch.zeros(n))], "rotations(4)", sites="1", bootstrap=100
        ).table
        value, low, high = (table[f"normalized_variance{e}"] for e in ("", "_low", "_high"))
        assert ((low < value) & (value < high)).mean() > 0.8
        widths.append(float((high - low).mean()))
    assert 1.6 < widths[0] / widths[1] < 5  # about sqrt(8)


def test_corrections_are_the_right_way_round():
    rng = np.random.default_rng(0)
    p = np.r_[rng.uniform(size=90), rng.uniform(size=10) * 1e-6]
    q = torch.from_numpy(p)
    np.testing.assert_allclose(bonferroni(q), np.minimum(p * 100, 1))
    np.testing.assert_allclose(benjamini_hochberg(q), scipy.stats.false_discovery_control(p))
    with_nan = torch.cat([q, torch.tensor([torch.nan])])
    np.testing.assert_allclose(
        benjamini_hochberg(with_nan)[:100], scipy.stats.false_discovery_control(p)
    )
    assert (bonferroni(q) >= q).all()
    # noise alone: plain p-values reject 1 % of units, the corrected ones next to none
    noise = torch.from_numpy(rng.normal(size=(60, 5, 2000)))
    from isogon.measures.orbits.statistics import anova_columns
    from isogon.stats import TwoWayMoments

    columns = anova_columns(TwoWayMoments(5).update(noise).compute())
    assert 0.003 < float((columns["anova_p"] < 0.01).double().mean()) < 0.02
    assert int((columns["anova_p_bonferroni"] < 0.01).sum()) <= 1
    assert int((columns["anova_p_bh"] < 0.01).sum()) <= 2


def test_pairwise_distances():
    rng = np.random.default_rng(0)
    x = rng.normal(1e6, 1, (7, 3))
    gaps = np.mean([abs(x[i] - x[j]) for i in range(7) for j in range(i)], 0)
    np.testing.assert_allclose(pair_gaps(torch.from_numpy(x), 0), gaps, rtol=1e-9)
    norms = np.mean([np.linalg.norm(x[i] - x[j]) for i in range(7) for j in range(i)])
    assert float(pair_norms(torch.from_numpy(x))) == pytest.approx(norms, rel=1e-7)
    assert float(pair_norms(torch.ones(5, 3).double())) == 0


def test_distances_from_disk_are_those_from_memory():
    a = torch.randn(30, 4, 3, 5, 5, dtype=torch.float64)
    for channels in (False, True):
        memory, disk, rest = (PairDistances(channels) for _ in range(3))
        disk.kept.limit = rest.kept.limit = 2000
        for k, part in enumerate(a.split(7)):
            memory.update(part)
            (disk if k < 2 else rest).update(part)
        assert rest.kept._file is not None
        disk.merge(rest)
        assert disk.kept._file is not None
        for name, values in memory.compute().items():
            torch.testing.assert_close(disk.compute()[name], values, rtol=1e-12, atol=0)


class Tokens(nn.Module):
    """A tiny transformer over patches: sites of tokens, not of maps."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(1, 8, 4, 4)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=nn.GELU())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.block(self.patch(x).flatten(2).mT).mean(1))


def test_token_sites(data):
    x, y = data
    torch.manual_seed(0)
    model = Tokens()
    batches = [(x.float(), y)]
    table = invariance(model, batches, "rotations(3)", measures=("variance", "distance")).table
    assert len(table) == 4 * 16
    assert table["normalized_variance"].between(0.1, 10).all()
    per = invariance(model, batches, "rotations(3)", aggregate="channel").table
    assert len(per) == 16
    reading = equivariance(model, batches, "rotations(3)")
    assert reading.meta["not_applicable"]
    assert len(reading.table) == 0


def test_the_reading_keeps_the_matrices(data, tmp_path):
    reading = invariance(net(), split(data, 16), "product(rotations(4), scales(2))")
    again = ig.read(reading.save(tmp_path))
    assert again.equals(reading)
    facts = again.meta["family"]
    assert facts["name"] == "product(rotations(4), scales(2))"
    matrix = np.array(facts["matrices"][facts["labels"].index("90° ∘ ×1")])
    np.testing.assert_allclose(matrix, [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-15)
    summary = again.summary()
    assert summary["site"].tolist() == ["1", "4", "7"]
    assert "live_normalized_variance" in summary
    infinite = again.table.copy()
    infinite.loc[0, "normalized_variance"] = np.inf
    again.table = infinite
    assert np.isfinite(again.summary()["normalized_variance"]).all()


def test_the_model_stays_as_it_came(data):
    model = net().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    invariance(model, split(data, 16), "rotations(3)")
    equivariance(model, split(data, 16), "rotations(3)", sites="1")
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_mistakes_are_answered(data):
    x, y = data
    with pytest.raises(OptionError, match="unknown statistic: got 'varience'"):
        invariance(net(), [(x, y)], "rotations(3)", measures=("varience",))
    with pytest.raises(OptionError, match="at least two members"):
        invariance(net(), [(x, y)], "rotations(1)")
    with pytest.raises(DataError, match="too few samples"):
        invariance(net(), [(x[:1], y[:1])], "rotations(3)")
    with pytest.raises(DataError, match="no samples"):
        invariance(net(), [], "rotations(3)")
    bad = net()
    with torch.no_grad():
        bad[0].weight[0] = torch.nan
    with pytest.raises(ModelError, match=r"0\.weight"):
        invariance(bad, [(x, y)], "rotations(3)")
    with pytest.raises(OptionError, match="has no inverse"):
        equivariance(net(), [(x, y)], [torch.neg], sites="1")
    with pytest.raises(DataError, match="images"):
        invariance(
            nn.Sequential(nn.Linear(3, 2), nn.ReLU()),
            [(torch.rand(4, 3), torch.zeros(4))],
            "rotations(3)",
        )

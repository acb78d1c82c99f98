"""Similarity: metrics against literal twins, their invariances, the null, streams, models."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon import registry
from isogon.errors import DataError, IsogonError, OptionError
from isogon.measures.alignment.metrics.metric import metric
from isogon.measures.alignment.moments import CrossSums, CrossView, SiteSums, SiteView
from isogon.measures.alignment.watchers import PairMoments
from reference.slow_similarity import TWINS, cka

NAMES = registry.names("metric")
INSIDE = [n for n in NAMES if metric(n).kind != "outputs"]
# specs whose declared invariances differ from those of the plain name
VARIANTS = (
    "procrustes(modulo=permutations)", "procrustes(modulo=signed_permutations)",
    "procrustes(modulo=G_relu)", "procrustes(modulo=G_abs)", "procrustes(center=True)",
    "procrustes(form=angular)", "procrustes(form=size_and_shape)",
    "procrustes(modulo=G_relu, form=one_sided)", "cka(kernel=rbf)", "cka(kernel=max)",
    "cka(kernel=median)", "cka(normalize=channel)", "cka(unbiased=False)",
    "rsa(inner=euclidean)", "rsa(inner=cosine)", "pwcca(reverse=True)",
    "linear_regression(held_out=2)",
)  # fmt: skip


def rng(seed=0):
    return np.random.default_rng(seed)


def features(n=40, p=5, seed=0):
    """Correlated, skewed, not centred."""
    r = rng(seed)
    return np.maximum(
        r.standard_normal((n, p)) @ r.standard_normal((p, p)) + 0.7, 0.01 * r.random(p)
    )


def value(x, y, spec, **options):
    return float(ig.similarity(x, y, metric=spec, **options).table["similarity"].iloc[0])


@pytest.mark.parametrize("spec", TWINS)
@pytest.mark.parametrize("widths", [(5, 5), (4, 6)])
def test_metrics_equal_their_literal_twins(spec, widths):
    x = features(24, widths[0])
    y = 0.6 * features(24, widths[1], 1) + 0.8 * x @ rng(2).random((widths[0], widths[1]))
    if "one_sided" in spec and widths[0] != widths[1]:
        pytest.skip("one width")
    precise = 1e-6 if spec == "bures" else 1e-9  # roots of singular matrices in the twin
    assert value(x, y, spec) == pytest.approx(TWINS[spec](x, y), abs=precise)


def test_every_metric_has_a_twin():
    named = {metric(s).name.split("(")[0] for s in TWINS}
    assert set(INSIDE) <= named


MAPS = {
    "permutation": lambda y: y[:, rng(5).permutation(y.shape[1])],
    "orthogonal": lambda y: y @ np.linalg.qr(rng(6).standard_normal((y.shape[1],) * 2))[0],
    "G_relu": lambda y: y * np.exp(1.5 * rng(7).standard_normal(y.shape[1])),
    "invertible": lambda y: (
        y @ (rng(8).standard_normal((y.shape[1],) * 2) + 2 * np.eye(y.shape[1]))
    ),
    "scale": lambda y: 7.3 * y,
    "translation": lambda y: y + 20 * rng(9).standard_normal(y.shape[1]),
}


@pytest.mark.parametrize("spec", [*INSIDE, *VARIANTS])
def test_invariances_hold_on_the_orbit_and_fail_off_it(spec):
    declared = metric(spec)
    x = features(60, 6)
    same = value(x, x, spec)
    low, high = declared.bounds
    assert same == pytest.approx(declared.identical, abs=1e-7 if math.isfinite(high) else 1e-5)
    other = 0.5 * features(60, 6, 3) + x
    plain = value(x, other, spec)
    assert low - 1e-9 <= plain <= high + 1e-9
    for name, change in MAPS.items():
        if name == "invertible" and name not in declared.invariant:
            continue
        held = [value(x, change(other), spec), value(change(x), other, spec)]
        alike = value(x, change(x), spec)
        size = 1.0 if math.isfinite(high) else max(1.0, float(np.linalg.norm(x)) ** 2)
        if name in declared.invariant:
            assert held == pytest.approx([plain, plain], abs=1e-7 * size), name
            assert alike == pytest.approx(declared.identical, abs=2e-7 * size), name
        else:
            assert max(abs(held[0] - plain), abs(held[1] - plain), abs(alike - same)) > 1e-3, name


# one number of each side tells little of how alike they are
STATISTICS = {"concentricity", "magnitude", "uniformity"}


@pytest.mark.parametrize("spec", sorted({*INSIDE, *VARIANTS} - STATISTICS))
def test_unlike_is_further_than_like(spec):
    x = features(80, 6)
    near, far = x + 0.05 * features(80, 6, 4), features(80, 6, 5)
    declared = metric(spec)
    assert declared.better(value(x, near, spec), value(x, far, spec))


def test_the_null_of_cka_has_the_stated_variance_whatever_the_data():
    n = 12
    for x, y in (
        (features(n, 3), features(n, 40, 1)),
        (np.exp(3 * features(n, 2)), features(n, 5, 2)),
    ):
        drawn = []
        order = rng(1)
        for _ in range(3000):
            drawn.append(cka(x, y[order.permutation(n)]))
        assert np.mean(drawn) == pytest.approx(0, abs=4 * math.sqrt(2 / (n * (n - 3)) / 3000))
        assert np.var(drawn) == pytest.approx(2 / (n * (n - 3)), rel=0.15)
    found = ig.similarity(x, y).table.iloc[0]
    assert found["null_sd"] == pytest.approx(math.sqrt(2 / (n * (n - 3))))
    assert found["z"] == pytest.approx(found["similarity"] / found["null_sd"])


@pytest.mark.parametrize(
    "spec", ["cka", "cka(kernel=rbf)", "procrustes", "rsa", "gulp", "jaccard(k=3)"]
)
def test_permutations_find_what_is_there_and_nothing_else(spec):
    x = {f"l{k}": features(30, 4, k) for k in range(2)}
    y = {"like": x["l1"] + 0.3 * features(30, 4, 7), "unlike": features(30, 5, 8)}
    table = ig.similarity(x, y, metric=spec, null=19).table.set_index(["site_a", "site_b"])
    assert table.loc[("l1", "like"), "p_value"] == pytest.approx(1 / 20)
    assert table.loc[("l1", "like"), "p_max"] == pytest.approx(1 / 20)
    assert table.loc[("l0", "unlike"), "p_value"] > 0.05
    assert (table["p_max"] >= table["p_value"]).all()
    assert set(np.round(table["p_value"] * 20)) <= set(range(1, 21))


def test_permutations_move_whole_images():
    r = rng(0)
    x = r.standard_normal((20, 3, 4, 4)).astype(np.float32)
    row = ig.similarity(x, x, metric="procrustes", null=19).table.iloc[0]
    assert row["p_value"] == pytest.approx(0.05)


# --------------------------------------------------------------------------- digits


def shared_latent(n=400, p=64, dtype=np.float32):
    z = rng(3).standard_normal((n, 12))

    def make(s):
        noise = rng(s + 1).standard_normal((n, p))
        return np.maximum(z @ rng(s).standard_normal((12, p)) + noise, 0)

    return make(10).astype(dtype), make(20).astype(dtype)


@pytest.mark.parametrize(
    "spec", ["cka", "cka(kernel=max)", "cka(kernel=rbf)", "procrustes", "svcca", "bures"]
)
@pytest.mark.parametrize("samples", [400, 48])
def test_scales_and_offsets_cost_no_digits(spec, samples):
    """Where the input itself carries the digits: an offset of 1e4 leaves three in float32."""
    x, y = (v[:samples] for v in shared_latent())
    truth = value(x.astype(np.float64), y.astype(np.float64), spec)
    for scale in (1e-25, 1e-6, 1e15, 1e18):
        assert value(x * np.float32(scale), y, spec) == pytest.approx(truth, abs=1e-3), scale
    if "translation" in metric(spec).invariant:
        for offset in (10.0, 1000.0):
            assert value(x + np.float32(offset), y, spec) == pytest.approx(truth, abs=1e-3)
        assert value(x + np.float32(1e4), y + np.float32(1e4), spec) == pytest.approx(
            truth, abs=2e-3
        )


def test_narrow_and_wide_give_one_value():
    """n below d, n above d: the features' form and the samples' form agree."""
    x, y = shared_latent(200, 16, np.float64)
    narrow = value(x, y, "cka")
    wide = (
        np.concatenate([x, np.zeros((200, 600))], 1),
        np.concatenate([y, np.zeros((200, 600))], 1),
    )
    assert value(*wide, "cka") == pytest.approx(narrow, abs=1e-10)
    assert narrow == pytest.approx(cka(x, y), abs=1e-12)
    assert value(x[:12], y[:12], "cka") == pytest.approx(cka(x[:12], y[:12]), abs=1e-12)


def test_negative_values_are_not_clamped():
    found = [value(features(8, 30, s), features(8, 30, s + 50), "cka") for s in range(12)]
    assert min(found) < -0.01


def test_dead_units_take_nothing_from_identical_layers():
    x = features(40, 6)
    x[:, [1, 4]] = 0
    for spec in INSIDE:
        assert value(x, x, spec) == pytest.approx(metric(spec).identical, abs=1e-7), spec


def test_constant_sites_have_no_value():
    x, flat = features(30, 4), np.full((30, 4), 3.7)
    for spec in (*INSIDE, "cka(kernel=max)", "cka(kernel=rbf)"):
        if metric(spec).centred:
            assert math.isnan(value(x, flat, spec)), spec
        assert math.isnan(value(x, np.zeros((30, 4)), spec)) or not metric(spec).centred


def test_svcca_keeps_a_share_of_the_variance():
    x = rng(0).standard_normal((200, 8)) * np.array([10, 9, 8, 7, 6, 5, 4, 3])
    y = x.copy()
    y[:, 7] = rng(1).standard_normal(200)
    assert value(x, y, "svcca(keep=1.0)") < 0.95 < value(x, y, "svcca(keep=0.8)")


# --------------------------------------------------------------------------- streams


@pytest.mark.parametrize("spec", ["cka", "procrustes", "cca", "gulp", "cka(kernel=max)", "rsa"])
def test_batch_sizes_do_not_matter(spec):
    torch.manual_seed(0)
    net = (
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3, 2), nn.ReLU())
        .double()
        .eval()
    )
    other = nn.Sequential(nn.Conv2d(1, 5, 3, 2), nn.Tanh()).double().eval()
    x = torch.rand(30, 1, 9, 9, dtype=torch.float64)
    found = []
    for size in (1, 7, 30):
        data = [(part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(size)]
        found.append(ig.similarity(net, other, data, metric=spec).arrays["similarity"])
    assert np.allclose(found[0], found[2], atol=1e-10, rtol=0)
    assert np.allclose(found[1], found[2], atol=1e-10, rtol=0)


def test_shares_of_the_data_merge():
    """Sums relative to one shift add up, so that any split of the data gives the whole."""
    from isogon.measures.alignment.representations import Features, Rows
    from isogon.nets.passes import all_passes

    x, y = shared_latent(50, 6, np.float64)
    a, b = Features(x), Features(y)
    left, right = a.places("a", "all", None), b.places("b", "all", None)
    shifts = {left[0].key: torch.from_numpy(x[:5]), right[0].key: torch.from_numpy(y[:5])}
    results = []
    for shards in (1, 3):
        watcher = PairMoments([(left[0], right[0])], ["flatten"], shifts)
        all_passes({"a": a, "b": b}, Rows(50, 8), [watcher], shards=shards)
        views = [SiteView(watcher.own[p.key, f]) for p, f in
                 zip((left[0], right[0]), watcher.forms[0])]  # fmt: skip
        results.append(CrossView(*views, watcher.cross[0]).hsic())
    assert results[0] == pytest.approx(results[1], rel=1e-12)


def test_the_moments_form_of_hsic_is_that_of_the_matrices():
    x, y = torch.from_numpy(features(9, 4)) + 30, torch.from_numpy(features(9, 3, 1))
    sums = []
    for v in (x, y):
        s = SiteSums.empty(v[:2].mean(0))
        s.update(v - s.shift, (v - s.shift).square().sum(1))
        sums.append(s)
    cross = CrossSums.empty(4, 3, x.device)
    rows = [v - s.shift for v, s in zip((x, y), sums)]
    cross.update(*rows, *(v.square().sum(1) for v in rows))
    found = CrossView(SiteView(sums[0]), SiteView(sums[1]), cross).hsic()
    from reference.slow_similarity import hsic_u

    want = hsic_u((x @ x.T).numpy(), (y @ y.T).numpy()) * 9 * 6
    assert found == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e15])
def test_single_precision_rows_give_what_double_ones_give(offset, scale, monkeypatch):
    x, y = (torch.from_numpy(features(2500, 40, s)) for s in (0, 1))
    x = ((x + 0.5 * y + offset) * scale).float()
    y = y.float()
    single = ig.similarity(x, y).arrays["similarity"]
    double = ig.similarity(x.double(), y.double()).arrays["similarity"]
    assert abs(single - double) < (1e-6 if not offset else 1e-5)
    assert not np.array_equal(single, double), "single precision was not used"
    monkeypatch.setattr("isogon.measures.alignment.watchers.LARGE", 1.0)  # rows beyond are double
    left = ig.similarity(x, y).arrays["similarity"]
    assert abs(left - double) <= abs(single - double)


def test_minibatches_average_the_unbiased_estimator():
    x, y = shared_latent(64, 10, np.float64)
    from reference.slow_similarity import hsic_u

    parts = [(x[k : k + 16], y[k : k + 16]) for k in range(0, 64, 16)]
    sums = [sum(hsic_u(u @ u.T, v @ v.T) for u, v in rows) for rows in
            (parts, [(u, u) for u, _ in parts], [(v, v) for _, v in parts])]  # fmt: skip

    class Two(nn.Module):
        def __init__(self, array):
            super().__init__()
            self.array, self.tap = torch.from_numpy(array), nn.Identity()

        def forward(self, rows):
            return self.tap(self.array[rows[:, 0].long()])

    rows = torch.arange(64)[:, None]
    data = [(part, torch.zeros(len(part))) for part in rows.split(16)]
    found = ig.similarity(
        Two(x), Two(y), data, metric="cka(minibatch=True)", sites="tap"
    ).table.iloc[0]
    assert found["similarity"] == pytest.approx(sums[0] / math.sqrt(sums[1] * sums[2]), abs=1e-9)
    assert found["null_sd"] == pytest.approx(math.sqrt(2 / (4 * 16 * 13)))


# --------------------------------------------------------------------------- models


class Tokens(nn.Module):
    """A little transformer: tokens [n, T, C], channels last."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(16, 12)
        self.norm = nn.LayerNorm(12)
        self.act = nn.GELU()
        self.head = nn.Linear(12, 10)

    def forward(self, x):
        x = self.act(self.norm(self.embed(x.flatten(1).unflatten(1, (4, 16)))))
        return self.head(x.mean(1))


@pytest.fixture(scope="module")
def three():
    torch.manual_seed(0)
    conv = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 10),
    ).eval()  # fmt: skip
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10)).eval()
    x = torch.rand(32, 1, 8, 8)
    return conv, mlp, Tokens().eval(), [(x, torch.randint(10, (32,)))]


def test_networks_of_different_kinds_compare_without_a_special_case(three):
    conv, mlp, tokens, data = three
    every = tuple(NAMES)
    for b in (mlp, tokens):
        found = ig.similarity(conv, b, data, metric=every)
        inner = found.table[found.table["site_a"] != "output"]
        assert not inner["similarity"].isna().any(), inner[inner["similarity"].isna()]
        assert "notes" in found.meta  # maps and vectors have no positions in common
    axis = ig.similarity(tokens, tokens, data, metric="procrustes", sites="act")
    assert axis.table["similarity"].iloc[0] == pytest.approx(1, abs=1e-7)
    from isogon.measures.alignment.representations import places

    (place,) = places(tokens, "a", "act", data[0][0], None)
    assert (place.axis, place.width("positions"), place.space) == (2, 12, (4,))


def test_a_model_with_itself_is_identical_everywhere(three):
    conv, _, _, data = three
    for spec in (*NAMES, "cka(kernel=max)", "cka(kernel=median)"):
        found = ig.similarity(conv, conv, data, metric=spec, pairs="diagonal")
        want = metric(spec).identical
        assert np.allclose(found.table["similarity"], want, atol=1e-6), spec


def test_memory_format_does_not_matter(three):
    conv, mlp, _, data = three
    nhwc = [(x.contiguous(memory_format=torch.channels_last), y) for x, y in data]
    for spec in ("cka", "procrustes", "cka(kernel=max)"):
        plain = ig.similarity(conv, mlp, data, metric=spec).arrays["similarity"]
        assert np.allclose(
            ig.similarity(conv, mlp, nhwc, metric=spec).arrays["similarity"], plain, atol=1e-5
        )


def test_a_group_image_of_a_network_is_alike_modulo_that_group(three):
    conv, _, _, data = three
    import copy

    image = copy.deepcopy(conv)
    order, scale = torch.randperm(6), torch.rand(6) + 0.5
    with torch.no_grad():
        image[1].weight.copy_(conv[1].weight[order] * scale)
        image[1].bias.copy_(conv[1].bias[order] * scale)
        image[1].running_mean.copy_(conv[1].running_mean[order])
        image[1].running_var.copy_(conv[1].running_var[order])
        image[0].weight.copy_(conv[0].weight[order])
        image[0].bias.copy_(conv[0].bias[order])
        image[3].weight.copy_(conv[3].weight[:, order] / scale[:, None, None])
    for spec in ("procrustes(modulo=G_relu)", "cka(kernel=max)"):
        found = ig.similarity(conv, image, data, metric=spec, pairs="diagonal")
        assert np.allclose(found.table["similarity"], 1, atol=1e-4), spec
    modulo = ig.similarity(conv, image, data, metric="procrustes", modulo="orthogonal", sites="2")
    assert modulo.table["similarity"].iloc[0] < 1 - 1e-3


def test_outputs_are_compared_as_such(three):
    conv, mlp, _, data = three
    names = ("disagreement", "jsd", "accuracy_difference")
    found = ig.similarity(conv, mlp, data, metric=names).table
    assert set(found["site_a"]) == set(found["site_b"]) == {"output"}
    with torch.no_grad():
        p, q = (m(data[0][0]).softmax(1).double() for m in (conv, mlp))
    middle = (p + q) / 2
    jsd = ((p * (p / middle).log()).sum(1) + (q * (q / middle).log()).sum(1)).mean() / 2
    y = data[0][1]
    right = [(v.argmax(1) == y).double().mean() for v in (p, q)]
    want = [(p.argmax(1) != q.argmax(1)).double().mean(), jsd, (right[0] - right[1]).abs()]
    assert np.allclose(found["similarity"], [float(w) for w in want], atol=1e-6)


def test_models_are_left_alone(three):
    conv, mlp, _, data = three
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in (conv, mlp)]
    ig.similarity(conv, mlp, data, metric=("cka", "rsa"), null=2)
    for m, b in zip((conv, mlp), before):
        assert all(torch.equal(v, b[k]) for k, v in m.state_dict().items())
        assert not m.training


# --------------------------------------------------------------------------- errors


def test_what_can_not_be_compared_is_refused(three, tmp_path):
    conv, mlp, _, data = three
    x = features()
    refused = [
        (OptionError, "batches", lambda: ig.similarity(conv, mlp)),
        (OptionError, "features and a model", lambda: ig.similarity(x, mlp, data)),
        (DataError, "numbers of samples", lambda: ig.similarity(x, x[:5])),
        (DataError, "at least 4", lambda: ig.similarity(features(3, 40), features(3, 40))),
        (OptionError, "modulo", lambda: ig.similarity(x, x, metric="cka", modulo="orthogonal")),
        (OptionError, "permutations", lambda: ig.similarity(x, x, null=-1)),
        (IsogonError, "unknown metric", lambda: ig.similarity(x, x, metric="ckaa")),
        (OptionError, "selector", lambda: ig.similarity(conv, mlp, data, sites="nothing")),
        (DataError, "more than k", lambda: ig.similarity(x[:8], x[:8], metric="mutual_knn")),
        (DataError, "numbers", lambda: ig.similarity(np.array(["a", "b"]), x)),
        (DataError, "NaN", lambda: ig.similarity(np.where(x > 1, math.nan, x), x)),
    ]
    for error, text, call in refused:
        with pytest.raises(error, match=text):
            call()
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(IsogonError):
        ig.similarity(str(tmp_path / "broken.npz"), str(tmp_path / "broken.npz"))


def test_features_from_files(tmp_path):
    x, y = features(), features(40, 7, 1)
    np.savez(tmp_path / "a.npz", one=x, two=y)
    np.savez(tmp_path / "b.npz", other=y)
    found = ig.similarity(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))
    assert list(found.table["site_a"]) == ["one", "two"]
    assert found.table["similarity"].tolist() == pytest.approx([cka(x, y), 1.0])

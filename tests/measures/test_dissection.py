"""Dissection against its definition, and what does not change it."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.actions.channels import Group
from isogon.errors import DataError, ModelError, OptionError
from isogon.measures.dissection import dissect as module
from isogon.measures.dissection.concepts import Concepts, concepts
from isogon.measures.dissection.labels import Labels
from isogon.measures.dissection.units import Basis, Units
from isogon.measures.dissection.upsampling import Upsampling
from isogon.nets.passes import all_passes
from isogon.nets.sites import sites as sites_of
from isogon.stats import Quantiles

sys.path.insert(0, str(Path(__file__).parents[1] / "reference"))
import slow_dissection as slow


def net(dyadic=False):
    """A map at half the size with a dead channel, then a vector."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * 4 * 5, 6), nn.ReLU(), nn.Linear(6, 3),
    ).double()  # fmt: skip
    with torch.no_grad():
        model[0].weight[2] = 0
        model[0].bias[2] = -1
        if dyadic:  # few bits: sums are exact in any order
            for p in model.parameters():
                p.copy_((p * 8).round() / 8)
    return model.eval()


def data(n=7, seed=1, dyadic=False):
    """Images, maps of two concepts at a pixel, maps of which some images have none, and labels."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 2, 8, 10, generator=g, dtype=torch.float64)
    x = (x * 16).round() / 16 if dyadic else x
    part = torch.randint(4, (n, 2, 8, 10), generator=g)
    thing = torch.randint(3, (n, 8, 10), generator=g)
    thing[::2] = 0
    place = torch.randint(3, (n,), generator=g)
    return x, {"part": part, "thing": thing, "place": place}


def split(x, maps, size):
    return [
        (x[i : i + size], {c: m[i : i + size] for c, m in maps.items()})
        for i in range(0, len(x), size)
    ]


def sets(maps, shape):
    """The concepts at each pixel, as sets."""
    found = {}
    for c, m in maps.items():
        m = m.reshape(len(m), -1, *([1, 1] if m.dim() < 3 else m.shape[-2:]))
        m = m.expand(-1, -1, *shape).numpy()
        found[c] = there = np.empty((len(m), *shape), object)
        for place in itertools.product(*map(range, there.shape)):
            there[place] = set(m[(place[0], slice(None), *place[1:])].tolist()) - {0}
    return found


@pytest.mark.parametrize("q", [0.9, 0.995])
def test_it_is_its_definition(q):
    model, (x, maps) = net(), data()
    found = ig.dissect(model, split(x, maps, 3), quantile=q)
    names = list(zip(found.meta["category_of_concept"], found.coords["concept"]))
    with torch.no_grad():
        values = {"1": model[:2](x), "4": model[:5](x)[:, :, None, None]}
    rows = found.table
    for site, maps_of_units in values.items():
        expected, thresholds = slow.table(maps_of_units.numpy(), sets(maps, (8, 10)), q)
        here = rows[rows["site"] == site]
        assert here["activation"].tolist() == pytest.approx(thresholds, rel=1e-12)  # batches differ
        for row, unit in zip(here.index, here["unit"]):
            want = [expected[unit, category, int(name)] for category, name in names]
            assert found.arrays["iou"][row].tolist() == want
            best = int(np.argmax(want))
            assert rows["iou"][row] == want[best]
            there = (rows["category"][row], rows["concept"][row])
            assert there == (names[best] if want[best] else ("", ""))
            assert rows["detector"][row] == (want[best] >= 0.04)
    dead = rows[(rows["site"] == "1") & (rows["unit"] == 2)].iloc[0]
    assert (dead["activation"], dead["iou"], dead["detector"]) == (0, 0, False)
    assert found.meta["rank_error"] == 0
    carried = {c: int((m != 0).reshape(len(x), -1).any(1).sum()) for c, m in maps.items()}
    assert found.meta["images"] == carried
    assert 0 < carried["thing"] < len(x)


def test_a_category_counts_only_over_the_images_that_carry_it():
    """Off the hypothesis: with the other images in the union the numbers are others."""
    model, (x, maps) = net(), data()
    found = ig.dissect(model, [(x, maps["thing"])], sites="1", quantile=0.9)
    carried = (maps["thing"] != 0).flatten(1).any(1)
    t = torch.tensor(found.table["activation"].to_numpy())
    up = nn.functional.interpolate(model[:2](x), (8, 10), mode="bilinear")
    on, has = (up > t[:, None, None])[:, 0], maps["thing"] == 1
    value = float(found.arrays["iou"][0, 0])
    whole = float((on & has).sum() / (on | has).sum())
    part = float((on & has)[carried].sum() / (on | has)[carried].sum())
    assert value == pytest.approx(part, rel=1e-6)
    assert whole < 0.95 * value


def test_labels_of_images_are_maps_that_are_constant():
    model, (x, maps) = net(), data()
    place = maps["place"]
    one = ig.dissect(model, [(x, {"place": place})], quantile=0.9)
    two = ig.dissect(model, [(x, {"place": place[:, None, None].expand(-1, 8, 10)})], quantile=0.9)
    assert np.array_equal(one.arrays["iou"], two.arrays["iou"])
    several = ig.dissect(model, [(x, {"place": torch.stack([place, place], 1)})], quantile=0.9)
    assert np.array_equal(one.arrays["iou"], several.arrays["iou"])


class Doubling(Group):
    """Permutations times powers of two."""

    name = "doubling"

    def _draw(self, channels, generator):
        order = torch.randperm(channels, generator=generator)
        scale = 2.0 ** torch.randint(-4, 5, (channels,), generator=generator)
        return torch.eye(channels, dtype=torch.float64)[order] * scale.double()[:, None]


def test_permutations_with_powers_of_two_permute_the_table():
    model, (x, maps) = net().float(), data()
    x = x.float()
    bases = ("unit", Doubling(), ig.group("orthogonal"))
    found = ig.dissect(model, split(x, maps, 3), basis=bases, draws=3, quantile=0.8)
    table = found.table
    for site in ("1", "4"):

        def rows(basis, draw=0, site=site):
            chosen = table[["site", "basis", "draw"]].eq([site, basis, draw]).all(axis=1)
            return sorted(found.arrays["iou"][chosen.to_numpy()].tolist())

        for draw in range(3):
            assert rows("doubling", draw) == rows("unit")
            assert rows("orthogonal", draw) != rows("unit")
    # any scales: the same up to pixels that tie with T
    near = ig.dissect(model, [(x, maps)], sites="1", basis=("unit", "G_relu"), quantile=0.9)
    a, b = (np.sort(part, axis=0) for part in np.split(near.arrays["iou"], 2))
    assert np.allclose(a, b, atol=0.02)


def test_a_basis_is_the_combination_of_channels_that_it_says():
    model, (x, maps) = net(), data()
    g = torch.Generator().manual_seed(4)
    found = ig.dissect(model, [(x, maps)], sites="1", basis="orthogonal", generator=g)
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(4)))
    q = ig.group("orthogonal").sample(4, torch.Generator().manual_seed(seed)).matrix
    turned = torch.einsum("ij,njhw->nihw", q, model[:2](x)).detach()
    values = turned.movedim(1, -1).reshape(-1, 4)
    t = Quantiles(0.995, total=len(values)).update(values).least()
    assert np.allclose(found.table["activation"], t, rtol=1e-12)
    powers = ("orthogonal(power=1e-9)", "unit")
    near = ig.dissect(model, [(x, maps)], sites="0", basis=powers, quantile=0.9)
    alive = (near.table["unit"] != 2).to_numpy()  # a constant plus little of others is no constant
    assert np.allclose(*np.split(near.arrays["iou"][alive], 2))


def test_the_size_of_batches_and_shares_change_nothing():
    """Sums of few bits are exact in any order."""
    model, (x, maps) = net(dyadic=True), data(9, dyadic=True)
    one = ig.dissect(model, split(x, maps, 9), basis=("unit", Doubling()), gallery=2)
    for size in (1, 2, 4):
        assert ig.dissect(
            model, split(x, maps, size), basis=("unit", Doubling()), gallery=2
        ).equals(one)
    data_ = Concepts(split(x, maps, 2))
    labels = Labels(data_)
    made: list = []

    def columns():
        made[:] = made or [labels.result()]
        return made[0]

    site = sites_of(model, "1", example=x)[0]
    basis = Basis("unit", 0, None, Quantiles(0.995, total=9 * 20))
    units = Units(site, 1, [basis], data_.size, columns, 2)
    all_passes(model, data_, [labels, units], shards=3)
    assert np.array_equal(basis.iou(made[0]).numpy(), one.arrays["iou"][:4])
    assert np.array_equal(basis.masks.numpy(), one.arrays["masks"][:4])


def test_the_gallery_holds_the_images_that_fire_a_unit_most():
    model, (x, maps) = net(), data()
    found = ig.dissect(model, split(x, maps, 3), sites="1", quantile=0.9, gallery=2)
    values = model[:2](x).detach()
    for u in (0, 1, 3):
        best = values[:, u].amax((1, 2)).argsort(descending=True)[:2]
        for rank, i in enumerate(best.tolist()):
            image = found.arrays["images"][found.arrays["top"][u, rank]]
            assert np.array_equal(image, x[i].float().numpy())
            up = slow.upsampled(values[i, u].numpy(), 8, 10)
            on = up > found.table["activation"][u]
            assert np.array_equal(on, found.arrays["masks"][u, rank])


def test_thresholds_that_do_not_fit_are_estimated_within_the_error_said(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Sigmoid()).double()
    x = torch.rand(40, 2, 16, 16, dtype=torch.float64)
    maps = torch.ones(40, 16, 16, dtype=torch.int64)
    exact = ig.dissect(model, [(x, maps)], sites="1", quantile=0.6)
    monkeypatch.setattr(module, "EXACT", 100)
    monkeypatch.setattr(module, "KEEP", 512)
    rough = ig.dissect(model, [(x, maps)], sites="1", quantile=0.6)
    error = rough.meta["rank_error"]
    assert 0 < error < 0.05
    assert exact.meta["rank_error"] == 0
    for u in range(3):
        below = (model(x)[:, u] <= rough.table["activation"][u]).double().mean()
        assert abs(float(below) - 0.6) <= error + 1e-3


@pytest.mark.parametrize("total", [True, False])
@pytest.mark.parametrize("q", [0.005, 0.3, 0.5, 0.9, 0.995, 1.0])
def test_the_least_value_that_a_share_does_not_exceed(q, total):
    g = torch.Generator().manual_seed(0)
    for n in (1, 2, 10, 200, 333):
        x = torch.randint(40, (n, 3), generator=g).double()
        stat = Quantiles(q, total=n if total else None)
        for part in x.split(7):
            stat.update(part)
        want = [slow.threshold(column.tolist(), q) for column in x.T]
        assert stat.least().tolist() == want


def test_detectors_and_unique_detectors():
    """Two units that see red and one that sees green: three detectors, two unique."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU())
    with torch.no_grad():
        model[0].weight[:, :, 0, 0] = torch.tensor(
            [[1.0, -1, -1], [2.0, -2, -2], [-1.0, 1, -1], [0.0, 0, 0]]
        )
    found = ig.dissect(model, "shapes(n=20)", sites="1", quantile=0.97)
    assert found.table["concept"].tolist() == ["red", "red", "green", ""]
    assert found.table["detector"].tolist() == [True, True, True, False]
    rows = found.summary().set_index("category")
    assert (rows.loc["colour", "detectors"], rows.loc["colour", "unique"]) == (3, 2)
    assert (rows.loc["all", "detectors"], rows.loc["scene", "detectors"]) == (3, 0)
    none = ig.dissect(model, "shapes(n=20)", sites="1", quantile=0.97, threshold=1.0)
    assert not none.table["detector"].any()


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (7, 5), (20, 30), (33, 41)])
def test_upsampling_looks_where_a_map_may_be_above(shape):
    """At all sizes, smaller ones too; most maps are below everywhere, some on a plateau."""
    g = torch.Generator().manual_seed(0)
    maps = torch.rand(6, *shape, generator=g, dtype=torch.float64)
    maps[1] = 0.5
    threshold = torch.tensor([0.95, 0.5, 0.2, -1.0, 2.0, float(maps[5].max())]).double()
    made = Upsampling(shape, (20, 30), maps.device)
    whole = made.whole(maps)
    expected = nn.functional.interpolate(maps[None], (20, 30), mode="bilinear")[0]
    assert torch.allclose(whole, expected, rtol=1e-12)
    assert whole[0].tolist() == slow.upsampled(maps[0].numpy(), 20, 30).tolist()
    found = torch.zeros(6, 20 * 30, dtype=torch.int64)
    for m, pixel in made.above(maps, threshold):
        found.index_put_((m, pixel), torch.ones_like(m), accumulate=True)
    on = whole > threshold[:, None, None]
    on[1] = False  # a plateau at the threshold, whatever its rounding
    assert found.tolist() == on.flatten(1).long().tolist()


@pytest.mark.long
def test_rotated_units_detect_fewer_concepts():
    """The network's own basis is special: of a small network that was trained on the shapes."""
    model = ig.load("trained(cnn(width=8), 'shapes(train, n=2000)', epochs=25, lr=0.003)")
    bases = ("unit", "orthogonal", "G_relu")
    found = ig.dissect(model, "shapes(n=300)", sites="*relu[12]", basis=bases, draws=10)
    rows = found.summary().query("category == 'all'").set_index(["site", "basis"])["unique"]
    for site in ("model.relu1", "model.relu2"):
        assert rows[site, "orthogonal"] < rows[site, "unit"] - 0.2
        assert rows[site, "G_relu"] == rows[site, "unit"]


def test_names():
    x, maps = data()
    pairs = [(x, maps)]

    class Named(list):
        names = ("a", "b", "c")

    assert concepts(pairs).concept("part", 2) == "2"
    assert concepts(Named(pairs)).concept("part", 2) == "b"
    made = Concepts(pairs, {"part": {1: "hand"}, "thing": ["cup"]})
    assert (made.concept("part", 1), made.concept("thing", 1)) == ("hand", "cup")
    with pytest.raises(DataError, match="number 2 of thing"):
        made.concept("thing", 2)
    with pytest.raises(DataError, match="without a name"):
        ig.dissect(net(), Concepts(pairs, ["one"]))
    assert concepts((x, maps["thing"])).categories == ["concept"]
    assert concepts(pairs).digest() == Concepts(split(x, maps, 2)).digest()
    assert concepts(pairs).digest() != Concepts(pairs, ["a", "b", "c"]).digest()


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (lambda x, m: x, "not images with concepts"),
        (
            lambda x, m: (x[0], m),
            r"images \[N, C, H, W\].* nn.Unflatten\(1, \(\d+, \d+\)\), model\)",
        ),
        (lambda x, m: (x.flatten(1), m), r"model = nn.Sequential\(nn.Flatten\(\), model\)"),
        (lambda x, m: (x, m["part"].float()), "integers"),
        (lambda x, m: (x, m["part"] - 1), "numbers from 0"),
        (lambda x, m: (x, m["part"] * 2**22), "numbers from 0"),
        (lambda x, m: (x, m["part"][:2]), "7 images"),
        (lambda x, m: (x, {}), "category"),
        (lambda x, m: (x, {"a": m["thing"], "b": m["thing"][:, :4]}), "one size"),
        (lambda x, m: (x / 0, m), "infinite|NaN"),
        (lambda x, m: (x, m["thing"] * 0), "no concept"),
    ],
)
def test_what_is_no_data_is_refused(item, says):
    x, maps = data()
    with pytest.raises(DataError, match=says) as caught:
        ig.dissect(net(), [item(x, maps)])
    assert "\n" not in str(caught.value)


def test_tokens_have_no_maps_and_the_refusal_names_a_site_that_has():
    x, maps = data()
    patches = nn.Conv2d(x.shape[1], 4, 3)
    model = nn.Sequential(patches, nn.Flatten(2), nn.GELU()).to(x.dtype).eval()
    with pytest.raises(OptionError, match=r"no site with maps.* sites='0' has maps"):
        ig.dissect(model, [(x, maps)])
    assert set(ig.dissect(model, [(x, maps)], sites="0").to_frame()["site"]) == {"0"}


def test_rows_that_are_images_are_dissected_as_the_refusal_says():
    x, maps = data()
    model = nn.Sequential(nn.Linear(x[0].numel(), 5), nn.ReLU()).eval()
    inner = nn.Sequential(nn.Flatten(), model)
    assert ig.dissect(inner, [(x, maps)]).to_frame()["unit"].nunique() == 5


def test_what_can_not_be_measured_is_refused():
    x, maps = data()
    with pytest.raises(DataError, match="only once"):
        ig.dissect(net(), iter([(x, maps)]))
    with pytest.raises(DataError, match="empty"):
        ig.dissect(net(), [])
    with pytest.raises(OptionError, match="re-iterable"):
        ig.dissect(net(), x)
    for wrong in ({"draws": 0}, {"quantile": 0.0}, {"threshold": 2.0}, {"gallery": -1}):
        with pytest.raises(OptionError, match="out of range"):
            ig.dissect(net(), [(x, maps)], **wrong)

    class Moving(list):
        def __iter__(self):
            return iter([(torch.rand_like(x), maps)])

    with pytest.raises(DataError, match="changes between passes"):
        ig.dissect(net(), Moving([1]))
    tokens = nn.Sequential(nn.Flatten(2), nn.Linear(80, 4), nn.ReLU()).double()
    with pytest.raises(OptionError, match=r"no site with maps.* This model has none anywhere"):
        ig.dissect(tokens, [(x, maps)])
    bad = net()
    with torch.no_grad():
        bad[3].weight[0, 0] = torch.nan
    with pytest.raises(ModelError):
        ig.dissect(bad, [(x, maps)])


def test_channels_last_within_a_network():
    """A linear layer over the last axis is a 1 x 1 convolution."""

    class Last(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.mix, self.act = inner, nn.Linear(4, 5), nn.ReLU()

        def forward(self, x):
            return self.act(self.mix(self.inner(x).movedim(1, -1))).flatten(1)

    torch.manual_seed(1)
    last = Last(nn.Conv2d(2, 4, 3, padding=1)).double()
    mix = nn.Conv2d(4, 5, 1).double()
    mix.load_state_dict({"weight": last.mix.weight[:, :, None, None], "bias": last.mix.bias})
    first = nn.Sequential(last.inner, mix, nn.ReLU())
    x, maps = data()
    one = ig.dissect(first, [(x, maps)], sites="2", quantile=0.9)
    two = ig.dissect(last, [(x, maps)], sites="act", quantile=0.9)
    assert len(two.table) == 5
    assert np.allclose(one.arrays["iou"], two.arrays["iou"])


def test_a_set_of_a_module_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_concepts.py").write_text(
        "import torch\n"
        "class Made(list):\n"
        "    names = ['left', 'right']\n"
        "def made(n):\n"
        "    maps = torch.ones(n, 8, 8, dtype=torch.int64)\n"
        "    maps[:, :, 4:] = 2\n"
        "    return Made([(torch.zeros(n, 3, 8, 8), maps)])\n"
    )
    monkeypatch.chdir(tmp_path)
    found = concepts("own_concepts:made(3)")
    assert (found.count, found.concept("concept", 2)) == (3, "right")
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    reading = ig.dissect(model, "own_concepts:made(3)")
    assert reading.coords["concept"] == ["left", "right"]
    assert not reading.table["detector"].any()  # constants are never above themselves

"""Stitched networks: theorems, their failures off the hypothesis, and a literal twin."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import isogon as ig
import reference.slow_stitching as slow
from isogon import nets
from isogon.actions.channels import Channels
from isogon.errors import DataError, NotACut, OptionError
from isogon.measures.stitching.methods import stitch
from isogon.nets.surgery import split
from isogon.stats import CrossMoments
from reference.stitchable import balanced, data, plain

HOLDING = ("identity", "permutation", "G_relu", "orthogonal", "linear", "low_rank(9)")


class Block(nn.Module):
    def __init__(self, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, stride, 1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4)
        self.short = nn.Conv2d(4, 4, 1, stride)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        h = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(h)) + self.short(x))


def residual(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, 1, 1), Block(1), Block(2), nn.Flatten(), nn.Linear(64, 4)
    )
    return net.eval()


@pytest.fixture(scope="module")
def cnn():
    return balanced(plain())


def column(found, name, **where):
    table = found.to_frame()
    for key, value in where.items():
        table = table[table[key] == value]
    return table[name].tolist()


def test_stitching_to_itself_costs_nothing(cnn):
    """Exactly by what keeps bits; by any other set of maps that holds the identity, a sample."""
    train, test = data(cnn), data(cnn, seed=1)
    found = ig.stitch(cnn, cnn, train, test, by=HOLDING)
    assert column(found, "site", by="linear") == ["2", "6"]
    assert found.meta["accuracy"] == 1.0
    table = found.to_frame()
    for by in ("identity", "permutation"):
        rows = table[table["by"] == by]
        assert (rows[["penalty", "penalty_frozen_bn"]] == 0).all(axis=None)
        assert (rows[["agreement", "accuracy", "ceiling"]] == 1).all(axis=None)
    assert (
        len(set(column(found, "loss", by="identity") + column(found, "loss", by="permutation")))
        == 1
    )
    assert max(abs(p) for p in column(found, "penalty")) <= 1 / 80
    assert max(column(found, "floor")) < 0.9
    wrong = ig.stitch(cnn, cnn, train, test, by=("random_permutation", "low_rank(1)"))
    assert min(column(wrong, "penalty")) > 0.1


def test_with_batch_norm_too():
    model = balanced(plain(norm=True))
    train, test = data(model), data(model, seed=1)
    found = ig.stitch(model, model, train, test, by=HOLDING)
    table = found.to_frame()
    for by in ("identity", "permutation"):
        rows = table[table["by"] == by]
        assert (rows[["penalty", "penalty_frozen_bn"]] == 0).all(axis=None)
        assert (rows["agreement"] == 1).all()
        assert (rows["ceiling"] == rows["accuracy"]).all()
    assert max(abs(p) for p in column(found, "penalty")) <= 1 / 80
    assert max(abs(p) for p in column(found, "penalty_frozen_bn")) <= 1 / 80
    assert min(column(found, "accuracy", site="2")) < 1, "recalibration changes what b answers"


def image(model, element, first, second):
    """The model whose channels behind layer ``first`` are moved by an element of G_ReLU."""
    moved, matrix = copy.deepcopy(model), element.matrix.float()
    with torch.no_grad():
        moved[first].weight.copy_(torch.einsum("ij,jkhw->ikhw", matrix, model[first].weight))
        moved[first].bias.copy_(matrix @ model[first].bias)
        inverse = torch.linalg.inv(matrix)
        moved[second].weight.copy_(torch.einsum("okhw,kj->ojhw", model[second].weight, inverse))
    return moved


def test_an_image_under_g_relu_costs_nothing_by_what_holds_it(cnn, generator):
    element = ig.group("G_relu").sample(6, generator)
    other = image(cnn, element, 0, 4)
    x = data(cnn)[0][0]
    assert torch.allclose(cnn(x), other(x), atol=1e-4)
    train, test = data(cnn), data(cnn, seed=1)
    by = ("G_relu", "linear", "identity", "permutation", "orthogonal")
    found = ig.stitch(cnn, other, train, test, by=by, sites="2")
    penalty = dict(zip(column(found, "by"), column(found, "penalty")))
    assert abs(penalty["G_relu"]) <= 1 / 80
    assert abs(penalty["linear"]) <= 1 / 80
    assert penalty["identity"] > 0.05
    assert min(penalty["permutation"], penalty["orthogonal"]) > 2 / 80
    order = Channels((element.matrix > 0).double())  # and of permutations alone
    found = ig.stitch(cnn, image(cnn, order, 0, 4), train, test, by=by, sites="2")
    penalty = dict(zip(column(found, "by"), column(found, "penalty")))
    assert penalty.pop("identity") > 0.05
    assert max(map(abs, penalty.values())) <= 1 / 80


@pytest.mark.parametrize("norm", [False, True])
def test_penalties_by_definition(norm):
    """Other widths, other sizes of maps, batch norms, all pairs: against every part spelled out."""
    a, b = plain(5, 1, pool=1), balanced(plain(7, 2, norm=norm))
    train, test = data(b), data(b, seed=1)
    found = ig.stitch(a, b, train, test, by=("linear", "G_relu"), pairs="all", sites="2,6")
    assert len(found) == 8
    x, draw = train[0][0], torch.Generator().manual_seed(0)
    orders = {site: torch.randperm(width, generator=draw) for site, width in (("2", 5), ("6", 9))}
    for row in found.to_frame().itertuples():
        mine, other = split(a, row.site_a, example=x), split(b, row.site_b, example=x)
        with torch.no_grad():
            inputs = torch.cat([x for x, _ in train])
            h, target = mine.head(inputs), other.head(inputs)
        index = [torch.arange(s) * k // s for s, k in zip(target.shape[2:], h.shape[2:])]
        place = lambda h, index=index: h[:, :, index[0]][:, :, :, index[1]]  # noqa: E731
        rows = [t.double().movedim(1, -1).flatten(0, -2) for t in (place(h), target)]
        moments = CrossMoments().update(*rows).compute()
        fitted = stitch(row.by).fit(moments, torch.Generator())
        between = lambda h, place=place, fitted=fitted: fitted(place(h))  # noqa: E731
        exact = slow.penalties(mine.head, between, other.tail, other.head, train, test)
        assert (row.accuracy, row.penalty, row.penalty_frozen_bn) == pytest.approx(exact, abs=1e-12)
        mixed = lambda h, o=orders[row.site_a], f=between: f(h[:, o])  # noqa: E731
        floor = slow.penalties(mine.head, mixed, other.tail, other.head, train, test)[0]
        itself = stitch(row.by).fit(CrossMoments().update(rows[1], rows[1]).compute(), draw)
        ceiling = slow.penalties(other.head, itself, other.tail, other.head, train, test)[0]
        same = slow.agreement(mine.head, between, other.tail, other.head, train, test)
        exact = (floor, ceiling, *same)
        assert (row.floor, row.ceiling, row.agreement, row.loss) == pytest.approx(exact, abs=1e-6)
    if norm:
        assert found.table["penalty"].ne(found.table["penalty_frozen_bn"]).any()


def test_it_does_not_depend_on_the_size_of_batches(cnn):
    a = plain(5, 1)
    tables = []
    for batch in (7, 32, 80):
        found = ig.stitch(a, cnn, data(cnn, batch=batch), data(cnn, batch=batch, seed=1),
                          by=("G_relu", "linear", "low_rank(2)"))  # fmt: skip
        tables.append(found.to_frame().drop(columns="seconds"))
    for other in tables[1:]:
        numbers = tables[0].select_dtypes("number") - other.select_dtypes("number")
        assert numbers.abs().max(axis=None) < 1e-5


def test_residual_blocks():
    a, b = residual(0), balanced(residual(1))
    train, test = data(b), data(b, seed=1)
    found = ig.stitch(a, b, train, test)
    assert column(found, "site") == ["1.relu2", "2.relu2"]
    assert "1.relu1, 2.relu1" in " ".join(found.meta["notes"])
    with pytest.raises(NotACut, match=r"1\.relu1.*nearest cuts are '0' and"):
        ig.stitch(a, b, train, test, sites="1.relu1")
    found = ig.stitch(a, b, train, test, in_block=True, by=("linear", "identity"))
    assert column(found, "site", by="linear") == ["1.relu1", "1.relu2", "2.relu1", "2.relu2"]
    assert column(found, "in_block", by="linear") == [True, False, True, False]
    every = ig.stitch(a, b, train, test, in_block=True, pairs="all")
    pairs = list(zip(column(every, "site_a"), column(every, "site_b"), column(every, "in_block")))
    assert [p for p in pairs if p[2]] == [(s, s, True) for s in ("1.relu1", "2.relu1")]
    assert len(pairs) == 2 + 4
    itself = ig.stitch(b, b, train, test, in_block=True, by=("identity", "permutation"))
    assert (itself.to_frame()[["penalty", "penalty_frozen_bn"]] == 0).all(axis=None)
    assert (itself.to_frame()["agreement"] == 1).all()

    # by definition: the other path carries a's own stream
    def stitched(x):
        with torch.no_grad():
            first = a[0](x)
            h = a[1].relu1(a[1].bn1(a[1].conv1(first)))
            return b[2:](b[1].relu2(b[1].bn2(b[1].conv2(h)) + b[1].short(first)))

    exact = slow.accuracy(b, test) - slow.accuracy(stitched, test)
    assert column(found, "penalty_frozen_bn", by="identity", site="1.relu1") == [exact]
    assert exact > 0.1


def test_blocks_whose_other_paths_differ_are_left_out(cnn):
    net = residual()
    wide = nn.Sequential(
        nn.Conv2d(1, 4, 3, 1, 1), Block(2), Block(1), nn.Flatten(), nn.Linear(64, 4)
    )
    found = ig.stitch(net, wide.eval(), data(net), data(net), in_block=True)
    assert column(found, "site") == ["1.relu1", "1.relu2", "2.relu2"]
    assert any("other paths differ" in n for n in found.meta["notes"])


def test_in_block_sites_of_a_resnet20():
    torch.manual_seed(0)
    model = nets.build("cifar_resnet20").eval()
    x = data(model, 12, 6, (3, 8, 8))
    select = "r1,block_seq.2.r?,block_seq.3.r?"
    found = ig.stitch(model, model, x, x, in_block=True, by=("identity", "linear"), sites=select)
    assert column(found, "in_block", by="linear") == [False, True, False, True, False]
    exact = found.to_frame().query("by == 'identity'")
    assert (exact[["penalty", "penalty_frozen_bn"]] == 0).all(axis=None)
    assert (exact["agreement"] == 1).all()


def test_tokens_of_a_compact_transformer():
    torch.manual_seed(0)
    a, b = (nets.build("cct(2, size=16)").eval() for _ in range(2))
    x = data(b, 24, 12, (3, 16, 16))
    sites = "classifier.blocks.?"
    found = ig.stitch(b, b, x, x, by=("identity", "permutation", "linear"), sites=sites)
    assert column(found, "site", by="linear") == ["classifier.blocks.0", "classifier.blocks.1"]
    assert (found.to_frame()["penalty"].abs() <= 1 / 24).all()
    exact = found.to_frame().query("by != 'linear'")
    assert (exact["penalty"] == 0).all()
    assert (exact["agreement"] == 1).all()
    assert len(set(exact["loss"])) == 1
    parts, draw = split(b, "classifier.blocks.0", example=x[0][0]), torch.Generator().manual_seed(0)
    order = torch.randperm(parts.site.shape[1], generator=draw)
    exact = slow.accuracy(lambda t: parts.tail(parts.head(t)[..., order]), x)
    assert column(found, "floor", by="identity")[0] == exact
    found = ig.stitch(a, b, x, x, by="linear", sites=sites, pairs="all")
    assert len(found) == 4
    assert found.table["floor"].mean() < found.table["accuracy"].mean() + 0.2


def test_what_can_not_be_stitched(cnn):
    train = data(cnn)
    narrow = plain(5, 1)
    with pytest.raises(OptionError, match=r"one width.*5 channels at 2, 6 at 2.*G_relu"):
        ig.stitch(narrow, cnn, train, train, by="identity", sites="2")
    found = ig.stitch(narrow, cnn, train, train, by=("identity", "linear"))
    assert column(found, "site", by="identity") == ["6"]
    assert any("identity: 1 pairs of unequal widths" in n for n in found.meta["notes"])
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    with pytest.raises(OptionError, match="no pair of sites"):
        ig.stitch(flat, cnn, train, train)
    found = ig.stitch(flat, flat, train, train)
    assert found.meta["accuracy"] < 1
    with pytest.raises(OptionError, match="no such choice of pairs"):
        ig.stitch(cnn, cnn, train, train, pairs="every")
    bare = ig.stitch(narrow, cnn, [x for x, _ in train], train)  # maps are fitted without labels
    assert bare.equals(ig.stitch(narrow, cnn, train, train))
    with pytest.raises(DataError, match="no labels"):
        ig.stitch(narrow, cnn, train, [x for x, _ in train])
    with pytest.raises(OptionError, match="too few samples"):
        ig.stitch(cnn, cnn, train, train, norm_samples=1)
    with pytest.raises(DataError, match="labels"):
        ig.stitch(cnn, cnn, train, [(x, y + 9) for x, y in train])
    normed = plain(norm=True)
    single = [(x[:1], y[:1]) for x, y in train]
    # a map of one position per channel, one sample: no variance
    deep = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 4)
    )
    with pytest.raises(DataError, match="one sample has no variance"):
        ig.stitch(deep.eval(), deep, single, train)
    assert normed.training is False


def test_statistics_come_from_so_many_samples():
    a, b = plain(seed=3, norm=True), balanced(plain(norm=True))
    train, test = data(b), data(b, seed=1)
    few = ig.stitch(a, b, train, test, norm_samples=40, sites="2")
    cut = [train[0], (train[1][0][:8], train[1][1][:8])]
    x = train[0][0]
    mine, other = split(a, "2", example=x), split(b, "2", example=x)
    moments = CrossMoments()
    with torch.no_grad():
        for x, _ in train:
            moments.update(mine.head(x), other.head(x))
    fitted = stitch("linear").fit(moments.compute(), torch.Generator())
    exact = slow.penalties(mine.head, fitted, other.tail, other.head, cut, test)
    row = few.table.iloc[0]
    assert (row.accuracy, row.penalty, row.penalty_frozen_bn) == pytest.approx(exact, abs=1e-12)


def test_networks_stay_as_they_were(cnn):
    a, b = plain(5, 1, norm=True), plain(7, 2, norm=True)
    before = [copy.deepcopy(m.state_dict()) for m in (a, b)]
    a.train()
    train = data(cnn)
    ig.stitch(a, b, train, train, by=("linear", "permutation"))
    ig.rotate(b, ig.group("orthogonal"), train, train, epochs=1)
    assert a.training
    assert not b.training
    for m, state in zip((a, b), before):
        assert all(torch.equal(v, state[k]) for k, v in m.state_dict().items())
        assert all(p.grad is None and p.requires_grad for p in m.parameters())
        assert not any(s._forward_hooks for s in m.modules())


def test_the_output_is_a_place_too(cnn):
    found = ig.stitch(plain(5, 1), cnn, data(cnn), data(cnn), by=("identity", "linear"), sites="8")
    itself = ig.stitch(cnn, cnn, data(cnn), data(cnn), by="identity", sites="8")
    assert column(itself, "penalty") == [0.0]
    own = dict(zip(column(found, "by"), column(found, "accuracy")))
    assert own["linear"] > own["identity"]


def test_sites_of_b_may_be_others(cnn):
    a = plain(6, 1)
    found = ig.stitch(a, cnn, data(cnn), data(cnn), sites="0,2", sites_b="2,4", by="linear")
    assert list(zip(column(found, "site_a"), column(found, "site_b"))) == [("0", "2"), ("2", "4")]
    one = ig.stitch(a, cnn, data(cnn), data(cnn), sites="2", sites_b="4", by="linear")
    assert column(one, "loss") == pytest.approx(column(found, "loss", site="2"), abs=1e-9)
    uneven = ig.stitch(a, cnn, data(cnn), data(cnn), sites="0,2", sites_b="2")
    assert uneven.meta["notes"] == ["the first 1 sites of 2 and 1"]

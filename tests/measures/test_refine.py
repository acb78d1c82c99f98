"""Stitches trained on the task loss: theorems, a loop spelled out, and what is left alone."""

from __future__ import annotations

import copy
import gc
import os

import pytest
import torch
from torch import nn

import isogon as ig
from isogon import context
from isogon.errors import DataError, OptionError
from isogon.measures.stitching.methods import stitch
from isogon.measures.stitching.refine import course, kept
from isogon.nets.recalibrate import recalibrated
from isogon.nets.surgery import split
from isogon.stats import CrossMoments
from reference.stitchable import balanced, data, plain

EVERY = ("linear", "low_rank(3)", "orthogonal", "G_relu", "lasso(0.001)", "birkhoff", "wreath")


@pytest.fixture(scope="module")
def cnn():
    return balanced(plain())


@pytest.fixture(scope="module")
def pair():
    """Two networks with batch norms, and data of the second."""
    b = balanced(plain(seed=1, norm=True))
    return plain(seed=2, norm=True), b, data(b, 120), data(b, seed=1)


def rows(found, *columns, **where):
    table = found.to_frame()
    for key, value in where.items():
        table = table[table[key] == value]
    return table[list(columns)].to_numpy().tolist()


def test_a_network_stitched_to_itself_stays_so(cnn):
    """Exactly by identity; within a sample by all that holds it, where there is nothing to gain."""
    sure = copy.deepcopy(cnn)
    with torch.no_grad():
        sure[-1].weight *= 1000
        sure[-1].bias *= 1000
    train, test = data(cnn), data(cnn, seed=1)
    by = ("identity", "permutation", *(e for e in EVERY if e != "low_rank(3)"))
    found = ig.stitch(sure, sure, train, test, by=by, refine=20)
    for exact in ("identity", "permutation"):
        assert rows(found, "penalty", "penalty_frozen_bn", by=exact) == [[0, 0], [0, 0]]
        assert rows(found, "agreement", by=exact) == [[1.0], [1.0]]
    assert found.to_frame()["penalty"].abs().max() <= 1 / 80
    assert (found.to_frame()["refine"] == 20).all()
    unsure = ig.stitch(cnn, cnn, train, test, by=by, refine=20)
    assert unsure.to_frame()["penalty"].abs().max() > 2 / 80, "what has more to learn moves"
    assert rows(unsure, "penalty", by="identity") == [[0], [0]]


@pytest.mark.parametrize("norm", ["none", "after"])
def test_what_has_nothing_to_train_has_one_row(pair, norm):
    """A batch norm around a map is trained with it."""
    a, b, train, test = pair
    by = ("identity", "random_permutation", "linear")
    found = ig.stitch(a, b, train, test, sites="2", by=by, refine=(3, 0), norm=norm)
    steps = {m: sorted(n for (n,) in rows(found, "refine", by=m)) for m in by}
    few = [0] if norm == "none" else [0, 3]
    assert steps == {"identity": few, "random_permutation": few, "linear": [0, 3]}


@pytest.mark.parametrize("by", EVERY)
def test_training_never_ends_above_the_loss_it_began_with(pair, by):
    """On the samples that it is trained on, batch-norm statistics from them."""
    a, b, train, _ = pair
    found = ig.stitch(a, b, train, train, by=by, refine=(0, 25), lr=3e-2)
    after = dict(map(tuple, rows(found, "site", "loss", refine=25)))
    if by in ("birkhoff", "wreath", "lasso(0.001)"):  # as they begin
        start = ig.stitch(a, b, train, train, by="linear" if "lasso" in by else "G_relu")
        before = dict(map(tuple, rows(start, "site", "loss")))
        assert not rows(found, "site", refine=0), "these are nothing without training"
    else:
        before = dict(map(tuple, rows(found, "site", "loss", refine=0)))
    more = 0.05 if "lasso" in by else 1e-6  # the lasso goes down loss + penalty
    assert all(after[s] <= before[s] + more for s in before)
    if by != "wreath":
        assert sum(after.values()) < sum(before.values()), "and goes down at all"


def test_against_the_loop_spelled_out(pair):
    """Adam on the matrix and the offset, the tail in training mode, the best of five looks."""
    a, b, train, test = pair
    steps, lr = 8, 1e-2
    generator = torch.Generator().manual_seed(5)
    found = ig.stitch(a, b, train, test, sites="2", by="linear", refine=steps, lr=lr,
                      warmup=2, generator=generator)  # fmt: skip
    draw = torch.Generator().manual_seed(5)
    torch.randperm(6, generator=draw)  # the floor's order
    seed = int(torch.randint(2**31, (), generator=draw))
    x, y = (torch.cat(part) for part in zip(*train))
    mine, other = split(a, "2", example=x[:4]), copy.deepcopy(split(b, "2", example=x[:4]))
    with torch.no_grad():
        h, target = mine.head(x), other.head(x)
    fitted = stitch("linear").fit(CrossMoments().update(h, target).compute(), draw)
    weight = fitted.weight.detach().clone().requires_grad_()
    bias = fitted.bias.detach().clone().requires_grad_()
    adam = torch.optim.Adam([weight, bias])
    # the tail of b by hand: its modules behind the site
    tail = copy.deepcopy(nn.Sequential(*list(b)[3:]))

    def through(h):
        turned = torch.einsum("ij,njhw->nihw", weight.float(), h)
        return turned + bias.float()[:, None, None]

    def mean_loss(inputs, labels):
        calm, total = copy.deepcopy(tail), 0
        calm.train()
        with torch.no_grad():
            for part in through(h).split(32):
                total += len(part)
                for m in calm.modules():
                    if isinstance(m, nn.BatchNorm2d):
                        m.momentum = len(part) / total
                calm(part)
            return float(nn.functional.cross_entropy(calm.eval()(through(inputs)), labels))

    best = least = None
    order, shuffle = torch.empty(0, dtype=torch.long), torch.Generator().manual_seed(seed)
    for k in range(steps + 1):
        if k in (0, 2, 4, 6, 8):
            reached = mean_loss(h, y)
            if least is None or reached < least:
                best, least = (weight.detach().clone(), bias.detach().clone()), reached
        if k == steps:
            break
        if len(order) < 32:
            order = torch.randperm(120, generator=shuffle)
        batch, order = order[:32], order[32:]
        loss = nn.functional.cross_entropy(tail.train()(through(h[batch])), y[batch])
        weight.grad, bias.grad = torch.autograd.grad(loss, [weight, bias])
        adam.param_groups[0]["lr"] = lr * (k + 1) / 3 if k < 2 else lr * (8 - k) / 6
        adam.step()
    weight, bias = best
    x_test, y_test = (torch.cat(part) for part in zip(*test))
    with torch.no_grad():
        exact = mean_loss(mine.head(x_test), y_test)
    assert rows(found, "loss") == [[pytest.approx(exact, abs=1e-5)]]
    untrained = ig.stitch(a, b, train, test, sites="2").table["loss"][0]
    assert abs(untrained - exact) > 1e-3


def test_strengths_and_ranks_are_chosen_on_validation_samples(pair):
    a, b, train, test = pair
    by = ("lasso((1e-4, 1e-2, 50))", "low_rank((1, 2, 4))", "birkhoff((0, 1))")
    found = ig.stitch(a, b, train, test, by=by, refine=15, validation=0.25)
    assert found.meta["validation"] == 30
    tried = found.meta["strengths"]
    assert len(tried) == 2 * (3 + 3 + 2)
    for row in found.to_frame().itertuples():
        mine = [t for t in tried if (t["site_a"], t["by"]) == (row.site_a, row.by)]
        best = min(mine, key=lambda t: t["loss"])
        assert row.strength == best["strength"]
        assert [t["chosen"] for t in mine] == [t is best for t in mine]
    assert not any(t["chosen"] for t in tried if t["strength"] == 50)
    alone = ig.stitch(a, b, train, test, by="low_rank((1, 2, 4))", validation=0.25)
    assert rows(alone, "refine") == [[0], [0]]
    assert len(alone.meta["strengths"]) == 6
    with pytest.raises(OptionError, match="too few samples to choose"):
        ig.stitch(a, b, train, test, by="low_rank((1, 2))", validation=1e-4)


def test_validation_by_definition(pair):
    """Fitted, and batch norms recalibrated, on the others; the loss on those held out."""
    a, b, train, test = pair
    found = ig.stitch(a, b, train, test, by="low_rank((1, 4))", validation=0.25, sites="2")
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    held, learned = order[:30].sort().values, order[30:].sort().values
    x, y = (torch.cat(part) for part in zip(*train))
    mine, other = split(a, "2", example=x[:4]), split(b, "2", example=x[:4])
    for tried in found.meta["strengths"]:
        with torch.no_grad():
            h, target = mine.head(x), other.head(x)
            moments = CrossMoments().update(h[learned], target[learned]).compute()
            rank = int(tried["strength"])
            fitted = stitch(f"low_rank({rank})").fit(moments, torch.Generator())
            tail = recalibrated(other.tail, [(fitted(h[part]), y) for part in learned.split(32)])
            exact = nn.functional.cross_entropy(tail(fitted(h[held])), y[held])
        assert tried["loss"] == pytest.approx(float(exact), abs=1e-5)


def test_a_huge_strength_leaves_nothing(pair):
    a, b, train, test = pair
    found = ig.stitch(a, b, train, test, by=("lasso(1e6)", "lasso(0.0)"), refine=10, lr=1e-2)
    # the least of loss + penalty, of which only 0 is affordable
    assert rows(found, "sparsity", by="lasso(1000000.0)") == [[1.0], [1.0]]
    assert rows(found, "sparsity", by="lasso(0.0)") == [[0.0], [0.0]]


def test_scales_alone_leave_the_permutation(pair):
    a, b, train, test = pair
    found = ig.stitch(a, b, train, test, by=("permutation", "G_relu"), refine=(0, 20), lr=1e-2)
    loss = {(by, n): x for by, n, x in rows(found, "by", "refine", "loss", site="6")}
    assert ("permutation", 20) not in loss
    assert loss["G_relu", 0] != loss["G_relu", 20]
    assert {x for (x,) in rows(found, "sparsity", site="2")} == {1 - 1 / 6}


def test_networks_and_their_gradients_are_left_alone(pair):
    a, b, train, test = pair
    for m in (a, b):
        for p in m.parameters():
            p.grad = torch.full_like(p, 2.0)
    before = [copy.deepcopy(m.state_dict()) for m in (a, b)]
    ig.stitch(a, b, train, test, by=("linear", "birkhoff"), refine=5, norm="both", in_block=True)
    for m, state in zip((a, b), before):
        assert all(torch.equal(v, state[k]) for k, v in m.state_dict().items())
        assert all((p.grad == 2).all() and p.requires_grad for p in m.parameters())
        for p in m.parameters():
            p.grad = None


def test_an_interruption_leaves_nothing_behind(pair, monkeypatch, tmp_path):
    a, b, train, test = pair
    monkeypatch.setattr(kept, "MEMORY", 0)
    monkeypatch.setattr(kept.tempfile, "tempdir", str(tmp_path))
    before = copy.deepcopy(b.state_dict())

    def stop(done, total, what):
        if what == "training stitches" and done == 3:
            assert total == 2 * 10
            raise KeyboardInterrupt

    with context.use(progress=stop), pytest.raises(KeyboardInterrupt):
        ig.stitch(a, b, train, test, refine=10)
    gc.collect()
    assert not os.listdir(tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in b.state_dict().items())
    assert all(p.grad is None for p in b.parameters())


def test_activations_in_memory_in_a_file_or_made_again_are_the_same(pair, monkeypatch):
    a, b, train, test = pair
    tables, rooms = [], []
    room = kept.Kept._room

    def seen(self, x):
        found = room(self, x)
        rooms.append(found)
        return found

    monkeypatch.setattr(kept.Kept, "_room", seen)
    for memory, disk in ((kept.MEMORY, 0.25), (0, 0.25), (0, 0.0)):
        monkeypatch.setattr(kept, "MEMORY", memory)
        monkeypatch.setattr(kept, "DISK", disk)
        found = ig.stitch(a, b, train, test, refine=5, lr=1e-2)
        tables.append(found.to_frame().drop(columns="seconds"))
    assert rooms[0] is not None
    assert rooms[4] is None
    for other in tables[1:]:
        numbers = tables[0].select_dtypes("number") - other.select_dtypes("number")
        assert numbers.fillna(0).abs().max(axis=None) < 1e-4


def test_a_row_does_not_depend_on_the_others(pair):
    a, b, train, test = pair
    for by in ("linear", "birkhoff(rounding=monotone)"):
        alone = ig.stitch(a, b, train, test, by=by, refine=6).to_frame()
        again = ig.stitch(a, b, train, test, by=by, refine=6).to_frame()
        others = ig.stitch(a, b, train, test, by=("wreath", by), refine=(6, 2)).to_frame()
        others = others.query("by == @by and refine == 6").reset_index(drop=True)
        for other in (again, others):
            assert alone.drop(columns="seconds").equals(other.drop(columns="seconds"))


def test_norms_begin_as_the_moments_want_them(pair):
    """In front of the map as the identity; behind it with b's means and deviations."""
    a, b, train, test = pair
    whole = [(torch.cat([x for x, _ in train]), torch.cat([y for _, y in train]))]
    by = ("linear", "low_rank(2)", "G_relu")
    plain_, before, after, both = (
        ig.stitch(a, b, whole, test, by=by, norm=norm)
        for norm in ("none", "before", "after", "both")
    )
    for column in ("loss", "penalty", "penalty_frozen_bn"):
        same = pytest.approx(plain_.table[column].tolist(), rel=1e-3)
        assert before.table[column].tolist() == same
        same = pytest.approx(after.table[column].tolist(), rel=1e-3)
        assert both.table[column].tolist() == same
    assert not after.table["loss"].equals(plain_.table["loss"])
    assert before.table["sparsity"].equals(plain_.table["sparsity"])
    from isogon.measures.stitching.refine.norms import normed

    x = torch.randn(400, 5, dtype=torch.float64) * 3 + 1
    y = torch.randn(400, 4, dtype=torch.float64).relu()
    moments = CrossMoments().update(x, y).compute()
    for spec in ("low_rank(1)", "G_relu", "random_permutation"):
        fitted = stitch(spec).fit(moments, torch.Generator().manual_seed(0))
        made = normed(fitted, moments, "after", torch.float64)(x)
        live = fitted(x).var(0) > 1e-3
        assert torch.allclose(made.mean(0), y.mean(0), atol=1e-4)
        assert torch.allclose(made.std(0)[live], y.std(0)[live], rtol=1e-2)


def test_norms_are_trained_with_the_map_or_alone(pair):
    a, b, train, _ = pair
    for by, steps in (("identity", 20), ("linear", 20)):
        found = ig.stitch(a, b, train, train, by=by, refine=(0, steps), norm="after", lr=1e-2)
        before, after = (sum(x for (x,) in rows(found, "loss", refine=n)) for n in (0, steps))
        assert after < before - 0.01


def test_within_residual_blocks_too():
    from isogon import nets

    torch.manual_seed(0)
    a, b = (nets.build("cifar_resnet20").eval() for _ in range(2))
    x = data(b, 16, 8, (3, 8, 8))
    found = ig.stitch(a, b, x, x, in_block=True, sites="block_seq.2.r?", refine=(0, 4), lr=1e-2)
    assert len(found) == 4
    assert found.to_frame()["in_block"].any()
    loss = {(s, n): v for s, n, v in rows(found, "site", "refine", "loss")}
    assert all(loss[s, 4] <= loss[s, 0] + 1e-6 for s, n in loss)


def test_one_output_tells_two_classes():
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 1)).eval() for _ in range(2)]
    x = torch.randn(90, 3)
    train = [(x, (nets[1](x)[:, 0] > 0).long())]
    found = ig.stitch(*nets, train, train, by="G_relu", refine=(0, 40), lr=1e-2)
    before, after = (rows(found, "loss", refine=n)[0][0] for n in (0, 40))
    assert after < before


def test_what_is_refused(pair):
    a, b, train, test = pair
    for by in ("lasso", "birkhoff", "wreath"):
        with pytest.raises(OptionError, match=f"{by} has no closed form.*refine=200"):
            ig.stitch(a, b, train, test, by=by)
    for wrong in ({"refine": -1}, {"lr": 0.0}, {"warmup": -1}, {"refine": ()}):
        with pytest.raises(OptionError, match="options out of range"):
            ig.stitch(a, b, train, test, **wrong)
    with pytest.raises(OptionError, match="validation out of range"):
        ig.stitch(a, b, train, test, validation=1.0)
    with pytest.raises(OptionError, match="no such place of a norm"):
        ig.stitch(a, b, train, test, norm="around")
    for spec in ("lasso(-1)", "birkhoff(-1)", "birkhoff(softness=2)", "wreath(temperature=0)"):
        with pytest.raises(OptionError):
            stitch(spec)
    with pytest.raises(OptionError, match="nothing to choose from"):
        stitch("low_rank(())")
    with pytest.raises(DataError, match="no labels"):
        ig.stitch(a, b, [x for x, _ in train], test, refine=1)
    with pytest.raises(OptionError, match="one width"):
        ig.stitch(plain(5, 1), b, train, test, by="birkhoff", sites="2", refine=1)
    assert course.LOOKS == 4

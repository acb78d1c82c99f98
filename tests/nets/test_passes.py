"""One pass over data: every watcher gets the tapped values, whatever else watches."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from isogon import context
from isogon.actions import family
from isogon.data import as_batches
from isogon.errors import DataError, ModelError, OptionError
from isogon.nets import passes
from isogon.nets.passes import INPUT, LOGITS, OUTPUT, Of, all_passes, one_pass
from isogon.nets.sites import Site, sites
from isogon.nets.tap import tap
from isogon.stats import Blocks, ByClass, CrossMoments, Moments, Pair, Together

few = settings(max_examples=25, deadline=None)


class Net(nn.Module):
    """Overwrites the activation of ``relu`` in place before the next one is reached."""

    def __init__(self, seed=0, width=3):
        torch.manual_seed(seed)
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.relu = nn.ReLU()
        self.out = nn.Linear(width * 16, 4)

    def forward(self, x):
        h = self.relu(self.conv(x))
        g = F.relu(h.sub_(0.25)) + h
        return F.log_softmax(self.out(g.flatten(1)), 1)


class Seen:
    """Keeps what it is given."""

    def __init__(self, *keys, passes=1):
        self.sites, self.left, self.got = keys, passes, []

    def update(self, values, labels, rows):
        self.got.append(({k: v.clone() for k, v in values.items()}, labels, rows))

    def again(self):
        self.left -= 1
        return self.left > 0

    def of(self, key):
        return torch.cat([values[key] for values, *_ in self.got])

    @property
    def rows(self):
        return torch.cat([rows for *_, rows in self.got]).tolist()


def data(n=11, size=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.rand(n, 1, 6, 6, generator=g), torch.arange(n) % 3
    return list(zip(x.split(size), y.split(size)))


def whole(batches):
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def test_values_are_the_tapped_ones_also_where_they_are_overwritten():
    net, batches = Net(), data()
    x, _ = whole(batches)
    found = sites(net, "all", example=x)
    alone = [Seen(site) for site in found]
    pair, around = Seen(found[1], found[-1]), Seen(INPUT, OUTPUT, LOGITS, found[1])
    nothing = Seen()
    assert one_pass(net, batches, [*alone, pair, around, nothing]) == 11
    with tap(net, found) as read:
        output, expected = read(x)
    for site, watcher in zip(found, alone):
        torch.testing.assert_close(watcher.of(site), expected[site])
        assert watcher.rows == list(range(11))
        assert len(watcher.got) == 3
    for site in (found[1], found[-1]):
        torch.testing.assert_close(pair.of(site), expected[site])
    assert torch.equal(around.of(INPUT), x)
    torch.testing.assert_close(around.of(OUTPUT), output)
    z = around.of(LOGITS)
    torch.testing.assert_close(F.log_softmax(z, 1), output)
    assert not torch.allclose(z, output)
    torch.testing.assert_close(around.of(found[1]), expected[found[1]])
    assert nothing.rows == list(range(11))


def test_a_watcher_is_updated_once_per_chunk_though_the_chunk_is_repeated():
    net = Net()
    x = data()[0][0]
    relu, last = (s for s in sites(net, "all", example=x) if s.path in ("relu", "out"))
    counted, pair = Seen(relu), Seen(relu, last)
    one_pass(net, data(), [counted, pair])
    assert counted.rows == pair.rows == list(range(11))


def test_several_models_in_one_pass_also_the_same_one_and_shared_modules():
    a, b = Net(0), Net(1, width=5)
    b.relu = a.relu  # a module of both
    models = {"a": a, "b": b, "again": a}
    calls = []
    a.conv.register_forward_hook(lambda *_: calls.append(1))
    relu, out = Site("relu"), Site("out")
    pair = Seen(("a", relu), ("b", relu))
    same = Seen(("again", out))
    one_pass(models, data(), [pair, same, Seen(("a", out))])
    x, _ = whole(data())
    for name, site, watcher in (("a", relu, pair), ("b", relu, pair), ("again", out, same)):
        with tap(models[name], [site]) as read:
            torch.testing.assert_close(watcher.of((name, site)), read(x)[1][site])
    with pytest.raises(OptionError, match="which model"):
        one_pass(models, data(), [Seen(relu)])
    with pytest.raises(OptionError, match="which model"):
        one_pass(models, data(), [Seen(("c", relu))])


def test_models_of_one_network_are_run_once_each_per_chunk():
    net, calls = Net(), []
    net.out.register_forward_hook(lambda *_: calls.append(1))
    watchers = [Seen(("a", Site("out"))), Seen(("a", OUTPUT), ("b", Site("0")))]
    one_pass({"a": net, "b": nn.Sequential(nn.Flatten())}, data(), watchers)
    assert len(calls) == 3
    calls.clear()
    one_pass(net, data(), [Seen(INPUT)])
    assert not calls  # nobody asked for more


def test_orbits_come_whole_samples_first(monkeypatch):
    net, turns, batches = Net().double(), family("rotations(5)"), data()
    x, _ = whole(batches)
    orbit = turns.orbit(x.double())
    net.relu = nn.Sequential(nn.ReLU())
    for most, whole_ in ((passes.CHUNK, passes.WHOLE), (3, 0), (12, 0)):
        monkeypatch.setattr(passes, "CHUNK", most)
        monkeypatch.setattr(passes, "WHOLE", whole_)
        monkeypatch.setattr(passes, "VALUES", 2**20)
        seen = Seen(Site("out"), INPUT, LOGITS)
        pair = Seen(Site("relu"), Site("out"))
        one_pass(net, batches, [seen, pair], orbit=turns)
        with tap(net, [Site("out"), Site("relu")]) as read:
            expected = [read(part)[1] for part in orbit]
        for watcher, site in ((seen, "out"), (pair, "out"), (pair, "relu")):
            stacked = torch.stack([e[Site(site)] for e in expected], 1)
            torch.testing.assert_close(watcher.of(Site(site)), stacked)
        torch.testing.assert_close(seen.of(INPUT), orbit.transpose(0, 1))
        assert seen.rows == list(range(11))


@pytest.mark.parametrize("kind", ["list", "samples", "loader"])
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_shares_are_disjoint_and_together_the_whole(kind, n):
    from isogon.data import Batches, Samples

    x, y = whole(data())
    batches = {
        "list": data(),
        "samples": Batches(Samples(x, y, name="s"), 4),
        "loader": as_batches(torch.utils.data.DataLoader(list(zip(x, y)), batch_size=4)),
    }[kind]
    shares = [Seen(INPUT) for _ in range(n)]
    counts = [one_pass(Net(), batches, [s], shard=(k, n)) for k, s in enumerate(shares)]
    assert sum(counts) == 11
    assert sorted(r for s in shares for r in s.rows) == list(range(11)) if n == 1 else True
    got = [(row, part) for s in shares if s.got for row, part in zip(s.rows, s.of(INPUT))]
    assert [row for row, _ in sorted(got, key=lambda g: g[0])] == list(range(11))
    for row, part in got:
        assert torch.equal(part, x[row])
    with pytest.raises(OptionError, match="no such share"):
        one_pass(Net(), batches, [], shard=(n, n))


def make():
    return Together(
        {
            "blocks": Blocks(Moments, 4),
            "class": ByClass(lambda: Blocks(Moments, 2)),
            "plain": Moments(),
        }
    )


@few
@given(
    n=st.integers(2, 14),
    size=st.integers(1, 6),
    shares=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_merged_shares_are_the_whole(n, size, shares, seed):
    net, batches = Net(seed).double(), data(n, size, seed)
    batches = [(x.double(), y) for x, y in batches]
    sides = (Site("relu"), Site("out"))

    def watchers():
        return [Of(sides[1], make), Of(sides, lambda: Pair(CrossMoments(), "mean"))]

    one, many = watchers(), watchers()
    assert all_passes(net, batches, one) == n
    assert all_passes(net, batches, many, shards=shares) == n
    for a, b in zip(one, many):
        close(a.result(), b.result())
    g = torch.Generator
    for a, b in zip(
        one[0].stat["blocks"].replicates(3, g().manual_seed(1)),
        many[0].stat["blocks"].replicates(3, g().manual_seed(1)),
    ):
        close(a, b)


def close(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            close(a[key], b[key])
    elif isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12, equal_nan=True)
    elif hasattr(a, "__dict__"):
        close(vars(a), vars(b))
    else:
        assert a == b


def test_passes_go_on_until_nobody_asks_for_another_and_tell_how_far_they_are():
    once, twice, thrice = Seen(INPUT), Seen(INPUT, passes=2), Seen(INPUT, passes=3)
    told = []
    with context.use(progress=lambda *a: told.append(a)):
        watchers = [once, twice, thrice]
        assert all_passes(Net(), as_batches(data()), watchers, passes=3, what="w") == 11
    assert len(once.got) == 3
    assert len(twice.got) == 6
    assert len(thrice.got) == 9
    assert told[0] == (4, 33, "w")
    assert told[-1] == (33, 33, "w")


def test_the_model_is_left_as_it_came_whatever_happens():
    net = Net().train()
    net.conv.weight.requires_grad_(False)

    class Stops(Seen):
        def update(self, *_):
            raise RuntimeError("stop")

    for key in (Site("relu"), INPUT, LOGITS):
        with pytest.raises(RuntimeError, match="stop"):
            one_pass(net, data(), [Seen(Site("out")), Stops(key)])
        assert net.training
        assert not net.conv.weight.requires_grad
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert torch.is_grad_enabled()


def test_what_a_watcher_computes_is_no_operation_of_the_model():
    class Adds(Seen):
        def update(self, values, labels, rows):
            for v in values.values():
                F.relu(v + 1)
                F.log_softmax(v.flatten(1), 1)
            super().update(values, labels, rows)

    net = Net()
    found = sites(net, "all", example=data()[0][0])
    watchers = [Adds(site) for site in found] + [Adds(LOGITS, Site("out"))]
    one_pass(net, data(), watchers)
    assert torch.equal(watchers[-1].of(LOGITS), watchers[-1].of(Site("out")))
    assert all(w.rows == list(range(11)) for w in watchers)


class Sizes(Seen):
    """Wants of each value the sums over samples alone."""

    def __init__(self, *keys, keeps_nan=True):
        super().__init__(*keys)
        self.keeps_nan, self.asked = keeps_nan, 0

    def reduced(self, key, value):
        self.asked += 1
        return value.flatten(1).sum(1)


@pytest.mark.parametrize("kind", [None, "rotations(3)"])
def test_what_is_made_of_values_at_once_comes_in_their_place(kind):
    """Also of values that are overwritten before the last one is there, and beside others."""
    net, x = Net(), torch.rand(10, 1, 6, 6)
    chosen = sites(net, "all", example=x)
    data = [(x[:7], torch.zeros(7)), (x[7:], torch.zeros(3))]
    orbit = None if kind is None else family(kind)
    small, alone, whole = Sizes(*chosen), Sizes(*chosen), Seen(*chosen)
    one_pass(net, data, [alone], orbit=orbit, chunk=4)
    one_pass(net, data, [small, whole], orbit=orbit, chunk=4)
    assert len(small.got) == len(whole.got) == len(alone.got)
    for site in chosen:
        want = whole.of(site).flatten(1).sum(1)
        assert torch.equal(small.of(site), want)
        assert torch.equal(alone.of(site), want)
    assert alone.asked == len(chosen) * len(alone.got)


@pytest.mark.parametrize("keeps_nan", [True, False])
def test_no_numbers_are_refused_also_where_values_are_made_into_something(keeps_nan):
    class Lost(Sizes):
        def reduced(self, key, value):
            return super().reduced(key, value if keeps_nan else value.nan_to_num())

    net, x = Net(), torch.rand(4, 1, 6, 6)
    net.conv.bias.data[0] = math.nan
    watcher = Lost(*sites(net, "relu", example=x), keeps_nan=keeps_nan)
    with pytest.raises((DataError, ModelError), match="NaN"):
        one_pass(net, [(x, torch.zeros(4))], [watcher])


def test_no_numbers_are_refused_by_the_name_of_the_site():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.log, self.fine = nn.Identity(), nn.Identity()

        def forward(self, x):
            return self.fine(torch.nan_to_num(self.log(x.flatten(1).log())))

    x = torch.rand(6, 3)
    x[4, 1] = -1
    batches = [(x[:3], torch.zeros(3)), (x[3:], torch.zeros(3))]
    with pytest.raises(DataError, match=r"NaN at log: .*sample 4"):
        one_pass(Broken(), batches, [Of(Site("log"), Moments)])
    one_pass(Broken(), batches, [Of(Site("fine"), Moments)])
    with pytest.raises(DataError, match=r"NaN at log of b.*sample 4"):
        one_pass({"a": nn.Identity(), "b": Broken()}, batches, [Of(("b", Site("log")), Moments)])
    net = Net()
    net.out.bias.data[0] = torch.nan
    with pytest.raises(ModelError, match=r"NaN or infinity in 'out.bias'"):
        one_pass(net, data(), [Of(LOGITS, Moments)])
    x[5, 0] = torch.nan
    with pytest.raises(DataError, match=r"hold NaN.*\(number 5\)"):
        one_pass(Broken(), batches, [Of(Site("fine"), Moments)])


def test_infinities_of_both_signs_are_numbers():
    mask = nn.Module()
    mask.forward = lambda x: torch.stack([x / 0.0, -x / 0.0], 1)
    seen = Seen(OUTPUT)
    one_pass(mask, [(torch.ones(3), torch.zeros(3))], [seen])
    assert seen.of(OUTPUT).isinf().all()


def test_a_site_without_a_row_per_sample_and_one_that_is_not_reached():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.all, self.never = nn.Identity(), nn.Identity()

        def forward(self, x):
            self.all(x.sum(0))
            return x

    with pytest.raises(ModelError, match=r"no row per sample.*all"):
        one_pass(Odd(), data(), [Seen(Site("all"))])
    for watchers in ([Seen(Site("never"))], [Seen(Site("never"), OUTPUT)], [Seen(Site("relu", 5))]):
        with pytest.raises(ModelError, match="does not reach a site"):
            one_pass(Odd(), data(), watchers)
    with pytest.raises(DataError, match="no samples"):
        one_pass(Odd(), [], [Seen(OUTPUT)])


def test_memory_does_not_grow_with_watchers_of_one_site():
    """A value is gone when its watcher was served: few are alive at any time."""
    import gc
    import weakref

    net = nn.Sequential(*[nn.Linear(8, 8) for _ in range(20)])
    alive, most = [], []

    class Light(Seen):
        def update(self, values, labels, rows):
            (value,) = values.values()
            alive.append(weakref.ref(value.untyped_storage()))
            gc.collect()  # of what came since: all else is frozen
            most.append(sum(r() is not None for r in alive))

    batches = [(torch.rand(5, 8), torch.zeros(5))] * 2
    gc.freeze()
    try:
        one_pass(net, batches, [Light(Site(str(i))) for i in range(20)])
    finally:
        gc.unfreeze()
    assert max(most) <= 4

"""Streams give what the whole gives: any split, any order, any share of the work."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.errors import DataError, OptionError
from isogon.stats import CrossMoments, Moments, Quantiles, TwoWayMoments, all_reduce
from isogon.stats.tails import Tail

sys.path.insert(0, str(Path(__file__).parents[1]))
from reference import slow_stats as slow

few = settings(deadline=None, max_examples=40)


@st.composite
def streams(draw, least=2):
    """Values ``[n, 3]`` with any offset, and where to cut them."""
    seed = draw(st.integers(0, 2**31))
    n = draw(st.integers(least, 30))
    offset = draw(st.sampled_from([0.0, 1.0, -1e4, 1e8]))
    scale = draw(st.sampled_from([1.0, 1e-3, 1e6]))
    rng = np.random.default_rng(seed)
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=5)))
    return rng.normal(offset, scale, (n, 3)), [0, *cuts, n], seed


def pieces(x, cuts):
    return [torch.from_numpy(x[a:b]) for a, b in itertools.pairwise(cuts)]


@few
@given(streams())
def test_moments(stream):
    x, cuts, seed = stream
    mean, variance = slow.moments(x)
    parts = pieces(x, cuts)
    whole = Moments()
    for part in parts:
        whole.update(part)
    shuffled = Moments()
    for i in np.random.default_rng(seed).permutation(len(parts)):
        shuffled.merge(Moments().update(parts[i]))
    for stat in (whole, shuffled, Moments().load_state_dict(whole.state_dict())):
        found = stat.compute()
        assert found.count == len(x)
        # the variance of data at an offset is known up to the data's own rounding
        digits = 1e-15 * np.abs(x).max() ** 2 / x.var(0).min() ** 0.5
        # a mean is known up to the rounding of what is summed, which may cancel
        size = 1e-15 * max(1.0, np.abs(x).max())
        np.testing.assert_allclose(found.mean, mean.astype(float), rtol=1e-13, atol=size)
        np.testing.assert_allclose(found.variance, variance.astype(float), rtol=1e-9, atol=digits)


def test_a_huge_offset_costs_no_digits():
    x = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0)).double()
    x = (x * 2**10).round() / 2**10  # exact at the offset too
    stat = Moments()
    for part in (x + 1e8).split(7):
        stat.update(part)
    np.testing.assert_allclose(stat.compute().variance, x.var(0), rtol=1e-9)
    naive = ((x + 1e8) ** 2).mean(0) - (x + 1e8).mean(0) ** 2
    assert (naive - x.var(0)).abs().max() > 0.01  # the textbook formula does lose them


def test_float32_activations_are_summed_in_float64():
    x = torch.full((200_000, 1), 0.1)
    assert abs(float(Moments().update(x).compute().mean) - float(np.float32(0.1))) < 1e-15


def test_one_value_has_no_variance():
    assert torch.isnan(Moments().update(torch.ones(1, 2)).compute().variance).all()


@few
@given(streams(), st.integers(2, 6))
def test_two_way(stream, treatments):
    x, cuts, seed = stream
    rng = np.random.default_rng(seed)
    a = x[:, None] + rng.normal(0, x.std(), (len(x), treatments, 3))
    expected = slow.two_way(a)
    parts = pieces(a, cuts)
    whole = TwoWayMoments(treatments)
    for part in parts:
        whole.update(part)
    shared = TwoWayMoments(treatments)
    for i in rng.permutation(len(parts)):
        split = TwoWayMoments(treatments)
        cut = int(rng.integers(treatments))
        if cut and len(parts[i]):
            split.update(parts[i][:, :cut]).update(parts[i][:, cut:], start=cut)
        else:
            split.update(parts[i])
        shared.merge(split)
    for stat in (whole, shared, TwoWayMoments(1).load_state_dict(whole.state_dict())):
        found = stat.compute()
        same = {
            "tv": found.within_rows(),
            "sv": found.within_columns(),
            "tv2": found.within_rows(squared=True),
            "sv2": found.within_columns(squared=True),
            "within": found.ss_within(),
            "samples": found.ss_samples(),
            "f": found.f()[0],
            "f_repeated": found.f_repeated()[0],
        }
        for name, values in same.items():
            slack = 1e-8 if name[0] == "f" else 0  # of the twin: F is about 1, its means near 1e8
            np.testing.assert_allclose(
                values, expected[name].astype(float), err_msg=name, rtol=1e-7, atol=slack
            )
        assert found.f()[1:] == (treatments - 1, treatments * (len(x) - 1))
        assert found.f_repeated()[1:] == (treatments - 1, (treatments - 1) * (len(x) - 1))


def test_f_is_scipys():
    a = np.random.default_rng(0).normal(size=(9, 4, 2)) + np.arange(4)[:, None] * 0.3
    f, i, j = TwoWayMoments(4).update(torch.from_numpy(a)).compute().f()
    for u in range(2):
        expected = scipy.stats.f_oneway(*a[:, :, u].T)
        assert float(f[u]) == pytest.approx(expected.statistic)
        assert scipy.stats.f.sf(float(f[u]), i, j) == pytest.approx(expected.pvalue)


def test_repeated_measures_of_two_treatments_is_the_paired_t_test():
    a = np.random.default_rng(1).normal(size=(12, 1)) * 5 + np.random.default_rng(2).normal(
        size=(12, 2)
    )
    f, *_ = TwoWayMoments(2).update(torch.from_numpy(a)).compute().f_repeated()
    assert float(f) == pytest.approx(scipy.stats.ttest_rel(a[:, 0], a[:, 1]).statistic ** 2)


def test_rows_must_be_whole():
    stat = TwoWayMoments(3)
    with pytest.raises(DataError, match="out of order"):
        stat.update(torch.zeros(2, 2, 1), start=1)
    with pytest.raises(DataError, match="out of order"):
        stat.update(torch.zeros(2, 4, 1))
    stat.update(torch.zeros(2, 2, 1))
    with pytest.raises(DataError, match="not complete"):
        stat.compute()
    with pytest.raises(DataError, match="changes its shape"):
        stat.update(torch.zeros(3, 1, 1), start=2)
    with pytest.raises(DataError, match="different treatments"):
        TwoWayMoments(2).merge(TwoWayMoments(3))


def test_updates_leave_the_batch_alone():
    x = torch.randn(4, 3, 2, dtype=torch.float64)
    before = x.clone()
    TwoWayMoments(3).update(x)
    Moments().update(x)
    CrossMoments().update(x[:, 0], x[:, 1])
    Quantiles(0.5).update(x)
    assert torch.equal(x, before)


@few
@given(streams())
def test_cross_moments(stream):
    x, cuts, seed = stream
    rng = np.random.default_rng(seed)
    y = x @ rng.normal(size=(3, 4)) + rng.normal(size=(len(x), 4))
    expected = slow.cross(x, y)
    parts = list(zip(pieces(x, cuts), pieces(y, cuts)))
    whole = CrossMoments()
    for part in parts:
        whole.update(*part)
    shared = CrossMoments()
    for i in rng.permutation(len(parts)):
        shared.merge(CrossMoments().update(*parts[i]))
    for stat in (whole, shared, CrossMoments().load_state_dict(whole.state_dict())):
        found = stat.compute()
        for name, values in (("xx", found.xx), ("xy", found.xy), ("yy", found.yy)):
            size = np.abs(expected[name]).max() + np.abs(x).max() * np.abs(x).std() * 1e-6
            error = np.abs(np.asarray(values) - expected[name]).max()
            assert error < 1e-6 * float(size), name
        np.testing.assert_allclose(
            found.raw_xy(), expected["raw"].astype(float), rtol=1e-9, atol=1e-6 * np.abs(x).max()
        )


def test_cross_moments_of_maps():
    x, y = torch.randn(5, 3, 4, 2), torch.randn(5, 2, 4, 2)
    a = CrossMoments(xx=False).update(x, y).compute()
    b = (
        CrossMoments()
        .update(x.movedim(1, -1).reshape(-1, 3), y.movedim(1, -1).reshape(-1, 2))
        .compute()
    )
    torch.testing.assert_close(a.xy, b.xy)
    assert a.count == 40
    assert a.xx is None
    with pytest.raises(DataError, match="were not kept"):
        a.raw_xx()
    with pytest.raises(DataError, match="do not pair up"):
        CrossMoments().update(x, y[:, :, :3])
    with pytest.raises(DataError, match="no rows"):
        CrossMoments().compute()


@few
@given(st.integers(0, 2**31), st.integers(1, 12), st.booleans(), st.integers(1, 300), st.booleans())
def test_tails_are_what_sorting_gives(seed, size, largest, n, strided):
    rng = np.random.default_rng(seed)
    x = rng.choice([-np.inf, np.inf, 0.0, 1.5, *rng.normal(size=20)], (n, 3))
    stats = [Tail(size, largest=largest), Tail(size, largest=largest)]
    for i, part in enumerate(np.array_split(x, rng.integers(1, 9))):
        part = part.T if strided else np.ascontiguousarray(part.T)
        stats[i % 2].update(part.astype(np.float32) if i % 3 else part)
    whole = Tail(size, largest=largest).update(x.T)
    ordered = np.sort(x, 0)
    np.testing.assert_array_equal(whole.ordered(), ordered[-size:] if largest else ordered[:size])
    merged = stats[0].merge(Tail(0).load_state_dict(stats[1].state_dict()))
    ordered = ordered[-size:] if largest else ordered[:size]
    np.testing.assert_allclose(merged.ordered(), ordered, rtol=1e-6)


@few
@given(streams(1), st.floats(0, 1), st.booleans(), st.booleans())
def test_quantiles_are_exact(stream, q, known, compiled):
    x, cuts, seed = stream
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:  # what tensors on a device take
            patch.setattr(Tail, "serves", staticmethod(lambda x: False))
        check_quantiles(x, cuts, seed, q, known)


def check_quantiles(x, cuts, seed, q, known):
    parts = pieces(x, cuts)
    make = lambda: Quantiles(q, total=len(x) if known else None)  # noqa: E731
    whole, shared = make(), make()
    for part in parts:
        whole.update(part)
    for i in np.random.default_rng(seed).permutation(len(parts)):
        shared.merge(make().update(parts[i]))
    for stat in (whole, shared):
        assert stat.error == 0
        np.testing.assert_allclose(stat.compute(), np.quantile(x, q, 0), rtol=1e-12)


@few
@given(st.integers(0, 2**31), st.floats(0, 1), st.integers(2, 40), st.integers(1, 3000))
def test_quantiles_keep_their_promise(seed, q, keep, n):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 500, (n, 2)).astype(float)
    halves = [Quantiles(q, keep=keep), Quantiles(q, keep=keep)]
    for i, part in enumerate(torch.from_numpy(x).split(int(rng.integers(1, 200)))):
        halves[i % 2].update(part)
    stat = halves[0].merge(halves[1])
    found = stat.compute().numpy()
    for u in range(2):  # ranks of the found value: of those below, and with ties
        low, high = (x[:, u] < found[u]).sum(), (x[:, u] <= found[u]).sum()
        place = q * (n - 1)
        assert low - 1 <= place + stat.error * n + 1
        assert high + 1 >= place - stat.error * n
    assert sum(len(v) for v in stat.levels if v is not None) <= keep * (len(stat.levels) + 1)


def test_the_error_is_small_and_the_memory_too():
    stat = Quantiles(0.995, keep=1024)
    x = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))
    for part in x.split(999):
        stat.update(part)
    assert 0 < stat.error < 0.01
    exact = Quantiles(0.995, total=100_000)
    for part in x.split(999):
        exact.update(part)
    assert float(exact.compute()) == pytest.approx(np.quantile(x.numpy(), 0.995), rel=1e-6)
    assert exact.tail.held.shape[1] < 3 * 500 + 4096
    rank = float((x <= stat.compute()).double().mean())
    assert abs(rank - 0.995) <= stat.error + 1e-4


def test_quantiles_refuse():
    with pytest.raises(OptionError, match="0 <= q <= 1"):
        Quantiles(1.5)
    with pytest.raises(DataError, match="NaN has no rank"):
        Quantiles(0.5).update(torch.tensor([[np.nan]]))
    with pytest.raises(DataError, match="more values than announced"):
        Quantiles(0.5, total=2).update(torch.zeros(3, 1))
    with pytest.raises(DataError, match="values are missing"):
        Quantiles(0.5, total=2).update(torch.zeros(1, 1)).compute()
    with pytest.raises(DataError, match="of different kinds"):
        Quantiles(0.5).merge(Quantiles(0.4))
    infinite = Quantiles(0.5).update(torch.tensor([[np.inf], [np.inf], [0.0]]))
    assert torch.isinf(infinite.compute()).all()


def test_shapes_are_held():
    for stat in (Moments(), Quantiles(0.5)):
        stat.update(torch.zeros(2, 3))
        with pytest.raises(DataError, match="changes its shape"):
            stat.update(torch.zeros(2, 4))
    with pytest.raises(DataError, match="changes its shape"):
        CrossMoments().update(torch.zeros(2, 3), torch.zeros(2, 3)).update(
            torch.zeros(2, 4), torch.zeros(2, 3)
        )


def worker(rank: int, folder: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    x = torch.arange(24.0).reshape(8, 3)[rank::2]
    moments = all_reduce(Moments().update(x)).compute()
    layout = all_reduce(TwoWayMoments(3).update(x.unsqueeze(-1))).compute()
    median = all_reduce(Quantiles(0.5).update(x)).compute()
    cross = all_reduce(CrossMoments().update(x, x)).compute()
    state = [moments.mean, moments.variance, layout.f()[0], median, cross.raw_xy()]
    torch.save(state, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_all_reduce(tmp_path):
    import torch.multiprocessing as mp

    stat = Moments().update(torch.ones(2, 1))
    assert all_reduce(stat) is stat  # nobody else there
    mp.spawn(worker, args=(str(tmp_path),), nprocs=2)
    x = torch.arange(24.0).reshape(8, 3)
    expected = [
        x.mean(0),
        x.var(0),
        TwoWayMoments(3).update(x.unsqueeze(-1)).compute().f()[0],
        x.quantile(0.5, 0),
        x.T @ x,
    ]
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for a, b in zip(found, expected):
            torch.testing.assert_close(a, b.double())


def test_the_compiled_loop_is_the_plain_one():
    from isogon.stats.sums import (
        BLOCK,
        Sums,
        _center,
        add_block,
        center_block,
        compiled,
        plain,
    )  # fmt: skip

    for dtype in (torch.float32, torch.float64):
        a = torch.randn(4, 9, BLOCK + 37, generator=torch.Generator().manual_seed(0)).to(dtype) + 5
        a[:, :, 3] = 0.1  # a dead unit
        sums = [Sums.start(a) for _ in range(3)]
        for part in a.split(4, 1):
            part = part.contiguous()
            plain(part, sums[0])
            compiled(part, sums[1])
        few = (t[..., :5].numpy() for t in vars(sums[2]).values())
        add_block.function(a.numpy()[:, :, :5], *few, np.empty(3), np.empty(3))
        for name, expected in vars(sums[0]).items():
            found = getattr(sums[1], name)
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-9, msg=name)
            python = getattr(sums[2], name)[..., :5]
            torch.testing.assert_close(python, expected[..., :5], rtol=1e-10, atol=1e-9, msg=name)
        assert sums[1].sd[3] == sums[0].sd[3] == 0
        plainly = [t.clone() for t in (sums[1].shift, sums[1].first, sums[1].second)]
        _center(*plainly, 9)
        looped = [t.clone().numpy().reshape(-1) for t in vars(sums[1]).values()][:3]
        center_block(*looped, 9)
        for found, expected in zip(looped, plainly):
            np.testing.assert_allclose(found, expected.reshape(-1), rtol=1e-12, atol=1e-15)


def test_large_streams_use_the_compiled_loop(monkeypatch):
    from isogon.stats import sums

    a = torch.randn(40, 5, 30, generator=torch.Generator().manual_seed(0))
    slow_form = TwoWayMoments(5).update(a).compute()
    calls = []
    monkeypatch.setattr(sums, "COMPILE", 0)
    monkeypatch.setattr(sums, "compiled", lambda *args: calls.append(1) or sums.plain(*args))
    fast_form = TwoWayMoments(5).update(a.transpose(0, 1).contiguous().transpose(0, 1)).compute()
    assert calls
    torch.testing.assert_close(fast_form.f()[0], slow_form.f()[0], rtol=1e-12, atol=0)

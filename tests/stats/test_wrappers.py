"""Statistics of statistics against the plain ones on the parts they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.errors import DataError
from isogon.stats import (
    Blocks,
    ByClass,
    CrossMoments,
    Kept,
    Moments,
    Pair,
    Pooled,
    Together,
    TwoWayMoments,
)
from isogon.stats.wrappers import _taken, matrix, same_positions

few = settings(max_examples=30, deadline=None)


def values(n, *shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=g, dtype=torch.float64) + 3


def same(a, b):
    torch.testing.assert_close(a.mean, b.mean, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(a.variance, b.variance, rtol=1e-11, atol=1e-13, equal_nan=True)


def feed_in(stat, x, labels, order, cuts):
    for index in torch.tensor(order).tensor_split(cuts):
        stat.update(x[index], labels=labels[index], rows=index)
    return stat


@few
@given(
    st.integers(1, 20).flatmap(lambda n: st.tuples(st.permutations(range(n)), st.integers(1, 4))),
    st.integers(1, 5),
)
def test_blocks_and_classes_do_not_depend_on_batches_order_or_shares(stream, count):
    order, cuts = stream
    n = len(order)
    x, labels = values(n, 3), torch.arange(n) * 7 % 3
    half = n // 2
    for make in (
        lambda: Blocks(Moments, count),
        lambda: ByClass(Moments),
        lambda: ByClass(lambda: Blocks(Moments, count)),
    ):
        stat = feed_in(make(), x, labels, order, cuts)
        shares = [make().update(x[p], labels=labels[p], rows=p) for p in
                  (torch.arange(half), torch.arange(half, n))]  # fmt: skip
        merged = shares[0].merge(shares[1])
        for found in (stat, merged):
            if isinstance(found, Blocks):
                same(found.compute(), Moments().update(x).compute())
                for k, block in enumerate(found.blocks):
                    if found.seen[k]:
                        same(block.compute(), Moments().update(x[k::count]).compute())
                continue
            assert list(found.compute()) == sorted(set(labels.tolist()))
            for label, part in found.compute().items():
                same(part, Moments().update(x[labels == label]).compute())


def test_a_merge_leaves_the_other_alone():
    x = values(6, 2)
    one, other = ByClass(Moments), ByClass(Moments)
    one.update(x[:3], labels=torch.zeros(3))
    other.update(x[3:], labels=torch.tensor([0, 1, 1]))
    one.merge(other)
    one.update(x[:3], labels=torch.ones(3))
    assert {k: p.count for k, p in other.parts.items()} == {0: 1, 1: 2}
    assert {k: p.count for k, p in one.parts.items()} == {0: 4, 1: 5}


def test_labels_of_halves_are_classes_and_missing_ones_are_refused():
    stat = ByClass(Moments).update(values(3, 1), labels=torch.tensor([0.5, 2.0, 0.5]))
    assert list(stat.parts) == [0.5, 2]
    assert isinstance(list(stat.parts)[1], int)
    with pytest.raises(DataError, match="one label per sample"):
        stat.update(values(3, 1))
    with pytest.raises(DataError, match="one label per sample"):
        stat.update(values(3, 1), labels=torch.zeros(2))


def test_resamples_are_means_of_drawn_blocks():
    x = values(40, 2)
    blocks = Blocks(Moments, 8).update(x)
    found = list(blocks.replicates(200, torch.Generator().manual_seed(0)))
    means = torch.stack([m.mean for m in found])
    assert all(m.count == 40 for m in found)
    spread = torch.stack([b.compute().mean for b in blocks.blocks]).std(0, correction=0) / 8**0.5
    torch.testing.assert_close(means.std(0), spread, rtol=0.15, atol=0)


def test_pooling():
    x = values(5, 3, 4, 4)
    for how, expected in (
        ("mean", x.mean((2, 3))),
        ("max", x.amax((2, 3))),
        ("sum", x.sum((2, 3))),
    ):
        stat = Pooled(Moments(), how).update(x[:2]).merge(Pooled(Moments(), how).update(x[2:]))
        same(stat.compute(), Moments().update(expected).compute())
    same(Pooled(Moments(), "mean").update(x[:, :, 0, 0]).compute(),
         Moments().update(x[:, :, 0, 0]).compute())  # fmt: skip
    assert Pooled(Moments(), "mean").update(x.float()).compute().mean.dtype == torch.float64
    orbit = values(5, 2, 3, 4, 4)
    same(Pooled(Moments(), "mean", 3).update(orbit).compute(),
         Moments().update(orbit.mean((3, 4))).compute())  # fmt: skip


@pytest.mark.parametrize("maps", ["flatten", "positions", "mean"])
def test_pairs_are_cross_moments_of_matrices(maps):
    x, y = values(6, 3, 4, 4), values(6, 4, 5, seed=1)[:, :, :, None].expand(6, 4, 5, 4).mT
    assert y.shape == (6, 4, 4, 5)
    pair = Pair(CrossMoments(), maps).update(x[:4], y[:4]).update(x[4:], y[4:]).compute()
    if maps == "flatten":
        a, b = x.reshape(6, -1), y.reshape(6, -1)
    elif maps == "mean":
        a, b = x.mean((2, 3)), y.mean((2, 3))
    else:  # four columns become five: floor(i 4 / 5)
        a = x[..., [0, 0, 1, 2, 3]].permute(0, 2, 3, 1).reshape(-1, 3)
        b = y.permute(0, 2, 3, 1).reshape(-1, 4)
    expected = CrossMoments().update(a, b).compute()
    for name in ("mean_x", "mean_y", "xx", "xy", "yy"):
        torch.testing.assert_close(getattr(pair, name), getattr(expected, name))


def test_channels_last_and_classes_of_positions():
    x, y = values(6, 4, 4, 3), values(6, 2, 4, 4, seed=1)
    labels = torch.arange(6) % 2
    stat = Pair(ByClass(CrossMoments), "positions", (3, 1)).update(x, y, labels=labels)
    for k in (0, 1):
        expected = CrossMoments().update(
            x[labels == k].reshape(-1, 3), y[labels == k].permute(0, 2, 3, 1).reshape(-1, 2)
        )
        torch.testing.assert_close(stat.compute()[k].xy, expected.compute().xy)


def test_positions_are_those_of_the_larger_map():
    a, b = torch.arange(7.0).reshape(1, 1, 7), torch.arange(3.0).reshape(1, 1, 3)
    assert same_positions(a, b)[1].flatten().tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert same_positions(b, a)[0].flatten().tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert torch.equal(same_positions(a, b)[0], a)
    with pytest.raises(DataError, match="can't be paired"):
        same_positions(a, b[0])
    assert matrix(a, "positions").shape == (7, 1)
    assert matrix(torch.ones(4, 5), "mean").shape == (4, 5)


def test_what_is_taken_keeps_the_order_of_memory():
    """Transformations stay outermost, as `TwoWayMoments` wants them."""
    x = values(4, 9, 5).transpose(0, 1)  # [9 samples, 4, 5]
    for index in ([0, 3, 4], [1, 3, 5], [2], list(range(9))):
        part = _taken(x, torch.tensor(index))
        assert torch.equal(part, x[torch.tensor(index)])
        assert part.stride(1) > part.stride(0) or len(index) == 1
    whole = TwoWayMoments(4).update(x).compute()
    blocks = Blocks(lambda: TwoWayMoments(4), 3).update(x).compute()
    torch.testing.assert_close(whole.within_rows(), blocks.within_rows(), rtol=1e-12, atol=0)


def test_together():
    x = values(5, 2)
    both = Together({"a": Moments(), "b": ByClass(Moments)})
    both.update(x[:2], labels=torch.zeros(2)).update(x[2:], labels=torch.ones(3))
    same(both.compute()["a"], Moments().update(x).compute())
    same(both.compute()["b"][1], Moments().update(x[2:]).compute())
    assert both["a"].count == 5


@few
@given(st.integers(0, 12), st.integers(1, 5), st.sampled_from([0, 300, 2**20]), st.booleans())
def test_everything_is_kept_in_memory_or_on_disk(n, size, limit, merged):
    x = values(n, 3, 4).transpose(1, 2)
    kept, rest = Kept(limit), Kept(limit)
    for k, part in enumerate(x.split(size)):
        (rest if merged and k % 2 else kept).update(part)
    order = torch.arange(n)
    if merged:
        odd = order // size % 2
        order = torch.cat([order[odd == 0], order[odd == 1]])
        kept.merge(rest)
    assert kept.count == n
    if not n:
        return
    assert torch.equal(kept.compute(), x[order])
    flat = x[order].reshape(n, 12).numpy()
    np.testing.assert_array_equal(kept.columns(2, 7), flat[:, 2:7])
    np.testing.assert_array_equal(kept.columns(1, 3, 1), x[order].numpy()[:, :, 1:3])
    with pytest.raises(DataError, match="changes its shape"):
        kept.update(values(2, 5))


def test_what_is_kept_is_a_copy_of_its_own_type():
    x = torch.arange(6, dtype=torch.float32).reshape(3, 2)
    kept = Kept().update(x)
    x.zero_()
    assert kept.compute().dtype == torch.float32
    assert kept.compute()[1].tolist() == [2, 3]
    assert kept.columns(0, 2).dtype == np.float64

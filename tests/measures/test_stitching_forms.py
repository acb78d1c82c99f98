"""Closed forms of stitches: against numpy by their definitions; what each can undo and can't."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import reference.slow_stitching as slow
from isogon.errors import OptionError, SpecError
from isogon.measures.stitching import closed
from isogon.measures.stitching.cuts import Cut
from isogon.measures.stitching.maps import AffineMap, Between, placed
from isogon.measures.stitching.methods import stitch, stitches
from isogon.measures.stitching.moments import PairSums, connected
from isogon.nets.sites import Site
from isogon.stats import CrossMoments

WIDTHS = [(12, 12), (12, 17), (17, 12)]


def relu(n, p, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, p)) @ rng.normal(size=(p, p)) / p**0.5 + 0.3
    return np.maximum(mixed, 0) * scale


def moments(x, y):
    return CrossMoments().update(torch.as_tensor(x), torch.as_tensor(y)).compute()


def fitted(spec, x, y, seed=0):
    found = stitch(spec).fit(moments(x, y), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return found(torch.as_tensor(x)).numpy()


def relative(found, y):
    return np.linalg.norm(found - y) / np.linalg.norm(y)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("p", "q"), WIDTHS)
def test_least_squares_and_reduced_rank(p, q, bias):
    x, y = relu(300, p) + 5, relu(300, q, seed=1) + np.tile(relu(300, 1, seed=2), q)
    y = y + x[:, :1]
    text = str(bias).lower()
    assert relative(fitted(f"linear(bias={text})", x, y), slow.least_squares(x, y, bias)) < 1e-10
    for rank in (1, 2, 4):
        found = fitted(f"low_rank({rank}, bias={text})", x, y)
        assert relative(found, slow.reduced_rank(x, y, rank, bias)) < 1e-10
        centred = found - found.mean(0) if bias else found
        assert np.linalg.matrix_rank(centred, tol=1e-8 * np.linalg.norm(found)) == rank
    full = fitted(f"low_rank({min(p, q)}, bias={text})", x, y)
    assert relative(full, slow.least_squares(x, y, bias)) < 1e-10
    assert relative(fitted("linear(bias=true)", x, y), slow.least_squares(x, y, False)) > 1e-4


@pytest.mark.parametrize(("p", "q"), WIDTHS)
def test_rotation_times_scale(p, q):
    x, y = relu(300, p), relu(300, q, seed=1) * 3
    assert relative(fitted("orthogonal", x, y), slow.rotation(x, y)) < 1e-10
    m = closed.scaled_rotation(moments(x, y)).numpy()
    small = m @ m.T if q <= p else m.T @ m
    assert np.allclose(small, small[0, 0] * np.eye(len(small)), atol=1e-12 * small[0, 0])
    # the best scale: a little more or less is worse
    best = ((y - x @ m.T) ** 2).sum()
    assert all(((y - s * x @ m.T) ** 2).sum() > best for s in (0.99, 1.01))


@pytest.mark.parametrize(("p", "q"), [(5, 5), (5, 6), (6, 5)])
def test_assignment_is_the_best_of_all(p, q):
    for seed in range(5):
        x, y = relu(40, p, seed), relu(40, q, seed + 10)
        order = closed.assignment(moments(x, y))
        assert tuple(order.tolist()) == slow.best_order(x, y)
        scales = closed.scales(moments(x, y), order).numpy()
        for i, j in enumerate(order.tolist()):
            if j >= 0:
                best = max(1e-6, float(x[:, j] @ y[:, i] / (x[:, j] @ x[:, j])))
                assert scales[i] == pytest.approx(best, rel=1e-9)
            else:
                assert scales[i] == 0


def test_a_scale_is_positive_also_between_opposite_channels():
    x = relu(40, 1) + 1
    element = stitch("G_relu").fit(moments(x, -x), torch.Generator())
    assert element.matrix(1).item() == 1e-6


def test_what_is_planted_is_recovered_by_the_sets_that_hold_it_and_by_no_other():
    rng = np.random.default_rng(3)
    x = relu(500, 16)
    order, scale = rng.permutation(16), 10 ** rng.uniform(-3, 3, 16)
    turn = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    low = rng.normal(size=(16, 2)) @ rng.normal(size=(2, 16))
    planted = {
        "permutation": x[:, order],
        "scales": x[:, order] * scale,
        "rotation": 7 * x @ turn.T,
        "matrix": x @ rng.normal(size=(16, 16)),
        "rank 2": x @ low,
        "offset": x @ low + rng.normal(size=16),
    }
    every = ("permutation", "G_relu", "orthogonal", "low_rank(2)", "linear(bias=false)", "linear")
    holding = {
        "permutation": {"permutation", "G_relu", "orthogonal", "linear(bias=false)", "linear"},
        "scales": {"G_relu", "linear(bias=false)", "linear"},
        "rotation": {"orthogonal", "linear(bias=false)", "linear"},
        "matrix": {"linear(bias=false)", "linear"},
        "rank 2": {"low_rank(2)", "linear(bias=false)", "linear"},
        "offset": {"low_rank(2)", "linear"},
    }
    for name, y in planted.items():
        for spec in every:
            gap = relative(fitted(spec, x, y), y)
            assert (gap < 1e-7) == (spec in holding[name]), (name, spec, gap)


def test_small_channels_beside_large_ones_keep_their_digits():
    x = relu(400, 12) * 10 ** np.linspace(-3, 3, 12)
    y = x[:, ::-1] * 10 ** np.linspace(-3, 3, 12)[None] + 1e-3
    for spec in ("linear", "low_rank(12)"):
        found = fitted(spec, x, y)
        assert all(relative(found[:, i], y[:, i]) < 1e-7 for i in range(12))


def test_dead_duplicate_and_constant_channels():
    x = relu(300, 8)
    x[:, 2] = 0
    x[:, 5] = x[:, 4]
    x[:, 6] = 2 * x[:, 4]  # the same direction: cosines can't tell them apart
    x[:, 7] = 3.0
    y = relu(300, 6, seed=1)
    y[:, 1] = 0
    for spec in ("linear", "linear(bias=false)", "low_rank(3)", "orthogonal", "G_relu"):
        assert np.isfinite(fitted(spec, x, y)).all()
    assert relative(fitted("linear", x, y), slow.least_squares(x, y)) < 1e-9
    assert relative(fitted("linear(bias=false)", x, y), slow.least_squares(x, y, False)) < 1e-9
    for spec in (
        "permutation",
        "G_relu",
        "orthogonal",
        "linear",
        "linear(bias=false)",
        "low_rank(8)",
    ):
        assert relative(fitted(spec, x, x), x) < 1e-9, spec
    for spec in ("linear", "linear(bias=false)", "low_rank(3)"):  # copies share their weight
        weight = stitch(spec).fit(moments(x, y), torch.Generator()).weight.detach()
        assert torch.allclose(weight[:, 4], weight[:, 5], rtol=1e-6, atol=1e-9)
        assert weight.abs().max() < 100
    assert np.array_equal(fitted("permutation", x, x), x)
    rng = np.random.default_rng(0)
    order = rng.permutation(8)
    assert np.array_equal(fitted("permutation", x, x[:, order]), x[:, order])
    nothing = np.zeros_like(x)
    for spec in ("linear", "orthogonal", "G_relu", "low_rank(2)"):
        assert np.abs(fitted(spec, x, nothing)).max() < 1e-4
        assert np.isfinite(fitted(spec, nothing, x)).all()


def test_random_permutations_are_partial_ones():
    for p, q in WIDTHS:
        x = relu(30, p) + 1
        found = stitch("random_permutation").fit(moments(x, relu(30, q)), torch.Generator())
        matrix = found.matrix(p)
        assert set(matrix.unique().tolist()) <= {0.0, 1.0}
        assert matrix.sum() == min(p, q)
        assert matrix.sum(0).max() == matrix.sum(1).max() == 1
        assert np.allclose(found(torch.as_tensor(x)), x @ matrix.numpy().T)


def test_specs():
    assert [s.name for s in stitches(("linear", "low_rank(2)", "linear"))] == [
        "linear",
        "low_rank(2)",
    ]
    assert [s.name for s in stitches("G_relu")] == ["G_relu"]
    with pytest.raises(OptionError, match="rank too low"):
        stitch("low_rank(0)")
    with pytest.raises(SpecError, match="unknown stitch"):
        stitch("liner")
    with pytest.raises(OptionError, match="no stitch"):
        stitches(())


# --------------------------------------------------------------------------- moments of networks


def cut(side, name, shape, axis=1):
    return Cut(side, Site(name, shape=shape), axis, (), ())


def nearest(x, size):
    """The definition, position by position."""
    h, w = x.shape[2:]
    found = torch.empty(*x.shape[:2], *size, dtype=x.dtype)
    for i in range(size[0]):
        for j in range(size[1]):
            found[:, :, i, j] = x[:, :, i * h // size[0], j * w // size[1]]
    return found


SIZES = st.tuples(st.sampled_from([1, 2, 3, 4, 6, 8, 12]), st.sampled_from([1, 2, 3, 5, 6, 12]))


@given(SIZES, SIZES, st.sampled_from([1, -1]), st.integers(0, 2**31))
def test_a_map_acts_where_positions_are_fewest_and_gives_the_same(size, space, axis, seed):
    torch.manual_seed(seed)
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    given_x = x.movedim(1, axis)
    assert torch.equal(placed(given_x, axis, space), nearest(x, space))
    inner = AffineMap(torch.randn(3, 4), torch.randn(3))
    seen = []
    inner.register_forward_hook(lambda _, args, found: seen.append(args[0][0, 0].numel()))
    found = Between(inner, (axis, axis), space)(given_x).movedim(axis, 1)
    torch.testing.assert_close(found, inner(nearest(x, space)), rtol=1e-12, atol=1e-12)
    assert seen[0] == min(math.prod(size), math.prod(space))
    inner.positionwise = False  # as a map with batch statistics
    Between(inner, (axis, axis), space)(given_x)
    assert seen[-1] == math.prod(space)


def test_moments_of_maps_and_tokens_in_any_chunks_and_shares(generator):
    def draw(*shape):
        return torch.randn(21, *shape, generator=generator) + 100

    maps = {
        ("a", "m"): (cut("a", "m", (3, 6, 4)), draw(3, 6, 4)),
        ("b", "m"): (cut("b", "m", (4, 5, 8)), draw(4, 5, 8)),
        ("b", "n"): (cut("b", "n", (2, 3, 2)), draw(2, 3, 2)),
        ("a", "t"): (cut("a", "t", (7, 5), 2), draw(7, 5)),
        ("b", "t"): (cut("b", "t", (7, 6), 2), draw(7, 6)),
    }
    names = [("m", "m"), ("m", "n"), ("t", "t")]
    pairs = [(maps["a", one][0], maps["b", two][0]) for one, two in names]
    groups = connected(pairs)
    assert sorted(map(len, groups)) == [1, 2]

    def fed(sums, parts):
        for part in parts:
            values = {c.key: x[part] for c, x in maps.values() if c.key in sums.sites}
            sums.update(values, torch.zeros(len(part)), torch.as_tensor(part))
        return sums

    def rows(x, axis):
        return x.double().movedim(axis, -1).flatten(0, -2)

    for group in groups:
        whole = fed(PairSums(group), [list(range(21))])
        shares = [
            fed(PairSums(group), [[0, 1], [2]]),
            fed(PairSums(group), [list(range(3, 9)), list(range(9, 21))]),
        ]
        parts = shares[0].merge(shares[1])
        for a, b in group:
            x = next(v for c, v in maps.values() if c is a)
            y = next(v for c, v in maps.values() if c is b)
            x = nearest(x, b.space) if len(b.space) == 2 else x
            exact = CrossMoments().update(rows(x, a.axis), rows(y, b.axis)).compute()
            for found in (whole.of(a, b), parts.of(a, b)):
                assert found.count == exact.count
                for field in ("mean_x", "mean_y", "xx", "xy", "yy"):
                    assert torch.allclose(getattr(found, field), getattr(exact, field), 1e-10, 1e-8)
            assert torch.allclose(whole.itself(b).xy, exact.yy, 1e-10, 1e-8)


def test_maps_keep_the_layout_and_the_bits(generator):
    from isogon.measures.stitching.maps import AffineMap, Assignment, Between

    tokens = torch.randn(4, 7, 5, generator=generator)
    same = Between(Assignment(torch.arange(5)), (2, 2), (7,))(tokens)
    assert torch.equal(same, tokens)
    assert same.stride() == tokens.stride()
    weight, bias = torch.randn(3, 5, generator=generator), torch.randn(3, generator=generator)
    found = Between(AffineMap(weight, bias), (2, 1), (14,))(tokens)
    exact = nn.functional.linear(tokens, weight, bias).movedim(2, 1).repeat_interleave(2, 2)
    assert torch.allclose(found, exact, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 2**31))
def test_larger_sets_of_maps_fit_no_worse(p, q, seed):
    """And what is taken from a set is no worse than anything else in it."""
    x, y = relu(40, p, seed), relu(40, q, seed + 1)

    def loss(spec):
        return float(np.square(fitted(spec, x, y) - y).sum())

    rising = ["low_rank(1)", "low_rank(2)", "linear"]
    rising_without = ["low_rank(1, bias=false)", "low_rank(2, bias=false)", "linear(bias=false)"]
    slack = 1e-9 * float(np.square(y).sum())
    for chain in (rising, rising_without, [rising_without[-1], "linear"]):
        losses = [loss(s) for s in chain]
        assert all(a >= b - slack for a, b in itertools.pairwise(losses))
    least = loss("linear(bias=false)")
    assert all(loss(s) >= least - slack for s in ("orthogonal", "G_relu", "permutation"))
    assert loss("permutation") >= loss("G_relu") - slack
    draw = torch.Generator().manual_seed(seed)
    for _ in range(5):
        turn = torch.linalg.qr(torch.randn(max(p, q), max(p, q), generator=draw))[0][:q, :p]
        turned = x @ turn.double().numpy().T
        scale = float((turned * y).sum() / np.square(turned).sum())
        if p <= q:  # a narrower y hides a part of the rotation, whose size is then no constant
            assert np.square(scale * turned - y).sum() >= loss("orthogonal") - slack

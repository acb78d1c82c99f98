"""SampleOrders of samples: their group, inner products under them, p-values by definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import isogon as ig
from isogon.measures.alignment.metrics.metric import metric
from isogon.measures.alignment.permutations import ROUNDING, SampleOrders


def rng(seed=0):
    return np.random.default_rng(seed)


def drawn(samples, count, seed=0):
    return SampleOrders(samples, count, torch.Generator().manual_seed(seed))


def matrices(n, count, seed, *, symmetric, dtype=torch.float64):
    made = torch.randn(count, n, n, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return list(made + made.mT if symmetric else made)


# factors other than 1 where there are more permutations than shifts; all permutations for n = 4
CASES = [(9, 5), (10, 9), (10, 12), (12, 40), (7, 41), (30, 29), (4, 30)]


@pytest.mark.parametrize(("n", "count"), CASES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_inner_products_are_those_of_permuted_matrices(n, count, symmetric):
    made = drawn(n, count)
    a, b = (matrices(n, k, k, symmetric=symmetric) for k in (2, 3))
    found = made.inner(a, b, symmetric=symmetric)
    assert found.shape == (count, 2, 3)
    for k, order in enumerate(made.orders()):
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                want = float((x * y[order][:, order]).sum())
                assert float(found[k, i, j]) == pytest.approx(want, abs=1e-11)


@pytest.mark.parametrize(("n", "count"), [*CASES, (60, 59), (61, 200), (64, 500)])
@pytest.mark.parametrize("k", [1, 3])
def test_ones_that_meet_are_those_of_permuted_matrices(n, count, k):
    """Counted one by one where there are few, under several factors too, else by products."""
    made, r = drawn(n, count), rng(n + k)
    a, b = ([torch.from_numpy(np.stack([r.permutation(n)[:k] for _ in range(n)]))
             for _ in range(m)] for m in (2, 3))  # fmt: skip
    found = made.common(a, b)
    assert found.shape == (count, 2, 3)
    x, y = ([torch.zeros(n, n).scatter_(1, v, 1.0) for v in side] for side in (a, b))
    for i, order in enumerate(made.orders()):
        want = torch.tensor([[float((u * v[order][:, order]).sum()) for v in y] for u in x])
        assert torch.equal(found[i].float(), want)


@pytest.mark.parametrize("n", [8, 51, 200])
@pytest.mark.parametrize("heavy", [False, True])
def test_single_precision_stays_within_its_bound(n, heavy):
    made = drawn(n, n - 1)
    a, b = (matrices(n, 1, s, symmetric=True) for s in (1, 2))
    if heavy:
        a, b = ([(2 * m).exp() for m in side] for side in (a, b))
    found = made.inner([a[0].float()], [b[0].float()], symmetric=True).flatten().double()
    exact = torch.stack([(a[0] * b[0][o][:, o]).sum() for o in made.orders()])
    assert float((found - exact).abs().max()) <= ROUNDING * float(a[0].norm() * b[0].norm())


@pytest.mark.parametrize(("n", "count"), [(9, 8), (12, 47), (7, 41), (10, 19)])
def test_all_of_them_with_the_identity_are_a_group(n, count):
    every = {tuple(o.tolist()) for o in drawn(n, count).orders()}
    identity = tuple(range(n))
    assert len(every) == count
    assert identity not in every
    every.add(identity)
    for p in every:
        assert sorted(p) == list(identity)
        assert {tuple(p[i] for i in q) for q in every} == every


def test_they_follow_from_the_generator_and_not_from_the_order_of_samples():
    orders = [torch.stack(list(drawn(40, 20, seed).orders())) for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    # each sample goes anywhere: a group of shifts in the samples' own order would not mix them
    steps = torch.cat([o - torch.arange(40) for o in orders[0]]) % 40
    assert len(steps.unique()) > 30


@pytest.mark.parametrize(
    "spec",
    [
        "cka", "cka(unbiased=False)", "cka(kernel=rbf)", "procrustes", "bures", "rsa",
        "rsa(inner=euclidean, outer=cosine)", "distance_correlation", "mutual_knn(k=4)",
        "jaccard(k=4)", "rank_similarity(k=4)", "second_order_cosine(k=4)", "cknna(k=4)",
        "uniformity", "concentricity", "gulp", "cka(kernel=max)", "cka(kernel=median)",
        "cka(kernel=max, normalize=none)", "linear_regression(held_out=3, reverse=True)",
    ],
)  # fmt: skip
def test_p_values_are_those_of_the_definition(spec):
    """Also of the maximum over pairs, with one permutation for all sites."""
    n, count, r = 24, 30, rng(3)
    z = r.standard_normal((n, 3))
    x = {f"x{k}": z @ r.standard_normal((3, 4)) + s * r.standard_normal((n, 4))
         for k, s in enumerate((1, 4))}  # fmt: skip
    y = {f"y{k}": z @ r.standard_normal((3, 5)) + s * r.standard_normal((n, 5))
         for k, s in enumerate((2, 5))}  # fmt: skip
    table = ig.similarity(
        x, y, metric=spec, null=count, generator=torch.Generator().manual_seed(7)
    ).arrays
    sign = 1.0 if metric(spec).closer == "higher" else -1.0
    values = sign * table["similarity"]
    others = []
    for order in drawn(n, count, 7).orders():
        moved = {k: v[order.numpy()] for k, v in y.items()}
        others.append(sign * ig.similarity(x, moved, metric=spec).arrays["similarity"])
    slack = 1e-7
    above = sum(o >= values - slack for o in others)
    most = sum(o.max() >= values - slack for o in others)
    assert np.allclose(table["p_value"], (1 + above) / (count + 1))
    assert np.allclose(table["p_max"], (1 + most) / (count + 1))


@pytest.mark.parametrize("folds", [2, 5])
def test_held_out_regression_permutes_the_side_that_it_explains(folds):
    """The regressors stay, so that the maps are those of the values, whatever is explained."""
    n, count, r = 23, 30, rng(3)
    z, spec = r.standard_normal((n, 3)), f"linear_regression(held_out={folds})"
    x = {str(k): z @ r.standard_normal((3, 4)) + (1 + 3 * k) * r.standard_normal((n, 4)) + 1e4
         for k in range(2)}  # fmt: skip
    y = {str(k): z @ r.standard_normal((3, 5)) + 2 * r.standard_normal((n, 5)) for k in range(2)}
    generator = torch.Generator().manual_seed(7)
    table = ig.similarity(x, y, metric=spec, null=count, generator=generator).arrays
    values = table["similarity"]
    others = []
    for order in drawn(n, count, 7).orders():
        moved = {k: v[order.numpy()] for k, v in x.items()}
        others.append(ig.similarity(moved, y, metric=spec).arrays["similarity"])
    above = sum(o >= values - 1e-7 for o in others)
    most = sum(o.max() >= values - 1e-7 for o in others)
    assert np.allclose(table["p_value"], (1 + above) / (count + 1))
    assert np.allclose(table["p_max"], (1 + most) / (count + 1))
    assert table["p_value"].min() < 0.1  # there is something to explain


def test_whole_images_are_permuted_in_held_out_regression():
    """A position for each row, or the positions of an image beside each other: one test."""
    n, count, r = 18, 25, rng(4)
    spec = "linear_regression(held_out=2)"
    y = r.standard_normal((n, 3, 2, 2))
    x = np.einsum("ij,njhw->nihw", r.standard_normal((2, 3)), y) + 3 * r.standard_normal(
        (n, 2, 2, 2)
    )
    generator = torch.Generator().manual_seed(5)
    table = ig.similarity(x, y, metric=spec, null=count, generator=generator).arrays
    others = [
        ig.similarity(x[order.numpy()], y, metric=spec).arrays["similarity"].item()
        for order in drawn(n, count, 5).orders()
    ]
    above = sum(o >= table["similarity"].item() - 1e-9 for o in others)
    assert table["p_value"].item() == pytest.approx((1 + above) / (count + 1))


@pytest.mark.parametrize("spec", ["linear_regression(held_out=2)", "cka(kernel=max)"])
def test_about_one_in_twenty_null_pairs_is_significant(spec):
    """100 null pairs: 5 are expected, with a standard deviation of 2.2."""
    r, found = rng(1), 0
    for family in range(100):
        x, y = (r.standard_normal((40, 3)) for _ in range(2))
        generator = torch.Generator().manual_seed(family)
        table = ig.similarity(x, y, metric=spec, maps="flatten", null=19, generator=generator)
        found += int(table.arrays["p_value"].item() <= 0.05)
    assert 0 < found <= 14


def test_matrices_on_disk_are_permuted_alike(monkeypatch):
    x, y = (rng(s).standard_normal((30, 4)).astype(np.float32) for s in (1, 2))
    found = []
    for room in (2**30, 0):
        monkeypatch.setattr("isogon.measures.alignment.hsic.RAM", room)
        monkeypatch.setattr("isogon.measures.alignment.permutations.BYTES", room)
        found.append(ig.similarity(x, y, metric="cka(kernel=rbf)", null=40).arrays)
    for name in ("similarity", "p_value", "p_max"):
        assert np.allclose(found[0][name], found[1][name], atol=1e-6), name


@pytest.mark.parametrize("count", [150, 3000])
def test_the_spread_is_that_of_the_closed_form(count):
    n = 200
    x, y = (torch.from_numpy(rng(s).standard_normal((n, 20)) ** 3) for s in (1, 2))
    k, m = (_ucentred(v) for v in (x, y))
    found = drawn(n, count).inner([k], [m], symmetric=True).flatten() / (k.norm() * m.norm())
    sd = math.sqrt(2 / (n * (n - 3)))
    assert abs(float(found.mean())) < 4 * sd / math.sqrt(count)
    assert float(found.std()) == pytest.approx(sd, rel=4 / math.sqrt(count))


def _ucentred(x):
    k = (x @ x.T).fill_diagonal_(0)
    n = len(k)
    rows = k.sum(1) / (n - 2)
    return (k - rows[:, None] - rows + rows.sum() / (n - 1)).fill_diagonal_(0)


# --------------------------------------------------------------------------- minutes


@pytest.mark.long
def test_the_spread_of_ten_thousand_permutations():
    n = 200
    sd = math.sqrt(2 / (n * (n - 3)))
    for width in (2, 64, 2048):
        x, y = (torch.from_numpy(rng(width + s).standard_normal((n, width))) for s in (1, 2))
        k, m = (_ucentred(v) for v in (x, y))
        size = k.norm() * m.norm()
        found = drawn(n, 10_000).inner([k], [m], symmetric=True).flatten() / size
        generator = torch.Generator().manual_seed(1)
        orders = [torch.randperm(n, generator=generator) for _ in range(10_000)]
        uniform = torch.stack([(k * m[o][:, o]).sum() for o in orders]) / size
        print(f"d = {width}: sd {float(found.std()):.6f} of the group,", end=" ")
        print(f"{float(uniform.std()):.6f} of all permutations, {sd:.6f} in closed form")
        # of one group the variance is that of all permutations on average over its labellings
        for values, near in ((found, 0.1), (uniform, 0.04)):
            assert float(values.std()) == pytest.approx(sd, rel=near)
            assert abs(float(values.mean())) < near * sd


@pytest.mark.long
@pytest.mark.parametrize(
    ("spec", "width", "least"),
    [
        ("cka", 2, 0.04), ("cka", 64, 0.04), ("cka", 2048, 0.04), ("rsa", 64, 0.04),
        ("cka(kernel=max)", 8, 0.04),
        ("linear_regression(held_out=2)", 16, 0.04), ("mutual_knn", 64, 0.035),
    ],
)  # fmt: skip
def test_one_in_twenty_null_pairs_is_significant_at_five_percent(spec, width, least):
    """Of each pair alone, and of the largest of the four pairs of two sites each.

    Common neighbours are whole numbers, about 100 here with a deviation of 10: what is as large as
    the value counts against it, which costs some half percent and lets the share lie lower.
    """
    families, alone, largest = 4000, 0, 0
    for family in range(families):
        generator = torch.Generator().manual_seed(families * width + family)
        a, b = (
            {str(k): torch.randn(200, width, generator=generator) for k in range(2)}
            for _ in range(2)
        )
        found = ig.similarity(a, b, metric=spec, maps="flatten", null=99, generator=generator)
        alone += int(found.arrays["p_value"][0, 0] <= 0.05)
        largest += int(found.arrays["p_max"].min() <= 0.05)
    print(f"{spec}, d = {width}: {alone / families:.4f} of pairs,", end=" ")
    print(f"{largest / families:.4f} of families")
    assert least <= alone / families <= 0.06
    assert least <= largest / families <= 0.06

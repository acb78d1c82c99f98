"""What metrics are made of: products, distances, ranks, spans, matrices of minibatches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.stats import rankdata

import isogon as ig
from isogon.measures.alignment import hsic
from isogon.measures.alignment.metrics.metric import metric
from isogon.measures.alignment.products import gram, half_square, mirrored, product
from isogon.measures.alignment.samples import (
    SampleView,
    from_off_diagonal,
    off_diagonal,
    ranks,
    squared_distances,
)
from reference.slow_similarity import cka, eigenspace_overlap, hsic_u


def rows(n, p, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, p))).to(dtype)


@pytest.mark.parametrize("n", [1, 5, 64, 65, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_symmetric_products_are_whole(n, dtype):
    x = rows(n, 7, dtype=dtype)
    for given in (x, x.T.contiguous().T, x[:, ::2]):  # also rows that do not lie together
        want = given.double() @ given.double().T
        assert gram(given).dtype == dtype
        precise = 1e-5 if dtype == torch.float32 else 1e-12
        assert torch.allclose(gram(given).double(), want, atol=precise)
        assert torch.equal(gram(given), gram(given).T)


def test_blocks_of_rows_add_up():
    x = rows(2500, 6, dtype=torch.float32)
    want = x.double().T @ x.double()
    assert torch.allclose(mirrored(half_square(x)), want, rtol=1e-6, atol=1e-3)
    assert torch.allclose(product(x, x), want, rtol=1e-6, atol=1e-3)
    assert gram(rows(4, 0)).abs().sum() == 0


def test_distances_of_near_duplicates_keep_their_digits():
    x = rows(150, 30) + 3
    x[70] = x[3] + 1e-9 * rows(1, 30, 5)[0]
    x[140] = x[3]
    found = squared_distances(x)
    want = torch.tensor(
        [[float((a - b).square().sum()) for b in x] for a in x], dtype=torch.float64
    )
    assert torch.allclose(found, want, rtol=1e-9, atol=0)
    assert found[3, 140] == found[140, 3] == 0
    assert torch.allclose(SampleView(x).distances, want.sqrt(), rtol=1e-9, atol=0)


def test_ranks_of_ties_are_their_mean():
    values = torch.tensor([3.0, -1.0, 3.0, 0.0, 0.0, 0.0, 9.0]).double()
    assert torch.equal(ranks(values), torch.from_numpy(rankdata(values.numpy())))
    many = rows(500, 1)[:, 0]
    assert torch.equal(ranks(many), torch.from_numpy(rankdata(many.numpy())))


def test_lists_of_pairs_and_matrices():
    matrix = rows(9, 9)
    packed = off_diagonal(matrix)
    below = torch.tril_indices(9, 9, -1)
    assert torch.equal(packed, matrix[below[0], below[1]])
    full = from_off_diagonal(packed)
    assert torch.equal(full, matrix.tril(-1) + matrix.tril(-1).T)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_representations_are_equal_to_the_bit(dtype):
    """Roots of differences show every bit; also beyond a block of rows, and from two arrays."""
    x = np.random.default_rng(0).standard_normal((2100, 7)).astype(dtype) + 2
    exact = ("rsm_norm", "procrustes(form=size_and_shape, modulo=permutations)", "magnitude")
    for spec in exact:
        assert ig.similarity(x, x.copy(), metric=spec).table["similarity"].iloc[0] == 0, spec


@pytest.mark.parametrize("offset", [0.0, 30.0, 1e5])
@pytest.mark.parametrize("deficient", [(False, False), (True, False), (True, True)])
def test_spans_with_means_are_those_of_the_columns(offset, deficient):
    """Full rank: by the centred components and the mean; deficient: by the moments themselves."""
    x, y = (rows(60, 5, s).numpy() + offset for s in (1, 2))
    for v, less in zip((x, y), deficient):
        if less:
            v[:, 4] = v[:, 0] - v[:, 1]
    found = ig.similarity(x, y, metric="eigenspace_overlap").table["similarity"].iloc[0]
    assert found == pytest.approx(eigenspace_overlap(x, y), abs=1e-7 if offset < 1e4 else 1e-4)
    assert eigenspace_overlap(x, y) == pytest.approx(
        np.linalg.norm(linalg.orth(x).T @ linalg.orth(y)) ** 2 / max(5 - d for d in deficient)
    )


def test_neighbours_beyond_the_few_that_are_compared_each_with_each():
    x, y = rows(200, 6, 1).numpy(), rows(200, 6, 2).numpy()
    for name in ("mutual_knn", "jaccard", "rank_similarity", "second_order_cosine", "cknna"):
        from reference import slow_similarity

        want = getattr(slow_similarity, name)(x, y, k=70)
        found = ig.similarity(x, y, metric=f"{name}(k=70)").table["similarity"].iloc[0]
        assert found == pytest.approx(want, abs=1e-9), name


# --------------------------------------------------------------------------- minibatches


def batch_matrices(values, spec="cka(minibatch=True)"):
    chosen = metric(spec).facts["alignment"]
    made = [hsic.of_batch(v[:, :, None], chosen).double() for v in values]
    return hsic.centred_rows(torch.stack(made))


@pytest.mark.parametrize("size", [0.0, 1.0, 4.0, 5.5, 6.0, 30.0, 1e3])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_offsets_are_taken_from_the_matrix_while_they_are_small(size, scale):
    """Of float32 rows: the square of the offset against that of the deviations decides."""
    g = torch.Generator().manual_seed(0)
    x = ((torch.randn(64, 3000, generator=g).double() + size) * scale).float()
    y = (x.double()[:, :900] ** 2 / scale**2 + torch.randn(64, 900, generator=g)).float()
    near = hsic._uncentred(x)
    assert (near is not None) == (size < 5.7)  # 32 is 5.66 squared
    single = batch_matrices([x, y])
    double = batch_matrices([x.double(), y.double()])
    values = [np.corrcoef(m)[0, 1] for m in (single, double)]
    assert abs(values[0] - values[1]) < 1e-5
    gap = np.linalg.norm(single[0] - double[0]) / np.linalg.norm(double[0])
    assert gap < 3e-4


@pytest.mark.parametrize("scale", [1e-25, 1e-22, 1.0, 1e10, 1e18])
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
def test_matrices_of_batches_are_safe_in_single_precision(scale, offset):
    """As near to float64 as the numbers that came in allow, of the same scale."""
    x, y = ((rows(32, 5000, s) + offset) * scale for s in (1, 2))
    single = [v.float() for v in (x, y)]
    found = batch_matrices(single)
    exact = batch_matrices([v.double() for v in single])
    for a, b in zip(found, exact):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)
    assert np.allclose(exact.reshape(2, 32, 32).sum(2), 0, atol=1e-9 * np.abs(exact).max())
    value = found[0] @ found[1] / np.linalg.norm(found[0]) / np.linalg.norm(found[1])
    truth = cka(*(v.double().numpy() - offset * scale for v in single))
    assert value == pytest.approx(truth, abs=1e-5)
    kernels = [(v.double() - v.double().mean(0)) / scale for v in single]
    want = hsic_u(*((k @ k.T).numpy() for k in kernels))
    assert found[0] @ found[1] / scale**4 == pytest.approx(want, rel=1e-3, abs=1e-2)


def test_constant_batches_have_no_matrix():
    flat = (rows(1, 9, dtype=torch.float32) + 3).expand(31, 9)  # its mean is rounded
    assert not batch_matrices([flat, torch.zeros(31, 9)]).any()
    tiny = flat.clone()
    tiny[3, 2] += 1e-3  # what is left of it is no rounding
    assert batch_matrices([tiny]).any()


def test_single_precision_is_used_where_it_does():
    x = rows(16, 40, dtype=torch.float32)
    found, exact = batch_matrices([x]), batch_matrices([x.double()])
    assert 0 < np.abs(found - exact).max() < 1e-5 * np.abs(exact).max()
    assert batch_matrices([x], "cka(kernel=rbf, minibatch=True)").shape == (1, 256)
    assert math.isfinite(float(found.sum()))

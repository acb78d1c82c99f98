from __future__ import annotations

import numpy as np
from scipy import stats

from isogon.training import draws


def literal(seed, purpose, epoch, index, column):
    """The same numbers with Python's integers, one by one."""
    mask, gamma = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    key = 0
    for part in (seed, purpose, epoch):
        key = mix((key + gamma + mix((part + gamma) & mask)) & mask)
    row = mix(key ^ mix((index + gamma) & mask))
    return mix((row + (column + 1) * gamma) & mask)


def test_equal_to_the_literal_twin():
    found = draws.bits(np.array([5, 0, 10**9]), 3, seed=42, epoch=7, purpose=draws.AUGMENT)
    for i, index in enumerate((5, 0, 10**9)):
        for column in range(3):
            assert int(found[i, column]) == literal(42, draws.AUGMENT, 7, index, column)


def test_draws_of_a_sample_do_not_depend_on_its_company():
    whole = draws.uniform(np.arange(100), 4, seed=1, epoch=2)
    assert (draws.uniform(np.array([17, 3]), 4, seed=1, epoch=2) == whole[[17, 3]]).all()


def test_uniform_and_unrelated():
    n = 20_000
    streams = [
        draws.uniform(np.arange(n), 2, seed=s, epoch=e, purpose=p)
        for s, e, p in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    columns = np.concatenate(streams, 1).T
    for column in columns:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert abs(correlation).max() < 5 / np.sqrt(n)


def test_permutation_is_one_and_changes_with_the_epoch():
    orders = [draws.random_order(500, seed=3, epoch=e) for e in range(3)]
    for order in orders:
        assert sorted(order) == list(range(500))
    assert (orders[0] != orders[1]).any()
    assert (orders[0] == draws.random_order(500, seed=3)).all()
    places = np.array([draws.random_order(20, seed=s)[0] for s in range(4000)])
    assert stats.chisquare(np.bincount(places, minlength=20)).pvalue > 1e-4

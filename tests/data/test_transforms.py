"""Splits and noise: index for index what the published recipe gives, and its properties."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isogon.data import Samples, samples
from isogon.data.transforms import (
    altered,
    class_subset,
    corrupted,
    keep_classes,
    pixel_orders,
    resized,
    shuffled_pixels,
    split_indices,
    splits,
    wrong_labels,
)
from isogon.errors import DataError, OptionError


@pytest.fixture(scope="module")
def oracle(shared):
    return json.loads((shared / "oracles/arrangement/oracles.json").read_text())


@pytest.mark.shared
def test_split_oracle(oracle):
    for key, seed in (("shuffle,seed42", 42), ("noshuffle", None)):
        found = split_indices(20, 0.25, seed=seed)
        assert [part.tolist() for part in found] == oracle[f"split_dataset(20,.25,{key})"]


@pytest.mark.shared
def test_label_noise_oracle(oracle):
    labels = torch.arange(30) % 10
    head = "corrupt_labels"
    half = wrong_labels(labels, 0.5, classes=10, seed=12345)
    assert half.tolist() == oracle[f"{head}(cifar10, targets=i%10 n=30, ratio .5, seed 12345)"]
    part = torch.cat([wrong_labels(labels[:15], 0.5, classes=10, seed=12345), labels[15:]])
    assert part.tolist() == oracle[f"{head} with train_indices=0..14"]
    every = wrong_labels(labels, 1.0, classes=10, seed=12345)
    assert every.tolist() == oracle[f"{head} ratio 1.0 (never the true label)"]


@pytest.mark.shared
def test_pixel_and_class_oracles(oracle):
    orders = pixel_orders(3, 32 * 32, seed=12345)[:, :6]
    assert orders.tolist() == oracle["shuffle_pixels first 6 of perms (cifar10, n=3, seed 12345)"]
    wanted = oracle["subsample_classes(abcdef,3,seed42)"]
    assert ["abcdef"[c] for c in class_subset(6, 3, seed=42)] == wanted["classes"]
    made = Samples(torch.arange(12.0), torch.arange(6).repeat_interleave(2), name="letters",
                   classes="abcdef")  # fmt: skip
    kept = keep_classes(made, class_subset(6, 3, seed=42))
    assert kept.classes == wanted["classes"]
    assert kept.labels.tolist() == wanted["targets"]
    assert kept.take(range(6))[0].tolist() == [0, 1, 2, 3, 10, 11]


@given(
    labels=st.lists(st.integers(0, 4), min_size=5, max_size=60),
    fraction=st.floats(0.2, 0.8),
    seed=st.none() | st.integers(0, 2**32 - 1),
    stratified=st.booleans(),
)
def test_split_is_a_partition(labels, fraction, seed, stratified):
    y = torch.tensor(labels)
    try:
        train, held = split_indices(len(y), fraction, seed=seed, labels=y if stratified else None)
    except OptionError:  # every class too small to hold one out
        assert stratified
        return
    assert sorted([*train, *held]) == list(range(len(y)))
    if stratified:
        for c in range(5):
            n = int((y == c).sum())
            assert int((y[held] == c).sum()) == int(np.floor(fraction * n))


@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=40),
    ratio=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_noise_never_gives_the_true_label(labels, ratio, seed):
    y = torch.tensor(labels)
    assert (wrong_labels(y, 1.0, classes=7, seed=seed) != y).all()
    noisy = wrong_labels(y, ratio, classes=7, seed=seed)
    assert ((noisy >= 0) & (noisy < 7)).all()
    assert torch.equal(noisy, wrong_labels(y, ratio, classes=7, seed=seed))
    assert torch.equal(wrong_labels(y, 0.0, classes=7, seed=seed), y)


def test_noise_share():
    y = torch.zeros(20_000, dtype=torch.long)
    noisy = wrong_labels(y, 0.3, classes=5, seed=1)
    assert abs(float((noisy != y).float().mean()) - 0.3) < 0.01
    assert torch.bincount(noisy, minlength=5)[1:].min() > 1300


@pytest.mark.parametrize("each", [False, True])
def test_shuffled_pixels(each):
    data = samples("digits(test, 50)")
    moved = shuffled_pixels(data, seed=0, each=each)
    x, y = data.take(range(50))
    z, labels = moved.take(range(50))
    assert torch.equal(labels, y)
    assert torch.equal(x.flatten(1).sort().values, z.flatten(1).sort().values)
    assert not torch.equal(x, z)
    assert torch.equal(z, moved.take(range(50))[0])
    # asked for alone or in another order, an image is permuted the same way
    assert torch.equal(moved.take([31, 7])[0], z[[31, 7]])
    assert torch.equal(moved.subset([31, 7]).take(range(2))[0], z[[31, 7]])
    where = torch.full((2, 1, 8, 8), 0.0)
    where[:, 0, 2, 3] = 1
    pair = Samples(where, torch.zeros(2).long(), name="pair")
    spots = shuffled_pixels(pair, seed=0, each=each).take(range(2))[0].flatten(1).argmax(1)
    assert (spots[0] == spots[1]) == (not each)


def test_channels_move_together():
    x = torch.rand(4, 1, 5, 5).expand(4, 3, 5, 5).clone()
    moved = shuffled_pixels(Samples(x, torch.zeros(4).long(), name="grey"), seed=3, each=True)
    z = moved.take(range(4))[0]
    assert torch.equal(z[:, 0], z[:, 1])
    assert torch.equal(z[:, 0], z[:, 2])


def test_resized():
    data = samples("digits(test, 3)")
    x = data.take(range(3))[0]
    padded = resized(data, 12, how="pad")
    assert padded.shape == (1, 12, 12)
    z = padded.take(range(3))[0]
    assert torch.equal(z[:, :, 2:10, 2:10], x)
    assert float(z.sum()) == pytest.approx(float(x.sum()), rel=1e-6)
    assert torch.equal(
        resized(data, 16, how="nearest").take(range(3))[0],
        x.repeat_interleave(2, 2).repeat_interleave(2, 3),
    )
    z = resized(data, 32).take(range(3))[0]
    assert z.shape == (3, 1, 32, 32)
    assert 0 <= float(z.min()) <= float(z.max()) <= 1
    with pytest.raises(OptionError):
        resized(data, 4, how="pad")
    with pytest.raises(DataError):
        resized(samples("two_moons"), 4)


@pytest.mark.parametrize("shape", [(8, 8, 3), (6, 9, 3), (8, 8, 1), (7, 8, 4)])
def test_channels_are_first_where_pixels_are_moved(tmp_path, shape):
    """Their W x C plane is no image; bytes, of which the shape tells, are turned when read."""
    y, x = np.arange(5), np.random.default_rng(0).random((5, *shape))
    last = Samples(x, y, name="last")
    changes = (
        lambda d: resized(d, 16),
        lambda d: resized(d, 16, how="pad"),
        lambda d: shuffled_pixels(d, seed=0),
        lambda d: altered(d, size=16)[0],
    )
    for change in changes:
        with pytest.raises(DataError, match=r"channels last.*transpose\(0, 3, 1, 2\)"):
            change(last)
        change(Samples(x.transpose(0, 3, 1, 2), y, name="first"))
    np.savez(tmp_path / "a.npz", x=x, y=y)
    with pytest.raises(DataError, match="channels last"):
        samples(f"resized('{tmp_path / 'a.npz'}', 16)")
    if shape[2] != 4:
        np.savez(tmp_path / "a.npz", x=(255 * x).astype(np.uint8), y=y)
        assert samples(f"resized('{tmp_path / 'a.npz'}', 16)").shape == (shape[2], 16, 16)


@pytest.mark.parametrize("shape", [(16, 3, 3), (64, 4, 4), (2, 1, 1), (3, 8, 3), (8, 8, 8)])
def test_maps_that_may_have_their_channels_first_are_taken(shape):
    data = Samples(np.random.default_rng(0).random((5, *shape)), np.arange(5), name="maps")
    assert resized(data, 9).shape == (shape[0], 9, 9)
    assert shuffled_pixels(data, seed=0).shape == shape


def test_splits_share_classes_and_only_train_labels_are_noisy():
    plain = splits("digits", classes=4, classes_seed=1)
    found = splits(
        "digits", classes=4, classes_seed=1, label_noise=1.0, validation=0.25, stratified=True
    )
    assert found.train.classes == found.test.classes == plain.train.classes
    assert len(found.train.classes) == 4
    assert found.validation is not None
    assert len(found.train) + len(found.validation) == len(plain.train)
    true = {x.numpy().tobytes(): int(y) for x, y in zip(*plain.train.take(range(len(plain.train))))}
    for part, wrong in ((found.train, True), (found.validation, False)):
        x, y = part.take(range(len(part)))
        assert all((true[i.numpy().tobytes()] != int(j)) == wrong for i, j in zip(x, y))
    assert torch.equal(found.test.labels, plain.test.labels)


def test_one_permutation_serves_all_splits():
    found = splits("digits", pixel_shuffle="one", size=16, resize="nearest")
    plain = splits("digits", size=16, resize="nearest")
    assert found.train.shape == (1, 16, 16)
    a, b = (s.test.take(range(3))[0] for s in (found, plain))
    assert not torch.equal(a, b)
    # the same permutation: recover it on train from distinct columns, apply it on test
    orders = pixel_orders(1, 64, seed=12345)[0].astype(int)
    small = splits("digits").test.take(range(3))[0].flatten(1)[:, orders].reshape(3, 1, 8, 8)
    assert torch.equal(a, small.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize(
    "options",
    [
        {"validation": 1.0},
        {"validation": -0.1},
        {"label_noise": 1.5},
        {"classes": 11},
        {"classes": 0},
        {"classes": 2, "classes_seed": -1},
        {"size": 0},
    ],
)
def test_wrong_options(options):
    with pytest.raises(OptionError) as error:
        splits("digits", **options)
    assert "expected" in str(error.value)


def test_regression_targets_have_no_classes():
    made = Samples(torch.rand(4, 2), torch.rand(4), name="regression")
    for call in (lambda: corrupted(made, 0.5, seed=0), lambda: keep_classes(made, [0])):
        with pytest.raises(DataError, match="not classes"):
            call()

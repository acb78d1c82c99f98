"""The embedded data sets: sizes, ranges, fixed splits."""

from __future__ import annotations

import pytest
import torch

from isogon.data import samples
from isogon.errors import OptionError


def test_digits_split_is_stratified_and_disjoint():
    train, test, every = (samples(f"digits({s})") for s in ("train", "test", "all"))
    assert len(train) + len(test) == len(every) == 1797
    counts = torch.bincount(test.labels) / torch.bincount(every.labels)
    assert ((counts - 0.2).abs() < 0.01).all()
    x, _ = every.take(range(1797))
    assert x.shape == (1797, 1, 8, 8)
    assert (float(x.min()), float(x.max())) == (0, 1)
    keys = {s: {tuple(i.flatten().tolist()) for i in d.take(range(len(d)))[0]}
            for s, d in (("train", train), ("test", test))}  # fmt: skip
    assert not keys["train"] & keys["test"]


@pytest.mark.parametrize("name", ["two_moons", "two_circles", "blobs"])
def test_planar_sets_are_seeded_and_balanced(name):
    a, again, other = (samples(f"{name}(test, seed={s}, n=300)") for s in (0, 0, 1))
    x = a.take(range(300))[0]
    assert x.shape == (300, 2)
    assert x.dtype == torch.float32
    assert torch.equal(x, again.take(range(300))[0])
    assert not torch.equal(x, other.take(range(300))[0])
    assert not torch.equal(x, samples(f"{name}(train, n=300)").take(range(300))[0])
    assert len(set(torch.bincount(a.labels).tolist())) == 1
    assert len(a.classes) == int(a.labels.max()) + 1


def test_planar_sets_lie_on_their_curves_without_noise():
    outer = samples("two_circles(noise=0.0, factor=0.25)")
    x, y = outer.take(range(1000))
    assert torch.allclose(x.norm(dim=1), torch.where(y == 0, 1.0, 0.25), atol=1e-6)
    x, y = samples("two_moons(noise=0.0)").take(range(1000))
    centre = torch.tensor([[0.0, 0.0], [1.0, 0.5]])[y]
    assert torch.allclose((x - centre).norm(dim=1), torch.ones(1000), atol=1e-5)


@pytest.mark.parametrize("bad", ["two_moons(n=-1)", "blobs(centers=0)", "two_circles(factor=2.0)"])
def test_wrong_options(bad):
    with pytest.raises(OptionError):
        samples(bad)

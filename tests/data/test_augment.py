"""Augmentation: seeded, out of place, each part what it says."""

from __future__ import annotations

import pytest
import torch

from isogon.data.augment import augmentation
from isogon.errors import OptionError

X = torch.rand(32, 3, 9, 7, generator=torch.Generator().manual_seed(1))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "spec", ["crop(2)", "flip", "vertical_flip", "rotate(20)", "erase(3)", "noise(0.1)"]
)
def test_seeded_and_out_of_place(spec):
    kept = X.clone()
    augment = augmentation(spec)
    a, b, c = augment(X, seeded()), augment(X, seeded()), augment(X, seeded(1))
    assert a.shape == X.shape
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(X, kept)


def test_crop_shows_every_shift_of_the_image():
    z = augmentation("crop(1)")(X[:1].expand(400, -1, -1, -1), seeded())
    padded = torch.nn.functional.pad(X[:1], (1, 1, 1, 1))
    windows = [padded[:, :, i : i + 9, j : j + 7] for i in range(3) for j in range(3)]
    seen = {k for i in z for k, w in enumerate(windows) if torch.equal(i, w[0])}
    assert seen == set(range(9))
    assert all(any(torch.equal(i, w[0]) for w in windows) for i in z)


def test_flips_are_half_and_half():
    z = augmentation("flip")(X, seeded())
    flipped = torch.tensor([torch.equal(a, b.flip(2)) for a, b in zip(z, X)])
    same = torch.tensor([torch.equal(a, b) for a, b in zip(z, X)])
    assert (flipped ^ same).all()
    assert 4 < int(flipped.sum()) < 28


def test_rotation_keeps_discs_and_zero_angle_keeps_all():
    assert torch.allclose(augmentation("rotate(0)")(X, seeded()), X, atol=1e-6)
    r = torch.linspace(-1, 1, 41)
    disc = ((r[:, None] ** 2 + r[None] ** 2) < 0.5).float()[None, None]
    z = augmentation("rotate(180)")(disc.expand(8, -1, -1, -1), seeded())
    assert float((z - disc).abs().mean()) < 0.03  # the rim alone, by interpolation


def test_erase_blanks_one_square():
    z = augmentation("erase(3)")(torch.ones(64, 1, 9, 7), seeded())
    assert ((z == 0).sum((1, 2, 3)) == 9).all()


def test_parts_compose_in_order():
    both = augmentation(["crop(2)", "flip"])(X, seeded())
    g = seeded()
    assert torch.equal(both, augmentation("flip")(augmentation("crop(2)")(X, g), g))


@pytest.mark.parametrize("bad", ["crp(4)", "crop", "crop(-1)", "crop(a)", "flip(3)", "crop(p=3)"])
def test_wrong_parts(bad):
    with pytest.raises(OptionError) as error:
        augmentation(bad)
    assert "expected" in str(error.value)

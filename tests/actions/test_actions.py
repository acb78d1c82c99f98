"""Actions: exact matrices, composed inverses, and what a turn looks like."""

from __future__ import annotations

import math
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import isogon as ig
from isogon.actions import Affine, Brightness, Family, Function, Identity
from isogon.actions.images import rotation
from isogon.errors import DataError, OptionError, SpecError

FAMILIES = {
    "rotations(16)": 16,
    "rotations(3, -30, 30)": 3,
    "rotations(5, 0, 360, padding=zeros, mode=nearest)": 5,
    "scales(5)": 5,
    "scales(4, 0.5, 1.5)": 5,
    "scales(3, kind=x)": 3,
    "scales(3, kind=all)": 7,
    "translations(2)": 9,
    "translations(2, directions=8)": 17,
    "translations(1, 0.5, directions=diagonal)": 5,
    "mirrors": 2,
    "mirrors(vertical=true)": 4,
    "brightness(3)": 3,
    "product(rotations(4), scales(3))": 12,
    "product(rotations(4), mirrors)": 8,
    "product(rotations(4), mirrors(vertical=true))": 8,
    "product(rotations(4), scales(3), translations(1))": 60,
    "product(rotations(2), brightness(3))": 6,
}


@pytest.mark.parametrize("spec", FAMILIES)
def test_families(spec):
    family = ig.family(spec)
    assert len(family) == FAMILIES[spec]
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    orbit = family.orbit(x)
    assert torch.equal(orbit[0], x)
    assert orbit.shape == (len(family), *x.shape)
    for action, moved in zip(family, orbit):
        torch.testing.assert_close(action(x), moved, rtol=0, atol=1e-12)
    frame = family.to_frame()
    assert len(frame) == len(family)
    assert frame["label"].is_unique
    assert family.facts()["name"] == family.name
    assert ig.family(family) is family


def test_a_full_turn_has_no_duplicate():
    angles = [a.parameters["angle"] for a in ig.family("rotations(24)")]
    assert angles == [15.0 * k for k in range(24)]
    assert [a.parameters["angle"] for a in ig.family("rotations(3, -30, 30)")] == [0, -30, 30]
    half = [a.parameters["angle"] for a in ig.family("rotations(3, 0, 180)")]
    assert half == [0, 90, 180]


def test_a_positive_turn_is_counter_clockwise_as_seen():
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 8] = 1  # right of the centre
    up = rotation(90)(x)
    assert up[0, 0, 0, 4] == 1  # now above it
    torch.testing.assert_close(up, torch.rot90(x, 1, (2, 3)), rtol=0, atol=0)


def test_quarter_turns_and_whole_shifts_are_exact():
    x = torch.randn(2, 3, 8, 8)
    for k in range(4):
        assert torch.equal(rotation(90.0 * k)(x), torch.rot90(x, k, (2, 3)))
    shift = ig.family("translations(3, directions=8, padding=zeros)")
    for action in shift:
        right, down = int(action.parameters["right"]), int(action.parameters["down"])
        padded = F.pad(x, (3, 3, 3, 3))
        expected = padded[:, :, 3 - down : 11 - down, 3 - right : 11 - right]
        assert torch.equal(action(x), expected)
    assert torch.equal(ig.family("mirrors")[1](x), x.flip(3))
    border = ig.family("translations(1)")[1](x)
    assert torch.equal(border[..., 0], x[..., 0])
    assert torch.equal(border[..., 1:], x[..., :-1])


@pytest.mark.parametrize("angle", [15.0, 77.0, 200.0])
def test_the_warp_is_torchs(angle):
    x = torch.rand(2, 1, 11, 11, dtype=torch.float64)
    t = math.radians(angle)
    theta = torch.tensor(
        [[math.cos(t), -math.sin(t), 0], [math.sin(t), math.cos(t), 0]], dtype=torch.float64
    )
    grid = F.affine_grid(theta.expand(2, 2, 3), x.shape, align_corners=False)
    expected = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(rotation(angle)(x), expected, rtol=0, atol=1e-12)


def test_oblong_images_turn_without_shear():
    x = torch.zeros(1, 1, 40, 80, dtype=torch.float64)
    x[0, 0, 15:25, 30:50] = 1  # 20 wide, 10 high
    turned = rotation(90, padding="zeros")(x)[0, 0]
    assert (turned.sum(0) > 0.5).sum() == 10
    assert (turned.sum(1) > 0.5).sum() == 20


matrices = st.sampled_from(
    ["rotations(7)", "scales(4, kind=all)", "translations(2, 1.5, directions=8)", "mirrors"]
)


@settings(deadline=None, max_examples=12)
@given(matrices, matrices, matrices)
def test_inverse_of_a_product_is_the_product_of_inverses(a, b, c):
    family = ig.family(f"product({a}, {b}, {c})")
    first, second = ig.family(a), ig.family(b)
    for t1 in first:
        for t2 in second:
            whole = np.asarray(t1.after(t2).inverse().matrix)
            parts = np.asarray(t2.inverse().matrix) @ np.asarray(t1.inverse().matrix)
            np.testing.assert_allclose(whole, parts, atol=1e-6)
            np.testing.assert_allclose(
                np.asarray(t1.after(t2).matrix) @ whole, np.eye(3), atol=1e-6
            )
    for action in family:
        product = np.asarray(action.matrix) @ np.asarray(action.inverse().matrix)
        np.testing.assert_allclose(product, np.eye(3), atol=1e-6)


def test_inverting_part_by_part_in_the_same_order_is_wrong():
    turn, shift = rotation(90), ig.family("translations(3)")[1]
    whole = np.asarray(turn.after(shift).inverse().matrix)
    wrong = np.asarray(turn.inverse().matrix) @ np.asarray(shift.inverse().matrix)
    assert np.abs(whole - wrong).max() > 0.5


def test_a_product_is_interpolated_once():
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    turn = rotation(45)
    eight = turn
    for _ in range(7):
        eight = turn.after(eight)
    torch.testing.assert_close(eight(x), x, rtol=0, atol=1e-12)
    blurred = x
    for _ in range(8):
        blurred = turn(blurred)
    assert (blurred - x).abs().max() > 0.1


def test_on_maps_shifts_are_over_the_stride():
    family = ig.family("translations(2, 4)")
    maps = torch.randn(3, 5, 8, 8)
    moved = family.act(maps, (32, 32))  # stride 4: one step is one pixel of the map
    assert torch.equal(moved[1][..., 1:], maps[..., :-1])
    back = family.undo(moved, (32, 32))
    assert torch.equal(back[1][..., :-1], maps[..., :-1])
    turned = ig.family("rotations(4)").act(maps, (32, 32))
    assert torch.equal(turned[1], torch.rot90(maps, 1, (2, 3)))


def test_callables():
    family = Family([lambda x: x + 1, Function(torch.neg, torch.neg, label="minus")], "mine")
    assert isinstance(family[0], Identity)
    assert family.labels == ["identity", "<lambda>", "minus"]
    x = torch.randn(4, 7)
    torch.testing.assert_close(family.orbit(x), torch.stack([x, x + 1, -x]))
    torch.testing.assert_close(family[2].inverse()(family[2](x)), x)
    with pytest.raises(OptionError, match=r"has no inverse.*undo"):
        family[1].inverse()
    with pytest.raises(DataError, match="changes the shape"):
        Family([lambda x: x[:1]])[1](x)
    both = family * ig.family([torch.abs])
    assert len(both) == 6
    torch.testing.assert_close(both.orbit(x)[-1], -x.abs())
    undone = Function(torch.neg, torch.neg).after(Function(lambda v: v + 1, lambda v: v - 1))
    torch.testing.assert_close(undone.inverse()(undone(x)), x)


def test_user_code(monkeypatch):
    module = types.ModuleType("my_family")
    module.build = lambda shift=1.0: [lambda x: x + shift]
    monkeypatch.setitem(sys.modules, "my_family", module)
    family = ig.family("my_family:build(2)")
    assert family.name == "my_family:build(2)"
    assert torch.equal(family.orbit(torch.zeros(1, 1))[1], torch.full((1, 1), 2.0))


def test_brightness():
    x = torch.rand(1, 1, 4, 4)
    family = ig.family("brightness(4, 0.5, 2.0)")
    torch.testing.assert_close(family[1](x), x * 0.5)
    torch.testing.assert_close(family[1].inverse()(family[1](x)), x)
    assert torch.equal(family.act(x, (4, 4))[1], x)
    with pytest.raises(OptionError, match="no inverse"):
        Brightness(0).inverse()


def test_random_members():
    family = ig.family("rotations(4)")
    x = torch.rand(200, 1, 4, 4)
    moved = family.augment(x, torch.Generator().manual_seed(0))
    again = family.augment(x, torch.Generator().manual_seed(0))
    assert torch.equal(moved, again)
    orbit = family.orbit(x)
    which = [(orbit[:, i] == moved[i]).flatten(1).all(1).nonzero()[0, 0].item() for i in range(200)]
    assert sorted(set(which)) == [0, 1, 2, 3]
    assert min(np.bincount(which)) > 25


WRONG = {
    "rotation(3)": (SpecError, "Did you mean 'rotations'"),
    "rotations(0)": (OptionError, "count >= 1"),
    "rotations(padding=mirror)": (SpecError, "border, zeros, reflection"),
    "scales(3, -1, 1)": (OptionError, "positive"),
    "translations(directions=5)": (SpecError, "wrong value for 'directions'"),
    "product(rotations)": (SpecError, "second"),
}


@pytest.mark.parametrize("spec", WRONG)
def test_mistakes_are_answered(spec):
    kind, says = WRONG[spec]
    with pytest.raises(kind, match=says):
        ig.family(spec)


def test_more_mistakes():
    with pytest.raises(DataError, match=r"images \[N, C, H, W\]"):
        rotation(10)(torch.zeros(3, 4))
    with pytest.raises(OptionError, match="invertible"):
        Affine(((1, 0, 0), (0, 0, 0), (0, 0, 1)))
    with pytest.raises(OptionError, match="unknown mode"):
        rotation(10, mode="cubic")
    with pytest.raises(OptionError, match="at least one action"):
        Family([])
    with pytest.raises(DataError, match="must be callable"):
        Family([3])
    with pytest.raises(OptionError, match="not a family"):
        ig.family(3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(7, 9), (1, 6), (5, 1)])
def test_both_forms_of_the_warp_give_the_same_bits(monkeypatch, dtype, size):
    """The size of a batch decides which is used; it must not show."""
    from isogon.actions import warp

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, *size, generator=generator).to(dtype)
    family = ig.family("product(rotations(8), translations(1, 0.5))")
    found = []
    for least in (0, 2**60):
        monkeypatch.setattr(warp, "COMPILE", least)
        orbit = family.orbit(x)
        found.append((orbit, family.undo(orbit, (14, 18))))
    for loop, plain in zip(*found):
        assert torch.equal(loop, plain)
    grid = warp.positions(np.asarray(family[1].matrix)[None], *size, "border").grid
    torchs = F.grid_sample(
        x.double(), grid.expand(3, -1, -1, -1), padding_mode="border", align_corners=False
    )
    slack = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(found[0][0][1].double(), torchs, rtol=0, atol=slack)


def test_gradients_pass_through_a_warp():
    x = torch.rand(1, 1, 300, 300, requires_grad=True)
    (grad,) = torch.autograd.grad(rotation(30)(x).sum(), x)
    assert float(grad.sum()) == pytest.approx(90_000, rel=1e-4)

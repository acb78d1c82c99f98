"""Groups on channels: closed, fitted as well as anything in them, and themselves alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon import registry
from isogon.actions import Channels, Group, group
from isogon.errors import DataError, OptionError, SpecError
from isogon.stats import CrossMoments

NAMES = ["permutations", "signed_permutations", "G_relu", "G_abs", "orthogonal", "invertible"]
# Every group of the list as a set: what contains what.
INSIDE = {
    "permutations": set(NAMES),
    "signed_permutations": {"signed_permutations", "G_abs", "orthogonal", "invertible"},
    "G_relu": {"G_relu", "G_abs", "invertible"},
    "G_abs": {"G_abs", "invertible"},
    "orthogonal": {"orthogonal", "invertible"},
    "invertible": {"invertible"},
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def moments(x, y):
    return CrossMoments().update(x, y).compute()


def distance(a, x, y):
    return float(((y - a(x)) ** 2).sum())


@pytest.mark.parametrize("name", NAMES)
def test_random_elements_belong_and_groups_are_closed(name):
    g = group(name)
    a, b = g.sample(7, seeded(1)), g.sample(7, seeded(2))
    for element in (a, b, a.after(b), a.inverse(), Channels(torch.eye(7).double())):
        assert g.contains(element)
    assert torch.equal(a.matrix, g.sample(7, seeded(1)).matrix)
    assert not torch.equal(a.matrix, b.matrix)
    assert not g.contains(torch.zeros(3, 3))
    assert not g.contains(torch.ones(2, 3))
    assert not g.contains(torch.full((2, 2), float("nan")))


@pytest.mark.parametrize(("name", "other"), list(itertools.product(NAMES, NAMES)))
def test_which_group_holds_which(name, other):
    element = group(name).sample(9, seeded(3))
    assert group(other).contains(element) == (other in INSIDE[name])


@pytest.mark.parametrize("name", NAMES)
def test_fit_recovers_the_element(name):
    g = group(name)
    x = torch.randn(200, 6, 2, 2, generator=seeded(), dtype=torch.float64).relu()
    a = g.sample(6, seeded(4))
    found = g.fit(moments(x, a(x)))
    assert torch.allclose(found.matrix, a.matrix, atol=1e-8)
    assert g.contains(found, tolerance=1e-6)
    assert distance(found, x, a(x)) < 1e-12 * float((x**2).sum())


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 10_000))
def test_no_random_element_is_closer(name, seed):
    generator = seeded(seed)
    x = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    g = group(name)
    best = distance(g.fit(moments(x, y)), x, y)
    for _ in range(8):
        assert best <= distance(g.sample(4, generator), x, y) + 1e-9


@pytest.mark.parametrize("name", ["permutations", "signed_permutations"])
def test_fit_is_the_best_of_all_by_brute_force(name):
    x, y = (torch.randn(20, 4, generator=seeded(s), dtype=torch.float64) for s in (5, 6))
    signs = [1.0] if name == "permutations" else [1.0, -1.0]
    every = [
        distance(Channels(torch.eye(4).double()[list(p)] * torch.tensor(s).double()[:, None]), x, y)
        for p in itertools.permutations(range(4))
        for s in itertools.product(signs, repeat=4)
    ]
    assert distance(group(name).fit(moments(x, y)), x, y) == pytest.approx(min(every), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("widths", [(3, 5), (5, 3)])
def test_layers_of_different_width(name, widths):
    x, y = (torch.randn(40, w, generator=seeded(w), dtype=torch.float64) for w in widths)
    found = group(name).fit(moments(x, y))
    assert found.matrix.shape == (widths[1], widths[0])
    pad = torch.nn.functional.pad
    x, y = (pad(t, (0, 5 - t.shape[1])) for t in (x, y))
    whole = group(name).fit(moments(x, y))
    corner = whole.matrix[: widths[1], : widths[0]]
    assert torch.allclose(corner, found.matrix, atol=1e-5)


def test_dead_and_opposite_channels_keep_a_scale():
    x = torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[-1.0, 0.0], [-2.0, 3.0]], dtype=torch.float64)
    found = group("G_relu").fit(moments(x, y))
    assert group("G_relu").contains(found)
    assert torch.isfinite(found.matrix).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_act_on_the_channel_axis_of_any_map(dtype):
    a = group("orthogonal").sample(3, seeded())
    for shape in ((5, 3), (5, 3, 4), (5, 3, 4, 2)):
        x = torch.randn(shape, generator=seeded(1)).to(dtype)
        y = a(x)
        assert y.dtype == dtype
        assert torch.allclose(a.inverse()(y), x, atol=1e-5)
        assert torch.allclose(y.norm(), x.norm())
    with pytest.raises(DataError, match="number of channels"):
        a(torch.zeros(5, 4))
    with pytest.raises(OptionError, match="no inverse"):
        Channels(torch.ones(2, 2).double()).inverse()


def test_relu_commutes_with_its_group_and_not_with_rotations():
    x = torch.randn(50, 6, generator=seeded(), dtype=torch.float64)
    a, r = (group(n).sample(6, seeded(1)) for n in ("G_relu", "orthogonal"))
    assert torch.allclose(a(x).relu(), a(x.relu()))
    assert not torch.allclose(r(x).relu(), r(x.relu()))
    s = group("signed_permutations").sample(6, seeded(1))
    assert torch.allclose(s(x).tanh(), s(x.tanh()))


def test_orthogonal_draws_are_haar():
    """Under Haar's measure every entry has mean 0 and variance 1/c."""
    g = group("orthogonal")
    generator = seeded()
    every = torch.stack([g.sample(3, generator).matrix for _ in range(4000)])
    assert float(every.mean(0).abs().max()) < 0.05
    assert float(((every**2).mean(0) - 1 / 3).abs().max()) < 0.03
    assert abs(float(torch.linalg.det(every).mean())) < 0.06


def test_names_and_nouns():
    assert set(NAMES) <= set(registry.names("group"))
    assert isinstance(registry.get("noun", "Group").build("G_relu"), Group)
    with pytest.raises(SpecError, match="orthogonal"):
        group("orthogonl")


def test_powers_of_rotations():
    for width in (1, 2, 5, 16):
        for power in (0.5, 0.1):
            turned, draw = group(f"orthogonal(power={power})"), torch.Generator
            element = turned.sample(width, draw().manual_seed(1))
            assert turned.contains(element)
            whole = group("orthogonal").sample(width, draw().manual_seed(1)).matrix
            if torch.linalg.det(whole) < 0:  # a reflection has no root: its mirror image is turned
                whole[:, 0] *= -1
            back = torch.linalg.matrix_power(element.matrix, round(1 / power))
            assert torch.allclose(back, whole, atol=1e-9)
    far, near = (
        group(g).sample(16, torch.Generator().manual_seed(1)).matrix - torch.eye(16)
        for g in ("orthogonal", "orthogonal(power=0.1)")
    )
    assert near.norm() < 0.3 * far.norm()

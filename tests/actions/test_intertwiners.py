"""Intertwiner groups: what an activation lets through, found from its values, and nothing more."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from isogon import registry
from isogon.actions import Channels, group
from isogon.actions.intertwiners import FOLDED, GROUPS, UNFOLDED, deviation
from isogon.errors import OptionError
from isogon.stats import CrossMoments

SCALAR = {
    "identity": nn.Identity(), "relu": torch.relu, "leaky_relu": nn.LeakyReLU(0.2),
    "rrelu": nn.RReLU(), "relu_squared": lambda x: x.relu() ** 2, "gelu": nn.GELU(),
    "sigmoid": torch.sigmoid, "silu": F.silu, "softplus": F.softplus, "elu": F.elu,
    "selu": F.selu, "celu": F.celu, "relu6": F.relu6, "mish": F.mish, "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid, "log_sigmoid": F.logsigmoid, "exp": torch.exp,
    "tanh": torch.tanh, "sin": torch.sin, "hardtanh": F.hardtanh, "erf": torch.erf,
    "atan": torch.atan, "asinh": torch.asinh, "softsign": F.softsign,
    "tanhshrink": F.tanhshrink, "sinh": torch.sinh, "hardshrink": F.hardshrink,
    "softshrink": F.softshrink, "cos": torch.cos, "cosh": torch.cosh, "abs": torch.abs,
    "square": torch.square, "cube": lambda x: x**3,
}  # fmt: skip
# From each group the next larger ones, whose elements the activation does not let through.
BEYOND = {
    "permutations": ("signed_permutations", "G_relu", "orthogonal"),
    "signed_permutations": ("G_abs", "orthogonal"),
    "G_cos": ("G_abs", "orthogonal"),
    "G_relu": ("signed_permutations", "G_abs", "orthogonal"),
    "G_relu(degree=2)": ("signed_permutations", "orthogonal"),
    "G_abs": ("orthogonal", "invertible"),
    "G_monomial(degree=2)": ("orthogonal", "invertible"),
    "G_monomial(degree=3)": ("orthogonal", "invertible"),
    "invertible": (),
}
NEW = ["G_cos", "G_monomial", "G_layer_norm", "G_relu(degree=2)", "G_prelu(slopes=[1,1,2,2,2,3])"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs(channels=6):
    return 2 * torch.randn(200, channels, generator=seeded(), dtype=torch.float64)


def steady(activation):
    return activation.eval() if isinstance(activation, nn.Module) else activation


def test_every_scalar_activation_with_a_name_is_tried():
    named = {a for names in GROUPS.values() for a in names}
    assert set(SCALAR) == named - {"max_pool"}
    assert set(FOLDED) == set(UNFOLDED) == {"rms_norm", "layer_norm"}


@pytest.mark.parametrize("name", SCALAR)
def test_elements_pass_through_their_activation(name):
    g = group(f"G_sigma({name})")
    for seed in range(5):
        a = g.sample(6, seeded(seed))
        assert g.contains(a)
        assert deviation(steady(SCALAR[name]), g, a, inputs()) < 1e-12


@pytest.mark.parametrize("name", SCALAR)
def test_elements_of_larger_groups_do_not(name):
    g = group(f"G_sigma({name})")
    held = next(k for k, names in GROUPS.items() if name in names)
    x = inputs()
    for other in BEYOND[held]:
        a = group(other).sample(6, seeded(1))
        assert not g.contains(a), other
        # Not by any matrix behind it either: least squares leave a remainder.
        before, after = steady(SCALAR[name])(x), steady(SCALAR[name])(a(x))
        best = torch.linalg.lstsq(before, after).solution
        assert float((before @ best - after).norm() / after.norm()) > 1e-3, other


@pytest.mark.parametrize("name", SCALAR)
def test_the_group_is_found_from_values_alone(name):
    named, found = group(f"G_sigma({name})"), group(SCALAR[name])
    for seed in range(3):
        for mine, theirs in ((named, found), (found, named)):
            a = mine.sample(5, seeded(seed))
            assert theirs.contains(a)
            assert torch.allclose(theirs.phi(a).matrix, mine.phi(a).matrix)


def waves(x):
    """s(0.03 x) = -0.03 s(x): a scale with a sign, which no other positive scale has."""
    found = x * torch.cos(math.pi * x.abs().log() / math.log(0.03))
    return torch.where(x == 0, x, found)


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (waves, "signed_permutations"),
        (lambda x: x**4 - x**2, "G_cos"),
        (lambda x: x**3 + x, "signed_permutations"),
        (lambda x: x + 0.1 * torch.sin(x) ** 2, "permutations"),  # Snake
        (lambda x: x * torch.tanh(F.softplus(x)), "permutations"),
        (lambda x: x.abs() ** 0.5, "G_abs(degree=0.5)"),
        (lambda x: x.sign() * x.abs() ** 0.5, "G_monomial(degree=0.5)"),
        (torch.reciprocal, "G_monomial(degree=-1)"),
        (lambda x: 1 / x**2, "G_abs(degree=-2)"),
        (lambda x: x.clamp(-2000, 2000), "signed_permutations"),  # straight near 0
        (lambda x: 3 * x, "invertible"),
        (lambda x: F.leaky_relu(x.float(), 0.3), "G_relu"),
        (nn.PReLU(), "G_relu"),
    ],
)
def test_groups_of_activations_without_a_name(activation, name):
    g = group(activation)
    assert g.name == name
    a = g.sample(4, seeded(2))
    x = inputs(4).float() if isinstance(activation, nn.PReLU) else inputs(4)
    with torch.no_grad():
        assert deviation(activation, g, a, x) < 1e-5


@pytest.mark.parametrize(
    ("activation", "says"),
    [
        (lambda x: x + 1, r"affine: 1 x \+ 1"),
        (torch.log, "no value at -10000"),
        (lambda x: F.softmax(x, 0), "mixes the numbers"),
        (lambda x: torch.zeros_like(x), "constant"),
        (lambda x: x + torch.rand(()), "other values for the same"),
        (lambda x: x.sum(), r"into \[\]"),
    ],
)
def test_what_is_no_scalar_activation_is_refused(activation, says):
    with pytest.raises(OptionError, match=says):
        group(activation)


def test_slopes_of_a_prelu_change_places_among_equals():
    layer = nn.PReLU(6).double()
    slopes = [0.1, 0.2, 0.1, 0.2, 0.5, 0.1]
    layer.weight.data[:] = torch.tensor(slopes)
    g = group(layer)
    x = inputs()
    with torch.no_grad():
        for seed in range(10):
            assert deviation(layer, g, g.sample(6, seeded(seed)), x) < 1e-12
        swap = torch.eye(6).double()[[1, 0, 2, 3, 4, 5]]
        assert not g.contains(swap)
        assert deviation(layer, g, Channels(swap), x) > 0.01
    assert g.contains(torch.eye(6).double()[[2, 3, 5, 1, 4, 0]])
    with pytest.raises(OptionError, match="5 and 5 channels"):
        g.sample(5, seeded())


@pytest.mark.parametrize(
    ("coefficients", "name"),
    [
        ((0, 1), "invertible"), ((0, 0, 3), "G_monomial(degree=2)"), ((1, 0, 3), "G_cos"),
        ((0, 1, 0, 1), "signed_permutations"), ((0, 1, 1), "permutations"),
        ((1, 0, 0, 1), "permutations"),
    ],
)  # fmt: skip
def test_polynomials(coefficients, name):
    def polynomial(x):
        return sum(c * x**k for k, c in enumerate(coefficients))

    g = group(f"G_polynomial({list(coefficients)})")
    assert g.name == name
    found = group(polynomial)
    a = g.sample(4, seeded())
    assert found.contains(a)
    assert deviation(polynomial, g, a, inputs(4)) < 1e-12
    assert g.contains(found.sample(4, seeded(1)))


def norms(x):
    return F.layer_norm(x, x.shape[1:]), F.rms_norm(x, x.shape[1:])


def test_streams_in_front_of_norms():
    x = inputs()
    for k, name in enumerate(("layer_norm", "rms_norm")):
        gain = torch.randn(6, generator=seeded(3), dtype=torch.float64)
        for seed in range(5):
            q = group(f"G_sigma({name})").sample(6, seeded(seed))
            assert torch.allclose(norms(q(x))[k], q(norms(x)[k]))
            p = group(f"G_sigma({name}, folded=false)").sample(6, seeded(seed))
            # gains in place move along, without signs
            assert torch.allclose(norms(p(x))[k] * (p.matrix.abs() @ gain), p(norms(x)[k] * gain))
    turned = group("orthogonal").sample(6, seeded(1))
    assert not torch.allclose(norms(turned(x))[0], turned(norms(x)[0]), atol=1e-3)
    assert torch.allclose(norms(turned(x))[1], turned(norms(x)[1]))
    assert not group("G_layer_norm").contains(turned)
    assert group("G_layer_norm").contains(-torch.eye(6))
    with pytest.raises(OptionError, match="different width"):
        group("G_layer_norm").fit(CrossMoments().update(x, inputs(5)).compute())


@pytest.mark.parametrize("name", NEW)
def test_groups_are_closed_and_fitted(name):
    g = group(name)
    a, b = g.sample(6, seeded(1)), g.sample(6, seeded(2))
    for element in (a, b, a.after(b), a.inverse(), Channels(torch.eye(6).double())):
        assert g.contains(element)
    both = g.phi(a.after(b)).matrix
    assert torch.allclose(both, g.phi(a).matrix @ g.phi(b).matrix)
    x = inputs()
    found = g.fit(CrossMoments().update(x, a(x)).compute())
    assert torch.allclose(found.matrix, a.matrix, atol=1e-8)
    y = torch.randn(200, 6, generator=seeded(5), dtype=torch.float64)
    best = g.fit(CrossMoments().update(x, y).compute())
    assert g.contains(best, tolerance=1e-6)
    for seed in range(50):
        assert float(((y - best(x)) ** 2).sum()) <= float(
            ((y - g.sample(6, seeded(seed))(x)) ** 2).sum()
        )


def test_names():
    assert {"G_sigma", "G_cos", "G_prelu", "G_monomial", "G_polynomial", "G_layer_norm"} <= set(
        registry.names("group")
    )
    with pytest.raises(OptionError, match="no activation of that name"):
        group("G_sigma(geloo)")
    with pytest.raises(OptionError, match="affine"):
        group("G_monomial(degree=1)")
    with pytest.raises(OptionError, match="affine"):
        group("G_polynomial([1, 2])")

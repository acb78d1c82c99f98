"""The scalar function given by its knots: values, derivatives, transforms, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isogon.errors import OptionError
from isogon.nets.piecewise import PiecewiseLinear, piecewise_linear
from isogon.nets.trace import place, trace

finite = st.floats(-5, 5)


@given(
    st.lists(finite, min_size=1, max_size=6, unique=True),
    st.lists(finite, min_size=6, max_size=6),
    finite,
    finite,
)
def test_against_numpy(knots, values, left, right):
    knots = sorted(round(k, 3) for k in knots)
    if len(set(knots)) < len(knots):
        return
    values = values[: len(knots)]
    layer = PiecewiseLinear(knots, values, left=left, right=right)
    x = np.linspace(-8, 8, 201)
    twin = np.interp(x, knots, values)
    twin += np.where(x < knots[0], left * (x - knots[0]), 0)
    twin += np.where(x > knots[-1], right * (x - knots[-1]), 0)
    np.testing.assert_allclose(layer(torch.from_numpy(x)).numpy(), twin, atol=1e-9)


def test_derivatives_and_transforms():
    layer = PiecewiseLinear([0.0, 1.0, 2.0], [0.0, 1.0, 0.0], left=0.5)
    x = torch.tensor([-1.0, 0.5, 1.5, 3.0], dtype=torch.float64, requires_grad=True)
    slopes = torch.tensor([0.5, 1.0, -1.0, 0.0], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    assert torch.equal(gradient, slopes)
    assert torch.equal(torch.func.jvp(layer, (x,), (torch.ones_like(x),))[1], slopes)
    jacobian = torch.func.vmap(torch.func.grad(lambda t: layer(t)))(x.detach())
    assert torch.equal(jacobian, slopes)
    assert layer(x.float()).dtype == torch.float32


def test_traced_as_one_layer():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), PiecewiseLinear([0.0], [0.0], right=1.0))
    (node,) = (n for n in trace(model, torch.rand(1, 2)).nodes if "piecewise" in str(n.target))
    assert place(node).name == "1"
    assert place(node).op == "PiecewiseLinear"


@pytest.mark.parametrize(
    ("knots", "values"), [([], []), ([0.0, 0.0], [1.0, 2.0]), ([1.0, 0.0], [1.0, 2.0]), ([0.0], [])]
)
def test_refusals(knots, values):
    with pytest.raises(OptionError, match="ascending knots"):
        PiecewiseLinear(knots, values)


def test_function():
    hat = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, -1.0, 0.0])
    x = torch.tensor([-2.0, -0.5, 0.0, 0.75])
    assert piecewise_linear(x, *hat, 0.0).tolist() == [0.0, 0.5, 1.0, 0.25]

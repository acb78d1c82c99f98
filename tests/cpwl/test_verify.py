"""`verify` where it is cheap: fewer points of large networks, sizes only where they decide."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isogon.cpwl import verify as module
from isogon.cpwl.lower import lower
from isogon.cpwl.verify import affordable, sizes, summing, verify


def linear(weight, bias=None):
    layer = nn.Linear(len(weight[0]), len(weight), bias is not None).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight, dtype=torch.float64))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias, dtype=torch.float64))
    return layer


def cancelling(scale, nudge=0.0):
    """Outputs of size 1 out of a difference of two numbers of another size."""
    first = linear([[scale, 1.0], [scale * (1 + nudge), -1.0]])
    return nn.Sequential(first, nn.ReLU(), linear([[1.0, -1.0]]), nn.ReLU(), linear([[1.0]], [2.0]))


def test_what_cancels_inside_is_judged_by_its_own_size():
    """A last digit of 1e9 is 1e-7 of the last layer's sum, but no more than rounding."""
    x = torch.rand(8, 2, dtype=torch.float64) + 0.5
    other = lower(cancelling(1e9, 2.0**-52), x)
    certificate = verify(cancelling(1e9), x, program=other, points=8)
    assert certificate.facts["absolute error"] > 1e-8
    assert certificate.passed
    assert 0 < certificate["relative error"].value < 1e-14
    # and the same difference where nothing cancels is a fault
    wrong = lower(cancelling(1.0, 3e-8), x)
    assert not verify(cancelling(1.0), x, program=wrong, points=8)["relative error"].passed


def test_the_sizes_that_it_does_not_compute_are_no_smaller_than_those_it_does(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4),
        nn.Unflatten(1, (2, 2)), nn.Flatten(),
    ).double()  # fmt: skip
    x = torch.randn(6, 1, 8, 8, dtype=torch.float64)
    program = lower(model, x)
    assert len(summing(program)) > 1  # the layer, and what reorders it
    outputs, least, visited = module._evaluated(program, x)
    assert torch.allclose(outputs, model(x))
    assert 0 < visited <= 1
    assert (least <= sizes(program, x) * (1 + 1e-12)).all()
    assert (least > 0.05 * sizes(program, x)).all()

    def never(program, x):
        raise AssertionError("not needed")

    monkeypatch.setattr(module, "sizes", never)
    assert verify(model, x).passed


def test_an_output_that_a_kink_makes_has_no_last_sum():
    program = lower(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.rand(2, 3))
    assert summing(program) == []
    assert verify(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.rand(2, 3)).passed


@pytest.mark.parametrize(("width", "least", "most"), [(8, 64, 64), (400_000, 8, 19)])
def test_points_by_default(width, least, most):
    program = lower(
        nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.AvgPool1d(width)), torch.rand(2, 1)
    )
    assert least <= affordable(program) <= most

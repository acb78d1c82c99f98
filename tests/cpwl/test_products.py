"""Products of branches: told apart from smooth scalar functions, which have interpolants."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import UnsupportedOp


class Excited(nn.Module):
    """Squeeze and excitation: channels times a gate made of them."""

    def __init__(self, gate):
        super().__init__()
        self.conv, self.fc, self.out = nn.Conv2d(1, 4, 3), nn.Linear(4, 4), nn.Linear(4, 3)
        self.gate = gate

    def forward(self, x):
        h = self.conv(x).relu()
        return self.out((h * self.gate(self.fc(h.mean((2, 3))))[:, :, None, None]).mean((2, 3)))


@pytest.mark.parametrize("gate", [nn.Sigmoid(), nn.Hardsigmoid(), nn.SiLU(), nn.ReLU()])
def test_a_product_of_branches_is_said_to_stay_one(gate):
    net, x = Excited(gate), torch.rand(2, 1, 8, 8)
    with pytest.raises(UnsupportedOp, match="Nothing makes a product of two branches") as caught:
        ig.segments(net, x[0], x[1])
    assert "mul at" in str(caught.value)
    assert "Replace it by interpolants" not in str(caught.value)


def test_a_product_that_is_a_function_of_one_number_has_interpolants():
    class Swish(nn.Module):
        def __init__(self, gate):
            super().__init__()
            self.fc, self.gate = nn.Linear(4, 3), gate

        def forward(self, x):
            h = self.fc(x)
            return h * self.gate(h)

    x = torch.rand(2, 4)
    for gate in (nn.Sigmoid(), nn.Hardsigmoid()):
        net = Swish(gate)
        with pytest.raises(UnsupportedOp, match=r"ig\.piecewise"):
            ig.segments(net, x[0], x[1])
        assert len(ig.segments(ig.piecewise(net, knots=8, example=x), x[0], x[1]).table) >= 1

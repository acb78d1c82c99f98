from __future__ import annotations

import pytest
import torch

from isogon.cpwl.program import Affine, Join, Kink, Max, Program, dense, mlp, relu
from isogon.errors import ModelError


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def kink(knots, slopes, value=0.0):
    return Kink(output="y", inputs=("x",), site="k", knots=knots, slopes=slopes, value=value)


def test_mlp_is_the_module(generator):
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 5), torch.nn.LeakyReLU(0.1), torch.nn.Linear(5, 2)
    ).double()
    program = mlp(
        [model[0].weight.detach(), model[2].weight.detach()],
        [model[0].bias.detach(), model[2].bias.detach()],
        slope=0.1,
    )
    x = torch.randn(17, 3, dtype=torch.float64, generator=generator)
    assert torch.allclose(program.evaluate(x, chunk=4), model(x), atol=1e-14)
    assert torch.allclose(program.preactivations(x)["relu0"], model[0](x), atol=1e-14)


@pytest.mark.parametrize(
    ("knots", "slopes", "value", "function"),
    [
        (tensor(0), tensor(0, 1), 0.0, torch.relu),
        (tensor(0), tensor(-1, 1), 0.0, torch.abs),
        (tensor(0, 6), tensor(0, 1, 0), 0.0, torch.nn.functional.relu6),
        (tensor(-1, 1), tensor(0, 1, 0), -1.0, torch.nn.functional.hardtanh),
        (tensor(-3, 3), tensor(0, 1 / 6, 0), 0.0, torch.nn.functional.hardsigmoid),
    ],
)
def test_kinks(knots, slopes, value, function):
    z = torch.linspace(-8, 8, 333, dtype=torch.float64)[:, None]
    stage = kink(knots, slopes, value)
    assert torch.allclose(stage(z), function(z), atol=1e-14)
    piece = stage.piece(z)
    assert torch.allclose(stage.on_piece(z, piece), function(z), atol=1e-14)
    near = (z[:, :, None] - knots).abs().amin(-1) > 0.03
    difference = (function(z + 0.02) - function(z - 0.02)) / 0.04
    assert torch.allclose(stage.slope(piece)[near], difference[near], atol=1e-10)


def test_slope_per_channel():
    stage = relu("y", "x", "k", slope=tensor(0.1, 0.5)[:, None])
    z = tensor(-1, 2).expand(3, 2, 2)
    assert torch.equal(stage(z), torch.nn.functional.prelu(z, tensor(0.1, 0.5)))
    assert torch.equal(stage.on_piece(z, stage.piece(z)), stage(z))


def test_max_with_padding_and_two_inputs():
    stage = Max(
        output="m", inputs=("a", "b"), site="m", shape=(2,),
        index=torch.tensor([[0, 2, -1], [1, 3, 0]]),
    )  # fmt: skip
    a, b = tensor(-5, 1)[None], tensor(-3, 0)[None]
    assert stage(a, b).tolist() == [[-3, 1]]
    assert stage.choose(torch.tensor([[0, 2]]), a, b).tolist() == [[-5, -5]]


def test_skip_connection_and_liveness():
    add = Join(output="s", inputs=("h", "input"), linear=torch.add)
    half = Affine(output="t", inputs=("s",), linear=lambda x: x / 2, bias=tensor(1, 1))
    program = Program([relu("h", "input", "r"), add, half], (2,))
    assert program.evaluate(tensor(-1, 1)[None]).tolist() == [[0.5, 2]]
    assert program.dead_after(0) == []
    assert set(program.dead_after(1)) == {"input", "h"}
    assert program.sites == ["r"]
    assert program.units(program.cuts[0]) == 2


def test_wrong_order_is_refused():
    with pytest.raises(ModelError, match="topological"):
        Program([dense("z", "h", torch.eye(2), None)], (2,))
    with pytest.raises(ModelError, match="one site name"):
        Program([relu("a", "input", "r"), relu("b", "a", "r")], (2,))

"""Smooth activations by interpolants: exact at knots, error measured, the model left alone."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from isogon.cpwl.lower import lower
from isogon.cpwl.piecewise import interpolate, piecewise
from isogon.cpwl.verify import verify
from isogon.errors import ModelError, OptionError, UnsupportedOp


def x(*shape, n=200, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.function = nn.Linear(3, 16), nn.Linear(16, 2), function

    def forward(self, x):
        return self.b(self.function(self.a(x)))


SMOOTH = {
    "gelu": F.gelu, "gelu tanh": lambda z: F.gelu(z, approximate="tanh"), "silu": F.silu,
    "mish": F.mish, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": F.softplus,
    "elu": F.elu, "selu": F.selu, "celu": F.celu, "hardswish": F.hardswish, "exp": torch.exp,
    "sin": lambda z: torch.sin(5 * z), "square": torch.square, "cube": lambda z: z**3,
    "log sigmoid": F.logsigmoid, "softsign": F.softsign, "tanhshrink": F.tanhshrink,
    "snake": lambda z: z + torch.sin(z) ** 2, "swish by hand": lambda z: z * torch.sigmoid(z),
    "gelu by hand": lambda z: 0.5 * z * (1.0 + torch.erf(z / math.sqrt(2))),
    "hardswish by hand": lambda z: z * F.relu6(z + 3) / 6, "power of two": lambda z: 2**z,
    "inverse": lambda z: 1 / (1 + z * z), "times itself": lambda z: z * z,
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_every_smooth_activation(name):
    model, points = Call(SMOOTH[name]), x(3)
    with pytest.raises(UnsupportedOp):
        lower(model, points)
    made = piecewise(model, knots=32, example=points)
    report = made.report
    assert len(report) <= 2
    assert verify(made, points).require()
    # the reported error is the error: nowhere larger on the reached range, and attained
    z = model.a(points).detach().double()
    row = report.iloc[-1]
    if len(report) == 1 and abs(row.low - float(z.min())) < 1e-5:
        dense = torch.linspace(row.low, row.high, 100_001, dtype=torch.float64)
        stage = next(s for s in lower(made, points).cuts)
        bent = stage(dense) if stage.apply is None else stage.apply(dense)
        measured = float((SMOOTH[name](dense) - bent).abs().max())
        if "by hand" not in name and name not in ("snake", "tanhshrink"):  # sites are parts
            assert measured == pytest.approx(row.sup_error, rel=1e-3)
    error = (made(points) - model(points)).abs().max()
    bound = float(model.b.weight.abs().sum(1).max()) * report.sup_error.max()
    assert float(error) <= bound + 1e-5
    assert report.attrs["output_error"] == pytest.approx(float(error), abs=1e-5)


def test_composed_functions_are_one_site():
    for name in ("swish by hand", "gelu by hand", "hardswish by hand", "softsign"):
        assert len(piecewise(Call(SMOOTH[name]), knots=16, example=x(3)).report) == 1


def test_error_falls_with_the_square_of_the_knots():
    function = torch.tanh
    errors = [interpolate(function, k, -4.0, 4.0).error for k in (33, 65, 129, 257)]
    for coarse, fine in itertools.pairwise(errors):
        assert 3.6 < coarse / fine < 4.4
    # sup-error of the density sqrt|f''|: (integral of it)^2 / 8 K^2; its floor of 5 % adds a tenth
    grid = torch.linspace(-4, 4, 100_001, dtype=torch.float64)
    bend = (2 * torch.tanh(grid) * (1 - torch.tanh(grid) ** 2)).abs().sqrt()
    predicted = float(torch.trapezoid(bend, grid)) ** 2 / (8 * 256**2)
    assert predicted < errors[-1] < 1.2 * predicted
    uniform = interpolate(function, torch.linspace(-4, 4, 257).tolist(), -4.0, 4.0).error
    assert errors[-1] < 0.7 * uniform


def test_interpolant_agrees_at_its_knots_and_follows_the_tangents():
    knots = [-1.0, 0.0, 0.5, 2.0]
    found = interpolate(torch.exp, knots, -1.0, 2.0)
    at = torch.tensor(knots, dtype=torch.float64)
    torch.testing.assert_close(found(at), at.exp())
    outside = torch.tensor([-3.0, 4.0], dtype=torch.float64)
    expected = torch.tensor([math.exp(-1) * (1 - 2), math.exp(2) * (1 + 2)], dtype=torch.float64)
    torch.testing.assert_close(found(outside), expected)


def test_knots_where_nothing_bends_are_dropped():
    found = interpolate(F.hardswish, 64, -40.0, 40.0)
    assert len(found.knots) < 64
    assert bool((found.slopes.diff() != 0).all())
    line = interpolate(lambda z: 2 * z, 8, 0.0, 1.0)
    assert len(line.knots) == 1
    assert line.error < 1e-14


def test_names_ranges_and_knots_per_site():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(),
        nn.Linear(8, 4), nn.LogSoftmax(1),
    )  # fmt: skip
    points = x(3)
    made = piecewise(model, knots={"1": 20, "": [-1.0, 0.5, 1.0]}, example=points)
    assert list(made.report.site) == ["1", "5"]
    assert list(made.report.op) == ["gelu", "tanh"]
    assert list(made.report.knots) == [20, 3]
    z = model[0](points).double()
    assert made.report.low[0] == pytest.approx(float(z.min()), abs=1e-6)
    assert made.report.high[0] == pytest.approx(float(z.max()), abs=1e-6)
    assert lower(made, points).sites == ["1", "3", "5"]  # the ReLU keeps its name


def test_model_left_alone_and_nothing_shared():
    model, points = Call(F.gelu), x(3)
    model.train()
    before = copy.deepcopy(model.state_dict())
    made = piecewise(model, knots=16, example=points)
    made.double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    assert model.training
    assert not made.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32


def test_result_is_a_module_like_any_other():
    made = piecewise(Call(F.silu), knots=16, example=x(3))
    twin = copy.deepcopy(made)
    points = x(3, n=5)
    assert torch.equal(twin(points), made(points))
    assert verify(twin, points)
    points.requires_grad_()
    made(points).sum().backward()
    assert points.grad is not None
    again = piecewise(made, knots=16, example=x(3))  # nothing left to replace
    assert len(again.report) == 0
    assert torch.equal(again(points), made(points))


class Siren(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(2, 16), nn.Linear(16, 16), nn.Linear(16, 1)

    def forward(self, x):
        return self.c(torch.sin(30 * self.b(torch.sin(30 * self.a(x)))))


def test_siren():
    points = 2 * torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) - 1
    with pytest.raises(UnsupportedOp, match=r"sin at ':sin#0'.*ig.piecewise"):
        lower(Siren(), points)
    made = piecewise(Siren(), knots=1024, example=points)
    assert list(made.report.op) == ["sin", "sin"]
    assert made.report.sup_error.max() < 2e-3
    assert verify(made, points).require()


def test_refusals():
    points = x(3)
    for function, says in (
        (lambda z: F.layer_norm(F.gelu(z), (16,)), "layer_norm.*not a scalar activation"),
        (lambda z: F.gelu(z) * F.relu(z.flip(1)), "multiplies two branches"),
        (lambda z: F.softmax(z, 1), "softmax"),
    ):
        with pytest.raises(UnsupportedOp, match=says):
            piecewise(Call(function), knots=8, example=points)
    with pytest.raises(ModelError, match=r"log at ':log#0'.*not finite"):
        piecewise(Call(torch.log), knots=8, example=points)
    for wrong, says in ((1, "too few"), ([1.0, 0.0], "ascend"), ({"elsewhere": 8}, "for a site")):
        with pytest.raises(OptionError, match=says):
            piecewise(Call(F.gelu), knots=wrong, example=points)


@pytest.mark.long
def test_vision_models_stay_refused_with_the_reason():
    import torchvision

    pixels = torch.rand(2, 3, 32, 32)
    vit = torchvision.models.vit_b_16(num_classes=10, image_size=32)
    with pytest.raises(
        UnsupportedOp, match=r"layer_norm.*scaled_dot_product|layer_norm.*attention"
    ):
        piecewise(vit, knots=8, example=pixels)
    gated = torchvision.models.mobilenet_v3_large(num_classes=10).eval()
    with pytest.raises(UnsupportedOp, match=r"mul at .* multiplies two branches"):
        piecewise(gated, knots=8, example=pixels)

"""Homogeneity: 0 for what commutes with scales, the integral for what does not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import isogon as ig
from isogon.errors import OptionError


def mlp(activation, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), activation, nn.Linear(8, 3)).eval()


def samples(count=64, seed=0):
    x = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return [(part, torch.zeros(len(part))) for part in x.split(20)]


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.1), nn.PReLU()])
def test_0_where_scales_commute(activation):
    found = ig.homogeneity(mlp(activation), samples()).table["deviation"]
    assert len(found) == 8
    assert (found < 1e-6).all()
    if isinstance(activation, nn.ReLU):
        assert (found == 0).all(), "to the last bit"
    off = ig.homogeneity(mlp(nn.GELU()), samples()).table
    assert (off.query("scale != 1")["deviation"] > 0.01).all()
    assert (off.query("scale == 1")["deviation"] == 0).all()


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.Tanh(), nn.Softplus()])
def test_by_definition(activation):
    model, data = mlp(activation), samples()
    found = ig.homogeneity(model, data, scales=(0.25, 1.5, 4))
    z = model[0](torch.cat([x for x, _ in data])).double()
    for row in found.table.itertuples():
        t = row.scale
        apart, size = activation(t * z) - t * activation(z), t * activation(z)
        exact = float((apart.abs().mean() / size.abs().mean()).detach())
        assert row.deviation == pytest.approx(exact, rel=1e-5)
    assert found.table["scale"].tolist() == [0.25, 1.5, 4.0]
    assert found.meta["summary"]["largest deviation"] == [found.table["deviation"].max()]


def test_of_functions_written_out_and_called():
    """Several operations within one module, and operations of a module's own ``forward``."""

    class Swish(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(1.7 * x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.swish, self.last = nn.Linear(5, 8), Swish(), nn.Linear(8, 3)

        def forward(self, x):
            return self.last(F.relu(self.swish(self.first(x)) - 0.1))

    torch.manual_seed(0)
    model, data = Net().eval(), samples()
    found = ig.homogeneity(model, data, sites="swish,:relu#0", scales=(2.0,)).table
    z = model.first(torch.cat([x for x, _ in data]))
    s = model.swish
    exact = (s(2 * z) - 2 * s(z)).abs().sum() / (2 * s(z)).abs().sum()
    assert found["deviation"].tolist() == [pytest.approx(float(exact.detach()), rel=1e-5), 0.0]


def test_it_grows_towards_0_and_fades_far_out():
    """Of GELU, of inputs of size c: near 0 it is z / 2 and z^2, far out it is ReLU."""

    def deviation(c):
        model = nn.Sequential(nn.Identity(), nn.GELU(), nn.Linear(5, 2)).eval()
        data = [(c * x, y) for x, y in samples()]
        return float(ig.homogeneity(model, data, sites="1", scales=(2.0,)).table["deviation"][0])

    assert deviation(100.0) < 1e-2 < deviation(1.0)
    # s(z) = z / 2 + z^2 / sqrt(2 pi): |s(2z) - 2 s(z)| = 2 z^2 / sqrt(2 pi), |2 s(z)| = |z|
    x = torch.cat([x for x, _ in samples()])
    exact = 1e-3 * 2 / math.sqrt(2 * math.pi) * float(x.square().mean() / x.abs().mean())
    assert deviation(1e-3) == pytest.approx(exact, rel=1e-2)


def test_what_is_refused_and_what_is_nothing():
    model = mlp(nn.ReLU())
    for scales in ((), (0.0,), (-1.0, 2.0), (math.inf,)):
        with pytest.raises(OptionError, match="scales have to be positive"):
            ig.homogeneity(model, samples(), scales=scales)
    with pytest.raises(OptionError, match="none of the selected sites is a function"):
        ig.homogeneity(model, samples(), sites="0")  # another shape
    some = ig.homogeneity(model, samples(), sites="0,1")
    assert some.meta["notes"] == ["no functions of one tensor, left out: 0"]
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-1)
    assert (ig.homogeneity(model, samples()).table["deviation"] == 0).all(), "0 / 0"

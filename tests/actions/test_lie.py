"""The Lie derivative is the limit of equivariance under small transformations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import isogon as ig
from isogon.errors import OptionError
from isogon.measures.orbits.equivariance import equivariance
from isogon.measures.orbits.lie import generators


def smooth(n=6):
    """Images without sharp edges, on which interpolation is nearly exact."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, 24, 24, generator=generator, dtype=torch.float64)
    blur = torch.ones(1, 1, 7, 7, dtype=torch.float64) / 49
    for _ in range(3):
        x = torch.nn.functional.conv2d(x, blur, padding=3)
    window = torch.hann_window(24, dtype=torch.float64)
    return [(x * window[:, None] * window, torch.zeros(n))]


def test_generators():
    (turn,) = generators(ig.family("rotations(8)"))
    np.testing.assert_allclose(np.abs(turn[:2, :2]), [[0, 1], [1, 0]], atol=1e-12)
    assert len(generators(ig.family("translations(2)"))) == 2
    assert len(generators(ig.family("translations(2, directions=8)"))) == 4
    (grow,) = generators(ig.family("scales(3, 0.5, 1.5)"))
    np.testing.assert_allclose(np.abs(grow[:2, :2]), np.eye(2), atol=1e-9)
    with pytest.raises(OptionError, match="no generators"):
        generators(ig.family("mirrors"))


def column(model, spec, sites):
    reading = equivariance(
        model.double(), smooth(), spec, sites=sites, measures=("lie",), aggregate="site"
    )
    return float(reading.table["lie_normalized"].iloc[0])


def test_pointwise_and_shift_equivariant_layers_have_small_derivatives():
    torch.manual_seed(0)
    identity = nn.Sequential(nn.Identity())
    conv = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1, bias=False))
    position = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), Ramp())
    assert column(identity, "rotations(6)", "0") < 0.02
    assert column(identity, "translations(1)", "0") < 0.002
    shift = column(conv, "translations(1)", "0")
    assert shift < 0.01
    assert column(position, "translations(1)", "1") > 5 * shift  # it knows where things are
    assert column(conv, "rotations(6)", "0") > 0.05  # a random kernel has a direction


class Ramp(nn.Module):
    def forward(self, x):
        return x * torch.linspace(0, 1, x.shape[-1], dtype=x.dtype)


def test_it_is_the_limit_of_the_finite_distance():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 5, padding=2), Ramp()).double()
    lie = equivariance(model, smooth(), "translations(1, 1)", sites="1", measures=("lie",)).table
    finite = {}
    for step in (0.02, 0.1):
        table = equivariance(
            model, smooth(), f"translations(1, {step})", sites="1", measures=("simple",)
        ).table
        finite[step] = (
            table["simple_distance"].to_numpy() * 5 / 4 / step
        )  # the identity counts for 0
    # the same size, unit by unit: mean absolute value against root mean square
    for values in finite.values():
        ratio = np.median(values) / np.median(lie["lie_derivative"])
        assert 0.3 < ratio < 1.5
    with pytest.raises(OptionError, match="by class"):
        equivariance(model, smooth(), "translations(1)", measures=("lie",), by_class=True)

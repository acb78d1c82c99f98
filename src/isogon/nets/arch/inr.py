"""Implicit representations: networks from coordinates to values."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isogon.nets.arch.parts import activation as make_activation
from isogon.nets.arch.parts import positive
from isogon.registry import arch


class Sine(nn.Module):
    """Periodic activation ``sin(omega x)``.

    Args:
        omega: Angular frequency, radians per unit of pre-activation.
    """

    def __init__(self, omega: float = 1.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return torch.sin(self.omega * x)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"omega={self.omega}"


@arch(cite="sitzmann2020")
def siren(
    width: int = 256,
    depth: int = 3,
    *,
    omega: float = 30.0,
    first_omega: float | None = None,
    inputs: int = 2,
    classes: int = 1,
) -> nn.Sequential:
    """SIREN: an MLP with sine activations, initialised so that activations keep their spread.

    The first layer's weights are uniform in +-1/inputs, the others' in +-sqrt(6/width)/omega.

    Args:
        width: Units of each hidden layer.
        depth: Number of hidden layers.
        omega: Angular frequency of the hidden layers behind the first.
        first_omega: Angular frequency of the first layer; ``omega`` by default.
        inputs: Number of coordinates.
        classes: Number of outputs (1: a signed distance or a grey value; 3: a colour).
    """
    positive(width=width, depth=depth, inputs=inputs, classes=classes)
    layers: list[nn.Module] = [nn.Flatten()]
    fan_in = inputs
    for i in range(depth + 1):
        linear = nn.Linear(fan_in, width if i < depth else classes)
        bound = math.sqrt(6 / fan_in) / omega if i else 1 / fan_in
        nn.init.uniform_(linear.weight, -bound, bound)
        layers.append(linear)
        if i < depth:
            first = first_omega if first_omega is not None else omega
            layers.append(Sine(omega if i else first))
        fan_in = width
    return nn.Sequential(*layers)


class FourierFeatures(nn.Module):
    """Random Fourier features ``[sin(2 pi B x), cos(2 pi B x)]`` with B fixed.

    Args:
        inputs: Number of coordinates d.
        count: Number of frequencies m; ``2 m`` features come out.
        scale: Standard deviation of the entries of B ``[m, d]``, cycles per unit.
    """

    frequencies: Tensor

    def __init__(self, inputs: int, count: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(count, inputs))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, d]`` to ``[N, 2 m]``."""
        phase = 2 * math.pi * x @ self.frequencies.T
        return torch.cat([phase.sin(), phase.cos()], 1)


@arch(cite="tancik2020")
def inr(
    width: int = 128,
    depth: int = 4,
    *,
    activation: str = "relu",
    fourier: int = 0,
    scale: float = 10.0,
    inputs: int = 2,
    classes: int = 1,
) -> nn.Sequential:
    """MLP from coordinates to values; piecewise linear with ReLU and without Fourier features.

    Args:
        width: Units of each hidden layer.
        depth: Number of hidden layers.
        activation: Name of the nonlinearity.
        fourier: Number of random frequencies in front; 0 for none.
        scale: Standard deviation of the frequencies, cycles per unit.
        inputs: Number of coordinates.
        classes: Number of outputs.
    """
    positive(width=width, inputs=inputs, classes=classes)
    layers: list[nn.Module] = [nn.Flatten()]
    fan_in = inputs
    if fourier:
        layers.append(FourierFeatures(inputs, fourier, scale))
        fan_in = 2 * fourier
    for _ in range(depth):
        layers += [nn.Linear(fan_in, width), make_activation(activation)]
        fan_in = width
    layers.append(nn.Linear(fan_in, classes))
    return nn.Sequential(*layers)

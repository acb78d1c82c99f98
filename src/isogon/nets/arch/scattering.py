"""Scattering front ends: fixed wavelets, absolute value, local average; then a linear read-out.

Wavelets are real (the even and the odd Gabor filter apart), so that the modulus is an absolute
value and the whole network is continuous and piecewise linear.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isogon.errors import OptionError
from isogon.nets.arch.parts import at_least, positive
from isogon.registry import arch


class Wavelets(nn.Module):
    """Filter each channel by every wavelet of a fixed bank and take absolute values.

    Args:
        bank: Filters ``[K, 1, k]`` or ``[K, 1, k, k]``.
    """

    bank: Tensor

    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        self.register_buffer("bank", bank)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, ...]`` to ``[N, C K, ...]``, same size (zero padding)."""
        channels, taps = x.shape[1], self.bank.shape[-1]
        bank = self.bank.repeat((channels,) + (1,) * (self.bank.dim() - 1))
        convolve = F.conv1d if self.bank.dim() == 3 else F.conv2d
        return convolve(x, bank, padding=taps // 2, groups=channels).abs()


class Scattering(nn.Module):
    """Scattering coefficients of orders 0 to ``order``, averaged over windows.

    Order m is ``| | x * psi_1 | ... * psi_m |`` over all paths of the bank, averaged.

    Args:
        bank: Filters ``[K, 1, k]`` or ``[K, 1, k, k]``.
        order: Number of wavelet layers.
        window: Side of the window of the average, in samples.
    """

    def __init__(self, bank: Tensor, order: int, window: int) -> None:
        super().__init__()
        self.wavelets = nn.ModuleList(Wavelets(bank) for _ in range(order))
        self.average = nn.AvgPool1d(window) if bank.dim() == 3 else nn.AvgPool2d(window)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, ...]`` to ``[N, C (1 + K + ... + K^order), ...]``, each axis over ``window``."""
        orders = [self.average(x)]
        for layer in self.wavelets:
            x = layer(x)
            orders.append(self.average(x))
        return torch.cat(orders, 1)


@arch(cite="bruna2013")
def scattering(
    scales: int = 2,
    orientations: int = 4,
    order: int = 1,
    *,
    hidden: int = 0,
    channels: int = 1,
    classes: int = 10,
    size: int | tuple[int, ...] = 28,
) -> nn.Sequential:
    """Scattering of images (real Gabor wavelets, absolute values), then a linear read-out.

    Args:
        scales: Number of dyadic scales J; the average runs over windows of 2^J pixels.
        orientations: Number of orientations over half a turn.
        order: Number of wavelet layers, 1 or 2.
        hidden: Units of a hidden ReLU layer behind the coefficients; 0 for none.
        channels: Input channels.
        classes: Number of outputs.
        size: Image size in pixels; at least 2^J.
    """
    _check(scales, order)
    positive(orientations=orientations, channels=channels, classes=classes)
    h, w = at_least(size, 2**scales, "scattering")
    bank = gabor2d(scales, orientations)
    front = Scattering(bank, order, 2**scales)
    cells = (h // 2**scales) * (w // 2**scales)
    return _read_out(front, channels * _paths(len(bank), order) * cells, hidden, classes)


class AsSignal(nn.Module):
    """Inputs of any shape as one-channel signals."""

    def forward(self, x: Tensor) -> Tensor:
        """``[N, ...]`` to ``[N, 1, L]``."""
        return x.flatten(1).unsqueeze(1)


@arch(cite="bruna2013")
def scattering1d(
    scales: int = 3,
    order: int = 1,
    *,
    hidden: int = 0,
    inputs: int = 64,
    classes: int = 10,
) -> nn.Sequential:
    """Scattering of one-dimensional signals (real Gabor wavelets), then a linear read-out.

    Args:
        scales: Number of dyadic scales J; the average runs over windows of 2^J samples.
        order: Number of wavelet layers, 1 or 2.
        hidden: Units of a hidden ReLU layer behind the coefficients; 0 for none.
        inputs: Length of the signal in samples; at least 2^J.
        classes: Number of outputs.
    """
    _check(scales, order)
    positive(classes=classes)
    if inputs < 2**scales:
        raise OptionError("signal too short", got=inputs, expected=f">= {2**scales} samples")
    bank = gabor1d(scales)
    front = Scattering(bank, order, 2**scales)
    features = _paths(len(bank), order) * (inputs // 2**scales)
    model = _read_out(front, features, hidden, classes)
    return nn.Sequential(OrderedDict([("signal", AsSignal()), *model.named_children()]))


def gabor1d(scales: int) -> Tensor:
    """Even and odd Gabor wavelets ``[2 J, 1, k]`` of centre frequency 3 pi / 4 / 2^j.

    Each has zero mean and absolute values that sum to one, so that a layer does not expand.
    """
    taps = 4 * 2 ** (scales - 1) + 1
    t = torch.arange(taps, dtype=torch.float64) - taps // 2
    filters = []
    for j in range(scales):
        envelope = torch.exp(-0.5 * (t / (0.8 * 2**j)) ** 2)
        frequency = 0.75 * math.pi / 2**j
        filters += [_centred(torch.cos(frequency * t), envelope)]
        filters += [_centred(torch.sin(frequency * t), envelope)]
    return torch.stack(filters)[:, None].to(torch.get_default_dtype())


def gabor2d(scales: int, orientations: int) -> Tensor:
    """Even and odd Gabor wavelets ``[2 J L, 1, k, k]`` at L orientations over half a turn."""
    taps = 4 * 2 ** (scales - 1) + 1
    axis = torch.arange(taps, dtype=torch.float64) - taps // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    filters = []
    for j in range(scales):
        envelope = torch.exp(-0.5 * (x**2 + y**2) / (0.8 * 2**j) ** 2)
        for k in range(orientations):
            angle = math.pi * k / orientations
            phase = 0.75 * math.pi / 2**j * (math.cos(angle) * x + math.sin(angle) * y)
            filters += [_centred(phase.cos(), envelope), _centred(phase.sin(), envelope)]
    return torch.stack(filters)[:, None].to(torch.get_default_dtype())


def _centred(wave: Tensor, envelope: Tensor) -> Tensor:
    wave = envelope * (wave - (wave * envelope).sum() / envelope.sum())
    return wave / wave.abs().sum()


def _paths(filters: int, order: int) -> int:
    return sum(filters**m for m in range(order + 1))


def _check(scales: int, order: int) -> None:
    if not 1 <= scales <= 6 or order not in (1, 2):
        raise OptionError(
            "bad scattering",
            got=f"{scales} scales, order {order}",
            expected="1-6 scales, order 1, 2",
        )


def _read_out(front: nn.Module, features: int, hidden: int, classes: int) -> nn.Sequential:
    layers = OrderedDict[str, nn.Module](scattering=front, flatten=nn.Flatten())
    if hidden:
        layers["fc1"] = nn.Linear(features, hidden)
        layers["relu"] = nn.ReLU()
        features = hidden
    layers["fc"] = nn.Linear(features, classes)
    return nn.Sequential(layers)

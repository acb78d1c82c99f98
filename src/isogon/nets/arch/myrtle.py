"""Plain convolutional networks of the stitching studies: growing or constant width."""

from __future__ import annotations

from torch import nn

from isogon.nets.arch.parts import activation as make_activation
from isogon.nets.arch.parts import at_least, positive
from isogon.registry import arch


@arch(cite="page2018")
def myrtle_cnn(
    width: int = 64,
    *,
    batch_norm: bool = True,
    activation: str = "relu",
    channels: int = 3,
    classes: int = 10,
    size: int | tuple[int, ...] = 32,
) -> nn.Sequential:
    """Myrtle CNN: four 3x3 convolutions of widths k, 2k, 4k, 8k, max-pooling, one linear layer.

    Args:
        width: Channels k of the first convolution.
        batch_norm: Normalise before each nonlinearity; convolutions then have no bias.
        activation: Name of the nonlinearity (``sigmoid`` for the published variant).
        channels: Input channels.
        classes: Number of outputs.
        size: Image size in pixels; at least 8.
    """
    widths = (width, 2 * width, 4 * width, 8 * width)
    return _plain("myrtle_cnn", widths, batch_norm, activation, channels, classes, size)


@arch(cite="godfrey2022")
def constant_width_cnn(
    width: int = 512,
    *,
    batch_norm: bool = True,
    activation: str = "relu",
    channels: int = 3,
    classes: int = 10,
    size: int | tuple[int, ...] = 32,
) -> nn.Sequential:
    """Constant-width CNN: as `myrtle_cnn`, with every convolution of the same width k.

    Args:
        width: Channels k of every convolution.
        batch_norm: Normalise before each nonlinearity; convolutions then have no bias.
        activation: Name of the nonlinearity.
        channels: Input channels.
        classes: Number of outputs.
        size: Image size in pixels; at least 8.
    """
    name = "constant_width_cnn"
    return _plain(name, (width,) * 4, batch_norm, activation, channels, classes, size)


def _plain(name, widths, batch_norm, activation, channels, classes, size) -> nn.Sequential:
    h, w = at_least(size, 8, name)
    positive(width=widths[0], channels=channels, classes=classes)
    layers: list[nn.Module] = []
    fan_in = channels
    for i, width in enumerate(widths):
        layers.append(nn.Conv2d(fan_in, width, 3, padding=1, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(make_activation(activation))
        if i:
            layers.append(nn.MaxPool2d(2))
        fan_in = width
    layers += [nn.MaxPool2d((h // 8, w // 8)), nn.Flatten(), nn.Linear(fan_in, classes)]
    return nn.Sequential(*layers)

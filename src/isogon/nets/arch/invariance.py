"""Networks of the invariance studies: SimpleConv, all-convolutional, VGG16D, TI-pooling."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from isogon import registry
from isogon.errors import OptionError
from isogon.nets.arch.parts import activation as make_activation
from isogon.nets.arch.parts import at_least, positive
from isogon.registry import arch
from isogon.specs import FamilySpec


@arch(cite="quiroga2023")
def simple_conv(
    width: int = 32,
    hidden: int = 128,
    *,
    kernel: int = 3,
    activation: str = "elu",
    batch_norm: bool = False,
    pool: str = "max",
    channels: int = 1,
    classes: int = 10,
    size: int | tuple[int, ...] = 28,
) -> nn.Sequential:
    """SimpleConv: convolutions k, k, 2k, 2k, 4k, pooled behind the 2nd and 4th; two linear layers.

    Args:
        width: Channels k of the first convolution.
        hidden: Units of the hidden linear layer.
        kernel: Size of all kernels but the last (3): 3, 5 or 7.
        activation: ``elu``, ``relu``, ``tanh``, ``sigmoid`` or ``prelu``.
        batch_norm: Normalise before each nonlinearity.
        pool: ``max``, or ``stride`` for convolutions of stride two instead.
        channels: Input channels.
        classes: Number of outputs.
        size: Image size in pixels; at least 4.
    """
    h, w = at_least(size, 4, "simple_conv")
    positive(width=width, hidden=hidden, channels=channels, classes=classes)
    conv = _simple_features(width, kernel, activation, batch_norm, pool, channels)
    head = _simple_head(4 * width * _halved(h, pool) * _halved(w, pool), hidden, classes)
    if batch_norm:
        head.insert(1, nn.BatchNorm1d(hidden))
    head.insert(len(head) - 1, make_activation(activation))
    parts = OrderedDict[str, nn.Module](conv=conv, flatten=nn.Flatten(), fc=nn.Sequential(*head))
    return nn.Sequential(parts)


@arch(cite="springenberg2015")
def all_conv(
    width: int = 96,
    *,
    activation: str = "elu",
    batch_norm: bool = False,
    dropout: bool = False,
    channels: int = 1,
    classes: int = 10,
) -> nn.Sequential:
    """All-convolutional network: eight convolutions, two of stride two, averaged 1x1 read-out.

    Args:
        width: Channels of the first three convolutions; the others have twice as many.
        activation: Name of the nonlinearity.
        batch_norm: Normalise before each nonlinearity.
        dropout: Drop 20 % of the inputs and half the units behind each strided convolution.
        channels: Input channels.
        classes: Number of outputs.
    """
    positive(width=width, channels=channels, classes=classes)
    layers: list[nn.Module] = [nn.Dropout(0.2)] if dropout else []
    plan = [(1, 3, 1), (1, 3, 1), (1, 3, 2), (2, 3, 1), (2, 3, 1), (2, 3, 2), (2, 3, 1), (2, 1, 1)]
    fan_in = channels
    for factor, kernel, stride in plan:
        layers.append(nn.Conv2d(fan_in, factor * width, kernel, stride=stride, padding=kernel // 2))
        if batch_norm:
            layers.append(nn.BatchNorm2d(factor * width))
        layers.append(make_activation(activation))
        if dropout and stride == 2:
            layers.append(nn.Dropout(0.5))
        fan_in = factor * width
    parts = OrderedDict[str, nn.Module](
        conv=nn.Sequential(*layers),
        readout=nn.Conv2d(fan_in, classes, 1),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
    )
    return nn.Sequential(parts)


@arch(cite="quiroga2023")
def vgg16d(
    width: int = 32,
    hidden: int = 128,
    *,
    batch_norm: bool = False,
    channels: int = 1,
    classes: int = 10,
    size: int | tuple[int, ...] = 28,
) -> nn.Sequential:
    """VGG16D: stages of 2, 2, 3, 3 convolutions with ELU, each pooled; three linear layers.

    Args:
        width: Channels of the first stage; each further one has twice as many.
        hidden: Units of the two hidden linear layers.
        batch_norm: Normalise *behind* each ELU, as published.
        channels: Input channels.
        classes: Number of outputs.
        size: Image size in pixels; at least 16.
    """
    h, w = at_least(size, 16, "vgg16d")
    positive(width=width, hidden=hidden, channels=channels, classes=classes)
    layers: list[nn.Module] = []
    fan_in = channels
    for stage, convolutions in enumerate((2, 2, 3, 3)):
        fan_out = width * 2**stage
        for _ in range(convolutions):
            layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.ELU()]
            if batch_norm:
                layers.append(nn.BatchNorm2d(fan_out))
            fan_in = fan_out
        layers.append(nn.MaxPool2d(2))
    dense = nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(fan_in * (h // 16) * (w // 16), hidden),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
    return nn.Sequential(
        OrderedDict(conv=nn.Sequential(*layers), flatten=nn.Flatten(), dense=dense)
    )


class OrbitMax(nn.Module):
    """Elementwise maximum of a network's outputs over a set of transformations of its input.

    Exactly invariant under the transformations where they form a group.

    Args:
        inner: The network ``[N, C, H, W] -> [N, ...]``.
        actions: Callables from images to images.
    """

    def __init__(self, inner: nn.Module, actions: Sequence[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.inner = inner
        self.actions = tuple(actions)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the inner network's shape."""
        pooled = self.inner(self.actions[0](x))
        for action in self.actions[1:]:
            pooled = torch.maximum(pooled, self.inner(action(x)))
        return pooled


class QuarterTurns:
    """Turn images counter-clockwise by a multiple of 90 degrees, exactly."""

    def __init__(self, turns: int) -> None:
        self.turns = turns

    def __call__(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape (square images)."""
        return torch.rot90(x, self.turns, (2, 3))


@arch(cite=("laptev2016", "quiroga2023"))
def ti_pooling(
    width: int = 32,
    hidden: int = 128,
    *,
    family: FamilySpec | None = None,
    kernel: int = 3,
    activation: str = "elu",
    batch_norm: bool = False,
    channels: int = 1,
    classes: int = 10,
    size: int | tuple[int, ...] = 28,
) -> nn.Sequential:
    """TI-pooling: SimpleConv's features, their maximum over a family, then its head.

    Args:
        width: Channels of the first convolution.
        hidden: Units of the hidden linear layer.
        family: Spec of the transformations, e.g. ``rotations(16)``; by default the four quarter
            turns, exactly, which needs square images.
        kernel: Size of all kernels but the last.
        activation: Name of the nonlinearity.
        batch_norm: Normalise before each nonlinearity.
        channels: Input channels.
        classes: Number of outputs.
        size: Image size in pixels; at least 4.
    """
    h, w = at_least(size, 4, "ti_pooling")
    positive(width=width, hidden=hidden, channels=channels, classes=classes)
    actions: list[Callable[[Tensor], Tensor]]
    if family is not None:
        actions = list(registry.build("family", family))
    elif h == w:
        actions = [QuarterTurns(k) for k in range(4)]
    else:
        raise OptionError(
            "quarter turns need square images",
            got=f"{h}x{w}",
            expected="a square size, or a family",
            fix="Give family=rotations(16).",
        )
    conv = _simple_features(width, kernel, activation, batch_norm, "max", channels)
    features = nn.Sequential(OrderedDict(conv=conv, flatten=nn.Flatten()))
    head = _simple_head(4 * width * (h // 4) * (w // 4), hidden, classes)
    if batch_norm:
        head.insert(1, nn.BatchNorm1d(hidden))
    head.insert(len(head) - 1, make_activation(activation))
    return nn.Sequential(OrderedDict(orbit=OrbitMax(features, actions), fc=nn.Sequential(*head)))


def _simple_features(width, kernel, activation, batch_norm, pool, channels) -> nn.Sequential:
    if kernel % 2 == 0 or kernel < 1:
        raise OptionError("kernels must be odd", got=kernel, expected="3, 5 or 7")
    if pool not in ("max", "stride"):
        raise OptionError("unknown pooling", got=repr(pool), expected="max or stride")
    layers: list[nn.Module] = []
    fan_in = channels
    for i, factor in enumerate((1, 1, 2, 2, 4)):
        k = kernel if i < 4 else 3
        fan_out = factor * width
        layers.append(nn.Conv2d(fan_in, fan_out, k, padding=k // 2))
        if batch_norm:
            layers.append(nn.BatchNorm2d(fan_out))
        layers.append(make_activation(activation))
        if i in (1, 3):
            layers.append(
                nn.MaxPool2d(2)
                if pool == "max"
                else nn.Conv2d(fan_out, fan_out, 3, stride=2, padding=1)
            )
        fan_in = fan_out
    return nn.Sequential(*layers)


def _simple_head(features: int, hidden: int, classes: int) -> list[nn.Module]:
    return [nn.Linear(features, hidden), nn.Linear(hidden, classes)]


def _halved(pixels: int, pool: str) -> int:
    """Pixels along an axis after two poolings (strided convolutions round up)."""
    for _ in range(2):
        pixels = pixels // 2 if pool == "max" else (pixels + 1) // 2
    return pixels

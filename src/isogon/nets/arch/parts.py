"""What several architectures are made of."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from isogon.errors import OptionError, unknown

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "hardtanh": nn.Hardtanh,
    "identity": nn.Identity,
}


def activation(name: str) -> nn.Module:
    """A fresh activation module by name.

    Raises:
        OptionError: No such activation.
    """
    if name.lower() not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS, error=OptionError)
    return ACTIVATIONS[name.lower()]()


def height_width(size: int | tuple[int, ...]) -> tuple[int, int]:
    """Image size as ``(height, width)``.

    Raises:
        OptionError: Not one or two positive integers.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise OptionError("bad image size", got=size, expected="pixels, or (height, width)")
    return pair[0], pair[1]


def at_least(size: int | tuple[int, ...], least: int, name: str) -> tuple[int, int]:
    """``(height, width)`` after checking that the pooling layers leave something.

    Raises:
        OptionError: The image is too small for the architecture.
    """
    h, w = height_width(size)
    if min(h, w) < least:
        raise OptionError(
            f"images too small for {name}",
            got=f"{h}x{w}",
            expected=f"at least {least}x{least}",
            fix="Upscale the data or take an architecture with less pooling.",
        )
    return h, w


def positive(**values: int) -> None:
    """Refuse counts below one.

    Raises:
        OptionError: Naming the first count that is not positive.
    """
    for name, value in values.items():
        if value < 1:
            raise OptionError(f"{name} must be positive", got=value, expected=">= 1")

"""Any architecture behind a normalisation of its inputs."""

from __future__ import annotations

from typing import Any

from torch import nn

from isogon.nets.normalize import normalized as behind
from isogon.registry import arch
from isogon.specs import ModelSpec, Spec


@arch()
def normalized(
    arch: ModelSpec = Spec("cnn"),  # noqa: B008 (immutable)
    mean: float | tuple[float, ...] = 0.5,
    std: float | tuple[float, ...] = 0.5,
    *,
    inputs: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
    size: int | tuple[int, ...] | None = None,
    length: int | None = None,
) -> nn.Sequential:
    """Another architecture behind a layer ``(x - mean) / std``, so that inputs stay raw pixels.

    Weights of a model that was trained on normalised inputs fit its inner part:
    ``normalized(small_cnn, 0.1307, 0.3081)@weights.pt``.

    Args:
        arch: Spec of the architecture.
        mean: One number, or one per channel.
        std: One number, or one per channel.
        inputs: Number of input features, passed on where the architecture takes it.
        channels: Input channels, passed on where the architecture takes them.
        classes: Number of outputs, passed on.
        size: Image size in pixels, passed on where the architecture takes it.
        length: Length of signals, passed on where the architecture takes it.
    """
    from isogon import nets

    facts: dict[str, Any] = {
        "inputs": inputs,
        "channels": channels,
        "classes": classes,
        "size": size,
        "length": length,
    }
    return behind(nets.build(arch, **{k: v for k, v in facts.items() if v is not None}), mean, std)

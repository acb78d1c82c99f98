"""Which axis of an activation holds the channels: read off the layers of the model."""

from __future__ import annotations

from collections.abc import Sequence

from isogon.errors import OptionError
from isogon.nets.sites import Site

# Operations whose outputs have their channels last, and those that have them at axis 1.
_LAST = (
    *("Linear", "LayerNorm", "RMSNorm", "MultiheadAttention", "Embedding", "Bilinear", "linear"),
    *("layer_norm", "embedding", "scaled_dot_product_attention", "multi_head_attention_forward"),
)
_FIRST = (
    *("Conv", "BatchNorm", "MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "conv"),
    *("InstanceNorm", "GroupNorm", "batch_norm", "max_pool", "avg_pool", "adaptive_avg_pool"),
    *("adaptive_max_pool", "group_norm", "instance_norm"),
)


def channel_axis(site: Site, found: Sequence[Site], given: int | None = None) -> int:
    """The channel axis, read off the operation that made the site or the values that it changed.

    Linear layers, layer norms and attention: last. Convolutions, pools and batch norms: 1. Of any
    other operation that of the last one before it whose output has the same shape; where there is
    none, last for three axes, else 1.

    Args:
        site: A site with its shape.
        found: All sites of the model in the order in which they are computed.
        given: What the user says; it is only checked.

    Raises:
        OptionError: ``given`` is no axis behind that of the samples.
    """
    axes = len(site.shape) + 1
    if given is not None:
        if not -axes < given < axes or given == 0:
            raise OptionError("no such channel axis", got=given, expected=f"1 to {axes - 1}")
        return given % axes
    if axes < 3:
        return 1
    before = [*found[: found.index(site)], site] if site in found else [site]
    for other in reversed(before):
        if other.shape == site.shape and other.op.startswith(_LAST):
            return axes - 1
        if other.shape == site.shape and other.op.startswith(_FIRST):
            return 1
    return axes - 1 if axes == 3 else 1

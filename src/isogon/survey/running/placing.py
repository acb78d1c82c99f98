"""What was built from specs, on its device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from isogon.data.batches import Batches


class Placed:
    """Batches on a device: a view that moves each batch as it is asked for."""

    def __init__(self, batches: Batches, device: torch.device) -> None:
        self._batches, self._device = batches, device

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._batches, name)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator:
        for batch in self._batches:
            yield tuple(t.to(self._device) if torch.is_tensor(t) else t for t in batch)

    def first(self, n: int) -> tuple:
        """The first samples, on the device."""
        return tuple(t.to(self._device) for t in self._batches.first(n))


def place(found: Any, device: torch.device) -> Any:
    """Put what was built from a spec on the device; what has no place stays as it is."""
    if device.type == "cpu":
        return found
    if isinstance(found, nn.Module | torch.Tensor):
        return found.to(device)
    if hasattr(found, "first") and hasattr(found, "samples"):
        return Placed(found, device)
    if isinstance(found, list | tuple) and found and isinstance(found[0], nn.Module):
        return type(found)(m.to(device) for m in found)
    return found

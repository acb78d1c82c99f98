"""Wrappers around a network, taken off or run as they are written."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif "_orig_mod" in model._modules:
            model = model._modules["_orig_mod"]  # type: ignore[assignment]
        else:
            return model


def uncompiled(model: nn.Module) -> AbstractContextManager:
    """Compiled parts run as they are written: a compiled region can't be looked into."""
    if any("_orig_mod" in m._modules for m in model.modules()):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()

"""Training: an explicit loop, one-file checkpoints, resume from any moment.

Names are imported on first use: ``isogon train --help`` reads `FitConfig` without torch.
"""

from __future__ import annotations

import importlib
from typing import Any

VERSION = 1  # enters the key of memoised models: raise it when equal configs train differently

_NAMES = {
    "fit": "isogon.training.loop",
    "FitConfig": "isogon.training.config",
    "Checkpoint": "isogon.training.checkpoint",
    "Callback": "isogon.training.callbacks",
    "evaluate": "isogon.training.evaluation",
}

__all__ = ["VERSION", *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'isogon.training' has no attribute {name!r}")

"""Training: an explicit loop, one-file checkpoints, resume from any moment.

Names are imported on first use: ``isogon train --help`` reads `FitConfig` without torch.
"""

from __future__ import annotations

from isogon import lazy

VERSION = 1  # enters the key of memoised models: raise it when equal configs train differently

_NAMES = {
    "fit": "isogon.training.loop",
    "FitConfig": "isogon.training.config",
    "Checkpoint": "isogon.training.checkpoint",
    "Callback": "isogon.training.callbacks",
    "evaluate": "isogon.training.evaluation",
}

__all__ = ["VERSION", *_NAMES]

__getattr__ = lazy.lazy_names(__name__, _NAMES)

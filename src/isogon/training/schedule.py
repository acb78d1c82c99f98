"""Learning rate as a closed form of the step, and the optimisers: nothing to save or restore."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from isogon.training.config import FitConfig

if TYPE_CHECKING:
    import torch


def learning_rate(config: FitConfig, step: int, steps_per_epoch: int) -> float:
    """Learning rate of the update number ``step`` (from 0).

    With ``t = step / steps_per_epoch`` epochs and ``T = config.epochs``, after warm-up of ``w``
    epochs: step ``lr * decay ** floor(t / lr_step)``, exponential ``lr * decay ** t``, linear
    ``lr * (1 - r)``, cosine ``lr * (1 + cos(pi r)) / 2`` with ``r = (t - w) / (T - w)``.
    """
    t = step / steps_per_epoch
    if t < config.warmup:
        return config.lr * (step + 1) / (config.warmup * steps_per_epoch + 1)
    ratio = min(1.0, (t - config.warmup) / max(config.epochs - config.warmup, 1e-12))
    match config.schedule:
        case "step":
            # the epoch by integer division: a float t just below a decay must not delay it
            factor = config.lr_decay ** (step // steps_per_epoch // config.lr_step)
        case "exponential":
            factor = config.lr_decay**t
        case "linear":
            factor = 1.0 - ratio
        case "cosine":
            factor = 0.5 * (1.0 + math.cos(math.pi * ratio))
        case _:
            factor = 1.0
    return config.lr * factor


def make_optimizer(config: FitConfig, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimiser that ``config`` asks for, over the trainable parameters of ``model``."""
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    decay = config.weight_decay
    match config.optimizer:
        case "sgd":
            return torch.optim.SGD(
                parameters,
                lr=config.lr,
                weight_decay=decay,
                momentum=config.momentum,
                nesterov=config.nesterov and config.momentum > 0,
            )
        case "adam":
            return torch.optim.Adam(parameters, lr=config.lr, weight_decay=decay)
        case _:
            return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=decay)

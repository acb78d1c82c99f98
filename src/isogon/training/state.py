"""Capturing and restoring what a run draws from: random generators and the optimiser."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isogon.errors import FileError


@contextmanager
def isolated(seed: int | None = None) -> Iterator[None]:
    """Give the code inside its own global random state; the caller's comes back afterwards.

    Modules draw their initial weights and dropout masks from the global generators, so
    these are lent to the run and returned, also after an exception.

    Args:
        seed: Seed of the generators inside; None goes on from the caller's state.
    """
    held = capture_random()
    try:
        if seed is not None:
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
        yield
    finally:
        restore_random(held)


def capture_random() -> dict[str, Tensor]:
    """States of the global generators of torch (CPU and CUDA), NumPy and Python, as tensors."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    version, words, following = random.getstate()
    found = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.append(keys, [position, has_gauss]).astype(np.int64)),
        "numpy_gauss": torch.tensor([gauss], dtype=torch.float64),
        "python": torch.tensor([version, *words], dtype=torch.int64),
        # the same shape with and without, so that processes can exchange it
        "python_gauss": torch.tensor(
            [0.0, 0.0] if following is None else [1.0, following], dtype=torch.float64
        ),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for i, state in enumerate(torch.cuda.get_rng_state_all()):
            found[f"cuda{i}"] = state
    return found


def restore_random(states: dict[str, Tensor]) -> None:
    """Set the global generators to captured states.

    Raises:
        FileError: The states have the wrong form.
    """
    try:
        torch.set_rng_state(states["torch"])
        words = states["numpy"].numpy()
        gauss = float(states["numpy_gauss"][0])
        np.random.set_state(
            ("MT19937", words[:-2].astype(np.uint32), int(words[-2]), int(words[-1]), gauss)
        )
        version, *rest = states["python"].tolist()
        held, following = states["python_gauss"].tolist()
        random.setstate((version, tuple(rest), following if held else None))
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            for i in range(torch.cuda.device_count()):
                if f"cuda{i}" in states:
                    torch.cuda.set_rng_state(states[f"cuda{i}"], i)
    except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
        raise FileError(
            "the random states of this checkpoint can't be restored",
            got=str(error).split("\n")[0],
            expected="states of the generators of torch, numpy and python",
            fix="It was damaged or made by hand: train again.",
        ) from error


def capture_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State of an optimiser as tensors by ``<parameter number>.<name>`` and JSON-able numbers."""
    tensors, numbers = {}, {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                numbers[f"{index}.{name}"] = value
    return tensors, numbers


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]
) -> None:
    """Give a fresh optimiser a captured state; its own hyperparameters stay.

    Raises:
        FileError: The state belongs to other parameters or another optimiser.
    """
    shapes = [p.shape for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**numbers, **tensors}.items():
        index, _, name = key.partition(".")
        number = int(index) if index.isdecimal() else len(shapes)
        fits = not isinstance(value, Tensor) or value.ndim == 0 or value.shape == shapes[number]
        if number >= len(shapes) or not name or not fits:
            raise FileError(
                "the optimiser's state in this checkpoint belongs to another model",
                got=key,
                expected=f"states of {len(shapes)} parameters",
                fix="Resume with the architecture and optimiser that it was trained with.",
            )
        state.setdefault(number, {})[name] = value.clone() if isinstance(value, Tensor) else value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )

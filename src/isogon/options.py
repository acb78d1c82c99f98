"""Options that are numbers or generators: whatever counts as one is taken, the rest is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isogon.errors import OptionError


def number(name: str, value: Any) -> float:
    """A real number, whichever type holds it (also an array or tensor of one entry).

    Args:
        name: Of the option, for the message.
        value: What was given; its range is the caller's business, NaN included.

    Raises:
        OptionError: It is no number.
    """
    plain = _plain(value)
    if plain is None:
        raise OptionError(
            f"{name} is no number", got=_shown(value), expected="a number", fix=f"Give {name}=1.0."
        )
    try:
        return float(plain)
    except OverflowError:  # an int beyond all floats
        return math.inf if plain > 0 else -math.inf


def whole(name: str, value: Any) -> int:
    """A whole number; floats that are whole (1e5) count.

    Args:
        name: Of the option, for the message.
        value: What was given; its range is the caller's business.

    Raises:
        OptionError: It is no number, or has a fraction, or no end.
    """
    plain = _plain(value)
    if plain is None or (isinstance(plain, float) and not plain.is_integer()):
        raise OptionError(
            f"{name} is no whole number",
            got=_shown(value),
            expected="a whole number",
            fix=f"Give {name} without a fraction, e.g. {name}=100.",
        )
    return int(plain)


def generator(value: Any, name: str = "generator") -> torch.Generator | None:
    """A source of random numbers, or None.

    Raises:
        OptionError: It is neither; a seed is the likeliest slip.
    """
    if value is not None and not isinstance(value, torch.Generator):
        seed = value if isinstance(value, int) else 0
        raise OptionError(
            f"{name} is no source of random numbers",
            got=_shown(value),
            expected="a torch.Generator, or None",
            fix=f"Give {name}=torch.Generator().manual_seed({int(seed)}).",
        )
    return value


def _plain(value: Any) -> int | float | None:
    """The Python number in a value; None where there is none (booleans are none)."""
    if isinstance(value, Tensor | np.ndarray):
        if math.prod(value.shape) != 1:
            return None
        value = value.item()
    elif isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _shown(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) != 1:
        return f"{type(value).__name__} of shape {list(shape or ())}"
    return repr(value)

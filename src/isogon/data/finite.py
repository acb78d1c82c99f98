"""Inputs that are not numbers are refused by name."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

from isogon.errors import DataError

X = TypeVar("X")


def check_inputs(x: X, *, first: int = 0, what: str = "the inputs") -> X:
    """Refuse inputs that are not numbers; returns them.

    Args:
        x: Inputs ``[n, ...]``.
        first: Number of the first sample.
        what: What they are called in the message.

    Raises:
        DataError: NaN or infinite values: says in which samples, and how many.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or bool(x.isfinite().all()):
        return x
    rows = ~x.reshape(len(x), -1).isfinite().all(1) if x.dim() else ~x.isfinite()[None]
    where = (rows.nonzero()[:, 0] + first).tolist()
    shown = ", ".join(map(str, where[:6])) + (", ..." if len(where) > 6 else "")
    bad = int((~x.isfinite()).sum())
    kinds = " and ".join(
        name for name, test in (("NaN", x.isnan()), ("infinite", x.isinf())) if bool(test.any())
    )
    raise DataError(
        f"{what} hold {kinds} values",
        got=f"{bad} of them, in {len(where)} of {len(rows)} samples (number {shown})",
        expected="finite numbers",
        fix="Clean or drop these samples.",
    )

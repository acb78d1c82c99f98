"""Readings that agree up to rounding: where other kernels, shapes or threads computed them.

A matrix product of n rows need not give a row the bits that it has among m rows: kernels differ
by the shape of the whole (and from processor to processor). Tests demand bits only where the same
kernels see the same shapes, and this elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def assert_nearly(a: Any, b: Any, *, rtol: float, atol: float) -> None:
    """The same reading but for rounding of its floats; names, whole numbers and places exactly."""
    assert type(a) is type(b)
    for fact in ("measure", "axes", "units", "complete"):
        assert getattr(a, fact) == getattr(b, fact)
    _meta(a.meta, b.meta, rtol, atol)
    pd.testing.assert_frame_equal(a.table, b.table, check_exact=False, rtol=rtol, atol=atol)
    assert a.arrays.keys() == b.arrays.keys()
    for name, mine in a.arrays.items():
        theirs = b.arrays[name]
        assert mine.dtype == theirs.dtype
        if mine.dtype.kind == "f":
            np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=atol)
        else:
            np.testing.assert_array_equal(mine, theirs)


def _meta(a: Any, b: Any, rtol: float, atol: float) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            _meta(a[key], b[key], rtol, atol)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for mine, theirs in zip(a, b):
            _meta(mine, theirs, rtol, atol)
    elif isinstance(a, float):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    else:
        assert a == b

"""The compiled loops of dissection against what tensors on a device take."""

from __future__ import annotations

import numpy as np
import pandas as pd
from test_dissection import data, net, split

import isogon as ig
from isogon.stats.tails import Tail


def test_compiled_loops_and_tensors_on_a_device_count_the_same(monkeypatch):
    x, maps = data(n=9)
    options = {"basis": ("unit", "orthogonal"), "draws": 2, "quantile": 0.9, "gallery": 2}
    found = ig.dissect(net(), split(x, maps, 4), **options)
    monkeypatch.setattr(Tail, "serves", staticmethod(lambda x: False))
    other = ig.dissect(net(), split(x, maps, 4), **options)
    pd.testing.assert_frame_equal(found.table, other.table)
    for name, value in found.arrays.items():
        np.testing.assert_array_equal(value, other.arrays[name])

"""Compiled loops are what they were written as, and their cache can do no harm."""

from __future__ import annotations

import numpy as np
import pytest

from isogon import context
from isogon.jit import Loop, loop, private_folder


@loop()
def add_to(out, x):
    """Sum of two arrays, in place."""
    for i in range(x.size):
        out[i] += x[i]


def summed(function):
    out = np.ones(5)
    function(out, np.arange(5.0))
    return out.tolist()


def test_a_loop_is_its_function(tmp_path):
    with context.use(cache_root=tmp_path):
        assert summed(add_to) == summed(add_to.function) == [1, 2, 3, 4, 5]
        assert list(tmp_path.rglob("*.nbi"))
    assert add_to.__doc__ == "Sum of two arrays, in place."


def test_a_damaged_cache_only_compiles_again(tmp_path):
    with context.use(cache_root=tmp_path):
        summed(Loop(add_to.function))
        files = [f for f in tmp_path.rglob("*") if f.is_file()]
        assert files
        for file in files:
            file.write_bytes(b"\x80\x04not a pickle")
        assert summed(Loop(add_to.function)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_can_write_is_not_read(tmp_path, mode):
    with context.use(cache_root=tmp_path):
        folder = private_folder("a")
        assert folder is not None
        assert folder != private_folder("b")
        folder.chmod(mode)
        assert private_folder("a") is None


def test_without_a_place_there_is_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    with context.use(cache_root=tmp_path / "file"):
        assert private_folder("a") is None
        assert summed(Loop(add_to.function)) == [1, 2, 3, 4, 5]

"""Compiled loops are what they were written as, and their cache can do no harm."""

from __future__ import annotations

import numpy as np
import pytest

from isogon import context, jit
from isogon.jit import Loop, loop, private_folder


@pytest.fixture
def compiling(monkeypatch):
    """No call is small enough to be interpreted."""
    monkeypatch.setattr(jit, "FEW", -1)


@loop()
def add_to(out, x):
    """Sum of two arrays, in place."""
    for i in range(x.size):
        out[i] += x[i]


def summed(function):
    out = np.ones(5)
    function(out, np.arange(5.0))
    return out.tolist()


def test_a_loop_is_its_function(tmp_path, compiling):
    with context.use(cache_root=tmp_path):
        assert summed(add_to) == summed(add_to.function) == [1, 2, 3, 4, 5]
        assert list(tmp_path.rglob("*.nbi"))
    assert add_to.__doc__ == "Sum of two arrays, in place."


def test_a_damaged_cache_only_compiles_again(tmp_path, compiling):
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


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A loop that nothing is known of, in a process that has interpreted nothing yet."""
    monkeypatch.setattr(jit, "_spent", [0.0])
    with context.use(cache_root=tmp_path):
        yield Loop(add_to.function)


def files(folder):
    return list(folder.rglob("*.nbi"))


def test_small_calls_are_interpreted(fresh, tmp_path):
    told = []
    with jit.announced(lambda: told.append(1)):
        assert summed(fresh) == [1, 2, 3, 4, 5]
        assert summed(fresh) == [1, 2, 3, 4, 5]
        assert not files(tmp_path)
        assert told == []
        assert 0 < jit._spent[0] < 1
        many = np.ones(jit.FEW)
        fresh(many, np.ones(jit.FEW))
    assert told == [1]
    assert many.sum() == 2 * jit.FEW
    assert files(tmp_path)


def test_what_was_interpreted_for_long_is_compiled(fresh, tmp_path):
    jit._spent[0] = jit.SPENT
    assert summed(fresh) == [1, 2, 3, 4, 5]
    assert files(tmp_path)


def test_what_is_in_the_cache_is_not_interpreted(fresh, tmp_path, monkeypatch):
    jit._spent[0] = jit.SPENT
    summed(fresh)
    monkeypatch.setattr(jit, "_spent", [0.0])
    told = []
    with jit.announced(lambda: told.append(1)):
        assert summed(Loop(add_to.function)) == [1, 2, 3, 4, 5]
    assert jit._spent == [0.0]
    assert told == []


def test_interpreted_functions_say_no_more_than_compiled_ones(fresh, recwarn):
    @loop()
    def divided(out):
        for i in range(out.size):
            out[i] = out[i] / (out[i] - out[i])

    out = np.array([1.0, 0.0])
    divided(out)
    assert np.isinf(out[0])
    assert np.isnan(out[1])
    assert not recwarn.list

"""Compiled loops are what they were written as, and their cache can do no harm."""

from __future__ import annotations

import os
import subprocess
import sys

import numba
import numpy as np
import pytest

from isogon import context, jit
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


@pytest.fixture
def fresh(tmp_path):
    """A function of which no cache holds anything."""
    with context.use(cache_root=tmp_path):
        yield tiered(add_to.function)


def tiered(function):
    return jit.tiered(jit.cached(numba.njit(**jit.OPTIONS)(function), private_folder("tiered")))


def files(folder):
    return list(folder.rglob("*.nbi"))


def test_small_calls_are_interpreted_until_that_has_cost_more(fresh, tmp_path, monkeypatch):
    told = []
    with jit.announced(lambda: told.append(1)):
        for _ in range(3):
            assert summed(fresh) == [1, 2, 3, 4, 5]
        assert not files(tmp_path)
        assert told == []
        monkeypatch.setattr(jit, "PATIENCE", 1e-9)  # as if these had taken long
        assert summed(fresh) == [1, 2, 3, 4, 5]
    assert told == [1]
    assert files(tmp_path)


def test_large_calls_are_compiled(fresh, tmp_path):
    count = int(2 * jit.COST / jit.RATE)
    many = np.ones(count)
    fresh(many, np.ones(count))
    assert many.sum() == 2 * count
    assert files(tmp_path)


def test_what_a_call_will_cost_is_learned(fresh, tmp_path):
    """A function that does nothing with its numbers is interpreted, however many they are."""

    @tiered
    def first_of(x, out):
        out[0] = x[0]

    out = np.zeros(1)
    for power in range(7):  # the first calls are small enough, and tell
        first_of(np.ones(10**power), out)
    assert out[0] == 1
    assert not files(tmp_path)


def test_what_is_in_the_cache_is_not_interpreted(fresh, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(jit, "PATIENCE", -1.0)
        summed(fresh)
    told = []
    monkeypatch.setattr(jit, "interpreted", None)
    with jit.announced(lambda: told.append(1)):
        assert summed(tiered(add_to.function)) == [1, 2, 3, 4, 5]
    assert told == []


def test_interpreted_functions_say_no_more_than_compiled_ones(fresh, recwarn):
    @tiered
    def divided(out):
        for i in range(out.size):
            out[i] = out[i] / (out[i] - out[i])

    out = np.array([1.0, 0.0])
    divided(out)
    assert np.isinf(out[0])
    assert np.isnan(out[1])
    assert not recwarn.list


def test_single_numbers_are_summed_in_double_precision():
    """As a compiled loop does from its first call on, and an interpreted one does not."""

    @loop()
    def total(x, out):
        found = 0.0
        for i in range(x.size):
            found += x[i]
        out[0] = found

    x, out = np.full(2000, 0.1, np.float32), np.zeros(1)
    total(x, out)
    assert out[0] == pytest.approx(x.sum(dtype=np.float64), rel=1e-12)
    total.function(x, out)
    assert out[0] != pytest.approx(x.sum(dtype=np.float64), rel=1e-9)


def test_numba_may_be_told_to_compile_nothing():
    words = "import isogon as ig; m = ig.load('mlp(8, inputs=2)'); "
    words += "print(len(ig.partition(m, 'box2d((-1, -1), (1, 1))')) > 1)"
    around = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", words], env=around, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr

"""Progress in Python: silent unless asked for, drawn inside, and gone afterwards."""

from __future__ import annotations

import io

import pytest

import isogon as ig
from isogon import context


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_is_told_inside_is_drawn_and_outside_nothing_is():
    file = Terminal()
    with ig.progress(file=file) as bars:
        assert context.progress() is bars
        context.progress()(1, 4, "cutting [site]")
        bars._drawn.refresh()
    assert "cutting [site]" in file.getvalue()
    assert "1/4" in file.getvalue()
    assert context.progress() is context.silent
    before = file.getvalue()
    context.progress()(2, 4, "cutting")
    assert file.getvalue() == before


def test_as_the_callback_of_one_call_it_ends_with_the_work():
    bars = ig.progress(file=Terminal())
    bars(0, 2, "a")
    assert bars._drawn is not None
    bars(2, 2, "a")
    assert bars._drawn is None


def test_bars_go_with_an_exception_too():
    bars = ig.progress(file=Terminal())

    def broken():
        with bars:
            bars(0, None, "a")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        broken()
    assert bars._drawn is None
    assert context.progress() is context.silent


def test_a_function_of_the_users_is_told_instead():
    seen = []
    with ig.progress(callback=lambda *told: seen.append(told)) as bars:
        context.progress()(1, None, "a")
    assert seen == [(1, None, "a")]
    assert bars._drawn is None

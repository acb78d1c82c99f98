"""Compiled loops: numba, imported on first use, with a disk cache that can't do harm.

Compiling takes seconds, and a first look at something small must not: what is `tiered` and held by
no cache is interpreted as long as that costs less than compiling it.

numba keeps compiled functions as pickles. They go to a private folder of isogon's own
(`context.cache_root()/numba`); where that can't be written or belongs to someone else there is no
cache, and a damaged or unwritable file only means that a loop compiles again.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import stat
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isogon.context import cache_root

# Loops own no memory: without reference counts (an atomic operation for each array that is
# touched) they run several times faster.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}


class Loop:
    """A function over NumPy arrays that is compiled when it is first called.

    It may call nothing but NumPy's scalar functions: the cache is keyed by its own source.

    Attributes:
        function: The function as written, for tests.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self.function = function
        self.options = {**OPTIONS, **options}
        self._compiled: Any = None
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        """Run it."""
        if self._compiled is None:
            self._compiled = self._compile()
        return self._compiled(*arguments)

    def _compile(self) -> Any:
        import numba

        dispatcher: Any = numba.njit(**self.options)(self.function)
        options = repr((numba.__version__, sorted(self.options.items())))
        folder = private_folder(options, inspect.getsource(self.function))
        return cached(dispatcher, folder)


def loop(**options: Any) -> Callable[[Callable[..., Any]], Loop]:
    """Make a function a `Loop`, with numba's options where they differ from `OPTIONS`."""
    return lambda function: Loop(function, **options)


COST = 0.3  # seconds that compiling a function takes, as a rule
RATE = 1e-6  # seconds per number of a call that is interpreted, until one was
PATIENCE = 1.0  # of what compiling costs, how much a process interprets before it compiles

_told: list[Callable[[], None]] = []  # who wants to know that something is about to be compiled


@dataclass
class Interpreted:
    """How much of a function a process has interpreted: numbers in arrays, seconds."""

    numbers: int = 0
    seconds: float = 0.0


def tiered(dispatcher: Any, cost: float = COST) -> Any:
    """Let a numba function run uncompiled as long as compiling it would take longer.

    It is compiled where the disk cache holds it, and for the call with which interpreting would
    have taken more than `cost` seconds in this process: so it never takes more than twice what
    the better of the two would have taken.

    For functions of double numbers: interpreted sums of single ones are rounded to single
    precision at every step, compiled ones are not. A `Loop`, which takes both, is always compiled.
    """
    if not hasattr(dispatcher, "_compile_for_args"):  # a plain function: NUMBA_DISABLE_JIT=1
        return dispatcher
    compiling, done = dispatcher._compile_for_args, Interpreted()

    def choose(*arguments: Any, **named: Any) -> Any:
        # what numba calls with the function that is returned
        if not _kept(dispatcher):
            count = sum(map(_numbers, arguments))
            rate = done.seconds / done.numbers if done.numbers else RATE
            if done.seconds + count * rate <= PATIENCE * cost:
                done.numbers += count
                return functools.partial(_timed, interpreted(dispatcher), done)
            for tell in _told:
                tell()
        return compiling(*arguments, **named)

    dispatcher._compile_for_args = choose
    return dispatcher


@contextmanager
def announced(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` whenever a loop is about to be compiled inside, which takes seconds."""
    _told.append(tell)
    try:
        yield
    finally:
        _told.remove(tell)


def interpreted(dispatcher: Any) -> Callable[..., Any]:
    """A numba function as Python runs it, with all numba functions that it calls."""
    found = getattr(dispatcher, "_interpreted", None)
    if found is None:
        found = dispatcher._interpreted = _interpreted(dispatcher.py_func)
    return found


def _interpreted(function: types.FunctionType) -> Callable[..., Any]:
    known = dict(function.__globals__)
    for name in function.__code__.co_names:
        if hasattr(known.get(name), "py_func"):
            known[name] = interpreted(known[name])
    return types.FunctionType(
        function.__code__, known, function.__name__, function.__defaults__, function.__closure__
    )


def _timed(function: Callable[..., Any], done: Interpreted, *arguments: Any) -> Any:
    import numpy as np

    start = time.perf_counter()
    try:
        with np.errstate(all="ignore"):  # as compiled ones: nothing is said of x / 0
            return function(*arguments)
    finally:
        done.seconds += time.perf_counter() - start


def _numbers(argument: Any) -> int:
    if isinstance(argument, tuple):
        return sum(map(_numbers, argument))
    return getattr(argument, "size", 1)


def _kept(dispatcher: Any) -> bool:
    """Whether the disk cache knows a function (of some signature)."""
    path = getattr(getattr(dispatcher._cache, "_cache_file", None), "_index_path", None)
    return path is not None and os.path.exists(path)


def cached(dispatcher: Any, folder: Path | None) -> Any:
    """Let numba keep what it compiles in a folder; nothing is kept where that is None."""
    from numba.core import caching, config

    if folder is None:
        return dispatcher
    settings: Any = config
    held = settings.CACHE_DIR
    settings.CACHE_DIR = str(folder)
    try:
        dispatcher.enable_caching()
        dispatcher._cache = _Cautious(dispatcher._cache)
    except Exception:  # numba found the folder unusable after all: stay uncached
        dispatcher._cache = caching.NullCache()
    finally:
        settings.CACHE_DIR = held
    return dispatcher


def private_folder(*facts: str) -> Path | None:
    """A folder of the cache for code with these facts; None where there is none to be had."""
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()[:16]
    try:
        folder = cache_root() / "numba" / digest
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
        if not mine or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return None  # others could plant a pickle there
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0" * 4096)
            probe.flush()
        return folder
    except OSError:
        return None


class _Cautious:
    """A numba cache whose failures are misses."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return self._inner.load_overload(*arguments)
        except Exception:  # truncated, stale, written by another version
            return None

    def save_overload(self, *arguments: Any) -> None:
        try:
            self._inner.save_overload(*arguments)
        except Exception:  # full disk, read-only: the loop in memory is as good
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

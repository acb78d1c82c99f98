"""Compiled loops: numba, imported on first use, with a disk cache that can't do harm.

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
from collections.abc import Callable
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

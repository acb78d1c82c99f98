"""Compiled kernels with a disk cache that can't do harm.

numba caches compiled functions as pickles. Isogon keeps them in a private folder of its own
(`context.cache_root()/numba`), and uses no cache where that folder can't be written or belongs
to someone else; a damaged or unwritable cache file only means that a kernel compiles again.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import caching, config

from isogon.context import cache_root

F = TypeVar("F", bound=Callable[..., Any])

# Kernels own no memory: without reference counts (an atomic operation for every array of a
# tuple that is touched) they run several times faster.
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "_nrt": False,
    "no_cfunc_wrapper": True,  # nobody calls them through a C pointer
}

kernels: list[Any] = []  # every compiled kernel, for `compiled` and the tests


def kernel(function: F) -> F:
    """Compile a function of flat arrays on first use; cached on disk where that is safe."""
    folder = _folder()
    dispatcher: Any = numba.njit(**OPTIONS)(function)
    if folder is not None:
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
    kernels.append(dispatcher)
    return dispatcher


def inline(function: F) -> F:
    """A small helper that is compiled into the kernels that call it.

    It can't be called from Python, which saves a third of the time that compiling takes; its
    `py_func` can.
    """
    settings: Any = {**OPTIONS, "no_cpython_wrapper": True}
    helper: Any = numba.njit(**settings)(function)
    return helper


def unfold(function: F) -> F:
    """A large helper of one kernel, written into it before anything is compiled.

    It saves a round of optimising; for small helpers numba's own bookkeeping costs more.
    """
    settings: Any = {**OPTIONS, "inline": "always"}
    helper: Any = numba.njit(**settings)(function)
    return helper


def compiled() -> bool:
    """Whether every kernel has been compiled or read from the cache in this process."""
    return all(k.signatures for k in kernels)


@cache
def _folder() -> Path | None:
    """The private folder of the cache; None where there is none to be had."""
    try:
        folder = cache_root() / "numba" / _version()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.stat()
        mine = not hasattr(os, "getuid") or facts.st_uid == os.getuid()
        if not mine or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return None  # others could plant a pickle there
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0" * 4096)
            probe.flush()
        return folder
    except OSError:
        return None


def _version() -> str:
    """Digest of the kernels' sources: numba looks at one file only, not at what it calls."""
    digest = hashlib.sha256(repr((numba.__version__, OPTIONS)).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        text = path.read_bytes()
        if any(word in text for word in (b"@kernel", b"@inline", b"@unfold")):
            digest.update(text)
    return digest.hexdigest()[:16]


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
        except Exception:  # full disk, read-only: the kernel in memory is as good
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

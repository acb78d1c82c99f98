"""Compiled kernels of the partition: they call each other, so that they are cached together."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba

from isogon import jit

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS: dict[str, Any] = {
    **jit.OPTIONS,
    "no_cfunc_wrapper": True,  # nobody calls them through a C pointer
}

kernels: list[Any] = []  # every one, for the tests


def kernel(function: F) -> F:
    """Compile a function of flat arrays on first use; cached on disk where that is safe.

    Without a cache it is interpreted as long as that is cheaper (`jit.tiered`).
    """
    return costly(jit.COST)(function)


def costly(seconds: float) -> Callable[[F], F]:
    """A `kernel` whose compiling takes so many seconds."""

    def made(function: F) -> F:
        dispatcher: Any = jit.cached(numba.njit(**OPTIONS)(function), _folder())
        kernels.append(jit.tiered(dispatcher, seconds))
        return dispatcher

    return made


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


@cache
def _folder() -> Path | None:
    """The private folder of the cache; None where there is none to be had.

    It is named by the sources of all kernels: numba looks at one file only, not at what it calls.
    """
    sources = []
    rooms = Path(__file__).parents[2] / "partition", Path(__file__).parents[2] / "boundary"
    for path in sorted(path for room in rooms for path in room.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if any(word in text for word in ("@kernel", "@costly", "@inline", "@unfold")):
            sources.append(text)
    return jit.private_folder(repr((numba.__version__, OPTIONS)), *sources)

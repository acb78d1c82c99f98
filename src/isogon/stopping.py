"""How work is ended from outside: by a signal, or because the process that wanted it is gone."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

PAUSE = 0.5  # seconds between two looks at the parent
_DEATH = 1  # PR_SET_PDEATHSIG of Linux's prctl


class Stopped(KeyboardInterrupt):
    """Asked to stop by a signal; what handles Ctrl-C handles every such signal.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(signal_name(number))
        self.number = int(number)


@dataclass
class Request:
    """Whether this process was asked to stop, and by which signal.

    Attributes:
        number: The signal, or None.
        waits: Whether what runs is finished before a first signal is heeded.
    """

    number: int | None = None
    waits: bool = False


_requests: list[Request] = []


@contextmanager
def stoppable(request: Request | None = None) -> Iterator[Request]:
    """Inside, SIGTERM ends what runs as Ctrl-C does: by a `Stopped` in the main thread.

    Signals that the one who started the process had ignored stay ignored. Outside the main
    thread nothing changes.

    Args:
        request: Where a signal is noted; a new one by default.
    """
    noted = request or Request()
    held: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        first, noted.number = noted.number is None, number
        if not (first and noted.waits):
            raise Stopped(number)

    main = threading.current_thread() is threading.main_thread()
    if main:
        _requests.append(noted)
        for number in (signal.SIGINT, signal.SIGTERM):
            was = signal.getsignal(number)
            if was in (signal.SIG_DFL, signal.default_int_handler):
                held[number] = was
                signal.signal(number, stop)
    try:
        yield noted
    finally:
        if main:
            _requests.pop()
        for number, was in held.items():
            signal.signal(number, was)


@contextmanager
def finishing() -> Iterator[None]:
    """Inside, e.g. while a page is written, a first signal waits for the end, a second does not.

    Raises:
        Stopped: On leaving, where a signal had come.
    """
    request = _requests[-1] if _requests else Request()
    before, request.waits = request.number, True
    try:
        yield
    finally:
        request.waits = False
    if before is None and request.number is not None:
        raise Stopped(request.number)


def exit_code(request: Request) -> int:
    """What a shell calls the end by this signal: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + int(request.number or signal.SIGINT)


def signal_name(number: int) -> str:
    """The name of a signal: SIGSEGV."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def tied(parent: int | None = None) -> Iterator[None]:
    """Inside, this process ends with its own children soon after its parent is gone.

    A child of ``multiprocessing`` holds one end of a pipe whose other end closes when its
    parent dies; others look at their parent's number. On Linux the system kills it as well when
    the thread that started it ends, which helps where this process is deep in foreign code: that
    thread must be one that waits for it.

    Args:
        parent: Number of the process that started this one, if that was not
            ``multiprocessing``.
    """
    import multiprocessing

    above: Any = multiprocessing.parent_process() if parent is None else None
    parent = os.getppid() if parent is None else parent
    over = threading.Event()

    def gone() -> bool:
        return not above.is_alive() if above is not None else os.getppid() != parent

    def watch() -> None:
        while not over.wait(PAUSE):
            if gone():
                _end()

    _killed_with_parent(True)
    if gone():  # before anybody looked
        _end()
    threading.Thread(target=watch, name="isogon-parent", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        _killed_with_parent(False)


@contextmanager
def with_children() -> Iterator[None]:
    """Kill the children of ``multiprocessing`` that were started inside when an error leaves it."""
    import multiprocessing

    before = multiprocessing.active_children()
    try:
        yield
    except BaseException:
        _kill(before)
        raise


def _killed_with_parent(on: bool) -> None:
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DEATH, signal.SIGKILL if on else 0)


def _end() -> None:
    _kill()
    os._exit(1)


def _kill(but: Sequence[BaseProcess] = ()) -> None:
    import multiprocessing

    for child in multiprocessing.active_children():
        if child not in but:
            with suppress(OSError, ValueError):
                child.kill()

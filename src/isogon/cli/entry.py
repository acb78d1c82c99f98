"""Where a command line comes in: which command, and what its end is called."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from isogon import stopping
from isogon.errors import IsogonError

__all__ = ["main", "script"]

# Options that may stand before the command; those with a value take the next word.
VALUED = ("--data-root", "--device", "--out", "--config", "--seed", "--batch-size")
FLAGS = ("--traceback", "--quiet", "-q", "--download", "--again", "--no-check")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words behind the program's name; those of this process by default.

    Returns:
        0: done. 1: failed. 2: the command was used wrongly. 130: interrupted by Ctrl-C.
        143: terminated (SIGTERM).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    request = stopping.Request()
    try:
        with stopping.stoppable(request), warnings.catch_warnings():
            warnings.showwarning = _warning if "--quiet" not in words else lambda *_, **__: None
            return _dispatch(words)
    except KeyboardInterrupt:
        return _stopped(request)
    except BrokenPipeError:  # `isogon list archs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:  # --help, --print_config
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        if request.number is not None:  # a library that was being imported, a worker, ...
            return _stopped(request)
        if "--traceback" in words:
            raise
        if isinstance(error, IsogonError):
            return _fail(str(error), error.exit_code)
        text = " ".join(str(error).split())[:400]
        return _fail(
            f"{type(error).__name__}: {text or 'no message'}. "
            "This was not foreseen: run again with --traceback to see where.",
            1,
        )


def script() -> NoReturn:
    """The program: `main`, and its exit code.

    Where several processes trained and a stop ended them, the first one leaves without the
    interpreter's farewell: the threads that spoke with the others would abort it.
    """
    code = main()
    distributed: Any = sys.modules.get("torch.distributed")
    if not code or distributed is None or not distributed.is_available():
        raise SystemExit(code)
    if distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


def _stopped(request: stopping.Request) -> int:
    code = stopping.exit_code(request)
    how = "interrupted" if code == 130 else f"stopped by {stopping.signal_name(code - 128)}"
    return _fail(f"{how}; what was finished is kept, run the same command to go on", code)


def _dispatch(words: list[str]) -> int:
    from isogon.cli import commands, help

    front, rest = _front(words)
    if not rest or rest[0] in ("-h", "--help", "help"):
        if rest[1:] and rest[0] == "help":
            return _dispatch([*rest[1:], "--help"])
        wanted = bool(rest)
        (sys.stdout if wanted else sys.stderr).write(help.overview())
        return 0 if wanted else 2
    if rest[0] in ("-V", "--version"):
        from isogon import __version__

        sys.stdout.write(f"isogon {__version__}\n")
        return 0
    name, *arguments = rest
    return commands.command_named(name)(front + arguments)


def _front(words: list[str]) -> tuple[list[str], list[str]]:
    """Split off the global options that stand before the command."""
    i = 0
    while i < len(words):
        head = words[i].split("=")[0]
        if head in VALUED:
            i += 1 if "=" in words[i] else 2
        elif head in FLAGS:
            i += 1
        else:
            break
    return words[:i], words[i:]


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"isogon: {text}\n")
    return code


def _warning(message, category, filename, lineno, file=None, line=None) -> None:
    text = " ".join(str(message).split())
    if issubclass(category, UserWarning | RuntimeWarning) and "isogon" in filename:
        sys.stderr.write(f"isogon: note: {text}\n")

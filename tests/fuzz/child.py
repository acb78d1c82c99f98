"""Reads files that may do harm, in a process of little memory that is watched.

Run as ``python child.py TASK``; TASK is a JSON file ``{"folder", "seconds", "memory", "cases"}``
or ``{..., "reader", "count", "seed"}``. Per input one JSON line goes to standard output:
``{"case", "outcome": accepted|refused|other, "detail", "seconds", "peak"}``; before each the
case's name goes to standard error, so that a process that dies says where.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
          "os.forkpty", "pty.spawn", "os.startfile")  # fmt: skip
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod",
           "os.chown", "os.truncate", "shutil.", "tempfile.", "socket.", "ftplib.", "urllib.",
           "smtplib.", "webbrowser.")  # fmt: skip


class Watch:
    """What a reader did besides reading; an audit hook can't be taken off, so it is switched."""

    def __init__(self) -> None:
        self.on, self.seen = False, []
        sys.addaudithook(self)

    def __call__(self, event: str, given: tuple) -> None:
        if not self.on:
            return
        if event in STARTS:
            if "table_reader.py" not in str(given):  # isogon's own reader of tables
                self.seen.append(f"{event} {given!r}"[:200])
        elif event.startswith(CHANGES):
            self.seen.append(f"{event} {given!r}"[:200])
        elif event == "open" and given[0] != os.devnull and not isinstance(given[0], int):
            mode, flags = str(given[1] or ""), given[2] or 0
            if any(c in mode for c in "wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.seen.append(f"open {given!r}"[:200])


class TimeUp(BaseException):
    """One input took too long."""


def time_up(*_: Any) -> None:
    raise TimeUp


def peak(reset: bool = False) -> int:
    """The largest resident memory of this process in bytes, since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    tempfile.gettempdir()  # tries to write, once per process
    import readers  # imports what the readers need, before anything is limited or watched

    task = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(task["folder"])
    os.chdir(folder)
    cases = readers.cases(task, folder)
    watch = Watch()
    signal.signal(signal.SIGALRM, time_up)
    signal.signal(signal.SIGPROF, time_up)
    most = task["memory"] + int(Path("/proc/self/statm").read_text().split()[5]) * 4096
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries in C print warnings there
    for name, read in cases:
        sys.stderr.write(f"CASE {name}\n")
        sys.stderr.flush()
        before, start, detail = peak(reset=True), time.perf_counter(), ""
        watch.seen.clear()
        # Of the processor; of the clock (a hang, a busy machine) four times that.
        signal.setitimer(signal.ITIMER_PROF, task["seconds"])
        signal.setitimer(signal.ITIMER_REAL, 4 * task["seconds"])
        try:
            watch.on = True
            read()
            outcome = "accepted"
        except readers.IsogonError as error:
            outcome, detail = "refused", str(error)
            if "\n" in detail:
                outcome = "other"
        except TimeUp:
            outcome, detail = "other", f"over {task['seconds']} s"
        except BaseException as error:
            outcome, detail = "other", f"{type(error).__name__}: {error}"
            if task.get("verbose"):
                import traceback

                detail = traceback.format_exc()
        finally:
            watch.on = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        if watch.seen:
            outcome, detail = "other", "; ".join(watch.seen)
        line = {
            "case": name, "outcome": outcome, "detail": detail[-2000:],
            "seconds": time.perf_counter() - start, "peak": max(0, peak() - before),
        }  # fmt: skip
        out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

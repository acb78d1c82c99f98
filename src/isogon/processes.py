"""Who runs something: a process that others, on other machines too, can tell from the rest."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """The identity of a process.

    A process number says nothing by itself: it is used again, also by another machine, after a
    restart and in another container. With the machine's boot, the number space of its container
    and the time when the process started it names one process, under whatever name the host is.

    Attributes:
        host: Name of the machine, for people.
        boot: Identifier of the running system's boot; empty where there is none.
        space: Identifier of the space in which ``pid`` counts (a container has its own).
        pid: Process number.
        start: When it started, in the system's own words; empty where it can't be known.
    """

    host: str = ""
    boot: str = ""
    space: str = ""
    pid: int = 0
    start: str = ""

    @classmethod
    def current(cls) -> Process:
        """This process."""
        return cls(*_machine(), os.getpid(), _start(os.getpid()) or "")

    @classmethod
    def from_json(cls, data: Any) -> Process:
        """From the fields of a dictionary; those that are missing or odd count as unknown."""
        kinds = {"host": str, "boot": str, "space": str, "pid": int, "start": str}
        return cls(**{n: data[n] for n, kind in kinds.items() if type(data.get(n)) is kind})

    def visible(self) -> bool:
        """Whether it belongs to the processes that can be seen from here."""
        host, boot, space = _machine()
        if self.boot and boot:
            return (self.boot, self.space) == (boot, space)
        return not self.boot and bool(self.host) and self.host == host

    def alive(self) -> bool | None:
        """Whether it still runs; None where that can't be seen from here.

        A process that ended and was not waited for by its parent (a zombie) does not run.
        """
        if not self.visible() or self.pid <= 0 or os.name == "nt":
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # another user's
        now = _start(self.pid)
        if now == "":
            return False
        return None if now is None or not self.start else now == self.start


@functools.cache
def _machine() -> tuple[str, str, str]:
    """Name of the host, identifier of its boot, identifier of the space of process numbers."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = _said("sysctl", "-n", "kern.bootsessionuuid") if sys.platform == "darwin" else ""
    try:
        space = os.readlink(PROC / "self/ns/pid")
    except OSError:
        space = ""
    return socket.gethostname(), boot or "", space


def _start(pid: int) -> str | None:
    """When a process started; empty where it has ended, None where that can't be known."""
    try:
        # "pid (name) state ppid ...": the name may hold blanks and brackets
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]  # field 22 of the whole line
    except (OSError, IndexError):
        pass
    said = _said("ps", "-o", "stat=,lstart=", "-p", str(pid))
    if said is None or not said.split():
        return None
    state, *start = said.split()
    return "" if state.startswith("Z") else " ".join(start)


def _said(*command: str) -> str | None:
    """What a command of the system prints; None where it can't be asked."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

"""Runs a task of `child.py` in a process of its own, and gathers what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("child.py")


def run(
    folder: Path, *, seconds: float = 10, memory: int = 2**30, timeout: float = 600, **task: Any
) -> list[dict[str, Any]]:
    """One line per input; a process that died or hung adds a line that says at which input.

    Args:
        folder: Where inputs lie or are made.
        seconds: That one input may take.
        memory: Bytes of data that the process may take beyond what imports took.
        timeout: Seconds for all of it.
        **task: ``cases`` or ``readers`` and ``seed``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "task.json"
    task |= {"folder": str(folder), "seconds": seconds, "memory": memory}
    file.write_text(json.dumps(task))
    how = ""
    try:
        done = subprocess.run(
            [sys.executable, str(CHILD), str(file)],
            capture_output=True, text=True, timeout=timeout,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ISOGON_CACHE": str(folder / "cache")},
        )  # fmt: skip
        out, said, how = done.stdout, done.stderr, f"exit code {done.returncode}"
        dead = done.returncode != 0
    except subprocess.TimeoutExpired as late:
        out, said = ((t or b"").decode() for t in (late.stdout, late.stderr))
        dead, how = True, f"over {timeout} s"
    lines = [json.loads(line) for line in out.splitlines() if line.endswith("}")]
    if dead:
        last = [w.removeprefix("CASE ") for w in said.splitlines() if w.startswith("CASE ")]
        tail = said.strip().splitlines()[-1:]
        what = {"case": last[-1] if last else "start", "outcome": "other", "seconds": 0, "peak": 0}
        lines.append({**what, "detail": f"the process ended: {how} {tail}"})
    return lines

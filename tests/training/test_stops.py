"""A training with processes of its own: a stop, or the death of the first one, ends them all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

KINDS = {
    "ddp": ("--devices", "2"),
    "ddp_spawn": ("--devices", "2", "--strategy", "ddp_spawn"),
    "loaders": ("--workers", "2"),
}


def heeding() -> None:
    """Where tests run in the background, Ctrl-C is ignored, also by what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def crew(session: int) -> list[int]:
    """Processes of a session that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_first(tmp_path, kind, number):
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")
    source = str(Path(__file__).resolve().parents[2] / "src")
    path = os.pathsep.join(p for p in (source, os.environ.get("PYTHONPATH")) if p)
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(
            [sys.executable, "-m", "isogon", "train", "--arch", "cnn(width=2)", "--data", "digits",
             "--epochs", "5000", "--checkpoint-every", "1", "--out", "run", *KINDS[kind]],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=log, stderr=log, start_new_session=True, preexec_fn=heeding,
        )  # fmt: skip
        try:
            end = time.monotonic() + 180
            while not (tmp_path / "run" / "last.safetensors").exists():
                assert first.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < end
                time.sleep(0.1)
            assert len(crew(first.pid)) >= 2
            first.send_signal(number)
            end = time.monotonic() + 10
            while (left := crew(first.pid)) and time.monotonic() < end:
                first.poll()
                time.sleep(0.05)
            assert not left
        finally:
            for pid in crew(first.pid):
                os.kill(pid, signal.SIGKILL)
    code = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert first.wait(20) == code
    if number != signal.SIGKILL:
        assert "run the same command to go on" in (tmp_path / "log").read_text()

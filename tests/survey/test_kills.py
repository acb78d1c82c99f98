"""Random SIGKILLs, as `benchmarks/reliability_kills.py` deals them: a share of its hundred."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "reliability_kills.py"


@pytest.mark.parametrize(
    ("kinds", "kills"),
    [
        ("sweep inline", 2),
        pytest.param("sweep inline,sweep processes,train,survey", 5, marks=pytest.mark.long),
    ],
)
def test_kills_lose_nothing_and_change_nothing(tmp_path, kinds, kills):
    if not SCRIPT.is_file() or not Path("/proc/self/stat").exists():
        pytest.skip("needs the benchmarks and /proc")
    path = os.pathsep.join(p for p in (str(ROOT / "src"), os.environ.get("PYTHONPATH")) if p)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", str(kills), "--only", kinds, "--seed", "1",
         "--out", str(tmp_path / "kills.json")],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    total = json.loads((tmp_path / "kills.json").read_text())["total"]
    assert total == {"kills": kills * len(kinds.split(",")), "all well": True}

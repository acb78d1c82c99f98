"""Spoiled files of every kind, at full size: what comes out of each reader, and what it costs.

    python benchmarks/reliability.py [COUNT]

Writes ``reliability.json``: per reader the number of inputs, accepted, refused, other outcomes,
the worst seconds and the peak of memory (bytes above what the process had). COUNT is 2,000.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "fuzz"))

import watched  # noqa: E402
from test_readers import NAMES  # noqa: E402


def measured(name: str, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        lines = watched.run(Path(folder), readers={name: count}, seed=2, timeout=3600)
    outcomes = [line["outcome"] for line in lines]
    return {
        "inputs": len(lines),
        "accepted": outcomes.count("accepted"),
        "refused": outcomes.count("refused"),
        "other": outcomes.count("other"),
        "worst_seconds": round(max(line["seconds"] for line in lines), 3),
        "peak_bytes": max(line["peak"] for line in lines),
    }


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    found = {}
    for name in NAMES:
        found[name] = measured(name, count)
        print(name, found[name], flush=True)
    (HERE / "reliability.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

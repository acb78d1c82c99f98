"""What the command line costs before it does anything: fresh interpreters, in turn.

Design's limit is half a second of a processor for `isogon --help`, also with an empty or an
unwritable cache. An import of numpy, taken in turn, tells how fast the machine is.

    python benchmarks/startup.py [--repeats N] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).with_suffix(".json")
LINES = {
    "python -c 'import numpy'": ("-c", "import numpy"),
    "python -c 'import isogon'": ("-c", "import isogon"),
    "isogon --help": ("-m", "isogon", "--help"),
    "isogon list archs": ("-m", "isogon", "list", "archs"),
    "isogon list": ("-m", "isogon", "list"),
    "isogon data-matrix --help": ("-m", "isogon", "data-matrix", "--help"),
    "isogon survey --help": ("-m", "isogon", "survey", "--help"),
}


def taken(words: tuple[str, ...], cache: str) -> float:
    """CPU seconds of a fresh interpreter."""
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"XDG_CACHE_HOME": cache}
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, env=environment)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime


def main() -> None:
    """Time every line, print and keep the medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in LINES}
    for _ in range(options.repeats):
        for name, words in LINES.items():
            with tempfile.TemporaryDirectory() as cache:
                found[name].append(taken(words, cache))
    rows = {
        name: {"cpu_s": round(statistics.median(own), 3), "least": round(min(own), 3)}
        for name, own in found.items()
    }
    for name, row in rows.items():
        print(f"{name:32} {row['cpu_s']:6.3f} CPU s, least {row['least']:.3f}")
    options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Seconds of one pass over a zip of images, undecoded and decoded, without workers.

Usage: python benchmarks/data.py PATH.zip [SPLIT]
"""

from __future__ import annotations

import sys
import tempfile
import time

from isogon import context
from isogon.data import batches


def run(path: str, split: str = "test") -> None:
    """Time two passes with an empty cache and print them."""
    batches("digits(test, 2)")  # imports
    with tempfile.TemporaryDirectory() as cache, context.use(cache_root=cache):
        for what in ("decoding once", "from the cache"):
            wall, cpu = time.perf_counter(), time.process_time()
            count = sum(len(x) for x, _ in batches(f"imagefolder({path!r}, {split})"))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(f"{what}: {count} images, {wall:.2f} s wall, {cpu:.2f} s CPU")


if __name__ == "__main__":
    run(*sys.argv[1:3])

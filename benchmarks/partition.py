"""Partition against one plain float64 forward pass over as many points; growth of one layer.

CPU seconds, one thread, both sides in one process, best of several runs. The cases are random
networks of this script's own and, with ``--oracles FOLDER``, tables of weights (``*.npz``).

    python benchmarks/partition.py [--oracles ../shared/oracles/partition/cases] [--growth]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from pathlib import Path

import numpy as np
import torch

from isogon.cpwl.program import mlp
from isogon.measures.partition import Slice, partition


def best(function, repeat):
    """Least CPU seconds of several runs, and the last result."""
    least, result = float("inf"), None
    for _ in range(repeat):
        start = time.process_time()
        result = function()
        least = min(least, time.process_time() - start)
    return least, result


def measure(name, program, plane, repeat=5):
    """One row: regions, seconds of both sides and their ratio."""
    partition(program, plane, max_regions=100)  # kernels compiled
    seconds, p = best(lambda: partition(program, plane), repeat)
    low, high = plane.corners.min(0), plane.corners.max(0)
    x = plane.embed(np.random.default_rng(0).uniform(low, high, (len(p), 2)))
    x = x.reshape(-1, *program.shape)
    forward, _ = best(lambda: program.evaluate(x), repeat)
    row = {
        "case": name,
        "regions": len(p),
        "partition_s": round(seconds, 4),
        "forward_s": round(forward, 4),
        "ratio": round(seconds / forward, 2),
        "regions_per_s": round(len(p) / seconds),
    }
    print(row, flush=True)
    return row


def random_mlp(widths, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    weights = [torch.randn(s, generator=g, dtype=torch.float64) * (2 / s[1]) ** 0.5 for s in shapes]
    biases = [0.3 * torch.randn(s[0], generator=g, dtype=torch.float64) for s in shapes]
    return mlp(weights, biases)


def table(path):
    z = np.load(path)
    layers = sum(key.startswith("W") for key in z.files)
    pairs = [[torch.from_numpy(z[f"{k}{i}"]) for i in range(layers)] for k in "Wb"]
    chart = z["T"]
    plane = Slice.polygon(chart[:, 2], chart[:, :2], z["poly"])
    return mlp(*pairs, slope=float(z["slope"])), plane


def growth(square):
    """Time and memory of one layer of random lines, from 1e4 to 1e6 regions.

    Regions grow with the square of the lines, so that both sides grow as regions to the 3/2.
    """
    partition(random_mlp([2, 20, 1]), square)
    rows = []
    for lines in (150, 480, 1500):
        rng = np.random.default_rng(0)
        w = torch.from_numpy(rng.standard_normal((lines, 2)))
        b = torch.from_numpy(0.3 * rng.standard_normal(lines))
        program = mlp([w, torch.ones(1, lines)], [b, None])
        seconds, p = best(lambda program=program: partition(program, square), 1)
        x = square.embed(np.random.default_rng(0).uniform(-1, 1, (len(p), 2)))
        forward, _ = best(lambda program=program, x=x: program.evaluate(x), 1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        row = {"lines": lines, "regions": len(p), "seconds": round(seconds, 3)}
        rows.append(row | {"forward_s": round(forward, 3), "peak_mb": round(peak)})
        print(rows[-1], flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--oracles", type=Path)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    square = Slice.box2d([-1, -1], [1, 1])
    rows = [
        measure("2-64x4-10 random", random_mlp([2, 64, 64, 64, 64, 10]), square),
        measure("2-128x3-10 random", random_mlp([2, 128, 128, 128, 10]), square),
    ]
    for path in sorted(options.oracles.glob("*.npz")) if options.oracles else []:
        program, plane = table(path)
        if path.stem in ("w64", "acas11", "bunny2_4x32", "toy16"):
            rows.append(measure(path.stem, program, plane))
    result = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    result["against_forward"] = rows
    if options.growth:
        result["growth"] = growth(square)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

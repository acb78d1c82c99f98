"""Partition against edge subdivision and SplineCam, both sides in one run.

    python benchmarks/peers.py [--edge CHECKOUT] [--splinecam CHECKOUT [--python PYTHON]]
        [--oracles ../shared/oracles/partition/cases] [--write]

The checkouts are of arturs-berzins/relu_edge_subdivision and AhmedImtiazPrio/splinecam; what is not
given is left out. SplineCam needs graph-tool and igraph, which ``PYTHON`` has, beside torch. Each
case is a ReLU network on a square, random ones and those of ``--oracles``. CPU seconds, one thread:
ours in float64, the best of five, with faces and the outputs at their corners (classes and decision
boundary, found on demand, are not counted); edge subdivision in its float32, without the output
layer, the best of three, and only vertices and edges; SplineCam once, on the CPU. Compiling and
imports are not counted. ``--write`` keeps the rows in ``peers.json``, in place of those of the
same cases.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from partition import best

from isogon.cpwl.program import mlp
from isogon.measures.partition.measure import partition
from isogon.measures.partition.slices import Slice

HERE = Path(__file__).resolve().parent
RANDOM = (  # widths, seed
    ([2, 32, 32, 10], 0),
    ([2, 40, 40, 40, 10], 0),
    ([2, 80, 80, 80, 10], 0),
    ([2, 64, 64, 64, 64, 10], 1),
    ([2, 128, 128, 128, 10], 0),
)


def random_layers(widths, seed):
    """Weights and biases, as in ``partition.py``."""
    g = torch.Generator().manual_seed(seed)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    weights = [torch.randn(s, generator=g, dtype=torch.float64) * (2 / s[1]) ** 0.5 for s in shapes]
    biases = [0.3 * torch.randn(s[0], generator=g, dtype=torch.float64) for s in shapes]
    return [w.numpy() for w in weights], [b.numpy() for b in biases]


def cases(oracles):
    """Name, weights from the plane on, biases, and the square's lowest and highest coordinate."""
    for widths, seed in RANDOM:
        yield "-".join(map(str, widths)), *random_layers(widths, seed), (-1.0, 1.0)
    for name in ("toy16", "bunny2_4x32", "w64", "acas11") if oracles else ():
        z = np.load(oracles / f"{name}.npz")
        layers = sum(key.startswith("W") for key in z.files)
        weights, biases = ([z[f"{k}{i}"] for i in range(layers)] for k in "Wb")
        chart = z["T"]
        biases[0] = weights[0] @ chart[:, 2] + biases[0]
        weights[0] = weights[0] @ chart[:, :2]
        yield name, weights, biases, (float(z["poly"].min()), float(z["poly"].max()))


def ours(weights, biases, box):
    """Regions and seconds."""
    program = mlp([torch.from_numpy(w) for w in weights], [torch.from_numpy(b) for b in biases])
    square = Slice.box2d([box[0]] * 2, [box[1]] * 2)
    partition(program, square)  # kernels compiled
    seconds, p = best(lambda: partition(program, square), 5)
    return len(p), seconds


def peer(kind, checkout, python, weights, biases, box) -> dict[str, Any]:
    """Regions and seconds of a peer, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "case.npz"
        arrays: dict[str, Any] = {f"W{i}": w for i, w in enumerate(weights)}
        arrays |= {f"b{i}": b for i, b in enumerate(biases)}
        np.savez(file, box=box, **arrays)
        done: Any = subprocess.run(
            [python, HERE / "peers_inside.py", kind, checkout.resolve(), file],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
        )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--edge", type=Path)
    parser.add_argument("--splinecam", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--oracles", type=Path)
    parser.add_argument("--only", help="cases whose names hold this")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = HERE / "peers.json"
    for name, weights, biases, box in cases(options.oracles):
        if options.only and options.only not in name:
            continue
        regions, seconds = ours(weights, biases, box)
        row: dict[str, Any] = {"case": name, "regions": regions, "seconds": round(seconds, 5)}
        for kind, checkout, python in (
            ("edge", options.edge, sys.executable),
            ("splinecam", options.splinecam, options.python),
        ):
            if checkout is not None:
                found = peer(kind, checkout, python, weights, biases, box)
                if "seconds" in found:  # per region: the peers' counts differ by a few
                    rate = found["seconds"] / found["regions"]
                    found["ratio"] = round(rate / (seconds / regions), 1)
                row[kind] = found
        print(row, flush=True)
        if options.write:
            kept = json.loads(file.read_text()) if file.exists() else []
            kept = [k for k in kept if k["case"] != name]
            file.write_text(json.dumps([*kept, row], indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Partition against one plain float64 forward pass over as many points; growth of one layer.

CPU seconds, one thread, both sides in one process, best of several runs. The cases are random
networks of this script's own, convolutional ones among them; with ``--oracles FOLDER`` tables of
weights (``*.npz``); with ``--model FILE --images SPEC`` a model on the square around three images
of different classes (with ``--radius R`` on the square of that radius around the first). With
``--cores N`` also wall-clock seconds of one and of N threads in turn, on an idle machine, and of
what the machine itself gives; with ``--device cuda`` those of convolutional networks on it.

    python benchmarks/partition.py [--oracles ../shared/oracles/partition/cases] [--growth]
        [--cores 2] [--device cuda]
        [--model net.onnx --images 'imagefolder("images.zip", test, 600, seed=0)' --radius 2.5]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import threading
import time
from pathlib import Path

import numpy as np
import torch

import isogon as ig
from isogon import context
from isogon.cpwl.lower import lower
from isogon.cpwl.program import mlp
from isogon.measures.partition.measure import partition
from isogon.measures.partition.slices import Slice

CONVOLUTIONAL = (
    ("cnn(seed=0)", (1, 28, 28), 0.3),
    ("resnet18(num_classes=10)", (3, 32, 32), 0.02),
)


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
    # so many points at most; more of them cost in proportion
    count = min(len(p), max(1000, (256 << 20) // (8 * torch.Size(program.shape).numel())))
    x = plane.embed(np.random.default_rng(0).uniform(low, high, (count, 2)))
    x = x.reshape(-1, *program.shape)
    forward, _ = best(lambda: program.evaluate(x), repeat)
    forward *= len(p) / count
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


def convolutional():
    """Rows of networks with convolutions, max-pooling, skips, on slices of random images."""
    rows = []
    for spec, shape, radius in CONVOLUTIONAL:
        torch.manual_seed(0)
        x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
        plane = Slice.anchors(*x, radius=radius)
        program = lower(ig.load(spec), x[:2])
        rows.append(measure(spec, program, plane, repeat=1))
    return rows


def cores(count):
    """Rows of wall-clock seconds by one and by several threads in turn, medians of five."""
    torch.manual_seed(0)
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    square = [Slice.box2d([-r, -r], [r, r]) for r in (1, 3, 20)]
    conv = "cnn(seed=0)"
    cases = (
        ("2-1000-10 random", random_mlp([2, 1000, 10]), square[0]),
        ("2-64x7-10 random", random_mlp([2, *[64] * 7, 10]), square[2]),
        ("2-256x3-10 random", random_mlp([2, 256, 256, 256, 10]), square[1]),
        (conv, lower(ig.load(conv), x[:2]), Slice.anchors(*x, radius=0.1)),
    )
    rows = [limits(count)]
    for name, program, plane in cases:
        spent = {1: [], count: []}
        for turn in range(6):
            for threads, own in spent.items():
                torch.set_num_threads(threads)
                start = time.perf_counter()
                p = partition(program, plane)
                if turn:  # the first one warms up
                    own.append(time.perf_counter() - start)
        torch.set_num_threads(1)
        one, many = (float(np.median(own)) for own in spent.values())
        row = {"case": name, "regions": len(p), "one_s": round(one, 3), "threads": count}
        rows.append(row | {"threads_s": round(many, 3), "times": round(one / many, 2)})
        print(rows[-1], flush=True)
    return rows


def limits(count):
    """What the machine's cores give, several against one.

    Of products, of copying, and of writing to memory that the system has just given.
    """
    torch.set_num_threads(1)
    a = torch.rand(256, 256, dtype=torch.float64)
    x = torch.rand(1 << 24, dtype=torch.float64)
    row = {"case": "the machine itself", "threads": count}
    out = [torch.empty_like(x) for _ in range(count)]
    calls = {
        "products": lambda n: [a @ a for _ in range(300)],
        "copying": lambda n: out[n].copy_(x),
        "first_touch": lambda n: x.clone(),
    }
    for name, call in calls.items():
        times = []
        for _ in range(6):
            start = time.perf_counter()
            for n in range(count):
                call(n)
            one = time.perf_counter() - start
            threads = [threading.Thread(target=call, args=(n,)) for n in range(count)]
            start = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            times.append(one / (time.perf_counter() - start))
        row[name] = round(float(np.median(times[1:])), 2)
    print(row, flush=True)
    return row


def devices(name):
    """Rows of wall-clock seconds on the CPU and with large products on a device, in turn."""
    rows = []
    for spec, shape, radius in CONVOLUTIONAL:
        torch.manual_seed(0)
        x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
        plane, model = Slice.anchors(*x, radius=radius), ig.load(spec)
        programs = {place: lower(model.to(place), x[:2].to(place)) for place in ("cpu", name)}
        spent = {place: [] for place in programs}
        for _ in range(4):
            for place, program in programs.items():
                start = time.perf_counter()
                p = partition(program, plane)
                spent[place].append(time.perf_counter() - start)
        here, there = (float(np.median(own[1:])) for own in spent.values())
        row = {"case": spec, "regions": len(p), "cpu_s": round(here, 3), "device": name}
        rows.append(row | {"device_s": round(there, 3), "times": round(here / there, 2)})
        print(rows[-1], flush=True)
    return rows


def on_images(options):
    """The row of a model on a slice of three images of different classes."""
    with context.use(data_root=options.data_root):
        x, y = next(iter(ig.batches(options.images, batch_size=1024)))
    chosen = [x[int((y == c).nonzero()[0])] for c in y.unique()[:3]]
    if options.radius:
        plane = Slice.anchors(*chosen, radius=options.radius)
    else:
        plane = Slice.through(*chosen)
    program = lower(ig.load(str(options.model)), x[:2])
    return measure(options.model.stem, program, plane, repeat=1)


def growth():
    """Time and memory of one shallow network on growing squares, from 1e4 to 1e6 regions.

    The lines have uniform directions and offsets, so that their crossings fill the unit disc
    evenly; the work per region (2,200 units at each vertex) is the same on every square. The
    slope is that of a least-squares line through log time against log regions.
    """
    lines, rows = 2200, []
    rng = np.random.default_rng(0)
    w = torch.from_numpy(rng.standard_normal((lines, 2)))
    w /= w.norm(dim=1, keepdim=True)
    b = torch.from_numpy(rng.uniform(-1, 1, lines))
    program = mlp([w, torch.ones(1, lines)], [b, None])
    partition(random_mlp([2, 20, 1]), Slice.box2d([-1, -1], [1, 1]))
    for radius in (0.085, 0.15, 0.26, 0.47, 0.8):
        square = Slice.box2d([-radius, -radius], [radius, radius])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds, p = best(lambda square=square: partition(program, square), 3)
        x = square.embed(rng.uniform(-radius, radius, (len(p), 2)))
        forward, _ = best(lambda x=x: program.evaluate(x), 3)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        row = {"radius": radius, "regions": len(p), "seconds": round(seconds, 3)}
        row |= {"microseconds_per_region": round(1e6 * seconds / len(p), 2)}
        row |= {"forward_s": round(forward, 3), "ratio": round(seconds / forward, 2)}
        rows.append(row | {"peak_mb": round(peak / 1024), "before_mb": round(before / 1024)})
        print(rows[-1], flush=True)
    logs = np.log([[row["regions"], row["seconds"]] for row in rows])
    return {"rows": rows, "slope": round(float(np.polyfit(*logs.T, 1)[0]), 3)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--oracles", type=Path)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--cores", type=int)
    parser.add_argument("--device")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--images")
    parser.add_argument("--data-root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--radius", type=float)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    square = Slice.box2d([-1, -1], [1, 1])
    result = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    if options.growth:  # first, so that the peaks of memory are its own
        result["growth"] = growth()
    if options.device:
        result["device"] = devices(options.device)
    if options.cores:
        result["cores"] = cores(options.cores)
    rows = [
        measure("2-64x4-10 random", random_mlp([2, 64, 64, 64, 64, 10]), square),
        measure("2-128x3-10 random", random_mlp([2, 128, 128, 128, 10]), square),
    ]
    for path in sorted(options.oracles.glob("*.npz")) if options.oracles else []:
        program, plane = table(path)
        if path.stem in ("w64", "acas11", "bunny2_4x32", "toy16"):
            rows.append(measure(path.stem, program, plane))
    rows += convolutional()
    if options.model:
        rows.append(on_images(options))
    result["against_forward"] = rows
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Layer resets against the work that can't be done without: what follows each layer.

Usage: python benchmarks/reset.py [--out FILE.json] [--rows 'NAME;...'] [--repeats N]

One process, one thread, CPU seconds; the sides take turns in each repeat, and each figure is the
median over repeats of the quotient within one. The *limit* is the sum of the suffix work: for each
layer and state the operations from the layer to the end, on inputs of these shapes, timed by
themselves, with nothing loaded, swapped, kept or counted. *Whole* is the sum of whole passes, which
is what resets cost without kept prefixes. `share of the limit` is limit / isogon, `gain` whole /
isogon, `most` whole / limit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch

import isogon as ig
from isogon.measures.arrangement.reset import reset
from isogon.measures.arrangement.resets import Resets
from isogon.nets.sites import choose, registered

# name: spec, shape of an input, samples, batch size, states of each layer
ROWS = {
    "VGG-16, 32x32": ("cifar_vgg16", (3, 32, 32), 128, 64, 4),
    "VGG-16 of width 16, 32x32": ("cifar_vgg16(width=16)", (3, 32, 32), 512, 128, 4),
    "VGG-11 with batch-norm, 32x32": ("cifar_vgg11_bn(width=32)", (3, 32, 32), 128, 64, 4),
    "ResNet-20, 32x32": ("cifar_resnet20", (3, 32, 32), 64, 64, 4),
}


def cpu(work):
    start = time.process_time()
    work()
    return time.process_time() - start


def sides(spec, shape, samples, size, states):
    """What is timed, by name; and the number of cells."""
    model = ig.load(spec).eval()
    x = torch.rand(samples, *shape, generator=torch.Generator().manual_seed(0))
    y = torch.arange(samples) % 10
    batches = list(zip(x.split(size), y.split(size)))
    layers = {
        s.path: list(model.get_submodule(s.path).state_dict())
        for s in choose(model, registered(model), "weights")
    }
    names = {p: [f"{p}.{k}" for k in keys] for p, keys in layers.items()}
    found = Resets(model, ig.data.as_batches(batches), names)
    program = found.program
    assert program is not None
    assert set(found.suffixes) == set(layers), "a layer without a suffix"
    kept = {path: [] for path in layers}  # what is alive in front of each layer, batch by batch
    for inputs, _ in batches:
        at = {s.start: (lambda v, p=p: kept[p].append(dict(v))) for p, s in found.suffixes.items()}
        with torch.no_grad():
            program.run({}, 0, inputs, at)

    @torch.no_grad()
    def limit():
        for path, suffix in found.suffixes.items():
            for (inputs, _), values in zip(batches, kept[path], strict=True):
                for _ in range(states):
                    program.run(dict(values), suffix.start, inputs)

    @torch.no_grad()
    def whole():
        for inputs, _ in batches:
            for _ in range(len(layers) * states):
                model(inputs)

    drawn = [ig.load(spec).state_dict() for _ in range(states)]

    def ours():
        reset(model, {str(i): s for i, s in enumerate(drawn)}, batches)

    return {"limit": limit, "isogon": ours, "whole": whole}, len(layers) * states


def row(name, repeats):
    works, cells = sides(*ROWS[name])
    works["isogon"]()  # the first time traces and allocates
    taken = {key: [] for key in works}
    for _ in range(repeats):
        for key, work in works.items():
            taken[key].append(cpu(work))

    def ratio(top, bottom):
        return statistics.median(a / b for a, b in zip(taken[top], taken[bottom], strict=True))

    return {
        "cells": cells,
        "share of the limit": round(ratio("limit", "isogon"), 3),
        "gain": round(ratio("whole", "isogon"), 3),
        "most": round(ratio("whole", "limit"), 3),
        "seconds": {key: round(statistics.median(v), 2) for key, v in taken.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", default=";".join(ROWS))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
        },
        "repeats": options.repeats,
        "rows": {},
    }
    for name in options.rows.split(";"):
        found["rows"][name] = row(name, options.repeats)
        print(name, json.dumps(found["rows"][name]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

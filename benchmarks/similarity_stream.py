"""Peak memory and time of the similarity of streamed features that no memory holds.

Usage: python benchmarks/similarity_stream.py [--samples N] [--width D] [--sites S]
    [--pairs diagonal|all]

Inputs come from a seeded generator, batch by batch, and two models make S features of D numbers
each of them. One JSON object: CPU seconds, the process's memory before, its peak, and the gap of
the first value to float64 sums of its own pass.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import time
from pathlib import Path

import torch
from torch import nn

import isogon as ig

BATCH, INPUTS = 1024, 16


class Inputs:
    """Normal numbers by a seeded generator, the same in each pass."""

    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for low in range(0, self.samples, BATCH):
            size = min(BATCH, self.samples - low)
            yield torch.randn(size, INPUTS, generator=generator), torch.zeros(size)


class Wide(nn.Module):
    """Layers beside each other, all of the inputs."""

    def __init__(self, sites, width):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(INPUTS, width), nn.ReLU()) for _ in range(sites)
        )

    def forward(self, x):
        """The first number of each layer, so that all are used."""
        return torch.stack([layer(x)[:, 0] for layer in self.layers], 1)


def memory(what):
    """Of this process in MB: ``VmRSS`` now, ``VmHWM`` at most (without /proc the latter always)."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split(f"{what}:")[1].split()[0]) / 2**10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


@torch.no_grad()
def truth(a, b, data):
    """Unbiased CKA of the first layers by float64 sums: Song et al.'s terms, shifted first."""
    shift = [layer(torch.zeros(1, INPUTS))[0].double() for layer in (a.layers[0], b.layers[0])]
    sums, n = [], 0
    for x, _ in data:
        u, v = (m.layers[0](x).double() - s for m, s in zip((a, b), shift))
        uu, vv = u.square().sum(1), v.square().sum(1)
        n += len(x)
        new = [
            (p.T @ q, (pp * qq).sum(), p.sum(0), q.sum(0), qq @ p, pp @ q, pp.sum(), qq.sum())
            for p, q, pp, qq in ((u, v, uu, vv), (u, u, uu, uu), (v, v, vv, vv))
        ]
        sums = new if not sums else [[o + m for o, m in zip(*r)] for r in zip(sums, new)]

    def hsic(pq, cross, p, q, qp, pp_q, pp, qq):
        inner = pq.square().sum() - cross
        ones = (p @ p - pp) * (q @ q - qq) / ((n - 1) * (n - 2))
        middle = p @ pq @ q - p @ qp - q @ pp_q + cross
        return float(inner + ones - 2 * middle / (n - 2))

    xy, xx, yy = (hsic(*r) for r in sums)
    return xy / math.sqrt(xx * yy)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--sites", type=int, default=1)
    parser.add_argument("--pairs", default="diagonal")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    a, b = (Wide(options.sites, options.width).eval() for _ in range(2))
    few = Inputs(2 * BATCH)
    ig.similarity(a, b, few, sites="relu", pairs="diagonal")  # what is loaded once
    data, before, start = Inputs(options.samples), memory("VmRSS"), time.process_time()
    found = ig.similarity(a, b, data, sites="relu", pairs=options.pairs)
    taken, after = time.process_time() - start, memory("VmHWM")
    facts = {
        "samples": options.samples, "width": options.width, "sites": options.sites,
        "pairs": len(found.table), "seconds": round(taken, 2),
        "before_mb": round(before), "peak_mb": round(after), "added_mb": round(after - before),
        "error": abs(float(found.arrays["similarity"][0, 0]) - truth(a, b, data)),
    }  # fmt: skip
    print(json.dumps(facts))


if __name__ == "__main__":
    main()

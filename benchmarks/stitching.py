"""Closed-form stitches at all sites of a ResNet-20: against both forward passes over the data.

Usage: python benchmarks/stitching.py [--out FILE.json] [--repeats N] [--samples N]

One thread, float32 networks, CPU seconds, both sides in turn in one process; each figure is the
median over repeats. The fit is the pass over the data and the solution at every site, residual
blocks included; tracing, recalibration and evaluation are not in it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from isogon import nets
from isogon.measures.stitching.cuts import Cuts, Pairs, paired
from isogon.measures.stitching.methods import stitch
from isogon.measures.stitching.moments import PairSums, connected
from isogon.measures.stitching.stitching import CHUNK
from isogon.nets.passes import one_pass


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def row(spec: str, shape: tuple[int, ...], pairs: Pairs, samples: int, repeats: int) -> dict:
    torch.manual_seed(0)
    models = {side: nets.build(spec).eval() for side in "ab"}
    x = torch.rand(samples, *shape)
    data = [(part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(128)]
    cuts = {s: Cuts(m, "activations", x[:4], s, in_block=True) for s, m in models.items()}
    chosen, _ = paired(cuts["a"].found, cuts["b"].found, pairs)
    method = stitch("linear")

    @torch.no_grad()
    def forward() -> None:
        for part, _ in data:
            for model in models.values():
                model(part)

    def fit() -> None:
        room: dict[int, torch.Tensor] = {}
        groups = [PairSums(g, room) for g in connected(chosen)]
        one_pass(models, data, groups, chunk=CHUNK)
        for group in groups:
            for pair in group.pairs:
                method.fit(group.of(*pair), torch.Generator())

    sides: dict[str, Callable[[], object]] = {"both forward passes": forward, "fit": fit}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(repeats + 1):
        for name, run in sides.items():
            spent = seconds(run)
            if k:
                taken[name].append(spent)
    median = {name: statistics.median(times) for name, times in taken.items()}
    found = {"model": spec, "pairs": len(chosen), "samples": samples, "seconds": median}
    found["of both forward passes"] = median["fit"] / median["both forward passes"]
    print(json.dumps(found), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=str(Path(__file__).with_suffix(".json")))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    case = ("cifar_resnet20", (3, 32, 32))
    rows = [
        row(*case, "diagonal", options.samples, options.repeats),
        row(*case, "all", options.samples, options.repeats),
    ]
    where = {"torch": torch.__version__, "machine": platform.machine(), "threads": 1}
    Path(options.out).write_text(json.dumps({"where": where, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Dissection of a ResNet-18 in its own basis and ten others: against the forward pass.

Usage: python benchmarks/dissect.py [--out FILE.json] [--repeats N] [--samples N] [--sites SITES]

224 x 224 images, 50 concepts by pixel, every activation site by default. One thread, float32, CPU
seconds, both sides in turn in one process; each figure is the median over repeats. The forward pass
is one pass over the data; a dissection needs two (thresholds, then counts). ``product`` is what
bringing every activation into the ten bases costs alone, once: both passes need it, too. Drawing
the bases does not depend on the data and is told apart: the ratios are without it. Peak
memory is that of the process.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from timing import seconds
from torch.nn.functional import interpolate

import isogon as ig
from isogon import nets
from isogon.actions import group
from isogon.measures.dissection.concepts import Concepts
from isogon.nets.sites import called, choose

BASES, CONCEPTS, SIZE = 10, 50, 224


def images(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth noise, and a map of concepts that is constant on patches of it."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(samples, 3, 28, 28, generator=generator)
    x = interpolate(coarse, size=(SIZE, SIZE), mode="bilinear")
    x += 0.3 * torch.randn(x.shape, generator=generator)
    patches = torch.randint(CONCEPTS + 1, (samples, 14, 14), generator=generator)
    return x, patches.repeat_interleave(16, 1).repeat_interleave(16, 2).int()


def row(sites: str, samples: int, repeats: int) -> dict:
    torch.manual_seed(0)
    model = nets.build("resnet18(num_classes=10)")
    x, maps = images(samples)
    with torch.no_grad():  # statistics of these images, so that units are alive
        model.train()(x[:16])
    model.eval()
    data = Concepts([(a, b) for a, b in zip(x.split(8), maps.split(8))], count=samples)
    found = choose(model, called(model, x[:2]), sites)
    matrices = {s.shape[0]: torch.randn(BASES * s.shape[0], s.shape[0]) for s in found}
    generator = torch.Generator()
    values = [torch.rand(s.shape).flatten(1) for s in found]

    @torch.no_grad()
    def forward() -> None:
        for part in x.split(8):
            model(part)

    def product() -> None:
        for _ in range(samples):
            for v in values:
                torch.mm(matrices[len(v)], v)

    def dissect() -> None:
        basis = ("unit", "orthogonal")
        ig.dissect(model, data, sites=sites, basis=basis, draws=BASES)

    sides: dict[str, Callable[[], object]] = {
        "forward pass": forward,
        "product": product,
        "draws of the bases": lambda: [
            group("orthogonal").sample(s.shape[0], generator) for s in found for _ in range(BASES)
        ],
        "dissect": dissect,
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(repeats + 1):
        for name, run in sides.items():
            spent = seconds(run)
            if k:
                taken[name].append(spent)
    median = {name: statistics.median(times) for name, times in taken.items()}
    passes = median["dissect"] - median["draws of the bases"]
    ratio = passes / median["forward pass"]
    least = 2 * (median["forward pass"] + median["product"])
    result = {
        "what": f"dissect, unit + {BASES} bases, {CONCEPTS} concepts",
        "model": "resnet18, 224 x 224",
        "sites": sites,
        "number of sites": len(found),
        "samples": samples,
        "seconds": median,
        "of a forward pass": ratio,
        "of both forward passes": ratio / 2,
        "of both forward passes and products": passes / least,
        "peak memory of the process, GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / 2**20,
    }
    print(json.dumps(result), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=str(Path(__file__).with_suffix(".json")))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--sites", nargs="*", default=["activations", "layer4"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row(sites, options.samples, options.repeats) for sites in options.sites]
    where = {"torch": torch.__version__, "machine": platform.machine(), "threads": 1}
    Path(options.out).write_text(json.dumps({"where": where, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

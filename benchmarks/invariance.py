"""Invariance and equivariance against plain forward passes over the orbit, and against tmeasures.

Usage: python benchmarks/invariance.py [--out FILE.json] [--models NAME,...] [--repeats N]
    [--data FOLDER] [--tmeasures]

One process, one thread, CPU seconds; the sides take turns in each repeat, and each figure is the
median over repeats of the quotient within one. All sides see the same network, samples (MNIST and
CIFAR-10 where FOLDER, ../shared/data by default, holds them; else noise) and 24 rotations:

- forward: the network on the transformed inputs, made beforehand, 120 at a time;
- warp + forward: the same, with the inputs transformed on the way;
- invariance: every one-pass statistic (variance, squared, anova) of every activation;
- equivariance: the same statistics of the maps moved back;
- equivariance, all: also the simple distance and the interpolation floor.

Also peak memory at 1,000 and 10,000 samples. With --tmeasures (1.2.11, ``pip install tmeasures``)
its statistics, each a pass of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import types
from functools import partial
from pathlib import Path

import torch
from timing import in_turn
from torch import nn

import isogon as ig
from isogon.errors import IsogonError
from isogon.measures.orbits.equivariance import equivariance
from isogon.measures.orbits.invariance import invariance
from isogon.nets.load import build

MOMENTS = ("variance", "squared", "anova")
SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
MODELS = {  # name: spec, samples
    "simple_conv": ("simple_conv(32)", "mnist(test, 128)"),
    "vgg16d": ("vgg16d(32)", "mnist(test, 96)"),
    "all_conv": ("all_conv(96)", "mnist(test, 32)"),
    "resnet18": ("resnet18(num_classes=10)", "imagefolder('{}/cifar10-imagefolder.zip', test, 64)"),
    "cifar_resnet18": ("cifar_resnet18", "imagefolder('{}/cifar10-imagefolder.zip', test, 32)"),
}
DEFAULT = ("simple_conv", "vgg16d", "all_conv", "resnet18")


def samples(spec, folder):
    """The samples of a spec, or noise of their shape."""
    try:
        (x, y), *_ = ig.batches(spec.format(folder), batch_size=10_000, root=folder)
        return x, y
    except IsogonError as error:
        print(f"noise in place of {spec}: {error}", file=sys.stderr)
        count = int(spec.split(",")[-1].strip(" )"))
        shape = (1, 28, 28) if "mnist" in spec else (3, 32, 32)
        return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0)), torch.zeros(
            count
        )


@torch.no_grad()
def forward(net, orbit):
    for part in orbit.split(120):
        net(part)


@torch.no_grad()
def warped(net, x, family):
    for part in x.split(5):
        net(family.orbit(part).flatten(0, 1))


def row(name, repeats, folder):
    """Times of one model."""
    spec, data = MODELS[name]
    torch.manual_seed(0)
    net, family = build(spec).eval(), ig.family("rotations(24)")
    x, y = samples(data, folder)
    orbit = family.orbit(x).transpose(0, 1).flatten(0, 1)
    batches = [(x, y)]
    every = (*MOMENTS, "simple", "floor")
    sides = {
        "forward": partial(forward, net, orbit),
        "warp + forward": partial(warped, net, x, family),
        "invariance": partial(invariance, net, batches, family, measures=MOMENTS),
        "equivariance": partial(equivariance, net, batches, family, measures=MOMENTS),
        "equivariance, all": partial(equivariance, net, batches, family, measures=every),
    }
    few = [(x[:6], y[:6])]  # compile the loops, touch the libraries
    invariance(net, few, family, measures=MOMENTS)
    equivariance(net, few, family, measures=every)
    forward(net, orbit[:120])
    taken = in_turn(sides, repeats)
    base, warp = taken["forward"], taken["warp + forward"]
    both = [i + e for i, e in zip(taken["invariance"], taken["equivariance"])]
    return {
        "model": spec,
        "samples": len(x),
        "transformations": len(family),
        "seconds": {side: statistics.median(times) for side, times in taken.items()},
        "of forward": {
            side: quotient(times, base) for side, times in {**taken, "both calls": both}.items()
        },
        "invariance of warp + forward": quotient(taken["invariance"], warp),
    }


def quotient(top, bottom):
    """Median of the quotients within a repeat."""
    return round(statistics.median(a / b for a, b in zip(top, bottom)), 3)


def peers(repeats, folder):
    """The statistics of tmeasures, one pass each (its progress bars and figures left out)."""
    for name in ("statsmodels", "statsmodels.stats", "statsmodels.stats.multicomp"):
        module = types.ModuleType(name)
        module.pairwise_tukeyhsd = None
        sys.modules.setdefault(name, module)
    import tmeasures as tm
    from tmeasures.pytorch.model import AutoActivationsModule
    from tmeasures.pytorch.transformations import affine
    from tmeasures.transformations import parameters

    torch.manual_seed(0)
    net, family = build("simple_conv(8)").eval(), ig.family("rotations(24)")
    x, y = samples("mnist(test, 64)", folder)
    model = AutoActivationsModule(net, filter=lambda m: isinstance(m, nn.ELU))
    rotations = affine.RotationGenerator(parameters.UniformRotation(24, 1.0))
    options = tm.pytorch.PyTorchMeasureOptions(batch_size=64, num_workers=0, verbose=False)
    sides = {
        name: partial(
            getattr(tm.pytorch, name)().eval,
            Plain(torch.utils.data.TensorDataset(x)), rotations, model, options,
        )
        for name in ("TransformationVarianceInvariance", "SampleVarianceInvariance")
    }  # fmt: skip
    sides["isogon, every moment"] = partial(invariance, net, [(x, y)], family, measures=MOMENTS)
    taken = in_turn(sides, repeats)
    return {name: statistics.median(times) for name, times in taken.items()}


class Plain(torch.utils.data.Dataset):
    """Samples without labels, as tmeasures wants them."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return self.data[i][0]


def memory():
    """Peak resident memory (MiB) of the moment statistics at two numbers of samples."""
    code = """
import sys, torch, isogon as ig
from torch import nn
torch.set_num_threads(1)
n = int(sys.argv[1])
class Data:
    def __iter__(self):
        for i in range(0, n, 100):
            g = torch.Generator().manual_seed(i)
            yield torch.rand(100, 1, 28, 28, generator=g), torch.zeros(100)
net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU())
ig.invariance(net, Data(), "rotations(8)", measures=("variance", "anova"))
status = open("/proc/self/status").read()  # ru_maxrss would be the parent's
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""
    found = {}
    for n in (1_000, 10_000):
        done = subprocess.run([sys.executable, "-c", code, str(n)], capture_output=True, text=True)
        found[n] = int(done.stdout)
    return found


def main():
    """Print one line per model and keep all of it in a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(Path(__file__).with_suffix(".json")))
    parser.add_argument("--models", default=",".join(DEFAULT), help=", ".join(MODELS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--tmeasures", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        "where": {"torch": torch.__version__, "machine": platform.machine(), "threads": 1},
        "rows": [],
    }
    for name in options.models.split(","):
        found["rows"].append(row(name, options.repeats, options.data))
        print(json.dumps(found["rows"][-1]), flush=True)
    found["peak MiB by samples"] = memory()
    if options.tmeasures:
        found["against tmeasures, seconds"] = peers(options.repeats, options.data)
    print(json.dumps({k: v for k, v in found.items() if k not in ("rows", "where")}))
    Path(options.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

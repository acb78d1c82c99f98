"""Invariance statistics against plain forward passes over the orbit, and against tmeasures.

Usage: python benchmarks/invariance.py [SAMPLES]

One process, one thread, CPU seconds, best of three; both sides see the same network, samples
and 24 rotations. tmeasures (1.2.11, `pip install tmeasures`) is timed where it is installed: each
of its statistics is a pass of its own. Also prints peak memory at 1,000 and 10,000 samples.
"""

from __future__ import annotations

import resource
import sys
import time
import types
from functools import partial

import torch

import isogon as ig
from isogon.measures.equivariance import equivariance
from isogon.measures.invariance import invariance
from isogon.nets.load import build

MOMENTS = ("variance", "squared", "anova")


def cpu(work, repeats=3):
    """Fewest CPU seconds of a few runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def run(samples=64):
    """Print a table of times."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    family = ig.family("rotations(24)")
    x, y = torch.rand(samples, 1, 28, 28), torch.zeros(samples)
    orbit = family.orbit(x).flatten(0, 1)
    warm = torch.rand(256, 1, 28, 28)
    invariance(build("simple_conv(32)"), [(warm, torch.zeros(256))], family)  # compiles the loop
    for spec in ("simple_conv(8)", "simple_conv(32)", "cifar_resnet20(channels=1)"):
        net = build(spec).eval()
        base, warp = cpu(partial(forward, net, orbit)), cpu(partial(warped, net, x, family))
        common = (net, [(x, y)], family)
        rows = {
            "forward": base,
            "warp + forward": warp,
            "invariance, every moment": cpu(partial(invariance, *common, measures=MOMENTS)),
            "equivariance, every moment": cpu(partial(equivariance, *common, measures=MOMENTS)),
        }
        if spec == "simple_conv(8)":
            rows |= peers(net, x)
        print(f"\n{spec}, {samples} samples, {len(family)} rotations")
        for name, seconds in rows.items():
            print(f"  {name:46s} {seconds:8.2f} s {seconds / base:7.2f}x forward")


@torch.no_grad()
def forward(net, orbit):
    for part in orbit.split(120):
        net(part)


@torch.no_grad()
def warped(net, x, family):
    for part in x.split(5):
        net(family.orbit(part).flatten(0, 1))


def peers(net, x):
    """Times of tmeasures' statistics, one pass each (its progress bars and figures left out)."""
    try:
        for name in ("statsmodels", "statsmodels.stats", "statsmodels.stats.multicomp"):
            module = types.ModuleType(name)
            module.pairwise_tukeyhsd = None
            sys.modules.setdefault(name, module)
        import tmeasures as tm
    except ImportError:
        return {}
    from tmeasures.pytorch.model import AutoActivationsModule
    from tmeasures.pytorch.transformations import affine
    from tmeasures.transformations import parameters

    model = AutoActivationsModule(net, filter=lambda m: isinstance(m, torch.nn.ELU))
    rotations = affine.RotationGenerator(parameters.UniformRotation(24, 1.0))
    options = tm.pytorch.PyTorchMeasureOptions(batch_size=64, num_workers=0, verbose=False)
    data = torch.utils.data.TensorDataset(x)
    rows = {}
    for name in ("TransformationVarianceInvariance", "SampleVarianceInvariance"):
        measure = getattr(tm.pytorch, name)()
        rows[f"tmeasures {name}"] = cpu(
            lambda m=measure: m.eval(Plain(data), rotations, model, options), 1
        )
    return rows


class Plain(torch.utils.data.Dataset):
    """Samples without labels, as tmeasures wants them."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return self.data[i][0]


def memory():
    """Peak resident memory of the moment statistics at two numbers of samples."""
    import subprocess

    code = """
import sys, torch, isogon as ig
from torch import nn
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
    for n in (1_000, 10_000):
        done = subprocess.run([sys.executable, "-c", code, str(n)], capture_output=True, text=True)
        print(f"peak memory at {n:6d} samples: {done.stdout.strip()} MiB")


if __name__ == "__main__":
    run(*map(int, sys.argv[1:2]))
    memory()
    print(f"(this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB)")

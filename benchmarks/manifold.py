"""Data matrix and kernel step: against one forward and C backward passes, and published code.

Usage: python benchmarks/manifold.py [--original FOLDER] [--out FILE.json] [--repeats N]

FOLDER is a copy of model-manifold (the one that holds ``model_manifold/``); its call of the
removed ``torch.qr`` is replaced in a temporary copy. One thread, float64, CPU seconds, both
sides in turn in one process; each figure is the median over repeats.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from timing import seconds
from torch import nn

from isogon import nets
from isogon.measures.manifold.data_matrix import data_matrix
from isogon.measures.manifold.walk import walk
from isogon.nets.outputs import logits


def paired(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each side, taken in turn after one warm-up each."""
    for run in sides.values():
        run()
    taken = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            taken[name].append(seconds(run))
    return {name: statistics.median(times) for name, times in taken.items()}


def forward_and_backwards(model: nn.Module, x: torch.Tensor) -> None:
    """The limit: one forward pass and one backward pass per class, nothing else."""
    leaf = x.clone().requires_grad_(True)
    z = logits(model, leaf)
    for k in range(z.shape[1]):
        torch.autograd.grad(z[:, k].sum(), leaf, retain_graph=True)


def original(folder: str | None):
    """The published functions, or None."""
    if folder is None:
        return None
    copy = Path(tempfile.mkdtemp())
    shutil.copytree(Path(folder) / "model_manifold", copy / "model_manifold")
    for file in (copy / "model_manifold").glob("*.py"):
        text = file.read_text()
        old = "torch.qr(jac, some=False).Q"
        file.write_text(text.replace(old, "torch.linalg.qr(jac, mode='complete').Q"))
    sys.path.insert(0, str(copy))
    names = ("data_matrix", "inspect")
    return [importlib.import_module(f"model_manifold.{name}") for name in names]


def model_of(spec: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nets.build(spec).double().eval()


def matrix_rows(theirs, repeats: int) -> list[dict]:
    rows = []
    for spec, shape, count in (
        ("small_cnn(log_softmax=True)", (1, 28, 28), 256),
        ("medium_cnn(log_softmax=True)", (1, 28, 28), 64),
        ("cifar_vgg11_bn(log_softmax=True)", (3, 32, 32), 8),
    ):
        model, x = model_of(spec), torch.rand(count, *shape, dtype=torch.float64)
        batches = [(x, torch.zeros(count, dtype=torch.long))]
        sides = {
            "limit": lambda m=model, x=x: forward_and_backwards(m, x),
            "isogon": lambda m=model, b=batches: data_matrix(m, b),
        }
        if theirs:
            sides["original"] = lambda m=model, x=x: theirs[0].batch_data_matrix_trace_rank(m, x)
        taken = paired(sides, repeats)
        row = {"what": "data matrix", "model": spec, "samples": count, "seconds": taken}
        row["of the limit"] = taken["isogon"] / taken["limit"]
        if theirs:
            row["times faster than the original"] = taken["original"] / taken["isogon"]
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def step_rows(theirs, repeats: int) -> list[dict]:
    rows = []
    for spec, shape in (
        ("medium_cnn(log_softmax=True)", (1, 28, 28)),
        ("cifar_vgg11_bn(log_softmax=True)", (3, 32, 32)),
    ):
        model, x = model_of(spec), torch.rand(16, *shape, dtype=torch.float64)
        v, steps = torch.randn(shape, dtype=torch.float64), 3
        options = {"direction": v, "along": "kernel", "frames": 1}
        taken = paired(
            {
                "limit": lambda m=model, x=x: forward_and_backwards(m, x[:1]),
                "isogon, alone": lambda m=model, x=x, o=options: walk(m, x[:1], steps=3, **o),
                "isogon, 16": lambda m=model, x=x, o=options: walk(m, x, steps=3, **o),
            },
            repeats,
        )
        # a walk of k steps takes k + 1 subspaces, the first and last of which are shared by none
        taken["isogon, alone"] /= steps + 1
        taken["isogon, 16"] /= 16 * (steps + 1)
        row = {"what": "kernel step", "model": spec, "seconds per step and walk": taken}
        row["of the limit, alone"] = taken["isogon, alone"] / taken["limit"]
        row["cheaper in a batch of 16"] = taken["isogon, alone"] / taken["isogon, 16"]
        if theirs:

            def published(m=model, x=x, v=v):
                return theirs[1].constant_direction_kernel(
                    m, x[0], v, steps=1, post_processing=lambda y: y
                )

            taken["original"] = min(seconds(published) for _ in range(2))
            row["times faster than the original, alone"] = (
                taken["original"] / taken["isogon, alone"]
            )
            row["times faster than the original, 16"] = taken["original"] / taken["isogon, 16"]
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--original")
    parser.add_argument("--out", default=str(Path(__file__).with_suffix(".json")))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    theirs = original(options.original)
    rows = matrix_rows(theirs, options.repeats) + step_rows(theirs, options.repeats)
    where = {"torch": torch.__version__, "machine": platform.machine(), "threads": 1}
    Path(options.out).write_text(json.dumps({"where": where, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Pieces of a decision boundary per second: states carried by rank-1 updates against literal steps.

    python benchmarks/boundary.py [--data FOLDER.zip] [--write]

Both trace from the same seeds on the square around a place where two images' classes meet: a
residual CNN of width 8 at 32 x 32 (trained for one pass over 12,800 images where ``--data`` has
folders of them, else of random weights) and torchvision's resnet18 with ten classes (random
weights). Seconds are of the processor, one thread; ``making`` is what the sparse columns take,
once. ``--write`` keeps the rows in ``boundary.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import nn

import isogon as ig
from isogon.context import silent
from isogon.measures.boundary import trace
from isogon.measures.boundary.carried import Carrier
from isogon.measures.boundary.frozen import Frozen
from isogon.measures.boundary.live import Limits
from isogon.measures.boundary.scan import GOLDEN, Scan
from isogon.measures.partition.lowering import lowered

HERE = Path(__file__).resolve().parent
ROWS = (("residual CNN, width 8", 8000, 300), ("resnet18", 600, 60))
GRID, RADIUS = 16, 8.0
WARM = 50  # pieces that are not counted: kernels are read or compiled


class Block(nn.Module):
    """Two convolutions with batch-norm beside a shortcut."""

    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False)
        self.two = nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False)
        self.a, self.b = nn.BatchNorm2d(fan_out), nn.BatchNorm2d(fan_out)
        self.skip = nn.Conv2d(fan_in, fan_out, 1, stride)

    def forward(self, x):
        """``[N, fan_in, H, W]`` to ``[N, fan_out, H / stride, W / stride]``."""
        return torch.relu(self.skip(x) + self.b(self.two(torch.relu(self.a(self.one(x))))))


def residual(width: int) -> nn.Sequential:
    """Three blocks at 32, 16 and 8 pixels."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10),
    )  # fmt: skip


def fit(model: nn.Module, data: str) -> None:
    """One pass over some images."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for x, y in ig.batches(f"imagefolder({data!r}, train, 12800, seed=0)", batch_size=64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def network(name: str, data: str | None) -> tuple[nn.Module, torch.Tensor]:
    """The network and images; random weights get outputs of equal size, so that classes meet."""
    torch.manual_seed(0)
    x = torch.rand(64, 3, 32, 32)
    if name != "resnet18":
        model = residual(8)
        if data is not None:
            fit(model, data)
            x, _ = ig.batches(f"imagefolder({data!r}, test, 64, seed=0)").first(64)
            return model.eval(), x  # of noise it would say one class
        last = model[-1]
    else:
        from torchvision.models import resnet18

        model = resnet18(num_classes=10)
        last = model.fc
    model.eval()
    with torch.no_grad():
        last.weight /= model(x).std()
        last.bias -= model(x).mean(0)
    return model, x


def tracer_of(model: nn.Module, x: torch.Tensor) -> trace.Tracer:
    """A tracer with its seeds."""
    label = model(x).argmax(1)
    plane = ig.Slice.crossing(model, x[0], x[label != label[0]][0], radius=RADIUS)
    program, plane = lowered(model, plane)
    frozen = Frozen(program, plane)
    scan = Scan(frozen, GRID, GOLDEN, silent)
    tracer = trace.Tracer(frozen, silent)
    tracer.seed(*scan.roots(scan.changes()))
    return tracer


def traced(tracer: trace.Tracer, pieces: int) -> tuple[int, float]:
    """Pieces and seconds of the processor, behind the first ones."""
    tracer.limits = Limits(WARM)
    tracer.run()
    before, start = len(tracer.strokes), time.process_time()
    tracer.limits = Limits(before + pieces)
    tracer.run()
    return len(tracer.strokes) - before, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, many, few in ROWS:
        model, x = network(name, options.data)
        literal = tracer_of(model, x)
        literal.patience = trace.NEVER
        pieces, seconds = traced(literal, few)
        carried = tracer_of(model, x)
        start = time.process_time()
        carried.carrier = Carrier.of(carried.frozen, carried.regions, carried.extent)
        making = time.process_time() - start
        own, spent = traced(carried, many)
        row = {
            "network": name,
            "literal_per_second": round(pieces / seconds, 1),
            "carried_per_second": round(own / spent, 1),
            "ratio": round(own / spent / (pieces / seconds), 1),
            "making": round(making, 2),
            "pieces": own,
            "carried": carried.carried,
            "drift": carried.drift,
        }
        rows.append(row)
        print(row, flush=True)
        if options.write:
            (HERE / "boundary.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

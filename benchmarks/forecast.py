"""Regions forecast and counted, on the reference slices and on ten small trained networks.

    python benchmarks/forecast.py [--oracles ../shared/oracles/partition] [--write]

Prints a row per network: regions forecast (with its standard error), counted by the partition, and
their ratio; of the reference slices those above 1,000 regions. ``--write`` keeps the rows in
``forecast.json``. The networks are trained here: on two moons, two circles, and the 8 x 8 digits.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

import isogon as ig
from isogon.cpwl.program import Program, mlp

HERE = Path(__file__).resolve().parent
LEAST = 1000  # regions of a reference slice that counts


class Residual(nn.Module):
    """Two convolutions around a shortcut, between a stem and a mean over the image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Linear(width, 10)

    def forward(self, x):
        """``[N, 1, H, W]`` to logits ``[N, 10]``."""
        h = torch.relu(self.stem(x))
        h = torch.relu(h + self.two(torch.relu(self.one(h))))
        return self.last(h.mean((2, 3)))


def dense(*widths: int, kink=nn.ReLU) -> nn.Sequential:
    """A fully connected network."""
    layers: list[nn.Module] = [nn.Flatten()]
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), kink()]
    return nn.Sequential(*layers[:-1])


def conv(width: int, pool: bool) -> nn.Sequential:
    """Two convolutions, with or without max-pooling."""
    between: list[nn.Module] = [nn.MaxPool2d(2)] if pool else []
    side = 4 if pool else 8
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), *between,
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(width * side * side, 10),
    )  # fmt: skip


NETWORKS = (
    ("moons, MLP 64", "two_moons", lambda: dense(2, 64, 2)),
    ("moons, MLP 32-32", "two_moons", lambda: dense(2, 32, 32, 2)),
    ("moons, MLP 32-32-32, leaky", "two_moons", lambda: dense(2, 32, 32, 32, 2, kink=nn.LeakyReLU)),
    ("circles, MLP 48-48", "two_circles", lambda: dense(2, 48, 48, 2)),
    ("digits, MLP 128", "digits", lambda: dense(64, 128, 10)),
    ("digits, MLP 64-64", "digits", lambda: dense(64, 64, 64, 10)),
    ("digits, MLP 64-64-64", "digits", lambda: dense(64, 64, 64, 64, 10)),
    ("digits, CNN 4-4", "digits", lambda: conv(4, False)),
    ("digits, CNN 6-6, max-pool", "digits", lambda: conv(6, True)),
    ("digits, residual CNN 4", "digits", lambda: Residual(4)),
)


def fitted(build, data: str, seed: int) -> tuple[nn.Module, torch.Tensor]:
    """A network trained on all samples at once, and three of these of different classes."""
    torch.manual_seed(seed)
    parts = list(ig.batches(f"{data}(train)" if data == "digits" else data, batch_size=256))
    x, y = (torch.cat([p[k] for p in parts]) for k in (0, 1))
    model, steps = build(), 300
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(steps):
        own = torch.randint(len(x), (256,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[own]), y[own].long()).backward()
        optimizer.step()
    three = torch.stack([x[int((y == k).nonzero()[0])] for k in y.unique()[:3]])
    return model.eval(), three


def cases(oracles: Path | None):
    """Name, network, slice, and the known count, if there is one."""
    if oracles is not None:
        for case in json.loads((oracles / "oracles.json").read_text())["cases"]:
            if case["regions"] <= LEAST:
                continue
            z = np.load(oracles / "cases" / case["file"])
            layers = range(sum(key.startswith("W") for key in z.files))
            tables = [[torch.from_numpy(z[f"{k}{i}"]) for i in layers] for k in "Wb"]
            program: Program = mlp(*tables, slope=float(z["slope"]))
            chart = z["T"]
            plane = ig.Slice.polygon(chart[:, 2], chart[:, :2], z["poly"])
            yield f"reference {case['name']}", program, plane, case["regions"]
    for seed, (name, data, build) in enumerate(NETWORKS):
        model, three = fitted(build, data, seed)
        if three[0].numel() == 2:
            plane = ig.Slice.box2d((-2.0, -2.0), (3.0, 2.0))
        else:
            plane = ig.Slice.through(*three)
        yield name, model, plane, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--oracles", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = []
    for name, network, plane, known in cases(options.oracles):
        found = ig.forecast(network, plane, generator=torch.Generator().manual_seed(0))
        counted = len(ig.partition(network, plane)) if known is None else known
        row = {
            "network": name,
            "forecast": round(found.regions),
            "spread": round(found.spread, 3),
            "regions": counted,
            "ratio": round(found.regions / counted, 3),
        }
        rows.append(row)
        print(
            f"| {name} | {row['forecast']:,} ± {100 * found.spread:.0f} % | {counted:,} "
            f"| {row['ratio']:.2f} |",
            flush=True,
        )
    outside = [r["network"] for r in rows if not 0.5 < r["ratio"] < 2]
    print(f"{len(rows) - len(outside)} of {len(rows)} within a factor of 2")
    if options.write:
        (HERE / "forecast.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

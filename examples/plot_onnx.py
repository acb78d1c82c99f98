"""
A slice through a verification network from an ONNX file
========================================================

Networks come as ONNX files in formal verification: here one of the kind that advises aircraft on
collisions, five numbers in and five advisories out, exported on the fly. It is read without
executing anything, cut exactly along any slice, and certified.
"""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

import isogon as ig

WIDTH, DEPTH = 24, 4
torch.manual_seed(0)
layers: list[nn.Module] = [nn.Linear(5, WIDTH), nn.ReLU()]
for _ in range(DEPTH - 1):
    layers += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
network = nn.Sequential(*layers, nn.Linear(WIDTH, 5)).eval()
for layer in network[::2]:  # wide enough weights that something happens
    nn.init.normal_(layer.weight, std=1.6 / layer.in_features**0.5)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "advisor.onnx"
    with warnings.catch_warnings(action="ignore"):  # the newer exporter needs more packages
        torch.onnx.export(network, (torch.zeros(1, 5),), str(path), dynamo=False)
    model = ig.load(str(path))

# %%
# The slice: first two inputs from -1/2 to 1/2, the other three at zero.

basis = np.eye(5)[:, :2]
square = 0.5 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
p = ig.partition(model, ig.Slice.polygon(np.zeros(5), basis, square))
print(p)
print(p.certify(5_000))

# %%

figure = ig.draw(p)

# %%
# Where is the advice steep? Regions by the norm of their slope.

figure = ig.draw(p, color="slope", edges=False)
